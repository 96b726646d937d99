"""So many calls at once, so many that wait for their turn, and no more. In virtual time."""

from typing import Any

import pytest
from kmsplug_host._cancellation import Cancellation
from kmsplug_host.config import KeystoreSettings
from kmsplug_host.errors import Cancelled, KeyNotFound, Overloaded
from kmsplug_protocol import Outcome, PingResult
from support.provider import Bench
from support.virtual_time import errors


def narrow(max_in_flight: int = 2, max_queued: int = 3) -> Bench:
    bench = Bench(max_in_flight=max_in_flight, max_queued=max_queued)
    bench.provider.usual = lambda: 1.0
    return bench


def test_calls_beyond_the_queue_are_refused_at_once() -> None:
    bench = narrow()

    results = bench.run(callers=10)

    refused = [error for error in results if isinstance(error, Overloaded)]
    assert len(refused) == 5
    assert all(error.outcome is Outcome.NOT_APPLIED and not error.attempts for error in refused)
    assert results.count(PingResult()) == 5
    assert [moment for moment, *_ in bench.provider.asked] == [1000.0, 1000.0, 1001.0, 1001.0, 1002.0]
    assert bench.resilience.stats().failures == {"OVERLOADED": 5}


def test_whoever_came_first_is_served_first() -> None:
    bench = narrow(1, 9)
    served: list[int] = []

    def caller(number: int) -> Any:
        bench.time.sleep(number / 100)
        result = bench.call()
        served.append(number)
        return result

    bench.time.run(*[lambda number=number: caller(number) for number in range(6)])

    assert served == [0, 1, 2, 3, 4, 5]


def test_who_waits_for_a_place_does_so_until_the_deadline() -> None:
    bench = narrow(1, 9)
    bench.provider.usual = lambda: 5.0

    results = bench.run(callers=2, timeout=2.5)

    assert sum(isinstance(error, Overloaded) for error in results) == 1
    assert bench.resilience.stats().queued == 0


def test_who_cancels_leaves_the_queue() -> None:
    bench = narrow(1, 9)
    cancellation = Cancellation()

    def cancelled() -> Any:
        with cancellation.applied():
            return bench.call()

    def cancel() -> Any:
        bench.time.sleep(0.5)
        cancellation.cancel()

    _, left, _ = bench.time.run(bench.call, cancelled, cancel)

    assert isinstance(left.exception(), Cancelled)
    assert len(bench.provider.asked) == 1
    assert (bench.resilience.stats().in_flight, bench.resilience.stats().queued) == (0, 0)


@pytest.mark.parametrize("error", [KeyNotFound("no key"), KeyboardInterrupt()])
def test_a_place_is_given_back_whatever_the_end(error: BaseException) -> None:
    bench = narrow(1, 0)

    def fail() -> Any:
        raise error

    bench.provider.usual = fail
    for _ in range(3):
        with pytest.raises(type(error)):
            bench.call()

    bench.provider.usual = PingResult
    assert bench.call() == PingResult()


def test_a_reload_that_widens_lets_those_in_that_wait() -> None:
    bench = narrow(1, 9)

    def widen() -> Any:
        bench.time.sleep(0.5)
        settings = KeystoreSettings(plugin="p", max_in_flight=4, max_queued=9)
        bench.resilience.rebind(settings, bench.provider)

    ended = bench.time.run(*[bench.call] * 4, widen)

    assert errors(ended) == []
    assert [moment for moment, *_ in bench.provider.asked] == [1000.0, 1000.5, 1000.5, 1000.5]


def test_a_snapshot_shows_the_load() -> None:
    bench = narrow(2, 9)
    seen = []

    def look() -> Any:
        bench.time.sleep(0.5)
        seen.append(bench.resilience.stats())

    bench.time.run(*[bench.call] * 5, look)

    assert [(stats.in_flight, stats.queued) for stats in seen] == [(2, 3)]
    after = bench.resilience.stats()
    assert (after.calls, after.in_flight, after.queued, after.retries) == (5, 0, 0, 0)
