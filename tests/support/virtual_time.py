"""Virtual time: it stands still while anybody works, and leaps when everybody waits. No test sleeps."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

_STUCK_S = 60.0  # of real time: whoever waits longer was forgotten

_T = TypeVar("_T")


@dataclass(eq=False)
class _Waiter:
    until: float
    event: threading.Event
    woken: bool = False


@dataclass
class VirtualTime:
    """A `Clock`. Outside of `run`, a wait is over at once, and the time has passed.

    Attributes:
        moment: The present moment.
        waits: Every wait that ended because its time had passed, in seconds.
    """

    moment: float = 1000.0
    waits: list[float] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _waiters: list[_Waiter] = field(default_factory=list)
    _working: int = 0

    def now(self) -> float:
        """Return the present moment."""
        return self.moment

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.wait(threading.Event(), seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set, at most so long; return whether it is."""
        with self._changed:
            if event.is_set():
                return True
            waiter = _Waiter(self.moment + seconds, event)
            self._waiters.append(waiter)
            self._working -= 1
            self._leap()
            assert self._changed.wait_for(lambda: waiter.woken, _STUCK_S), "nobody lets the time pass"
        if not event.is_set():
            self.waits.append(seconds)
        return event.is_set()

    def run(self, *works: Callable[[], _T]) -> "list[Future[_T]]":
        """Do several things at the same time, and return what came of each when all have ended."""
        ended: list[Future[_T]] = [Future() for _ in works]
        self._working += len(works)
        threads = [
            threading.Thread(target=self._work, args=pair, daemon=True)
            for pair in zip(works, ended, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_STUCK_S)
            assert not thread.is_alive(), "somebody never ends"
        return ended

    def _work(self, work: Callable[[], _T], ended: "Future[_T]") -> None:
        self.sleep(0)  # so that all begin one after the other
        try:
            ended.set_result(work())
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            ended.set_exception(error)
        with self._changed:
            self._working -= 1
            self._leap()

    def _leap(self) -> None:
        """Where nobody works any more, wake the next one: whom an event woke, else whose time comes first."""
        if self._working > 0 or not self._waiters:
            return
        woken = next((waiter for waiter in self._waiters if waiter.event.is_set()), None)
        if woken is None:
            woken = min(self._waiters, key=lambda waiter: waiter.until)
            self.moment = max(self.moment, woken.until)
        self._waiters.remove(woken)
        woken.woken = True
        self._working += 1
        self._changed.notify_all()


def errors(ended: "Sequence[Future[_T]]") -> list[BaseException]:
    """Return the exceptions among what came of things."""
    found = (future.exception() for future in ended)
    return [error for error in found if error is not None]
