"""Credentials are fetched before they end, by one thread, and an early failure costs nothing."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kmsplug_plugins.aws_kms._client import AccessKey, RenewingCredentials
from kmsplug_protocol import ErrorCode
from kmsplug_sdk import DriverError

LIFE_S = 3600.0


class Clock:
    """`time.time` as a test sets it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


class Provider:
    """Gives other credentials each time, which live an hour; or fails."""

    def __init__(self, clock: Clock, life_s: float | None = LIFE_S) -> None:
        self.clock = clock
        self.life_s = life_s
        self.fetched = 0
        self.failing = False

    def __call__(self) -> AccessKey:
        self.fetched += 1
        if self.failing:
            raise DriverError(ErrorCode.PROVIDER_UNAVAILABLE, "nobody there")
        expires = None if self.life_s is None else self.clock.now + self.life_s
        return AccessKey(f"ASIA{self.fetched}", "canary-secret", "canary-token", expires)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock.time)
    return clock


def test_they_are_fetched_when_needed_and_ten_minutes_before_they_end(clock: Clock) -> None:
    provider = Provider(clock)
    credentials = RenewingCredentials(provider)
    assert provider.fetched == 0

    found = []
    for after in (0, LIFE_S - 601, 2, 0):
        clock.now += after
        found.append(credentials.get_frozen_credentials().access_key)

    assert found == ["ASIA1", "ASIA1", "ASIA2", "ASIA2"]


def test_those_that_live_shortly_are_fetched_when_a_quarter_is_left(clock: Clock) -> None:
    provider = Provider(clock, life_s=900)
    credentials = RenewingCredentials(provider)

    found = []
    for after in (0, 670, 10):
        clock.now += after
        found.append(credentials.current().access_key_id)

    assert found == ["ASIA1", "ASIA1", "ASIA2"]


def test_an_early_failure_is_not_told_and_not_repeated_at_every_call(clock: Clock) -> None:
    provider = Provider(clock)
    credentials = RenewingCredentials(provider)
    credentials.current()
    provider.failing = True
    clock.now += LIFE_S - 500

    for _ in range(100):
        assert credentials.current().access_key_id == "ASIA1"
    assert provider.fetched == 2
    clock.now += 500

    for _ in range(2):
        with pytest.raises(DriverError):
            credentials.current()
    provider.failing = False
    assert credentials.current().access_key_id == "ASIA5"


def test_what_failed_shortly_before_their_end_is_told_at_their_end(clock: Clock) -> None:
    provider = Provider(clock)
    credentials = RenewingCredentials(provider)
    credentials.current()
    provider.failing = True
    clock.now += LIFE_S - 5
    assert credentials.current().access_key_id == "ASIA1"

    clock.now += 5

    with pytest.raises(DriverError):
        credentials.current()


def test_those_of_a_user_never_end(clock: Clock) -> None:
    provider = Provider(clock, life_s=None)
    credentials = RenewingCredentials(provider)
    credentials.current()
    clock.now += 1e9

    assert credentials.current().access_key_id == "ASIA1"


def test_many_threads_fetch_once(clock: Clock) -> None:
    provider, ready = Provider(clock), threading.Barrier(16)
    credentials = RenewingCredentials(provider)

    def call(_number: int) -> str:
        ready.wait(10)
        return credentials.current().access_key_id

    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(call, range(16)))

    assert found == {"ASIA1"}
    assert provider.fetched == 1


def test_outdated_ones_are_replaced_once_whoever_notices(clock: Clock) -> None:
    provider = Provider(clock)
    credentials = RenewingCredentials(provider)
    used = credentials.current()

    assert credentials.renewed_since(used)
    assert credentials.renewed_since(used)  # another thread, with the same ones
    assert provider.fetched == 2
    provider.failing = True
    assert not credentials.renewed_since(credentials.current())


def test_the_same_ones_again_are_no_others(clock: Clock) -> None:
    keys = AccessKey("AKIA1", "secret")
    credentials = RenewingCredentials(lambda: AccessKey("AKIA1", "secret"))

    assert credentials.current() == keys
    assert not credentials.renewed_since(keys)


def test_nothing_secret_is_in_their_repr(clock: Clock) -> None:
    assert "canary" not in repr(Provider(clock)())
