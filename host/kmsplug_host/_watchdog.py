"""Finds out whether a driver that missed a deadline is slow, or will never answer again.

It looks once a call is overdue: its deadline passed and the driver has not answered. Every driver must answer
in the end, what was cancelled too (SPEC.md [3.5-3]). The process is given up in two cases::

    silent   neither a call nor the ping that is sent now is answered within ``grace_s``
    wedged   calls that are overdue by ``overdue_s`` fill everything that it can work on at once; that it
             answers a ping proves nothing: a thread of its own does so while the driver's call hangs

All of this happens on the supervisor's thread; the caller has gone on.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from ._deadline import Deadline
from ._supervisor import Supervisor
from .config import PluginSettings

_AGAIN_S: Final = 0.02  # until a ping is tried again that could not be written


class Watched(Protocol):
    """What is looked at: a `Connection`."""

    @property
    def answers(self) -> int:
        """Requests answered so far, pings included."""

    @property
    def overdue(self) -> dict[int, float]:
        """Request ids that were given up and not answered: the moments of their deadlines."""

    @property
    def ended(self) -> bool:
        """Whether there is no process any more."""

    def ping(self) -> bool:
        """Send a ping without waiting for anything; return whether that was possible."""


class Watchdog:
    """Watches one process.

    Args:
        watched: The process's connection.
        supervisor: On whose thread it is looked at.
        settings: The plugin's: ``grace_s`` for a sign of life, ``overdue_s`` after which a call is lost.
        max_concurrency: How many calls the driver works on at once.
        give_up: Called with the reason when the process is to be replaced.
    """

    def __init__(
        self,
        watched: Watched,
        supervisor: Supervisor,
        settings: PluginSettings,
        max_concurrency: int,
        give_up: Callable[[str], None],
    ) -> None:
        self._watched = watched
        self._supervisor = supervisor
        self._grace_s = settings.grace_s
        self._overdue_s = settings.overdue_s
        self._max_concurrency = max_concurrency
        self._give_up = give_up
        self._lock = threading.Lock()
        self._looking = False
        self._deaf = False

    def missed(self, deaf: bool) -> None:
        """Begin to look, unless that has begun. On the thread of the caller whose call was given up.

        Args:
            deaf: The driver did not even take the request.
        """
        with self._lock:
            self._deaf = self._deaf or deaf
            if self._looking:
                return
            self._looking = True
        self._supervisor.submit(self._look)

    def _look(self) -> None:
        """Ask for a sign of life, if a call is overdue by now."""
        with self._lock:
            deadlines = list(self._watched.overdue.values())
            deaf, self._deaf = self._deaf, False
            if self._watched.ended or not (deadlines or deaf):
                self._looking = False
                return
        wait_s = 0.0 if deaf else min(deadlines) - time.monotonic()
        if wait_s > 0:  # it was given up before its deadline, by a caller who cancelled
            self._supervisor.submit(self._look, wait_s)
            return
        self._ask(self._watched.answers, Deadline.after(self._grace_s))

    def _ask(self, seen: int, until: Deadline) -> None:
        """Send a ping, as soon as the pipe takes it: a caller may be writing just now."""
        sent = self._watched.ping()
        if sent or until.passed:
            self._supervisor.submit(partial(self._judge, seen), self._grace_s if sent else 0.0)
        else:
            self._supervisor.submit(partial(self._ask, seen, until), _AGAIN_S)

    def _judge(self, seen: int) -> None:
        if not self._watched.ended:
            if self._watched.answers == seen:
                self._give_up(f"it answered neither its calls nor a ping within {self._grace_s:g} s")
                return
            limit = time.monotonic() - self._overdue_s
            lost = sum(deadline <= limit for deadline in list(self._watched.overdue.values()))
            if lost >= self._max_concurrency:
                self._give_up(f"{lost} calls are overdue by {self._overdue_s:g} s, which is all it works on")
                return
        self._look()
