"""The request that a thread is working on: its deadline, and whether its caller has gone."""

import threading
import time
from dataclasses import dataclass, field
from typing import Final

_LONGEST_S: Final = 86_400.0

_local = threading.local()
_making = threading.Lock()


@dataclass(slots=True)
class Call:
    """A request in progress.

    Attributes:
        deadline: When its caller stops waiting, on `time.monotonic`; None: unknown.
        correlation_id: The host's id of the request.
        traceparent: The caller's trace (W3C Trace Context), for a provider that takes one; in every log line.
        answers: How often its answer is written. Only a driver that plays a broken one changes it, and not in
            an inline method.
    """

    deadline: float | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    answers: int = 1
    _cancelled: threading.Event | None = field(default=None, init=False)

    @property
    def cancelled(self) -> threading.Event:
        """Set when the caller has stopped waiting."""
        if self._cancelled is not None:
            return self._cancelled
        with _making:  # now that somebody asks: most calls have ended before anybody could
            return self._made()

    def _made(self) -> threading.Event:
        if self._cancelled is None:
            self._cancelled = threading.Event()
        return self._cancelled

    def remaining_s(self, default: float) -> float:
        """Return the seconds left, or *default* where no deadline came along.

        Never negative, and never more than a day: no socket takes the longest deadline that a host may name.
        """
        if self.deadline is None:
            return default
        return min(max(0.0, self.deadline - time.monotonic()), _LONGEST_S)


def current_call() -> Call:
    """Return the request that this thread works on; outside of one, a call without a deadline."""
    call: Call | None = getattr(_local, "call", None)
    return call if call is not None else Call()


def set_current_call(call: Call | None) -> None:
    """Strictly for the session."""
    _local.call = call
