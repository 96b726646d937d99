"""How much of what nobody asked for one driver may send.

A host that drains a flooding driver as fast as it can has no time left for the others. So it does not: what
is over the rate stays in the pipe, which fills and blocks the one that writes into it, and nobody else.
"""

import time
from typing import Final

FRAMES_PER_S: Final = 2000
BURST_FRAMES: Final = 10_000
FRAME_BYTES: Final = 4096  # so much of a long line is worth a frame
PATIENCE_S: Final = 5.0
MANY_LINES: Final = 256  # in one read; so many are taken in pieces, each with its rest
PIECE_BYTES: Final = 4096
_CALM_FRAMES: Final = FRAMES_PER_S // 10  # saved up by a driver that has slowed down, not by our own pauses
_REST: Final = 9.0  # times as long as the work on what nobody asked for: the others need the interpreter too
_NO_WORK_S: Final = 0.0005


class Unasked:
    """A token bucket for the frames of one driver that are no answer to any call."""

    def __init__(self) -> None:
        self._tokens: float = BURST_FRAMES
        self._at = time.monotonic()
        self._over_since: float | None = None

    def spend(self, frames: int, work_s: float = 0.0) -> float | None:
        """Account for frames that were read.

        Args:
            frames: How many.
            work_s: Seconds that it took to look at them.

        Returns:
            Seconds for which nothing more may be read; None: the driver has been over the rate for
            `PATIENCE_S`, and there is no reason to wait any longer.
        """
        now = time.monotonic()
        saved = min(BURST_FRAMES, self._tokens + (now - self._at) * FRAMES_PER_S)
        self._tokens, self._at = saved - frames, now
        if saved >= _CALM_FRAMES:
            self._over_since = None
        if self._tokens >= 0:
            return work_s * _REST if work_s > _NO_WORK_S else 0.0
        if self._over_since is None:
            self._over_since = now
        patience = self._over_since + PATIENCE_S - now
        return min(-self._tokens / FRAMES_PER_S, patience) if patience > 0 else None


class PerSecond:
    """Lets so much pass in each second."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._since = 0.0
        self._used = 0

    def passes(self, amount: int = 1) -> bool:
        """Tell whether so much more is within what a second may bring."""
        now = time.monotonic()
        if now - self._since >= 1.0:
            self._since, self._used = now, 0
        self._used += amount
        return self._used <= self._most
