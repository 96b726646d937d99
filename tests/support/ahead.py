"""Work of many tests, two pieces at a time in processes of their own; each test waits for its own piece.

A driver under test mostly waits for its host and the host for it, so two pairs are done in little more
time than one.
"""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Final, Generic, TypeVar

Job = TypeVar("Job", bound=Hashable)
Result = TypeVar("Result")

_AT_A_TIME: Final = 2


class Ahead(Generic[Job, Result]):
    """Does what a test asks for, and begins with what the next tests will ask for.

    Args:
        work: What is done for a job: a function of a module that can be imported.
        jobs: All jobs, in the order in which tests ask for them; one that was not foreseen is done too.
        pool: Does it.
    """

    def __init__(self, work: Callable[[Job], Result], jobs: Sequence[Job], pool: ProcessPoolExecutor) -> None:
        self._work, self._pool = work, pool
        self._next = {job: jobs[at + 1 : at + 1 + _AT_A_TIME] for at, job in enumerate(jobs)}
        self._begun: dict[Job, Future[Result]] = {}

    def __call__(self, job: Job) -> Result:
        """Return the result for a job; what went wrong there is raised here."""
        for each in (job, *self._next.get(job, ())):
            if each not in self._begun:
                self._begun[each] = self._pool.submit(self._work, each)
        return self._begun[job].result()


@contextlib.contextmanager
def ahead(work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Ahead[Job, Result]]:
    """Do work ahead; at the end, what nobody asked for any more is not begun."""
    # Forking would copy the locks of threads that other tests have running.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(_AT_A_TIME, mp_context=spawn, initializer=_end_with_the_tests)
    try:
        yield Ahead(work, jobs, pool)
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_the_tests() -> None:
    """Let this process end when the tests are killed: nobody would tell it."""
    tests = multiprocessing.parent_process()
    assert tests is not None

    def watch() -> None:
        tests.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
