"""How long calls took and how they ended, counted on the call's own thread in under a microsecond.

A series is an operation. Whatever a driver says, the number of series and of their labels is bounded.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from kmsplug_protocol import ErrorCode
from msgspec import Struct

from .errors import KmsplugError, PluginError

if TYPE_CHECKING:
    from kmsplug_protocol import Vendor

BUCKETS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds in seconds: from a call to a driver of this machine to one that a provider keeps waiting."""

OTHER: Final = "other"
"""Stands for a vendor's codes that are no names, or too many."""

_MAX_VENDOR_CODES: Final = 40  # of a plugin; a vendor's table of errors has as many rows that are ever seen
_VENDOR_CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")

End = tuple[ErrorCode, str]
"""How a call failed: our code, and the vendor's or nothing."""


class CallSeries(Struct, frozen=True):
    """A snapshot of the calls of one operation.

    Attributes:
        operation: Its wire name; ``plugin.start`` for the handshake of a process.
        counts: Calls by bucket, not cumulated; the last is for those over all bounds.
        total_s: Seconds of all calls together.
        failures: Calls that failed, by how.
    """

    operation: str
    counts: tuple[int, ...]
    total_s: float
    failures: Mapping[End, int]

    @property
    def calls(self) -> int:
        """How many there were."""
        return sum(self.counts)


class CallFailure(Struct, frozen=True):
    """The last call that failed, without the exception: its frames would hold on to plaintext.

    Attributes:
        when: The moment, in UTC.
        operation: What was called.
        code: Why it failed.
        message: The error's sentence, free of secrets.
        vendor: The provider's own account.
        correlation_id: What the driver's log calls the request.
    """

    when: datetime
    operation: str
    code: ErrorCode
    message: str
    vendor: Vendor | None
    correlation_id: str | None


class _Counts:
    """The calls of one operation."""

    __slots__ = ("counts", "failures", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0
        self.failures: Counter[End] = Counter()


class Meter:
    """Counts the calls of one plugin or of one keystore."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series: dict[str, _Counts] = {}
        self._vendor_codes: set[str] = set()
        self.last_failure: CallFailure | None = None

    def record(self, operation: str, seconds: float, error: BaseException | None = None) -> None:
        """Take down one call. What is no `KmsplugError` is counted as a call and not as a failure."""
        bucket = bisect_left(BUCKETS_S, seconds)
        with self._lock:
            series = self._series.get(operation)
            if series is None:  # operations are a closed set, and so are the series
                series = self._series[operation] = _Counts()
            series.counts[bucket] += 1
            series.total_s += seconds
            if isinstance(error, KmsplugError):
                series.failures[error.code, self._vendor_code(error)] += 1
                if isinstance(error, PluginError) and operation.startswith("plugin."):
                    return  # a look at a process that is not there hides no call that failed for a reason
                self.last_failure = CallFailure(
                    when=datetime.now(UTC),
                    operation=operation,
                    code=error.code,
                    message=error.message,
                    vendor=error.vendor,
                    correlation_id=error.details.get("correlation_id"),
                )

    def series(self) -> tuple[CallSeries, ...]:
        """Return a snapshot."""
        with self._lock:
            return tuple(
                CallSeries(name, tuple(found.counts), found.total_s, dict(found.failures))
                for name, found in self._series.items()
            )

    def _vendor_code(self, error: KmsplugError) -> str:
        code = error.vendor.code if error.vendor is not None else None
        if code is None:
            return ""
        if code not in self._vendor_codes:
            if len(self._vendor_codes) >= _MAX_VENDOR_CODES or not _VENDOR_CODE.fullmatch(code):
                return OTHER
            self._vendor_codes.add(code)
        return code
