"""What is seen of a call from outside: its time and its end in a meter, and a span where somebody traces."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from sys import modules
from typing import Final, ParamSpec, TypeVar

from . import _tracing
from ._meter import Meter
from .errors import InvalidCiphertext

_P = ParamSpec("_P")
_T = TypeVar("_T")

_refusal_wanted: Final = ContextVar("kmsplug_refusal_wanted", default=False)


@contextlib.contextmanager
def refusal_wanted() -> Iterator[None]:
    """Ask a provider in this block for what it has to refuse: that it does is not counted as a failure."""
    token = _refusal_wanted.set(True)
    try:
        yield
    finally:
        _refusal_wanted.reset(token)


def is_wanted(error: BaseException) -> bool:
    """Tell whether an error is the refusal that was asked for."""
    return isinstance(error, InvalidCiphertext) and _refusal_wanted.get()


class Observer:
    """Watches the work of one keystore or plugin.

    Args:
        role: ``keystore`` for calls, ``plugin`` for attempts of one.
        name: Of that keystore or plugin.
        now: Tells the time, in seconds.

    Attributes:
        meter: Where it is counted.
    """

    def __init__(self, role: str, name: str, now: Callable[[], float] = time.monotonic) -> None:
        self._role = role
        self._name = name
        self._now = now
        self.meter = Meter()

    def watch(self, operation: str, work: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
        """Do some work and return what it returns; count it, whatever it raises.

        A function and not a context manager, which would double what it costs.
        """
        span = None if _tracing.API not in modules else _tracing.begin(operation, self._role, self._name)
        began = self._now()
        try:
            result = work(*arguments, **named)
        except BaseException as error:
            failure = None if is_wanted(error) else error
            self.meter.record(operation, self._now() - began, failure)
            if span is not None:
                span.end(failure)
            raise
        self.meter.record(operation, self._now() - began)
        if span is not None:
            span.end(None)
        return result
