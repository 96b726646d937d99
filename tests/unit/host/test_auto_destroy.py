"""When a key is destroyed without an operator: the rule alone, with clocks that are said."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from kmsplug_host.config import load
from kmsplug_host.errors import ConfigurationError
from kmsplug_host.shims.auto_destroy import APART_S, INTERVAL_S, LEASE_S, MOST_SKEW_S, Reading, turn

NOW = Reading(wall=1_800_000_000.0, database=1_800_000_000.0, uptime=500.0)
KEY = {"key": "2027-01-01T00:00:00Z"}
DAY = 86_400.0


def later(reading: Reading, seconds: float) -> Reading:
    return Reading(reading.wall + seconds, reading.database + seconds, reading.uptime + seconds)


@dataclass
class Host:
    """One that reads; hosts share the row."""

    row: dict[str, Any]
    name: str = "a"
    before: Reading | None = None
    ripe: list[str] = field(default_factory=list)

    def read(self, now: Reading, due: dict[str, str] | None = None) -> list[str]:
        after, self.ripe = turn(self.row, self.name, now, self.before, KEY if due is None else due)
        self.before = now if after["leader"] == self.name else None
        self.row.clear()
        self.row.update(after)
        return self.ripe


def until_ripe(host: Host, now: Reading, *, most_s: float = 3 * DAY) -> tuple[Reading, float]:
    """Read at the usual interval until the key may be destroyed; return when, and after how long."""
    passed = 0.0
    while not host.read(now):
        assert passed < most_s, "it is never destroyed"
        now, passed = later(now, INTERVAL_S), passed + INTERVAL_S
    return now, passed


def test_a_key_is_destroyed_after_a_day_on_which_it_was_seen_to_be_due() -> None:
    _, passed = until_ripe(Host({}), NOW)

    assert passed == APART_S == DAY


@pytest.mark.parametrize("step_s", [40 * DAY, -40 * DAY, MOST_SKEW_S + 1, -MOST_SKEW_S - 1])
def test_a_step_of_a_clock_begins_the_day_anew(step_s: float) -> None:
    host, now = Host({}), NOW
    for _ in range(int(DAY / INTERVAL_S)):  # one reading before it would be
        assert host.read(now) == []
        now = later(now, INTERVAL_S)

    now = replace(now, wall=now.wall + step_s)
    assert host.read(now) == []
    now = replace(later(now, INTERVAL_S), database=later(now, INTERVAL_S).wall)  # the database's follows
    assert host.read(now) == []

    _, passed = until_ripe(host, later(now, INTERVAL_S))
    assert passed == APART_S


def test_while_the_clocks_disagree_nothing_is_seen_to_be_due() -> None:
    host, now = Host({}), replace(NOW, wall=NOW.wall + MOST_SKEW_S + 1)
    for _ in range(1000):
        assert host.read(now) == []
        now = later(now, INTERVAL_S)
    assert host.row["seen"] == {}

    _, passed = until_ripe(host, later(replace(now, wall=now.database), INTERVAL_S), most_s=2 * DAY)

    assert passed >= APART_S


def test_what_is_not_due_once_begins_its_day_anew_and_so_does_another_date() -> None:
    for other in ({}, {"key": "2027-01-02T00:00:00Z"}):
        host, now = Host({}), NOW
        for _ in range(200):
            assert host.read(now) == []
            now = later(now, INTERVAL_S)
        assert host.read(now, other) == []

        _, passed = until_ripe(host, later(now, INTERVAL_S))
        assert passed == APART_S


def test_a_machine_that_sleeps_or_a_process_that_is_stopped_gains_no_uptime() -> None:
    host = Host({})
    host.read(NOW)
    asleep = replace(later(NOW, 2 * DAY), uptime=NOW.uptime + 1)  # the clock that nobody sets stands still

    assert host.read(asleep) == []
    assert host.read(later(asleep, INTERVAL_S)) == []
    stopped = later(asleep, INTERVAL_S + 2 * DAY)  # past the lease: nobody knows what was in between
    assert host.read(stopped) == []
    assert host.row["uptime"] < LEASE_S


def test_one_leads_and_another_follows_until_the_lease_is_over_and_the_uptime_goes_on() -> None:
    row: dict[str, Any] = {}
    first, second, now = Host(row, "a"), Host(row, "b"), NOW
    for _ in range(150):
        assert first.read(now) == []
        assert second.read(later(now, 1)) == []
        assert row["leader"] == "a"
        now = later(now, INTERVAL_S)
    half = row["uptime"]

    gone = later(now, LEASE_S)  # the first one has ended
    assert second.read(gone) == []
    assert (row["leader"], row["uptime"]) == ("b", half)
    assert first.read(later(gone, 1)) == []
    assert row["leader"] == "b"
    _, passed = until_ripe(second, later(gone, INTERVAL_S))
    assert passed == pytest.approx(APART_S - half - INTERVAL_S)


def test_a_host_that_begins_with_a_clock_that_went_back_begins_the_day_anew() -> None:
    row: dict[str, Any] = {}
    host, now = Host(row), NOW
    for _ in range(250):
        host.read(now)
        now = later(now, INTERVAL_S)
    back = replace(later(now, LEASE_S), wall=now.wall - DAY)
    back = replace(back, database=max(back.wall, row["until"]))

    assert Host(row, "b").read(replace(back, wall=back.database - MOST_SKEW_S)) == []
    assert Host(row, "c").read(replace(later(back, LEASE_S + 1), wall=NOW.wall)) == []
    assert row["seen"] == {}


@pytest.mark.parametrize(
    ("keystore", "catalog", "reason"),
    [
        ({"auto_destroy": True}, None, "without \\[catalog\\]"),
        ({"auto_destroy": True, "shims": "forbid"}, {}, "without the shim lifecycle"),
        ({"auto_destroy": True, "shims": ["alias"]}, {}, "without the shim lifecycle"),
        ({"auto_destroy": 1}, {}, "true or false"),
    ],
)
def test_it_is_refused_where_nothing_keeps_deletions(
    keystore: dict[str, Any], catalog: dict[str, Any] | None, reason: str
) -> None:
    settings = {"plugins": {"p": {"driver": "mock"}}, "keystores": {"k": {"plugin": "p", **keystore}}}

    with pytest.raises(ConfigurationError, match=reason):
        load({**settings, **({} if catalog is None else {"catalog": catalog})})
