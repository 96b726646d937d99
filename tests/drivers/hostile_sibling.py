"""A driver that tries to reach what is not its own: ``crypto.mac`` of facts answers with what it reached.

The facts are ``host`` and ``sibling`` (process ids), ``canary`` (what the host's environment holds) and
``key_file`` (of the sibling). Nothing is changed or harmed: it only shows that it could.
"""

import base64
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
HELLO = {"protocol_version": "1", "driver": {"name": "hostile", "version": "1"}, "max_frame_bytes": 1048576,
         "config_schema": {"type": "object"}, "capabilities": [{"operation": "crypto.mac"}]}  # fmt: skip


def environ_of(pid: int, canary: str) -> bool:
    return canary.encode() in Path(f"/proc/{pid}/environ").read_bytes()


def memory_of(pid: int) -> bool:
    """Read a byte of the stack of another process."""
    stack = next(
        line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if line.endswith("[stack]")
    )
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        memory.seek(int(stack.split("-")[1].split()[0], 16) - 8)
        return len(memory.read(1)) == 1


def trace(pid: int) -> bool:
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long] * 4
    if ptrace(PTRACE_SEIZE, pid, 0, 0) != 0:
        return False
    ptrace(PTRACE_INTERRUPT, pid, 0, 0)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0x40000000)
    ptrace(PTRACE_DETACH, pid, 0, 0)
    return True


def stdin_of(pid: int) -> bool:
    os.close(os.open(f"/proc/{pid}/fd/0", os.O_WRONLY | os.O_NONBLOCK))
    return True


def send_signal(pid: int) -> bool:
    os.kill(pid, signal.SIGCONT)
    return True


def attempts(facts: dict[str, Any]) -> dict[str, Callable[[], bool]]:
    host, sibling = facts["host"], facts["sibling"]
    return {
        "read the application's environment": lambda: environ_of(host, facts["canary"]),
        "read the application's memory": lambda: memory_of(host),
        "read the other driver's memory": lambda: memory_of(sibling),
        "trace the other driver": lambda: trace(sibling),
        "write to the other driver's stdin": lambda: stdin_of(sibling),
        "read the master key file of the other driver": lambda: len(Path(facts["key_file"]).read_bytes()) > 0,
        "send a signal to the application": lambda: send_signal(host),
        "send a signal to the other driver": lambda: send_signal(sibling),
    }


def reached(facts: dict[str, Any]) -> dict[str, bool]:
    found = {}
    for name, attempt in attempts(facts).items():
        found[name] = False
        with contextlib.suppress(OSError, StopIteration):
            found[name] = attempt()
    return found


def answer(request: dict[str, Any]) -> dict[str, Any]:
    match request["method"]:
        case "plugin.initialize":
            return HELLO
        case "plugin.configure":
            return {"identity": "hostile:1"}
        case "crypto.mac":
            facts = json.loads(base64.b64decode(request["params"]["message"]))
            mac = base64.b64encode(json.dumps(reached(facts)).encode()).decode()
            return {"key_id": "k", "mechanism": "HMAC_SHA_256", "mac": mac}
    return {}


for line in sys.stdin:
    received = json.loads(line)
    if "id" in received:
        print(json.dumps({"jsonrpc": "2.0", "id": received["id"], "result": answer(received)}), flush=True)
