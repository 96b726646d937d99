"""What is seen of a call from outside: its time and its end in a meter, and a span where somebody traces."""

import time
from collections.abc import Callable
from types import TracebackType

from . import _tracing
from ._meter import Meter


class observed:  # noqa: N801 - read as a verb: `with observed(...)`
    """Measures what is done in its block, exceptions included.

    Args:
        meter: Where it is counted.
        operation: What is done.
        role: ``keystore`` for a call, ``plugin`` for an attempt of one.
        name: Of that keystore or plugin.
        now: Tells the time, in seconds.
    """

    __slots__ = ("_began", "_meter", "_name", "_now", "_operation", "_role", "_span")

    def __init__(
        self,
        meter: Meter,
        operation: str,
        role: str,
        name: str,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meter = meter
        self._operation = operation
        self._role = role
        self._name = name
        self._now = now

    def __enter__(self) -> None:
        self._span = _tracing.begin(self._operation, self._role, self._name)
        self._began = self._now()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._meter.record(self._operation, self._now() - self._began, error)
        if self._span is not None:
            self._span.end(error)
