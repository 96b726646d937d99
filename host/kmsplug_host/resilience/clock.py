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


class Pauses:
    """The pauses of calls before their next attempt. They all end when there is nothing left to wait for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: set[threading.Event] = set()
        self._over = False

    def wait(self, seconds: float) -> None:
        """Wait for so long, or until `end` is called.

        Raises:
            Cancelled: The caller cancelled meanwhile.
        """
        event = threading.Event()
        with self._lock:
            if self._over:
                return
            self._waiting.add(event)
        try:
            wait_unless_cancelled(self._clock, event, seconds)
        finally:
            with self._lock:
                self._waiting.discard(event)

    def end(self) -> None:
        """End all pauses, for good."""
        with self._lock:
            self._over = True
            for event in self._waiting:
                event.set()
