"""Claims file descriptors 0 and 1 for the wire, so that no library can write between two frames."""

import io
import os
import select
import sys
import threading
from typing import Final, TextIO

_READ_BYTES: Final = 256 * 1024


class Wire:
    """The two ends of a session: frames come in by one descriptor and go out by another."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._lock = threading.Lock()

    def wait(self, timeout_s: float) -> bool:
        """Return whether there is something to read, or the end, before the time is over."""
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def read(self) -> bytes:
        """Return the next bytes, at least one; none at the end of the session."""
        return os.read(self._read_fd, _READ_BYTES)

    def write(self, frame: bytes) -> None:
        """Write a whole frame. Frames of several threads never mix.

        Raises:
            OSError: The host has gone.
        """
        with self._lock:
            written = os.write(self._write_fd, frame)
            while written < len(frame):
                written += os.write(self._write_fd, memoryview(frame)[written:])

    def close(self) -> None:
        """Close both ends."""
        os.close(self._read_fd)
        os.close(self._write_fd)


def claim_stdio() -> Wire:
    """Move the wire to private descriptors and leave harmless ones behind.

    After this, descriptor 1 is stderr, so a stray ``print`` lands in the log, and descriptor 0 reads
    nothing, so a library that prompts gets an end of file.
    """
    wire = Wire(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    _point_stdout_at_stderr()
    return wire


def claim_stdout() -> TextIO:
    """Move standard output to a private descriptor, for the one document that a command prints."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    _point_stdout_at_stderr()
    return out


def _point_stdout_at_stderr() -> None:
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a library prints is to be in the log when it is printed, not when the process ends, if ever.
        sys.stdout.reconfigure(line_buffering=True)
