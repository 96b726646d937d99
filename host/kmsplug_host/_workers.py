"""Runs the synchronous host for asynchronous callers, on threads, under asyncio and trio alike."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ._cancellation import Cancellation

try:
    from anyio import CancelScope, CapacityLimiter, get_cancelled_exc_class, to_thread
except ImportError as error:
    raise ImportError("the asynchronous API needs anyio: pip install 'kmsplug[async]'") from error

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Workers:
    """Runs calls on worker threads.

    Args:
        most: How many at once; a further call waits for a place.
    """

    def __init__(self, most: int) -> None:
        self._limiter = CapacityLimiter(most)

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run *function* on a worker thread and return its result.

        Cancelling the awaiting task cancels the call: the driver is told, and the thread is free at once.
        """
        cancellation = Cancellation()

        def work() -> _T:
            with cancellation.applied():
                return function(*args, **kwargs)

        try:
            # Abandoned, not waited for: the thread ends by itself as soon as the call does.
            return await to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
        except get_cancelled_exc_class():
            cancellation.cancel()
            raise


def shielded() -> CancelScope:
    """Return a scope in which a cancelled task may still finish something that is bounded by itself."""
    return CancelScope(shield=True)
