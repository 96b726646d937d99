"""The rates of what nobody asked for: what is let through, what is held back, and when patience ends."""

from types import SimpleNamespace

import pytest
from kmsplug_host._flow import BURST_FRAMES, FRAMES_PER_S, PATIENCE_S, PerSecond, Unasked


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("kmsplug_host._flow.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def test_a_burst_passes_and_what_is_over_it_waits_until_it_is_paid_for(clock: Clock) -> None:
    unasked = Unasked()

    assert unasked.spend(BURST_FRAMES) == 0.0
    assert unasked.spend(FRAMES_PER_S) == pytest.approx(1.0)
    clock.now += 1.5
    assert unasked.spend(FRAMES_PER_S // 4) == 0.0


def test_a_driver_that_keeps_to_the_rate_never_waits(clock: Clock) -> None:
    unasked = Unasked()
    unasked.spend(BURST_FRAMES)

    for _ in range(1000):
        clock.now += 0.1
        assert unasked.spend(FRAMES_PER_S // 10 - 1) == 0.0


def test_a_driver_that_never_stops_is_given_up_when_patience_ends(clock: Clock) -> None:
    unasked = Unasked()
    began = clock.now
    pauses = []
    while (pause := unasked.spend(BURST_FRAMES)) is not None:
        pauses.append(pause)
        clock.now += pause

    assert PATIENCE_S <= clock.now - began <= PATIENCE_S + 1
    assert max(pauses) <= PATIENCE_S


def test_a_reader_that_is_late_does_not_lengthen_the_patience(clock: Clock) -> None:
    unasked = Unasked()
    began = clock.now
    unasked.spend(BURST_FRAMES)
    while (pause := unasked.spend(16)) is not None:
        clock.now += pause * 1.5 + 0.001
        assert clock.now - began < PATIENCE_S + 1


def test_a_driver_that_was_quiet_between_two_bursts_is_forgiven(clock: Clock) -> None:
    unasked = Unasked()

    for _ in range(10):
        pause = unasked.spend(BURST_FRAMES + 100)
        assert pause == pytest.approx(0.05)
        clock.now += 60


def test_one_read_of_any_size_waits_no_longer_than_patience(clock: Clock) -> None:
    assert Unasked().spend(10**9) == PATIENCE_S


def test_so_much_passes_in_each_second_and_no_more(clock: Clock) -> None:
    rate = PerSecond(3)

    assert [rate.passes() for _ in range(5)] == [True, True, True, False, False]
    clock.now += 1.0
    assert rate.passes(3)
    assert not rate.passes()
