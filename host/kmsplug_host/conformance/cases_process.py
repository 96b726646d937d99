"""Cases about the process itself: where it runs, signals, memory, what it leaves (SPEC.md 1.3, 3.7, 11)."""

import os
import re
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from kmsplug_protocol import encode_frame, jsonrpc

from .bench import Bench
from .case import Cases, offers
from .session import read_result
from .verdict import Skipped, check

PROCESS: Final = Cases("process")

# What a host lets every driver have, where it is set: where a network leads to, and whom to trust there.
_INHERITED: Final = (
    "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy",
)  # fmt: skip
_EXIT_S: Final = 5.0
_PING_S: Final = 1.0
_TRIES: Final = 3
_FLOOD_BYTES: Final = 96 * 1024 * 1024
_GROWTH_BYTES: Final = 48 * 1024 * 1024
_LINUX: Final = sys.platform == "linux"

# Kinds of keys that take some time to make, but not minutes.
_SLOW: Final = ("RSA_2048", "RSA_3072", "RSA_4096", "ML_DSA_65", "EC_P521", "EC_P384", "EC_P256")
_MOST_SLOW: Final = 5


@PROCESS.case("anywhere", "1.3-2", hint="find your own files by the path of the executable")
def anywhere(bench: Bench) -> None:
    """It works in an empty folder that is not the author's."""
    with tempfile.TemporaryDirectory() as folder, bench.fresh(folder=folder) as session:
        session.initialize()
        session.configure(bench.config)
        session.ask("plugin.health")


@PROCESS.case("bare_environment", "1.3-2 11-1", hint="settings and secrets come by plugin.configure")
def bare_environment(bench: Bench) -> None:
    """It works with PATH, HOME and LANG, the network's settings, and what its vendor's library needs."""
    with tempfile.TemporaryDirectory() as home:
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": home, "LANG": "C.UTF-8"}
        env |= {name: os.environ[name] for name in (*_INHERITED, *bench.variables) if name in os.environ}
        with bench.fresh(env) as session:
            session.initialize()
            session.configure(bench.config)
            session.ask("plugin.health")


@PROCESS.case("ctrl_c", "3.7-3 3.7-1", hint="a terminal sends it to the whole group: ignore it, or end")
def ctrl_c(bench: Bench) -> None:
    """SIGINT is ignored, or ends the process; it never leaves one that does not answer."""
    with bench.ready() as session:
        session.wire.signal(signal.SIGINT)
        session.send(session.frame("plugin.shutdown", {}, "end"))
        session.wire.wait(min(session.deadline, time.monotonic() + _EXIT_S))


@PROCESS.case("stray_signals", "3.7-3", hint="leave the default action of signals that you do not need")
def stray_signals(bench: Bench) -> None:
    """A change of a terminal's size, a continuation or urgent data disturb nothing."""
    with bench.ready() as session:
        for number in (signal.SIGWINCH, signal.SIGCONT, signal.SIGURG):
            session.wire.signal(number)
        session.settle()


@PROCESS.case("sigterm_at_work", "3.7-3", hint="a handler that waits for work in progress is too slow")
def sigterm_at_work(bench: Bench) -> None:
    """SIGTERM ends the process in every phase, also with requests in progress."""
    with bench.fresh() as session:
        session.ask("plugin.ping")
        session.wire.signal(signal.SIGTERM)
        session.wire.wait(min(session.deadline, time.monotonic() + _EXIT_S))
    with bench.ready() as session:
        session.send(b"".join(session.frame("plugin.health", {}, number) for number in range(50)))
        session.wire.signal(signal.SIGTERM)
        session.wire.wait(min(session.deadline, time.monotonic() + _EXIT_S))


@PROCESS.case("leaves_nothing", "3.7-4 3.7-1", hint="wait for what you started, or do not start it")
def leaves_nothing(bench: Bench) -> None:
    """After a shutdown no process of its group is left."""
    with bench.ready() as session:
        session.ask("plugin.shutdown")
        left = session.wire.survivors(min(session.deadline, time.monotonic() + _EXIT_S))
        check(not left, "the driver ended, and processes that it started run on")


@PROCESS.case("no_core_dump", "11-2", hint="setrlimit(RLIMIT_CORE, 0), or `ulimit -c 0` in front of it")
def no_core_dump(bench: Bench) -> None:
    """No core dump can be written of it."""
    if not _LINUX:
        raise Skipped("limits of another process can be read on Linux only")
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))  # else it may be 0 by nobody's merit
    try:
        with bench.ready() as session:
            found = resource.prlimit(session.wire.pid, resource.RLIMIT_CORE)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    if hard == 0:
        raise Skipped("core dumps are forbidden here for everybody")
    check(found == 0, "its limit for core dumps is not 0")


@PROCESS.case("bounded_memory", "11-3 2.4-4", hint="throw a long line away piece by piece")
def bounded_memory(bench: Bench) -> None:
    """A line of 96 MiB costs no memory, and is answered once."""
    if not _LINUX:
        raise Skipped("the memory of another process can be read on Linux only")
    with bench.ready() as session:
        before = _resident(session.wire.pid)
        piece = b"x" * (1024 * 1024)
        for _ in range(_FLOOD_BYTES // len(piece)):
            session.send(piece)
        peak = _resident(session.wire.pid)
        session.exchange(b"\n", "an endless line").refused(number=jsonrpc.INVALID_REQUEST).under(None)
        session.settle()
        grown = max(peak, _resident(session.wire.pid)) - before
    check(grown < _GROWTH_BYTES, f"it grew by {grown >> 20} MiB")


def _resident(pid: int) -> int:
    pages = re.match(rb"\d+ (\d+)", Path(f"/proc/{pid}/statm").read_bytes())
    return int(pages[1]) * resource.getpagesize() if pages else 0


@PROCESS.case(
    "ping_at_work", "3.4-2", offers("key.create"), hint="read on while you work: a thread, or a task"
)
def ping_at_work(bench: Bench) -> None:
    """A ping is answered within a second while keys are being made that take their time."""
    kinds = dict(bench.capabilities.kinds())
    slow = next((name for name in _SLOW if name in kinds), None)
    if slow is None:
        raise Skipped("no kind of key takes long to make")
    body = {"algorithm": slow, "usage": next(use for kind, use in kinds.items() if kind == slow)}
    took = []
    for _ in range(_TRIES):  # once may be the machine's fault
        took.append(_ping_behind(bench, body, bench.hello.max_concurrency + 1))
        if took[-1] < _PING_S:
            return
    check(False, f"a ping took {min(took):.1f} s at best while keys were made")


def _ping_behind(bench: Bench, body: dict[str, str], count: int) -> float:
    """Ask for keys, then for a sign of life; return how long that took."""
    session = bench.session
    asked = [session.frame("key.create", body, f"slow-{number}") for number in range(min(count, _MOST_SLOW))]
    session.send(b"".join(asked) + encode_frame(jsonrpc.request("plugin.ping", {}, "pulse")))
    began = time.monotonic()
    pulse = 0.0
    for _ in range(len(asked) + 1):
        answer = session.next("a request among slow ones")
        result = answer.granted()
        if answer.id == "pulse":
            pulse = time.monotonic() - began
        else:
            bench.will_delete(read_result("key.create", result))
    return pulse
