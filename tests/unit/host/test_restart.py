"""When a process is started again, and what state of a plugin follows from those of its processes."""

import random
import statistics

import pytest
from kmsplug_host import PluginState
from kmsplug_host._restart import RestartPolicy, backoff_s
from kmsplug_host._status import overall_state


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("kmsplug_host._restart.time.monotonic", lambda: now[0])
    return now


def test_the_first_restart_is_immediate_and_the_next_ones_wait_longer_and_longer() -> None:
    assert backoff_s(0) == 0.0
    for failures in range(1, 200):
        longest = min(30.0, 0.1 * 2 ** (failures - 1))
        waits = [backoff_s(failures) for _ in range(50)]
        assert all(longest / 2 <= wait <= longest for wait in waits)
    assert backoff_s(10**9) <= 30.0


def test_waits_are_spread_so_that_a_fleet_does_not_return_at_once() -> None:
    random.seed(7)
    assert statistics.pstdev(backoff_s(9) for _ in range(200)) > 2


def test_one_crash_more_than_allowed_within_the_window_is_the_last(clock: list[float]) -> None:
    policy = RestartPolicy(3, 60.0)
    for _ in range(3):
        assert policy.next_delay_s(crashed=True, lived_s=0.0) is not None
        clock[0] += 19

    assert policy.next_delay_s(crashed=True, lived_s=0.0) is None


def test_crashes_that_are_further_apart_than_the_window_never_end_it(clock: list[float]) -> None:
    policy = RestartPolicy(3, 60.0)
    for _ in range(100):
        assert policy.next_delay_s(crashed=True, lived_s=20.0) == 0.0
        clock[0] += 21


def test_a_driver_that_only_says_no_or_hangs_is_never_given_up() -> None:
    policy = RestartPolicy(0, 60.0)
    delays = [policy.next_delay_s(crashed=False, lived_s=0.0) for _ in range(100)]

    assert None not in delays
    assert policy.next_delay_s(crashed=True, lived_s=0.0) is None


def test_a_process_that_did_much_work_begins_its_backoff_anew() -> None:
    policy = RestartPolicy(100, 60.0)
    for _ in range(5):
        assert policy.next_delay_s(crashed=True, lived_s=1.0, answers=500) == 0.0
    assert policy.next_delay_s(crashed=True, lived_s=1.0, answers=99) != 0.0


def test_a_process_that_lived_long_enough_begins_its_backoff_anew() -> None:
    policy = RestartPolicy(100, 60.0)
    assert policy.next_delay_s(crashed=True, lived_s=0.0) == 0.0
    assert policy.next_delay_s(crashed=True, lived_s=9.0) != 0.0
    assert policy.next_delay_s(crashed=True, lived_s=11.0) == 0.0


def test_after_a_release_the_past_does_not_count() -> None:
    policy = RestartPolicy(1, 60.0)
    policy.next_delay_s(crashed=True, lived_s=0.0)
    assert policy.next_delay_s(crashed=True, lived_s=0.0) is None

    policy.forget()

    assert policy.next_delay_s(crashed=True, lived_s=0.0) == 0.0


@pytest.mark.parametrize(("states", "wanted", "overall"), [
    (["READY"], 1, "READY"), (["READY", "READY"], 2, "READY"), (["READY", "BACKOFF"], 2, "DEGRADED"),
    (["READY", "QUARANTINED"], 2, "DEGRADED"), (["STARTING", "READY"], 2, "DEGRADED"),
    (["STARTING", "READY"], 1, "READY"), (["READY", "READY", "QUARANTINED"], 2, "READY"),
    (["QUARANTINED"], 1, "QUARANTINED"), (["BACKOFF", "QUARANTINED"], 2, "BACKOFF"),
    (["STARTING", "BACKOFF"], 2, "BACKOFF"), (["STARTING", "QUARANTINED"], 1, "STARTING"),
    (["DRAINING", "STOPPED"], 1, "DRAINING"), (["STOPPED"] * 3, 3, "STOPPED"),
])  # fmt: skip
def test_the_state_of_a_plugin_follows_from_its_processes(
    states: list[str], wanted: int, overall: str
) -> None:
    assert overall_state([PluginState(state) for state in states], wanted) == overall


@pytest.mark.parametrize(("state", "overall"), [("READY", "DEGRADED"), ("BACKOFF", "BACKOFF")])
def test_a_plugin_whose_deep_check_failed_is_degraded_while_it_works_at_all(state: str, overall: str) -> None:
    assert overall_state([PluginState(state)], 1, ill=True) == overall
