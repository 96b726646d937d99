"""The changes that this process is at."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Changes:
    """By digest of their idempotency keys. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._going_on: set[str] = set()
        self._over = threading.Condition(self._lock)

    @contextmanager
    def of(self, change: str | None) -> Iterator[None]:
        """Be at a change; the same one once more waits until it is over."""
        if change is None:
            yield
            return
        with self._over:
            while change in self._going_on:
                self._over.wait()
            self._going_on.add(change)
        try:
            yield
        finally:
            with self._over:
                self._going_on.discard(change)
                self._over.notify_all()

    def is_going_on(self, change: str) -> bool:
        """Tell whether a change is being made right now."""
        with self._lock:
            return change in self._going_on
