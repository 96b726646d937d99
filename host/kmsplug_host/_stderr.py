"""What a driver writes to stderr: logged and remembered up to a rate, counted and thrown away above it.

It is always read, because a full pipe would block the driver, but above the rate it is not looked at, and
read only so fast that the other plugins have the time that is theirs.
"""

import contextlib
import json
import logging
import time
from collections import deque
from typing import Any, Final

from ._flow import PerSecond
from ._redaction import Redactor

_LINES: Final = 20  # kept for a diagnosis
_LINE_BYTES: Final = 64 * 1024  # a longer line is cut, so that a driver cannot fill our memory
_BYTES_PER_S: Final = 1024 * 1024  # above it nothing is parsed or logged
_KEPT_BYTES: Final = 8 * 1024  # the last of what is dropped: a driver that dies in a flood may tell why
_LINE_COST: Final = 512  # bytes that a line counts in addition: a short one is as much work as a long one
_DRAIN_BYTES_PER_S: Final = 32 * 1024 * 1024  # above it the pipe pushes back

_LEVELS: Final = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


class Stderr:
    """The stderr of one driver process. For the one thread that reads it; `tail` is for all.

    Args:
        log: Where its lines go.
        redactor: Takes secrets out of them.
    """

    def __init__(self, log: logging.Logger, redactor: Redactor) -> None:
        self._log = log
        self._clean = redactor.clean
        self._tail: deque[str] = deque(maxlen=_LINES)
        self._partial = b""
        self._rate = PerSecond(_BYTES_PER_S)
        self._reports = PerSecond(1)
        self._unreported = 0
        self._last_dropped = b""
        self.dropped_bytes = 0

    @property
    def tail(self) -> tuple[str, ...]:
        """Its last lines, escaped."""
        return tuple(self._tail.copy())

    def take(self, data: bytes) -> None:
        """Take what was read."""
        if not self._rate.passes(len(data) + _LINE_COST * data.count(b"\n")):
            self._drop(data)
            return
        if self._last_dropped:
            # Where the flood was cut, a line was too: what is left of it would pass for another one.
            self._last_dropped, data = b"", data.partition(b"\n")[2]
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > _LINE_BYTES:
            lines.append(self._partial[:_LINE_BYTES])
            self._partial = b""
        for line in lines:
            self._record(line)

    def end(self) -> None:
        """Take what is left at the end of the process; its last words are kept, whatever was dropped."""
        if self._unreported:
            self._report()
        for line in self._last_dropped.split(b"\n")[-_LINES - 1 :]:
            self._remember(line)
        self._record(self._partial)

    def _drop(self, data: bytes) -> None:
        self.dropped_bytes += len(data)
        self._unreported += len(data)
        self._partial = b""
        self._last_dropped = (self._last_dropped + data[-_KEPT_BYTES:])[-_KEPT_BYTES:]
        if self._reports.passes():
            self._report()
        time.sleep(len(data) / _DRAIN_BYTES_PER_S)

    def _report(self) -> None:
        dropped, self._unreported = self._unreported, 0
        with contextlib.suppress(Exception):
            self._log.warning("%d bytes of stderr dropped: it writes more than 1 MiB a second", dropped)

    def _record(self, line: bytes) -> None:
        """Log one line: a JSON record as what it says, any other as text."""
        if (record := self._remember(line)) is None:
            return
        level, message, fields = record
        # The application's handlers may raise what they like; nobody else would read the pipe.
        with contextlib.suppress(Exception):
            self._log.log(level, "%s", message, extra={"plugin_fields": fields})

    def _remember(self, line: bytes) -> tuple[int, str, dict[str, str]] | None:
        text = line.decode("utf-8", "replace")
        if not text.strip():
            return None
        record = self._parse(text)
        self._tail.append(record[1])
        return record

    def _parse(self, text: str) -> tuple[int, str, dict[str, str]]:
        clean = self._clean
        if text.startswith("{"):
            with contextlib.suppress(ValueError, RecursionError):
                record: Any = json.loads(text)
                if isinstance(record, dict) and isinstance(record.get("message"), str):
                    fields = {clean(key, 64): clean(str(value)) for key, value in record.items()}
                    message = clean(record["message"])
                    if "exception" in fields:
                        message = f"{message} ({fields['exception']})"
                    return _LEVELS.get(str(record.get("level")), logging.INFO), message, fields
        return logging.INFO, clean(text), {}
