"""A driver process that is none: what it says is given, so that any stream can be tried fast."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

from kmsplug_host._connection import Connection
from kmsplug_host._deadline import Deadline
from kmsplug_host._process import DriverProcess
from kmsplug_host._redaction import Redactor
from kmsplug_host.errors import Diagnosis, KmsplugError

from .host import LONG_S, begin


class FakeProcess:
    """Takes requests, says what it was told to say once it may, and ends."""

    pid = 0

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._written = threading.Semaphore(0)
        self.redactor = Redactor()
        self.speak = threading.Event()
        self.killed = False
        self.on_end: Callable[[], None] = lambda: None

    def read(self) -> bytes:
        self.speak.wait(LONG_S)
        self.on_end()  # at once after what is read now
        return b"" if self.killed else next(self._chunks, b"")

    def read_into(self, chunks: deque[bytes], deadline: Deadline) -> bool:
        chunks.append(self.read())
        return True

    def write(self, frame: bytes, deadline: Deadline) -> int:
        self._written.release()
        return len(frame)

    def wait_for_request(self) -> None:
        assert self._written.acquire(timeout=LONG_S)

    def wait(self, seconds: float) -> int:
        return 0  # so nobody ever pauses for it

    def send_kill(self) -> None:
        self.killed = True

    def kill(self) -> None:
        self.killed = True

    def stop(self, deadline: Deadline) -> None:
        self.speak.set()

    def close_stdout(self) -> None:
        pass

    def diagnose(self) -> Diagnosis:
        return Diagnosis(("fake",), "fake", "exit status 0")


Answer = dict[str, Any] | KmsplugError


def converse(chunks: Iterable[bytes], calls: int, max_frame_bytes: int) -> list[Answer]:
    """Make so many calls, with ids from 1, let the driver say its chunks, and return what each call got."""
    process = FakeProcess(chunks)
    ended = threading.Event()
    connection = Connection("fake", cast(DriverProcess, process), lambda _connection: ended.set())
    connection.set_max_frame(max_frame_bytes)
    with contextlib.closing(_Closing(connection)):
        futures = []
        for _ in range(calls):
            futures.append(begin(connection.request, "crypto.mac", {}, Deadline.after(LONG_S)))
            process.wait_for_request()
        process.speak.set()
        assert ended.wait(LONG_S)
        assert "the host failed" not in str(connection.failure()), "the reading thread met a defect"
        return [future.exception(LONG_S) or future.result() for future in futures]  # type: ignore[misc]


class _Closing:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def close(self) -> None:
        self._connection.close(Deadline(0.0))
