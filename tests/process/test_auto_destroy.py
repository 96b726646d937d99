"""Destroying without an operator: hosts with one catalog, in both databases, and clocks that step."""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import Host, KeyState, Keystore, _deletions
from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import KeyDestroyed
from kmsplug_host.shims.auto_destroy import APART_S, LEASE_S, Reading
from support.host import wait_until

LOST = ["key.enable", "key.schedule_deletion", "key.cancel_deletion", "key.rotate", "key.list_versions"]
STEP_S = LEASE_S - 60.0  # between two readings: as far apart as they may be
PAST = "2020-01-01T00:00:00Z"
DAY_S = 86_400.0


@contextmanager
def opened(folder: Path, url: str) -> Iterator[Keystore]:
    config = {"scenario": {"gap": [{"operations": LOST}]}, "state_file": str(folder / "mock.jsonl")}
    configuration: dict[str, Any] = {
        "plugins": {"mock": {"driver": "mock", "config": config}},
        "keystores": {"main": {"plugin": "mock", "auto_destroy": True}},
        "catalog": {"url": url, "key_file": str(folder / "catalog.key")},
    }
    with Host.open(configuration) as host:
        yield host.keystore("main")


@dataclass
class Clocks:
    """Clocks that a test moves, as two hosts on one machine see them."""

    wall: float
    database: float
    uptime: float = 0.0

    def pass_by(self, seconds: float) -> None:
        self.wall, self.database, self.uptime = (
            each + seconds for each in (self.wall, self.database, self.uptime)
        )

    def read(self, catalog: object) -> Reading:
        return Reading(self.wall, self.database, self.uptime)


def state(keystore: Keystore, key_id: str) -> KeyState:
    keystore._resolver.forget()
    try:
        return keystore.get_key(key_id).state
    except KeyDestroyed:
        return KeyState.DESTROYED


def change(keystore: Keystore, key_id: str, **members: Any) -> None:
    """Change what the catalog says of a key, as if it had been written so."""
    managed = keystore._resolver.managed
    assert managed is not None
    managed._records.change(key_id, lambda body: {**body, **members})


def test_one_of_two_hosts_destroys_what_was_due_for_a_day_and_no_step_of_a_clock_does(
    tmp_path: Path, url: str
) -> None:
    with opened(tmp_path, url) as one, opened(tmp_path, url) as other:
        due, early, short, cancelled, unscheduled = (one.create_key("AES_256_GCM").key_id for _ in range(5))
        one.rotate_key(due)
        for key in (due, early, cancelled):
            one.schedule_key_deletion(key, window_days=7)
        one.schedule_key_deletion(short, window_days=6)  # too short to be left to a clock
        for key in (due, short, cancelled):
            change(one, key, deletion=PAST)
        clocks = Clocks(time.time(), time.time())

        def look(*keystores: Keystore) -> list[str]:
            clocks.pass_by(STEP_S)
            return [key for each in keystores for key in each.destroy_due(Deadline.after(60), clocks.read)]

        assert [look(one, other) for _ in range(60)] == [[]] * 60
        assert [leads(one), leads(other)].count(True) == 1
        now = clocks.wall
        for step in (40 * DAY_S, 0, -40 * DAY_S, 0):  # forward and back, backward and back
            clocks.wall = now + step
            if url.startswith("sqlite"):  # the database's clock is the host's
                clocks.database = clocks.wall
            assert look(one, other) == []
            now += STEP_S
        clocks.wall = clocks.database = now
        other.cancel_key_deletion(cancelled)

        readings = 0
        keystores: tuple[Keystore, ...] = (one, other)
        while not (destroyed := look(*keystores)):
            readings += 1
            assert readings <= 2 * APART_S / STEP_S
            if readings == 20:  # who leads ends, and the other one goes on
                keystores = (other,) if leads(one) else (one,)
        assert destroyed == [due]
        assert readings * STEP_S >= APART_S
        assert [look(*keystores) for _ in range(5)] == [[]] * 5

        found = {key: state(one, key) for key in (due, early, short, cancelled, unscheduled)}
        assert found == {
            due: KeyState.DESTROYED, early: KeyState.DESTROY_SCHEDULED, short: KeyState.DESTROY_SCHEDULED,
            cancelled: KeyState.SUSPENDED, unscheduled: KeyState.ACTIVE,
        }  # fmt: skip
        assert state(other, due) is KeyState.DESTROYED


def leads(keystore: Keystore) -> bool:
    """Tell whether a host leads: it remembers its last reading."""
    managed = keystore._resolver.managed
    return managed is not None and managed._auto._before is not None


def test_a_host_looks_by_itself_and_ends_doing_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_deletions, "INTERVAL_S", 0.01)
    with opened(tmp_path, f"sqlite:///{tmp_path}/catalog.db") as keystore:
        key = keystore.create_key("AES_256_GCM").key_id
        keystore.schedule_key_deletion(key, window_days=7)
        change(keystore, key, deletion=PAST)
        managed = keystore._resolver.managed
        assert managed is not None
        rows = functools.partial(managed._records.catalog.get, keystore.identity, [("auto", "destroy")])
        wait_until(lambda: any(key in row.body["seen"] for row in rows().values() if row.body), "a reading")

        assert state(keystore, key) is KeyState.DESTROY_SCHEDULED  # a day is not over
