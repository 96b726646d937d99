"""Lets somebody else end the call that a thread waits for."""

import contextlib
import threading
from collections.abc import Callable, Iterator

_local = threading.local()


class Cancellation:
    """The handle on a piece of work that one thread does and another one may cancel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._abort: Callable[[], None] | None = None

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled

    def cancel(self) -> None:
        """End the call in flight, and every later one of the same work as soon as it begins."""
        with self._lock:
            self._cancelled = True
            abort = self._abort
        if abort is not None:
            abort()

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let this handle govern what the current thread does in the block."""
        _local.cancellation = self
        try:
            yield
        finally:
            _local.cancellation = None

    @contextlib.contextmanager
    def watch(self, abort: Callable[[], None]) -> Iterator[None]:
        """Name what ends the wait in the block; called at once where it is cancelled already."""
        with self._lock:
            self._abort = abort
            cancelled = self._cancelled
        if cancelled:
            abort()
        try:
            yield
        finally:
            with self._lock:
                self._abort = None


def current_cancellation() -> Cancellation | None:
    """Return the handle that governs this thread, if there is one."""
    return getattr(_local, "cancellation", None)
