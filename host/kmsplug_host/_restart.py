"""When a process that ended is started again, and when no more."""

import random
import time
from collections import deque
from typing import Final

_FIRST_DELAY_S: Final = 0.1  # before the second restart in a row; the first one is immediate
_LONGEST_DELAY_S: Final = 30.0
_PROVEN_AFTER_S: Final = 10.0  # a process that lived this long begins its backoff anew
_PROVEN_BY_ANSWERS: Final = 100  # so does one that did so much work: to keep callers waiting would not help


class RestartPolicy:
    """Exponential backoff for one place in a plugin, and an end to it in a crash loop.

    Every failure lengthens the wait. Only crashes count towards the loop: a driver that says that its
    provider is down, or hangs because the provider does, must come back by itself when the provider has.

    Args:
        max_crashes: So many crashes within the window are followed by a restart; the next one is not.
        window_s: Seconds.
    """

    def __init__(self, max_crashes: int, window_s: float) -> None:
        self._max_crashes = max_crashes
        self._window_s = window_s
        self._crashes: deque[float] = deque()
        self._failures = 0  # in a row

    def next_delay_s(self, *, crashed: bool, lived_s: float, answers: int = 0) -> float | None:
        """Note a failure, and return the seconds until the next start. None: there is none any more.

        Args:
            crashed: Whether the process itself is to blame.
            lived_s: How long it had been ready.
            answers: How many calls it had answered.
        """
        if crashed and self._loops():
            return None
        if lived_s >= _PROVEN_AFTER_S or answers >= _PROVEN_BY_ANSWERS:
            self._failures = 0
        delay = backoff_s(self._failures)
        self._failures += 1
        return delay

    @property
    def limit(self) -> str:
        """The limit, in words."""
        return f"more than {self._max_crashes} times within {self._window_s:g} s"

    def forget(self) -> None:
        """Begin anew."""
        self._crashes.clear()
        self._failures = 0

    def _loops(self) -> bool:
        now = time.monotonic()
        self._crashes.append(now)
        while now - self._crashes[0] > self._window_s:
            self._crashes.popleft()
        return len(self._crashes) > self._max_crashes


def backoff_s(failures: int) -> float:
    """Return the seconds to wait before a start, after so many failures in a row; up to a half by chance."""
    if failures == 0:
        return 0.0
    longest = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(failures - 1, 20))
    return random.uniform(longest / 2, longest)  # noqa: S311 - spreads restarts, protects nothing
