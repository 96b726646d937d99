"""The bulkhead of a keystore: so many calls at once, so many that wait for their turn, and no more."""

import threading
from collections import deque

from kmsplug_protocol import Outcome

from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import Overloaded

from .clock import Clock, wait_unless_cancelled


class _Waiting:
    """A call in the queue."""

    __slots__ = ("admitted", "event")

    def __init__(self) -> None:
        self.event = threading.Event()
        self.admitted = False


class Bulkhead:
    """Admits calls, in the order in which they came.

    Args:
        clock: Tells the time.
        max_in_flight: How many at once.
        max_queued: How many more may wait.

    Attributes:
        calls: How many calls there were, those that were refused included.
        in_flight: How many are admitted now.
    """

    def __init__(self, clock: Clock, max_in_flight: int, max_queued: int) -> None:
        self._clock = clock
        self._max_in_flight = max_in_flight
        self._max_queued = max_queued
        self._lock = threading.Lock()
        self._queue: deque[_Waiting] = deque()
        self.calls = 0
        self.in_flight = 0

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._queue)

    def configure(self, max_in_flight: int, max_queued: int) -> None:
        """Go on with other limits."""
        with self._lock:
            self._max_in_flight, self._max_queued = max_in_flight, max_queued
            while self._queue and self.in_flight < max_in_flight:
                self.in_flight += 1
                self._admit_next()

    def enter(self, deadline: Deadline) -> None:
        """Take a place; `leave` gives it back.

        Raises:
            Overloaded: There are too many calls already, or none left before the deadline.
            Cancelled: The caller cancelled while the call waited.
        """
        with self._lock:
            self.calls += 1
            if self.in_flight < self._max_in_flight:
                self.in_flight += 1
                return
            if len(self._queue) >= self._max_queued:
                raise _overloaded(f"{self.in_flight} calls are in flight and {len(self._queue)} wait")
            waiting = _Waiting()
            self._queue.append(waiting)
        try:
            wait_unless_cancelled(self._clock, waiting.event, max(0.0, deadline.at - self._clock.now()))
        except BaseException:
            if not self._withdraw(waiting):
                self.leave()
            raise
        if self._withdraw(waiting):
            raise _overloaded("no other call ended before the deadline")

    def leave(self) -> None:
        """Give a place back: to whoever has waited longest."""
        with self._lock:
            if self._queue and self.in_flight <= self._max_in_flight:
                self._admit_next()
            else:
                self.in_flight -= 1

    def _withdraw(self, waiting: _Waiting) -> bool:
        """Take a call out of the queue; return false where it was admitted meanwhile."""
        with self._lock:
            if not waiting.admitted:
                self._queue.remove(waiting)
            return not waiting.admitted

    def _admit_next(self) -> None:
        waiting = self._queue.popleft()
        waiting.admitted = True
        waiting.event.set()


def _overloaded(why: str) -> Overloaded:
    return Overloaded(
        f"too many calls at once: {why}",
        outcome=Outcome.NOT_APPLIED,
        hint="raise max_in_flight or max_queued of the keystore, or call less often",
    )
