"""Processes are replaced: by a spare when they die, by a successor when they are due. No call notices."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from kmsplug_host import Keystore, PluginState, ReplicaRole
from kmsplug_host.errors import KmsplugError
from process.test_host_crash import refusal
from support.events import heard
from support.host import LONG_S, Bad, bad_driver, begin, logged, wait_for_end, wait_until


def pids(bad: Bad, role: ReplicaRole = ReplicaRole.WORKING) -> list[int]:
    """Return the ready processes of a role."""
    return [
        replica.pid
        for replica in bad.host.plugins()[0].replicas
        if replica.role is role and replica.state is PluginState.READY and replica.pid is not None
    ]


def is_whole(bad: Bad, working: int, spares: int) -> bool:
    """Tell whether all processes are there."""
    return (len(pids(bad)), len(pids(bad, ReplicaRole.SPARE))) == (working, spares)


def is_whole_without(bad: Bad, killed: int) -> bool:
    """Tell whether two processes and a spare are there, and this one is none of them."""
    return is_whole(bad, 2, 1) and killed not in bad.pids


@contextmanager
def under_load(keystore: Keystore, callers: int = 4) -> Iterator[list[int]]:
    """Call all the while, from several threads; no call may fail. Yields the lengths of the answers."""
    stop, answers = threading.Event(), []

    def call() -> None:
        while not stop.is_set():
            answers.append(len(keystore.mac("k", b"message").mac))

    threads = [begin(call) for _ in range(callers)]
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.result(LONG_S)
    assert set(answers) == {7}


def goes_on(answers: list[int]) -> None:
    """Wait until some more calls have been answered."""
    before = len(answers)
    wait_until(lambda: len(answers) >= before + 20, "further answers")


def test_spares_are_ready_and_idle(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", processes=2, spares=2) as bad, under_load(bad.keystore) as answers:
        goes_on(answers)

        assert is_whole(bad, 2, 2)
        by_role = {role: [r.calls for r in bad.host.plugins()[0].replicas if r.role is role]
                   for role in ReplicaRole}  # fmt: skip
        assert min(by_role[ReplicaRole.WORKING]) > 0
        assert by_role[ReplicaRole.SPARE] == [0, 0]


def test_a_spare_takes_over_at_once_and_the_plugin_stays_ready(tmp_path: Path) -> None:
    """The one that is started anew waits at the gate: nobody can have waited for it."""
    with bad_driver(tmp_path, "hangs_third", spares=1) as bad, heard(bad.host) as events:
        (working,), (spare,) = pids(bad), pids(bad, ReplicaRole.SPARE)
        os.kill(working, signal.SIGKILL)

        assert len(bad.keystore.random(8)) == 8
        assert pids(bad) == [spare]
        bad.journal.wait_for("start", 3)
        assert bad.host.plugins()[0].state is PluginState.READY
        assert events.steps == []
        bad.gate.open_gate()
        wait_until(lambda: is_whole(bad, 1, 1), "a new spare")


def test_a_process_that_hangs_while_it_starts_keeps_no_other_one_from_it(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "hangs_third", processes=2) as bad:
        first, second = bad.pids
        os.kill(first, signal.SIGKILL)
        bad.journal.wait_for("start", 3)
        os.kill(second, signal.SIGKILL)

        assert len(bad.keystore.random(8)) == 8
        assert pids(bad) == [int(bad.journal.wait_for("start", 4))]
        bad.gate.open_gate()


def test_a_spare_that_dies_is_replaced_in_the_background(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", spares=1) as bad, under_load(bad.keystore) as answers:
        (working,), (spare,) = pids(bad), pids(bad, ReplicaRole.SPARE)
        os.kill(spare, signal.SIGKILL)
        wait_for_end(spare)
        wait_until(lambda: is_whole(bad, 1, 1), "a new spare")
        goes_on(answers)

        assert pids(bad) == [working]


def test_no_call_is_lost_while_working_processes_are_killed_and_spares_take_over(tmp_path: Path) -> None:
    settings = {"processes": 2, "spares": 1, "max_crashes": 100}
    with bad_driver(tmp_path, "good", **settings) as bad, under_load(bad.keystore) as answers:
        for _ in range(4):
            killed = pids(bad)[0]
            os.kill(killed, signal.SIGKILL)
            goes_on(answers)
            wait_until(partial(is_whole_without, bad, killed), "all processes")


@pytest.mark.parametrize("limit", [{"calls": 50}, {"age_s": 0.5}, {"rss_bytes": 1}])
def test_a_process_that_is_due_is_replaced_and_no_call_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, float]
) -> None:
    monkeypatch.setattr("kmsplug_host._fleet._SETTLED_S", 0.0)
    monkeypatch.setattr("kmsplug_host._fleet._SAMPLE_S", 0.1)
    with bad_driver(tmp_path, "good", recycle=limit) as bad, heard(bad.host) as events:
        first = bad.pid
        with under_load(bad.keystore) as answers:
            wait_until(lambda: pids(bad) != [first], "a successor")
            goes_on(answers)
        wait_for_end(first)

        assert bad.host.plugins()[0].replicas[0].restarts >= 1
        assert events.steps == []  # it was ready all the while
        assert bad.host.plugins()[0].last_error is None


def test_a_call_in_flight_on_a_process_that_is_replaced_ends_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmsplug_host._fleet._SAMPLE_S", 0.05)
    with bad_driver(tmp_path, "waits", recycle={"calls": 1}) as bad:
        first = bad.pid
        call = begin(lambda: bad.keystore.create_key("HMAC_SHA_256"))
        bad.journal.wait_for("key.create")
        wait_until(lambda: first in pids(bad, ReplicaRole.RETIRED) or retiring(bad) == [first], "a successor")

        assert not call.done()
        bad.gate.open_gate()
        assert call.result(LONG_S).key_id == "k"
        wait_for_end(first)


def retiring(bad: Bad) -> list[int | None]:
    """Return the processes that finish their calls."""
    return [r.pid for r in bad.host.plugins()[0].replicas if r.role is ReplicaRole.RETIRED]


def test_a_successor_that_is_refused_leaves_the_old_process_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmsplug_host._fleet._SAMPLE_S", 0.05)
    line = refusal("AUTHENTICATION_FAILED")
    plugin = ("says_later", "plugin.configure", line)
    with bad_driver(tmp_path, *plugin, recycle={"age_s": 0.2}) as bad, logged() as log:
        first = bad.pid
        log.wait_for("the driver did not start: the keystore refused")
        wait_until(lambda: "SUCCESSOR QUARANTINED" in shown(bad), "the refused one to be shown")

        assert [len(bad.keystore.random(8)) for _ in range(20)] == [8] * 20
        assert pids(bad) == [first]
        assert len(bad.journal.all("plugin.configure")) == 2  # a rejected credential is tried once


def shown(bad: Bad) -> list[str]:
    """Return roles and states as an operator sees them."""
    return [f"{replica.role} {replica.state}" for replica in bad.host.plugins()[0].replicas]


def test_closing_while_a_successor_starts_leaves_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmsplug_host._fleet._SAMPLE_S", 0.05)
    with bad_driver(tmp_path, "hangs_later", recycle={"age_s": 0.1}) as bad:
        bad.journal.wait_for("start", 2)
        bad.host.close()

        with pytest.raises(KmsplugError, match="closed"):
            bad.keystore.random(8)
