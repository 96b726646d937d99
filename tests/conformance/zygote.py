"""The good driver behind a broken one: started, or forked from a process that keeps it imported.

A fork starts in milliseconds; without one, each driver starts an interpreter of its own.
"""

import array
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from conformance import patches  # noqa: E402 - found beside this file, whatever started it

ZYGOTE: Final = "KMSPLUG_MUTANT_ZYGOTE"
EVERYTHING: Final = HERE / "everything_driver.py"
RSA_KEYS: Final = 24  # in stock; most cases need few


def patched(case: str) -> str | None:
    """Return the source of the good driver with what is wrong in it; None: nothing is."""
    changes = patches.PATCHES.get(case)
    if changes is None and " " not in case:
        return None
    from conformance.source_mutants import BY_SOURCE
    from conformance.source_mutants import Mutant as Changed

    mutant = BY_SOURCE[case][1] if changes is None else Changed(case, case, changes)
    return mutant.changed(EVERYTHING)


def start(case: str) -> tuple[int, int, Callable[[], Any]]:
    """Start the good driver; return its stdin, its stdout, and what waits for its end."""
    (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
    source = patched(case)
    zygote = os.environ.get(ZYGOTE)
    if zygote:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(zygote)
            fds = array.array("i", [theirs_in, theirs_out, 2])
            client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            client.sendall((source or "").encode())
        os.close(theirs_in)
        os.close(theirs_out)
        return ours_in, ours_out, lambda: None
    command = (
        [sys.executable, str(EVERYTHING)] if source is None else [sys.executable, "-c", runnable(source)]
    )
    driver = subprocess.Popen(command, stdin=theirs_in, stdout=theirs_out)
    os.close(theirs_in)
    os.close(theirs_out)
    return ours_in, ours_out, driver.wait


def runnable(source: str) -> str:
    """Return a program that serves a changed driver as the module that it says it is."""
    return f"import sys, types\nsys.path.insert(0, {str(HERE)!r})\nimport zygote\nzygote.serve({source!r})\n"


def serve(source: str) -> None:
    """Be the driver: the good one, or one of a changed source."""
    from kmsplug_sdk.serve import serve as serve_driver

    if source:
        good = sys.modules.get("everything_driver")
        module = types.ModuleType("everything_driver")
        sys.modules["everything_driver"] = module
        exec(compile(source, "everything_driver.py", "exec"), module.__dict__)  # noqa: S102
        module.STOCK.extend(good.STOCK if good else ())
    serve_driver("everything_driver:EverythingDriver", [])


def prepare(module: Any) -> None:
    """Do beforehand what each driver would do first: build its models, and make keys that take long."""
    from kmsplug_protocol import BY_WIRE

    for operation in BY_WIRE.values():
        operation.params.model_rebuild()
        operation.result.model_rebuild()
    module.EverythingDriver.Config.model_json_schema()
    module.STOCK.extend(module.MAKES[module.A.RSA_2048]() for _ in range(RSA_KEYS))


def run_zygote(path: str) -> None:
    """Fork drivers on request until stdin ends."""
    module = importlib.import_module("everything_driver")  # so that no driver has to
    prepare(module)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    print("ready", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    while True:
        connection, _ = listener.accept()
        _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(3 * 4))
        fds = array.array("i")
        fds.frombytes(ancillary[0][2][:12])
        source = b""
        while data := connection.recv(65_536):
            source += data
        connection.close()
        if os.fork() == 0:
            listener.close()
            for number, fd in enumerate(fds):
                os.dup2(fd, number)
            os.closerange(3, 256)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            serve(source.decode())
        for fd in fds:
            os.close(fd)
