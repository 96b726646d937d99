"""A driver that misbehaves in one way: ``misbehaving.py MODE FOLDER [ARGUMENTS]``.

Whatever the mode, ``crypto.random`` is served well, so that a test can ask what is left of the session.
The odd thing happens at ``crypto.mac`` or ``key.create``, unless the mode is about the start or the end.
A mac is the message, so that every caller recognizes its own answer. Of the FIFOs in FOLDER, ``journal``
takes a line for everything noteworthy, ``gate`` gives a byte when the driver may go on.
"""

import base64
import contextlib
import itertools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Request = dict[str, Any]

MODE, FOLDER, ARGUMENTS = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
TRIGGERS = ARGUMENTS[:1] if MODE in ("says", "says_later", "silent") else ["crypto.mac", "key.create"]
HELLO = {"protocol_version": "1", "driver": {"name": "misbehaving", "version": "1.0"},
         "max_concurrency": int(ARGUMENTS[0]) if MODE == "hangs" else 1,
         "max_frame_bytes": 1048576, "config_schema": {"type": "object"},
         "capabilities": [{"operation": "crypto.random"}, {"operation": "crypto.mac"}]}  # fmt: skip
KEY = {"key_id": "k", "key_version": "1", "algorithm": "HMAC_SHA_256", "usage": "GENERATE_VERIFY_MAC",
       "state": "ACTIVE"}  # fmt: skip


def note(text: str) -> None:
    with contextlib.suppress(OSError):
        journal = os.open(FOLDER / "journal", os.O_WRONLY | os.O_NONBLOCK)
        os.write(journal, f"{text}\n".encode())
        os.close(journal)


def wait_at_gate() -> None:
    """Wait until the test opens the gate or leaves; without a gate, for ever."""
    while not (FOLDER / "gate").exists():
        signal.pause()
    with (FOLDER / "gate").open("rb", 0) as gate:
        gate.read(1)


def count_starts() -> int:
    """Return which process of this driver this is, from 1."""
    with (FOLDER / "starts").open("ab", 0) as starts:
        starts.write(b".")
        return starts.tell()


def write(line: str | bytes) -> None:
    data = line.encode() if isinstance(line, str) else line
    while data:
        data = data[os.write(1, data) :]


def result_of(method: str, params: dict[str, Any]) -> Any:
    if method == "plugin.configure":
        (FOLDER / "config").write_text(json.dumps(params["config"]))
    identity = f"misbehaving:{NUMBER if MODE == 'changes_identity' else 1}"
    healthy = MODE != "ill_at_first" or method != "plugin.health" or next(asked_before)
    check = {"name": "self", "healthy": healthy, "detail": params.get("depth", "shallow")}
    answers: dict[str, Callable[[], Any]] = {
        "plugin.initialize": lambda: HELLO,
        "plugin.configure": lambda: {"identity": identity},
        "plugin.health": lambda: {"healthy": check["healthy"], "checks": [check]},
        "crypto.random": lambda: {"data": base64.b64encode(os.urandom(params["length_bytes"])).decode()},
        "crypto.mac": lambda: {"key_id": "k", "mechanism": "HMAC_SHA_256", "mac": params["message"]},
        "key.create": lambda: {**KEY, "name": params.get("name")},
    }
    return answers.get(method, dict)()


def answer(request: Request) -> None:
    write(line_of(request))


def line_of(request: Request) -> str:
    result = result_of(request["method"], request["params"])
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}) + "\n"


# What each mode does instead of answering. The name of the function is the mode.


def says(request: Request) -> None:
    """Write the lines that were given, ``$ID`` being the id of the request."""
    for line in ARGUMENTS[1:]:
        write(line.replace("$ID", str(request["id"])) + "\n")


def says_later(request: Request) -> None:
    """Write the line that was given, but not in the first process, or in as many as are given after it."""
    if int((*ARGUMENTS, "1")[2]) >= NUMBER:
        return answer(request)
    return write(ARGUMENTS[1].replace("$ID", str(request["id"])) + "\n")


def prints(request: Request) -> None:
    write(b'libvendor 3.1: hello\n{not json}\n[1, 2]\n\xff\xfe\x00\n\n   \n\x1b[31mred\x1b[0m\n"text"\n')
    answer(request)
    write("bye\n")


def logs(request: Request) -> None:
    os.write(2, "\n".join(ARGUMENTS).encode() + b"\n")
    answer(request)


def floods_stderr(request: Request) -> None:
    line = "\x1b[2J\x1b]0;owned\x07 \u202egnp.exe \u200b\r forged: ok \x9b31m ".encode().ljust(8191, b"x")
    for _ in range(256):
        os.write(2, line + b"\n")
    answer(request)


def floods_stdout(request: Request) -> None:
    """Never stop to write lines that are no messages, and answer all the same."""

    def flood() -> None:
        with contextlib.suppress(OSError):
            while True:
                os.write(1, b"noise\n" * 600)  # below PIPE_BUF: never mixes with an answer

    threading.Thread(target=flood, daemon=True).start()
    answer(request)


def dies(request: Request) -> None:
    """End by SIGKILL, in the first process, or in as many as given; later ones work."""
    if int((*ARGUMENTS, "1")[0]) < NUMBER:
        return answer(request)
    return os.kill(os.getpid(), signal.SIGKILL)


def dies_mid_reply(request: Request) -> None:
    write(line_of(request)[:20])
    os._exit(7)


def oversize(request: Request) -> None:
    """Answer with 2 MiB: the id at the head, at the tail, or that of another call instead or inside."""
    padding, number, where = "x" * 2**21, request["id"], ARGUMENTS[0]
    if where == "nested" and request["method"] == "crypto.mac":  # it waits while the other one is answered
        return answer(request) if NUMBER > 1 else None
    members = {
        "head": f'"id": {number}, "result": {{"mac": "{padding}"}}',
        "tail": f'"result": {{"mac": "{padding}"}}, "id": {number}',
        "nested": f'"result": {{"id": {number - 1}, "mac": "{padding}"}}, "id": {number}',
        "late": f'"id": {number - 1}, "result": {{"mac": "{padding}"}}',
    }
    write(f'{{"jsonrpc": "2.0", {members[where]}}}\n')
    return answer(request) if where == "late" else None


def waits(request: Request) -> None:
    wait_at_gate()
    answer(request)


def closes_stdout(_request: Request) -> None:
    os.close(1)
    wait_at_gate()


def closes_stdin(_request: Request) -> None:
    os.close(0)
    note("closed")
    wait_at_gate()


def hands_down(_request: Request) -> None:
    """End by SIGKILL, and leave the pipes open in a child that has left the group, or has not."""
    ready, done = os.pipe()
    if os.fork() == 0:
        if not ARGUMENTS:
            os.setsid()
        note(f"grandchild {os.getpid()}")
        os.close(done)  # now the parent may die
        wait_at_gate()
        os._exit(0)
    os.close(done)
    os.read(ready, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def looks_around(request: Request) -> None:
    """Answer with what a process can see of where it runs."""
    descriptors = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one by which the folder is read
            descriptors[entry.name] = str(entry.readlink())
    argv = Path("/proc/self/cmdline").read_text()
    seen = {"env": dict(os.environ), "cwd": str(Path.cwd()), "argv": argv, "fds": descriptors,
            "pid": os.getpid(), "group": os.getpgid(0)}  # fmt: skip
    request["params"]["message"] = base64.b64encode(json.dumps(seen).encode()).decode()
    answer(request)


def silent(_request: Request) -> None:
    pass


late: list[Request] = []
asked_before = itertools.chain([False], itertools.repeat(True))
never_answers, hangs, stubborn_and_silent, answers_late = silent, silent, silent, late.append


def serve(line: bytes) -> None:
    request = json.loads(line)
    method = request["method"]
    if method in ("plugin.cancel", "plugin.configure", *TRIGGERS):
        note(f"{method} {request['params'].get('id', request.get('id'))}")
    if method == "plugin.cancel" and late:
        answer(late.pop())
    elif "id" in request and not (MODE == "stubborn" and method == "plugin.shutdown"):
        (globals().get(MODE, answer) if method in TRIGGERS else answer)(request)
    if method == "plugin.configure" and MODE == "dies_after_configure":
        os._exit(9)


def main() -> None:
    if MODE == "dies_at_start":
        os.write(2, ("\n".join(ARGUMENTS[1:]) + "\n").encode())
        os._exit(int(ARGUMENTS[0]))
    if MODE == "dies_later" and NUMBER > 1:
        os.write(2, (ARGUMENTS[0] + "\n").encode())
        os._exit(4)
    if MODE == "hangs_at_start" or (MODE, NUMBER) in (("hangs_later", 2), ("hangs_third", 3)):
        os.write(2, b"waiting for the network\n")
        wait_at_gate()
    if MODE.startswith("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pending = b""
    with contextlib.suppress(OSError):
        while data := os.read(0, 65536):
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                serve(line)
    if MODE == "ends_slowly":
        os.close(1)
        note(f"closing {os.getpid()}")
        wait_at_gate()
        note(f"ended in order {os.getpid()}")
    while MODE.startswith("stubborn"):
        signal.pause()


NUMBER = count_starts()
note(f"start {os.getpid()}")
main()
