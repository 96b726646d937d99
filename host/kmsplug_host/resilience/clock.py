"""The one clock of everything that waits between attempts, so that tests need not wait."""

import threading
import time
from contextlib import nullcontext
from typing import Protocol

from kmsplug_host._cancellation import current_cancellation
from kmsplug_host.errors import Cancelled


class Clock(Protocol):
    """Tells the time and lets it pass."""

    def now(self) -> float:
        """Return the present moment, on the scale of `Deadline.at`."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set, at most so long; return whether it is."""


class MonotonicClock:
    """Real time."""

    now = staticmethod(time.monotonic)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set, at most so long; return whether it is."""
        return event.wait(seconds)


def wait_unless_cancelled(clock: Clock, event: threading.Event, seconds: float) -> bool:
    """Wait for an event, at most so long; return whether it is set.

    Raises:
        Cancelled: The caller cancelled meanwhile. The event is set then, too.
    """
    cancellation = current_cancellation()
    with nullcontext() if cancellation is None else cancellation.watch(event.set):
        happened = clock.wait(event, seconds)
    if cancellation is not None and cancellation.cancelled:
        raise Cancelled("the caller cancelled")
    return happened
