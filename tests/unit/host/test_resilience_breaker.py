"""A keystore that keeps failing is left alone, and found again soon. In virtual time."""

import random

import pytest
from kmsplug_host import BreakerState
from kmsplug_host.config import KeystoreSettings
from kmsplug_host.errors import (
    Cancelled,
    CircuitOpen,
    InvalidCiphertext,
    KeyNotFound,
    KmsplugError,
    PluginCrashed,
    PluginUnavailable,
    ProviderInternal,
    ProviderUnavailable,
    RateLimitExceeded,
    Timeout,
)
from kmsplug_protocol import PingResult, Vendor
from support.provider import Bench
from support.virtual_time import errors

CALLERS = 16


def breaking(*answers: KmsplugError, failures: int = 3, cool_down_s: float = 1.5) -> Bench:
    """A keystore whose calls are not repeated, so that each counts once."""
    return Bench(
        *answers, retry={"max_attempts": 1}, breaker={"failures": failures, "cool_down_s": cool_down_s}
    )


def broken() -> Bench:
    bench = breaking()
    bench.provider.usual = lambda: ProviderUnavailable("down")
    for _ in range(3):
        assert isinstance(bench.one(), ProviderUnavailable)
    assert bench.resilience.stats().breaker is BreakerState.OPEN
    return bench


def test_an_open_breaker_calls_nobody_and_tells_the_last_cause() -> None:
    bench = broken()

    error = bench.one()

    assert isinstance(error, CircuitOpen)
    assert isinstance(error.__cause__, ProviderUnavailable)
    assert error.__cause__.__traceback__ is None
    assert 0 < error.details["retry_after_ms"] <= 1500
    assert len(bench.provider.asked) == 3
    assert bench.resilience.stats().failures == {"PROVIDER_UNAVAILABLE": 3, "CIRCUIT_OPEN": 1}


def test_one_call_tries_whether_the_keystore_is_well_and_the_others_fail_meanwhile() -> None:
    bench = broken()
    bench.time.moment += 1.5
    bench.provider.usual = lambda: 1.0  # the probe takes a second

    ended = bench.time.run(*[bench.call] * CALLERS)

    assert len(bench.provider.asked) == 3 + 1
    assert len(errors(ended)) == CALLERS - 1
    assert all(isinstance(error, CircuitOpen) for error in errors(ended))
    assert bench.resilience.stats().breaker is BreakerState.CLOSED


def test_a_probe_that_fails_begins_another_cool_down() -> None:
    bench = broken()
    bench.time.moment += 1.5

    assert isinstance(bench.one(), ProviderUnavailable)
    assert isinstance(bench.one(), CircuitOpen)
    bench.time.moment += 1.4
    assert isinstance(bench.one(), CircuitOpen)


@pytest.mark.parametrize("end", [Cancelled("left"), PluginCrashed("ended")])
def test_a_probe_that_says_nothing_leaves_it_to_the_next_call(end: KmsplugError) -> None:
    bench = broken()
    bench.time.moment += 1.5
    bench.provider.answers = [end]
    bench.provider.usual = PingResult

    assert bench.one() is end
    assert bench.one() == PingResult()


@pytest.mark.parametrize("error", [KeyNotFound("no key"), InvalidCiphertext("no"), RateLimitExceeded("slow")])
def test_a_probe_that_is_refused_was_answered(error: KmsplugError) -> None:
    bench = broken()
    bench.time.moment += 1.5
    bench.provider.usual = lambda: error

    bench.one()

    assert bench.resilience.stats().breaker is BreakerState.CLOSED


@pytest.mark.parametrize(
    "error",
    [
        RateLimitExceeded("slow down"),
        KeyNotFound("no key"),
        InvalidCiphertext("no"),
        PluginCrashed("ended"),
        Cancelled("left"),
        Timeout("the caller was in a hurry"),
        PluginUnavailable("quarantined"),
    ],
)
def test_throttling_and_the_errors_of_callers_and_processes_do_not_count(error: KmsplugError) -> None:
    bench = breaking()
    bench.provider.usual = lambda: error

    for _ in range(20):
        bench.one()

    assert len(bench.provider.asked) == 20


def test_silence_counts_only_if_the_caller_was_patient() -> None:
    bench = breaking()
    bench.provider.usual = lambda: 60.0

    for _ in range(10):
        assert isinstance(bench.one(timeout=0.5), Timeout)
    assert bench.resilience.stats().breaker is BreakerState.CLOSED
    for _ in range(3):
        assert isinstance(bench.one(timeout=9.0), Timeout)
    assert bench.resilience.stats().breaker is BreakerState.OPEN


def test_a_timeout_of_which_the_provider_tells_counts() -> None:
    bench = breaking()
    bench.provider.usual = lambda: Timeout("504", vendor=Vendor(http_status=504))

    for _ in range(3):
        bench.one()

    assert bench.resilience.stats().breaker is BreakerState.OPEN


def test_an_answer_between_failures_begins_the_count_anew() -> None:
    ill = [ProviderInternal("ill"), ProviderInternal("ill"), KeyNotFound("no key")]
    bench = breaking(*ill * 5)

    for _ in range(15):
        bench.one()

    assert len(bench.provider.asked) == 15


def test_a_breaker_can_be_switched_off() -> None:
    bench = breaking(failures=0)
    bench.provider.usual = lambda: ProviderUnavailable("down")

    for _ in range(20):
        assert isinstance(bench.one(), ProviderUnavailable)


def test_a_reload_begins_closed() -> None:
    bench = broken()

    bench.resilience.rebind(KeystoreSettings(plugin="p"), bench.provider)

    assert bench.resilience.stats().breaker is BreakerState.CLOSED


def test_a_call_is_not_repeated_into_an_open_breaker() -> None:
    bench = Bench(*[ProviderUnavailable("down")] * 9, breaker={"failures": 2})

    error = bench.one()

    assert isinstance(error, ProviderUnavailable)  # its own, not CIRCUIT_OPEN
    assert len(bench.provider.asked) == 2


def test_a_provider_that_is_down_for_30_s_is_spared_and_found_again_within_2_s() -> None:
    bench = Bench()
    time, up_at = bench.time, 1030.0
    bench.provider.usual = lambda: ProviderUnavailable("down") if time.now() < up_at else PingResult()
    waited: list[float] = []
    good: list[float] = []

    def caller() -> None:
        while time.now() < up_at + 5:
            began = time.now()
            try:
                bench.call()
                good.append(time.now())
            except CircuitOpen:
                waited.append(time.now() - began)
            except ProviderUnavailable:
                pass
            time.sleep(0.05)

    assert errors(time.run(*[caller] * CALLERS)) == []

    assert sum(moment < up_at for moment, *_ in bench.provider.asked) < 50
    assert sorted(waited)[len(waited) * 99 // 100] == 0.0  # the others were waiting when it opened
    assert len(waited) > 5_000
    assert min(good) <= up_at + 2
    assert len(good) > CALLERS


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_a_throttling_provider_serves_all_callers_in_time_for_few_more_calls(rate: float) -> None:
    bench = Bench()
    # No pattern: callers that keep step with one would be throttled again and again.
    dice = random.Random(7)  # noqa: S311
    bench.provider.usual = lambda: (
        RateLimitExceeded("slow down", retry_after_ms=100) if dice.random() < rate else 0.002
    )

    def caller() -> float:
        longest = 0.0
        for _ in range(100):
            began = bench.time.now()
            bench.call()
            longest = max(longest, bench.time.now() - began)
        return longest

    ended = bench.time.run(*[caller] * CALLERS)

    assert errors(ended) == []
    assert max(future.result() for future in ended) < 9
    assert len(bench.provider.asked) <= 1.6 * CALLERS * 100
