"""A deadline: one absolute moment for everything that a call does."""

import time
from typing import Any, Final

from msgspec import Struct

from .errors import InvalidArgument

_LONGEST_S: Final = 86_400.0


class Deadline(Struct, frozen=True, gc=False):
    """A moment on the monotonic clock.

    Attributes:
        at: Seconds of `time.monotonic`.
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the moment *seconds* from now."""
        return cls(time.monotonic() + seconds)

    def within(self, seconds: float) -> "Deadline":
        """Return the moment *seconds* from now, or this one if it is earlier."""
        at = time.monotonic() + seconds
        return self if at >= self.at else Deadline(at)

    def remaining_s(self) -> float:
        """Return the seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether it is too late."""
        return time.monotonic() >= self.at


def caller_deadline(timeout: Any) -> Deadline:
    """Return the deadline of a call whose caller gives it so many seconds; none left is allowed.

    Raises:
        InvalidArgument: It is no number, or longer than a day: the operating system could not wait for it.
    """
    if not isinstance(timeout, (int, float)) or not timeout <= _LONGEST_S:  # which a NaN is not, either
        raise InvalidArgument(f"timeout must be at most {_LONGEST_S:.0f} seconds, not {timeout!r}")
    return Deadline.after(timeout)
