"""How a call is timed: by one caller for its latency, by many at once for the rate."""

import threading
import time
from collections.abc import Callable
from typing import Final

CALLERS: Final = 16
WARM_UP: Final = 50
PARTS: Final = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
Call = Callable[[], object]


def latencies_us(call: Call, count: int) -> list[float]:
    """Return what each of *count* calls of one caller took, in microseconds, shortest first."""
    for _ in range(WARM_UP):
        call()
    samples = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        samples.append((time.perf_counter() - began) * 1e6)
    samples.sort()
    return samples


def summary(samples: list[float]) -> dict[str, float]:
    """Return percentiles of sorted latencies, and calls a second."""
    count = len(samples)
    at = {name: samples[min(count - 1, int(count * part))] for name, part in PARTS.items()}
    return {**at, "calls_s": 1e6 * count / sum(samples)}


def calls_a_second(call: Call, count: int) -> float:
    """Return the rate of `CALLERS` threads together, from when all of them are there.

    They share the calls: with a part for each, those that come off badly would go on alone at the end.
    """
    left = iter(range(count))
    ready = threading.Barrier(CALLERS + 1)

    def caller() -> None:
        ready.wait()
        for _ in left:
            call()

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return count / (time.perf_counter() - began)
