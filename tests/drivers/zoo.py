"""The wilder drivers: ``zoo.py MODE FOLDER [ARGUMENTS]``, as ``misbehaving.py``, whose loop they share.

Each is bounded in bytes, processes and seconds, and ends by itself when nobody ends it.
"""

import ctypes
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

driver: Any = importlib.import_module("misbehaving")
answer = driver.answer

Request = dict[str, Any]

MIB = 1024 * 1024
BOUND_S = 60.0
HELD: list[Any] = []

# What it writes.


def prints_inside(request: Request) -> None:
    """Print into the middle of an answer, as a library on another thread does."""
    line = driver.line_of(request)
    driver.write(f"{line[:30]}\nvendor: connected\n{line[30:]}")


def answers_out_of_order(request: Request) -> None:
    """Keep the first request until the second one has been answered."""
    if not HELD:
        HELD.append(request)
        driver.note("held")
        return
    answer(request)
    answer(HELD.pop())


def never_ends_a_line(request: Request) -> None:
    """Write a gibibyte without a newline: behind the id of the request, or without one."""
    head = f'{{"jsonrpc":"2.0","id":{request["id"]},"result":"' if driver.ARGUMENTS else ""
    driver.write(head)
    for _ in range(1024):
        driver.write(b"x" * MIB)
    driver.write("\n")


def stops_in_a_line(request: Request) -> None:
    driver.write(driver.line_of(request).rstrip("\n"))


def writes_bytes(request: Request) -> None:
    """Write an answer that is no text, or no number, or has no end to its depth."""
    head = f'{{"jsonrpc":"2.0","id":{request["id"]},"result":{{"key_id":"k","mechanism":"HMAC_SHA_256","mac":'
    bodies = {
        "utf-8": b'"\xff\xfe\x80"}}',
        "surrogate": b'"\xed\xa0\x80"}}',
        "deep": b"[" * 100_000 + b"]" * 100_000 + b"}}",
        "nan": b"NaN}}",
        "infinity": b"1e999}}",
        "integer": b"9" * 100_000 + b"}}",
        "twice": b'"ZXZpbA==","mac":"Z29vZA=="}}',
        "nul": b'"Z29v\x00ZA=="}}',
    }
    driver.write(head.encode() + bodies[driver.ARGUMENTS[0]] + b"\n")


def floods(request: Request) -> None:
    """Answer, and write to stdout what nobody asked for, as fast as it goes."""
    what = {
        "text": b"noise\n" * 600,
        "blank lines": b"\n" * 4000,
        "notifications": b'{"jsonrpc":"2.0","method":"host.hear","params":{}}\n' * 70,
        "requests": b'{"jsonrpc":"2.0","id":1,"method":"host.give","params":{}}\n' * 65,
        "answers": b'{"jsonrpc":"2.0","id":999999,"result":{"data":"AAAA"}}\n' * 65,
    }[driver.ARGUMENTS[0]]  # below PIPE_BUF, so that no answer is torn

    def flood() -> None:
        until = time.monotonic() + BOUND_S
        while time.monotonic() < until:
            os.write(1, what)

    threading.Thread(target=flood, daemon=True).start()
    answer(request)


def floods_stderr(request: Request) -> None:
    """Write 100 MB to stderr, the last words of it at its end, and then answer."""
    block = (b"x" * 99 + b"\n") * 655
    for _ in range(100_000_000 // len(block) + 1):
        os.write(2, block)
    os.write(2, b"that was all\n")
    answer(request)


def floods_stderr_and_dies(request: Request) -> None:
    for _ in range(200):
        os.write(2, b"noise\n" * 10_000)
    os.write(2, b"the last words\n")
    os.abort()


# What it does as a process.


def exits(request: Request) -> None:
    os._exit(int(driver.ARGUMENTS[0]))


def segfaults(request: Request) -> None:
    ctypes.string_at(0)


def aborts(request: Request) -> None:
    os.abort()


def takes_memory(request: Request) -> None:
    """Take memory, 512 MiB at the most, until there is none."""
    HELD.extend(bytearray(16 * MIB) for _ in range(32))
    os._exit(99)


def stops(request: Request) -> None:
    """Stop itself, as by Ctrl-Z; a child ends it where nobody else does."""
    stopped = os.getpid()
    if os.fork() == 0:
        for fd in range(3):
            os.close(fd)
        until = time.monotonic() + BOUND_S
        while os.getppid() == stopped and time.monotonic() < until:
            time.sleep(0.1)
        if os.getppid() == stopped:
            os.kill(stopped, signal.SIGKILL)
        os._exit(0)
    os.kill(stopped, signal.SIGSTOP)


def spins(request: Request) -> None:
    until = time.monotonic() + BOUND_S
    while time.monotonic() < until:
        pass


def is_deaf_to_sigterm(request: Request) -> None:
    """Hang, and ignore what asks it to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    spins(request)


def leaks(request: Request) -> None:
    """Keep 16 MiB of each call, 512 MiB at the most."""
    if len(HELD) < 32:
        HELD.append(bytearray(b"\x01") * (16 * MIB))
    answer(request)


def lies(request: Request) -> None:
    """Refuse what it said it can."""
    error = {"code": -32601, "message": "no such method"}
    driver.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}) + "\n")


def forks(request: Request) -> None:
    """End, and leave 8 grandchildren in sessions of their own that hold the pipes."""
    for _ in range(8):
        if os.fork() == 0:
            os.setsid()
            signal.alarm(int(BOUND_S))
            driver.wait_at_gate()
            os._exit(0)
    os._exit(3)


# What it does before it is ready.


def leaves() -> None:
    os.read(0, 1)
    os._exit(0)


def closes_at_start() -> None:
    os.close(1)
    driver.wait_at_gate()


def stops_reading() -> None:
    """Read nothing after the handshake, in the first process."""
    serve = driver.serve

    def serve_until_configured(line: bytes) -> None:
        serve(line)
        if b"plugin.configure" in line and driver.NUMBER == 1:
            driver.wait_at_gate()

    driver.serve = serve_until_configured
    driver.main()


STARTS = {"stops_reading": stops_reading, "leaves": leaves, "closes_at_start": closes_at_start}

BEHAVIOURS: dict[str, Callable[[Request], None]] = {
    name: what
    for name, what in globals().items()
    if callable(what) and getattr(what, "__module__", "") == __name__
}

driver.BEHAVIOURS = {**vars(driver), **BEHAVIOURS}

if __name__ == "__main__":
    STARTS.get(driver.MODE, driver.main)()
