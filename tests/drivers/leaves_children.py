"""A driver with a child that outlives it if it can: ``leaves_children.py sdk|plain KIND FOLDER``.

KIND is ``plain`` (a child in the driver's group), ``session`` (in a session of its own) or ``twice`` (forked
twice, so that its parent is gone). Driver and child hold a lock on FOLDER/alive, each its own, for as long as
they live; the child notes its number in FOLDER/child. Only the first process of a driver does so.
"""

import fcntl
import json
import os
import signal
import sys
from pathlib import Path

MADE_BY, KIND, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
HELLO = {"protocol_version": "1", "driver": {"name": "leaves", "version": "1"}, "max_frame_bytes": 1048576,
         "config_schema": {"type": "object"}, "capabilities": [{"operation": "crypto.random"}]}  # fmt: skip


def live() -> None:
    fcntl.flock(os.open(FOLDER / "alive", os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_SH)


def stay(ready: int) -> None:
    """Ignore what can be ignored, hold the driver's pipes, and end after two minutes."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.alarm(120)
    live()
    (FOLDER / "child").write_text(str(os.getpid()))
    os.close(ready)
    while True:
        signal.pause()


def leave_a_child() -> None:
    wait, ready = os.pipe()
    child = os.fork()
    if child == 0:
        if KIND != "plain":
            os.setsid()
        if KIND == "twice" and os.fork() != 0:
            os._exit(0)
        stay(ready)
    os.close(ready)
    os.read(wait, 1)
    os.close(wait)
    if KIND == "twice":
        os.waitpid(child, 0)


def answer_plainly() -> None:
    answers = {"plugin.initialize": HELLO, "plugin.configure": {"identity": "leaves:1"}}
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            result = answers.get(request["method"], {})
            print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)


if not (FOLDER / "alive").exists():
    live()
    leave_a_child()
if MADE_BY == "sdk":
    from kmsplug_protocol import RandomParams, RandomResult
    from kmsplug_sdk import Driver, NoConfig, provides, serve

    class Leaves(Driver[NoConfig]):
        name, version = "leaves", "1"

        @provides(max_input_bytes=1024)
        def random(self, request: RandomParams) -> RandomResult:
            return RandomResult(data=os.urandom(request.length_bytes))

    serve("__main__:Leaves", [])
answer_plainly()
