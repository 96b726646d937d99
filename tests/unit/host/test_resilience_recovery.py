"""After a failure: what is repeated and what never, when, and how honest the error is. In virtual time."""

import itertools
import threading
from typing import Any

import pytest
from kmsplug_host._cancellation import Cancellation
from kmsplug_host.errors import (
    AuthenticationFailed,
    Cancelled,
    Conflict,
    Diagnosis,
    KmsplugError,
    PluginCrashed,
    PluginUnavailable,
    ProtocolViolation,
    ProviderInternal,
    ProviderUnavailable,
    RateLimitExceeded,
    Timeout,
    UnsupportedOperation,
    error_class,
)
from kmsplug_protocol import (
    ERROR_FACTS,
    ErrorCode,
    Key,
    KeyAlgorithm,
    KeyState,
    KeyUsage,
    Outcome,
    PingResult,
    ReconcileParams,
    ReconcileResult,
    RetryClass,
)
from support.provider import Bench

KEY = Key(
    key_id="k1",
    key_version="1",
    algorithm=KeyAlgorithm.AES_256_GCM,
    usage=KeyUsage.ENCRYPT_DECRYPT,
    state=KeyState.ACTIVE,
)
CRASH = Diagnosis(("driver",), "-rwx", "SIGKILL")
NEVER = [code for code, fact in ERROR_FACTS.items() if fact.retry is RetryClass.NEVER]


def throttled(retry_after_ms: int | None = None) -> RateLimitExceeded:
    return RateLimitExceeded("slow down", retry_after_ms=retry_after_ms)


def crashed(outcome: Outcome | None = None) -> PluginCrashed:
    return PluginCrashed("the driver process ended", diagnosis=CRASH, outcome=outcome)


def became(outcome: Outcome, key: Key | None = None) -> ReconcileResult:
    return ReconcileResult(outcome=outcome, key=key)


def test_a_throttled_call_waits_for_as_long_as_the_provider_says() -> None:
    bench = Bench(throttled(700), throttled(1200))

    assert bench.one() == PingResult()
    (first, _, _, _), (second, _, _, _), (third, _, _, _) = bench.provider.asked
    assert 0.7 <= second - first <= 0.7 + 0.05
    assert 1.2 <= third - second <= 1.2 + 0.1


def test_a_provider_that_says_when_is_not_waited_for_longer_and_longer() -> None:
    bench = Bench(*[throttled(100)] * 12)

    assert bench.one() == PingResult()
    moments = [moment for moment, *_ in bench.provider.asked]
    waits = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert len(waits) == 12
    assert min(waits) >= 0.1
    assert max(waits) <= 0.2 + 1e-6


def test_a_hint_beyond_the_deadline_is_not_waited_for() -> None:
    bench = Bench(throttled(60_000))

    error = bench.one()

    assert isinstance(error, RateLimitExceeded)
    assert error.details["retry_after_ms"] == 60_000
    assert bench.time.now() == 1000.0


@pytest.mark.parametrize("timeout", [0.01, 0.5, 9.0, 30.0])
def test_nobody_waits_past_the_deadline_and_the_last_real_error_is_told(timeout: float) -> None:
    bench = Bench(retry={"max_attempts": 1000}, breaker={"failures": 0})
    bench.provider.usual = lambda: ProviderUnavailable("down")

    error = bench.one(timeout=timeout)

    assert isinstance(error, ProviderUnavailable)
    assert bench.time.now() < 1000.0 + timeout


def test_the_wait_is_random_and_its_bound_doubles_to_a_limit() -> None:
    waits: list[list[float]] = []
    for _ in range(30):
        bench = Bench(*[Conflict("busy")] * 7, retry={"first_delay_s": 0.1, "max_delay_s": 0.8})
        bench.one(timeout=100.0)
        waits.append([wait for wait in bench.time.waits if wait])

    bounds = [0.1, 0.2, 0.4, 0.8, 0.8, 0.8, 0.8]
    for tries in zip(*waits, strict=True):
        bound = bounds.pop(0)
        assert max(tries) <= bound
        assert max(tries) > bound / 2 > min(tries)  # fails by chance once in 2^30 runs


@pytest.mark.parametrize("code", NEVER)
def test_what_fails_again_for_sure_is_not_repeated_but_counted(code: ErrorCode) -> None:
    bench = Bench(error_class(code.value)("no"))

    assert bench.one().code is code
    assert bench.provider.wires == ["crypto.encrypt"]
    assert bench.resilience.stats().failures == {code: 1}


def test_a_rejected_credential_is_never_tried_again() -> None:
    bench = Bench(AuthenticationFailed("wrong PIN"))

    assert isinstance(bench.one(), AuthenticationFailed)
    assert len(bench.provider.asked) == 1


def test_a_renewed_credential_is_tried_once() -> None:
    expired = [AuthenticationFailed("expired", credential_renewed=True) for _ in range(3)]

    assert Bench(expired[0]).one() == PingResult()
    bench = Bench(*expired)
    error = bench.one()

    assert isinstance(error, AuthenticationFailed)
    assert len(bench.provider.asked) == 2


def test_a_call_goes_to_another_process_at_once_but_not_for_ever() -> None:
    bench = Bench(crashed())
    assert bench.one() == PingResult()
    assert bench.time.now() == 1000.0

    bench = Bench(*[crashed() for _ in range(9)], retry={"max_reconnects": 3})
    error = bench.one()

    assert isinstance(error, PluginCrashed)
    assert len(bench.provider.asked) == 4


def test_a_process_that_answers_wrongly_and_goes_on_is_not_asked_again() -> None:
    bench = Bench(ProtocolViolation("malformed"))

    assert isinstance(bench.one(), ProtocolViolation)
    assert len(bench.provider.asked) == 1


@pytest.mark.parametrize(
    "wire", ["key.create", "key.rotate", "key.import", "key.purge", "keystore.provision"]
)
@pytest.mark.parametrize("failure", [Timeout, ProviderInternal, ProviderUnavailable, crashed])
def test_a_change_with_an_unknown_outcome_is_not_repeated_blindly(wire: str, failure: Any) -> None:
    bench = Bench(failure("lost") if failure is not crashed else crashed())

    error = bench.one(wire)

    assert error.outcome is Outcome.UNKNOWN
    assert bench.provider.wires == [wire]


@pytest.mark.parametrize("failure", [throttled(10), ProviderUnavailable("x", outcome=Outcome.NOT_APPLIED)])
def test_a_change_that_was_not_made_is_repeated(failure: KmsplugError) -> None:
    bench = Bench(failure, KEY)

    assert bench.one("key.create") == KEY
    assert bench.provider.wires == ["key.create"] * 2


def test_a_change_whose_answer_was_lost_is_found_and_not_made_again() -> None:
    bench = Bench(crashed(), became(Outcome.APPLIED, KEY), reconciles=True)

    assert bench.one("key.rotate", key_id="k1") == KEY
    assert bench.provider.wires == ["key.rotate", "key.reconcile"]
    question = bench.provider.asked[1][2]
    assert question == ReconcileParams(method="key.rotate", idempotency_key="i1", key_id="k1")
    assert bench.resilience.stats().reconciled == 1


def test_a_change_that_never_came_is_made_under_the_same_idempotency_key() -> None:
    bench = Bench(Timeout("lost"), became(Outcome.NOT_APPLIED), KEY, reconciles=True)

    assert bench.one("key.create") == KEY
    assert bench.provider.wires == ["key.create", "key.reconcile", "key.create"]
    assert bench.provider.asked[0][2] == bench.provider.asked[2][2]


def test_what_the_driver_does_not_know_yet_is_asked_again_and_never_repeated() -> None:
    bench = Bench(
        Timeout("lost"), *[became(Outcome.UNKNOWN)] * 3, became(Outcome.APPLIED, KEY), reconciles=True
    )

    assert bench.one("key.create") == KEY
    assert bench.provider.wires == ["key.create", *["key.reconcile"] * 4]


def test_what_nobody_knows_stays_unknown() -> None:
    bench = Bench(Timeout("lost"), reconciles=True, retry={"max_attempts": 4})
    bench.provider.usual = lambda: became(Outcome.UNKNOWN)

    error = bench.one("key.create")

    assert isinstance(error, Timeout)
    assert error.outcome is Outcome.UNKNOWN
    assert bench.provider.wires == ["key.create", *["key.reconcile"] * 3]
    assert [attempt.code for attempt in error.attempts] == ["TIMEOUT"] * 3


def test_a_question_that_cannot_be_answered_leaves_the_error_of_the_change() -> None:
    bench = Bench(Timeout("lost"), UnsupportedOperation("no such thing"), reconciles=True)

    error = bench.one("key.create")

    assert isinstance(error, Timeout)
    assert error.outcome is Outcome.UNKNOWN
    assert isinstance(error.__cause__, UnsupportedOperation)


def test_a_question_whose_answer_is_lost_is_asked_again() -> None:
    bench = Bench(crashed(), ProviderUnavailable("down"), became(Outcome.APPLIED, KEY), reconciles=True)

    assert bench.one("key.create") == KEY


def test_a_key_that_was_made_and_cannot_be_described_is_told_as_made() -> None:
    bench = Bench(Timeout("lost"), became(Outcome.APPLIED), reconciles=True)

    assert bench.one("key.create").outcome is Outcome.APPLIED


def test_an_outcome_is_unknown_if_that_of_any_attempt_is() -> None:
    bench = Bench(ProviderInternal("lost"), throttled(60_000))

    error = bench.one("key.disable", key_id="k1")

    assert isinstance(error, RateLimitExceeded)
    assert error.outcome is Outcome.UNKNOWN


def test_an_error_tells_the_attempts_before_it_and_its_cause() -> None:
    bench = Bench(ProviderUnavailable("down"), throttled(500), UnsupportedOperation("no"))

    error = bench.one()

    assert [attempt.code for attempt in error.attempts] == ["PROVIDER_UNAVAILABLE", "RATE_LIMIT_EXCEEDED"]
    first, second = error.attempts
    assert first.elapsed_s == 0.0
    assert second.elapsed_s == pytest.approx(first.slept_s)
    assert second.slept_s >= 0.5
    assert isinstance(error.__cause__, RateLimitExceeded)
    assert isinstance(error.__cause__.__cause__, ProviderUnavailable)


def test_a_lost_answer_is_noticed_while_there_is_time_for_another_attempt() -> None:
    bench = Bench(60.0)

    assert bench.one(timeout=9.0) == PingResult()
    assert [given for _, _, _, given in bench.provider.asked] == [
        3.0,
        pytest.approx(6.0 - bench.time.waits[-1]),
    ]


def test_a_slow_provider_gets_more_time_with_each_attempt() -> None:
    bench = Bench(4.0, 4.0)

    assert bench.one(timeout=9.0) == PingResult()


def test_the_time_of_an_attempt_can_be_set() -> None:
    bench = Bench(60.0, attempt_timeout_s=0.5)

    assert bench.one(timeout=9.0) == PingResult()
    assert bench.time.now() < 1001.0


def test_a_change_that_cannot_be_asked_about_gets_all_the_time_there_is() -> None:
    bench = Bench(8.5)

    bench.one("key.create", timeout=9.0)

    assert bench.provider.asked[0][3] == 9.0


def test_a_last_attempt_without_time_does_not_hide_the_real_error() -> None:
    bench = Bench(throttled(8_900), 60.0, retry={"first_delay_s": 0.001})

    error = bench.one(timeout=9.0)

    assert isinstance(error, RateLimitExceeded)
    assert [attempt.code for attempt in error.attempts] == ["RATE_LIMIT_EXCEEDED", "TIMEOUT"]


def test_the_budget_bounds_repetitions_over_all_calls() -> None:
    bench = Bench(retry={"budget": 3, "budget_per_call": 0}, breaker={"failures": 0})
    bench.provider.usual = lambda: ProviderInternal("ill")

    for _ in range(10):
        assert isinstance(bench.one(), ProviderInternal)

    assert len(bench.provider.asked) == 10 + 3
    assert bench.resilience.stats().budget == 0


def test_calls_earn_repetitions_up_to_the_capacity() -> None:
    bench = Bench(retry={"budget": 2, "budget_per_call": 0.25, "max_attempts": 2})
    bench.provider.usual = lambda: throttled(1)
    for _ in range(2):
        bench.one()
    assert bench.resilience.stats().budget < 1

    bench.provider.usual = PingResult
    for _ in range(100):
        bench.one()

    assert bench.resilience.stats().budget == 2


def test_repetition_can_be_switched_off() -> None:
    bench = Bench(throttled(1), retry={"max_attempts": 1})

    assert isinstance(bench.one(), RateLimitExceeded)


def test_a_plugin_that_was_closed_meanwhile_is_not_called_again() -> None:
    bench = Bench(throttled(1))
    bench.provider.closed = True

    assert isinstance(bench.one(), RateLimitExceeded)
    assert len(bench.provider.asked) == 1


def test_a_caller_who_cancels_between_two_attempts_goes_on_at_once() -> None:
    bench = Bench(throttled(8_000))
    cancellation = Cancellation()
    slept = threading.Event()

    def call() -> Any:
        with cancellation.applied():
            return bench.call()

    def cancel() -> None:
        bench.time.wait(slept, 1.0)
        cancellation.cancel()

    called, _ = bench.time.run(call, cancel)

    assert isinstance(called.exception(), Cancelled)
    assert bench.time.now() == 1001.0
    assert bench.resilience.stats().in_flight == 0


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [(throttled(8_000), Outcome.NOT_APPLIED), (Timeout("no answer", retry_after_ms=8_000), Outcome.UNKNOWN)],
)
def test_a_call_between_two_attempts_is_told_at_once_that_the_host_is_closed(
    failure: KmsplugError, outcome: Outcome
) -> None:
    bench = Bench(failure)

    def close() -> None:
        bench.time.sleep(1.0)
        bench.provider.usual = lambda: PluginUnavailable("the host is closed", outcome=Outcome.NOT_APPLIED)
        bench.resilience.close()

    called, _ = bench.time.run(lambda: bench.call("key.enable"), close)

    error = called.exception()
    assert isinstance(error, PluginUnavailable)
    assert error.__cause__ is failure
    assert [attempt.code for attempt in error.attempts] == [failure.code]
    assert error.outcome is outcome
    assert bench.time.now() == 1001.0
