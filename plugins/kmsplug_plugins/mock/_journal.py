"""The journal: everything that happened to the provider, in order, in a file if it shall survive a crash.

State is what the events add up to. Processes that share the file take turns, and each sees what the others
did before its own turn, so that together they are one provider. A line that was torn by a kill is as if it
had never been begun.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import orjson
from kmsplug_protocol import ErrorCode, Vendor
from kmsplug_sdk import DriverError

Event = dict[str, Any]

_FIRST_LINE: Final = b'{"store":'
_LINE: Final = b'{"'


class Journal:
    """Events of some kinds, and those who listen to them. The first is of the kind ``store``.

    Args:
        path: The file; None: memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.lock = threading.RLock()
        self._path = path
        self._fd: int | None = None
        self._read = 0  # bytes of the file that were taken in
        self._listeners: dict[str, list[Callable[[Event], None]]] = {}

    def listen(self, kind: str, listener: Callable[[Event], None]) -> None:
        """Call *listener* with every event of a kind, those before `open` included."""
        self._listeners.setdefault(kind, []).append(listener)

    def open(self) -> None:
        """Take in what is in the file already; make it if it is missing.

        Raises:
            DriverError: CONFIGURATION_ERROR: it cannot be used, or is no journal.
        """
        if self._path is None:
            return
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with self.turn():
                pass
        except OSError as error:
            reason = f"{self._path}: {(error.strerror or 'cannot be used').lower()}"
            raise DriverError(
                ErrorCode.CONFIGURATION_ERROR, reason, path="state_file", vendor=Vendor(service="os")
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DriverError(
                ErrorCode.CONFIGURATION_ERROR,
                f"{self._path} is no state file of this driver",
                path="state_file",
            ) from None

    @contextlib.contextmanager
    def turn(self) -> Iterator[Callable[[str, Event], None]]:
        """Let nothing else happen in the block; yield what writes an event and tells the listeners."""
        with self.lock:
            if self._fd is None:
                yield self._tell
                return
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                self._catch_up(self._fd)
                yield self._write
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _catch_up(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        while self._read < size:
            data = os.pread(fd, size - self._read, self._read)
            beginning = _LINE if self._read else _FIRST_LINE
            if not data.startswith(beginning[: len(data)]):
                raise ValueError("somebody else's file")  # before anything is cut off
            whole = data.rfind(b"\n") + 1
            if whole == 0:
                os.ftruncate(fd, self._read)
                return
            self._read += whole
            for line in data[:whole].splitlines():
                for kind, event in orjson.loads(line).items():
                    self._tell(kind, event)

    def _write(self, kind: str, event: Event) -> None:
        line = orjson.dumps({kind: event}) + b"\n"
        try:
            whole = self._fd is not None and os.write(self._fd, line) == len(line)
        except OSError:
            whole = False
        if not whole:  # what was written of it is cut off by the next turn
            raise DriverError(
                ErrorCode.PROVIDER_UNAVAILABLE, "the state file cannot be written: look at its disk"
            )
        self._read += len(line)
        self._tell(kind, event)

    def _tell(self, kind: str, event: Event) -> None:
        for listener in self._listeners.get(kind, ()):
            listener(event)
