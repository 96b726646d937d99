"""Whose turn it is to read what a driver says: the reading thread's, or that of a caller who is alone.

Two never read at once, for they could not tell whose bytes came first. The turn is taken and given back in
single steps of the interpreter, without a lock: Ctrl-C may end a caller's work between any two of them,
and a lock would then be held for ever.
"""

import threading
from typing import Final

THREAD: Final = 0
"""The reading thread; callers take the turn under the ids of their requests, from 1."""

_NAP_S: Final = 0.02  # of the reading thread, while callers read


class ReadingTurn:
    """Passes the right to read to and fro. At first it is the reading thread's."""

    def __init__(self) -> None:
        self._holder = {None: THREAD}
        self._called = threading.Event()
        self._callers = 0

    @property
    def taken(self) -> bool:
        """Whether somebody reads."""
        return bool(self._holder)

    def take(self, who: int) -> bool:
        """Take the turn, if nobody has it."""
        if self._holder.setdefault(None, who) != who:
            return False
        self._callers += who != THREAD
        return True

    def give_back(self, who: int) -> bool:
        """Give the turn back, if it is one's own, and return whether it was."""
        return self._holder.get(None) == who and self._holder.pop(None, who) == who

    def call(self) -> None:
        """Tell the reading thread that there is something to read that no caller reads."""
        self._called.set()

    def rest(self) -> None:
        """On the reading thread, which has given its turn back: take it as soon as callers do not use it."""
        while True:
            callers = self._callers
            called = self._called.wait(_NAP_S)
            self._called.clear()
            if (called or self._callers == callers) and self.take(THREAD):
                return
