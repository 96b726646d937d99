"""What tests of the host share: bad drivers in a folder, what is heard of them, and what is left of them."""

import contextlib
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from kmsplug_host import Host, Keystore
from kmsplug_host._connection import Connection

DRIVERS = Path(__file__).parents[1] / "drivers"

ONE_ATTEMPT = {"retry": {"max_attempts": 1}, "attempt_timeout_s": 60}
"""A keystore that repeats nothing, for tests of what one attempt does."""

LONG_S = 20.0
"""Bound of waits that end at once when all is well."""

_T = TypeVar("_T")


def misbehaving(folder: Path, mode: str, *arguments: str, **settings: Any) -> dict[str, Any]:
    """Return the table of a plugin whose driver is ``misbehaving.py``."""
    script = str(DRIVERS / "misbehaving.py")
    command = [sys.executable, "-I", "-S", script, mode, str(folder), *arguments]
    return {"command": command, "isolation": "process", "deadline_s": LONG_S, **settings}


@dataclass
class Bad:
    """A host with one plugin ``bad``, whose driver misbehaves, and what it can be heard and steered by."""

    host: Host
    journal: "Fifo"
    gate: "Fifo"

    @property
    def keystore(self) -> Keystore:
        """The keystore behind the driver."""
        return self.host.keystore("bad")

    @property
    def connection(self) -> Connection:
        """The wire to the first process."""
        connection = self.host._plugins["bad"]._fleet.replicas[0].connection
        assert connection is not None
        return connection

    @property
    def sent(self) -> int:
        """How many requests the first process has been given whole and not answered."""
        return sum(pending.written for pending in list(self.connection._replies.waiting.values()))

    @property
    def pids(self) -> list[int]:
        """The driver's processes."""
        return [replica.pid for replica in self.host.plugins()[0].replicas if replica.pid is not None]

    @property
    def pid(self) -> int:
        """The driver's only process."""
        (pid,) = self.pids
        return pid


@contextlib.contextmanager
def bad_driver(
    folder: Path, mode: str, *arguments: str, keystore: Any = None, **settings: Any
) -> Iterator[Bad]:
    """Open a host with a bad driver; afterwards nothing may be left of either."""
    configuration = {
        "plugins": {"bad": misbehaving(folder, mode, *arguments, **settings)},
        "keystores": {"bad": {"plugin": "bad", **(keystore or {})}},
    }
    with bench(folder) as (journal, gate), Host.open(configuration) as host:
        yield Bad(host, journal, gate)


@contextlib.contextmanager
def bench(folder: Path) -> Iterator[tuple["Fifo", "Fifo"]]:
    """Make journal and gate for the drivers in *folder*; afterwards nothing may be left of what was begun."""
    with (
        nothing_left(),
        contextlib.closing(Fifo(folder / "journal")) as journal,
        contextlib.closing(Fifo(folder / "gate")) as gate,
    ):
        yield journal, gate


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Fail where a process, a thread of the host or a descriptor stays behind."""
    before = descriptors(), set(children()), threads()
    yield
    wait_until(lambda: len(threads()) <= len(before[2]), "threads of the host to end")
    wait_until(lambda: set(children()) <= before[1], "processes to end")
    assert {fd: to for fd, to in descriptors().items() if before[0].get(fd) != to} == {}


class Fifo:
    """A named pipe between a test and its drivers. The test holds both ends, so nobody waits for an opening.

    When it is closed, whoever waits at it sees its end and goes on.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._text = ""
        self.lines: list[str] = []

    def close(self) -> None:
        """Give it back."""
        os.close(self._fd)

    def open_gate(self, times: int = 1) -> None:
        """Let so many waiting drivers go on."""
        os.write(self._fd, b"." * times)

    def all(self, beginning: str = "") -> list[str]:
        """Return all lines so far that begin so."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._take(os.read(self._fd, 65536))
        return [line for line in self.lines if line.startswith(beginning)]

    def wait_for(self, beginning: str, count: int = 1, seconds: float = LONG_S) -> str:
        """Wait for a line, or for so many, and return what follows in the last one."""
        deadline = time.monotonic() + seconds
        while len(found := self.all(beginning)) < count:
            left = deadline - time.monotonic()
            assert left > 0, f"no line {beginning!r} within {seconds} s, but {self.lines}"
            select.select([self._fd], [], [], left)
        return found[count - 1].removeprefix(beginning).strip()

    def _take(self, data: bytes) -> None:
        *lines, self._text = (self._text + data.decode()).split("\n")
        self.lines += lines


class Records(logging.Handler):
    """Keeps what is logged under ``kmsplug``, from all threads."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        """What was logged."""
        return [record.getMessage() for record in self.records]

    def wait_for(self, part: str, seconds: float = LONG_S) -> logging.LogRecord:
        """Wait for a message that holds a text: drivers' logs come by another pipe than their answers."""
        wait_until(lambda: any(part in message for message in self.messages), f"a log line {part!r}", seconds)
        return next(record for record in self.records if part in record.getMessage())


@contextlib.contextmanager
def logged(level: int = logging.DEBUG) -> Iterator[Records]:
    """Listen to the host's and the drivers' logs."""
    logger, records, before = logging.getLogger("kmsplug"), Records(), logging.getLogger("kmsplug").level
    logger.addHandler(records)
    logger.setLevel(level)
    try:
        yield records
    finally:
        logger.removeHandler(records)
        logger.setLevel(before)


def begin(call: Callable[..., _T], *arguments: object) -> "Future[_T]":
    """Make a call on a thread of its own."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(call(*arguments))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def wait_until(true: Callable[[], bool], what: str, seconds: float = LONG_S) -> None:
    """Wait for something that announces itself in no other way."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def wait_for_end(pid: int) -> None:
    """Wait until a process has ended and been reaped."""
    wait_until(lambda: not psutil.pid_exists(pid), f"the end of process {pid}")


def children() -> list[str]:
    """Return the processes that descend from this one, but for one that Python keeps for itself."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = child.cmdline()
            if not any("multiprocessing.resource_tracker" in word for word in command):
                found.append(f"{child.pid} {command}")
    return found


def threads() -> list[str]:
    """Return the names of the host's threads."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kmsplug-")]


def descriptors() -> dict[str, str]:
    """Return what this process holds open: pipes, sockets, files."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one by which the folder is read
            found[entry.name] = str(entry.readlink())
    return found
