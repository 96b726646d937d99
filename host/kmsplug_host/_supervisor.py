"""The one thread that starts processes, now or after a delay.

It lives as long as the host: the kernel ties a child's parent-death signal to the thread that
started it, so a process must not be started by a thread of the application that may end.
"""

import heapq
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from ._deadline import Deadline

_log = logging.getLogger("kmsplug.supervisor")

_END_S: Final = 2.0  # for a job that has begun: the start of a process takes milliseconds

Job = Callable[[], None]


class Supervisor:
    """Runs short jobs, one after the other, each not before its time."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._queue: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="kmsplug-supervisor", daemon=True)
        self._thread.start()

    def submit(self, job: Job, delay_s: float = 0.0) -> None:
        """Run *job* after *delay_s* seconds, unless the supervisor is closed before."""
        with self._condition:
            if self._closed:
                return
            heapq.heappush(self._queue, (Deadline.after(delay_s).at, next(self._order), job))
            self._condition.notify()

    def close(self) -> None:
        """Drop what has not begun and wait for what has, but not for ever."""
        with self._condition:
            self._closed = True
            self._queue.clear()
            self._condition.notify()
        self._thread.join(_END_S)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - a defect in one plugin's job must not end the others' supervision
                _log.exception("a supervision job failed")

    def _next(self) -> Job | None:
        with self._condition:
            while not self._closed:
                if not self._queue:
                    self._condition.wait()
                    continue
                due = Deadline(self._queue[0][0])
                if due.passed:
                    return heapq.heappop(self._queue)[2]
                self._condition.wait(due.remaining_s())
            return None


def run_together(jobs: Sequence[Job], name: str) -> None:
    """Run jobs at the same time and wait for all.

    The threads are no daemons: what Ctrl-C interrupts is the waiting, and the interpreter waits again.
    """
    threads = []
    for job in jobs:
        thread = threading.Thread(target=job, name=name, daemon=False)
        try:
            thread.start()
        except RuntimeError:  # no more threads: then one after the other
            job()
        else:
            threads.append(thread)
    for thread in threads:
        thread.join()
