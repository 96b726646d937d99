"""Crash loops end in quarantine, with a diagnosis; a release ends that. Events tell of all of it."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from kmsplug_host import Host, PluginEvent, PluginState
from kmsplug_host.errors import ConfigurationError, PluginCrashed, PluginUnavailable
from process.test_host_crash import refusal
from support.cli import Cli
from support.events import heard
from support.host import LONG_S, Bad, bad_driver, bench, logged, misbehaving, wait_for_end, wait_until


def is_in(bad: Bad, state: str) -> bool:
    """Tell whether the plugin is in a state."""
    return bad.host.plugins()[0].state is PluginState(state)


def crash_until_quarantine(bad: Bad, times: int) -> None:
    """Kill the only process whenever it is ready, so many times."""
    for number in range(1, times + 1):
        bad.journal.wait_for("plugin.configure", number)
        wait_until(lambda: is_in(bad, "READY"), "a ready process")
        os.kill(bad.pid, signal.SIGKILL)
    wait_until(lambda: is_in(bad, "QUARANTINED"), "quarantine")


def test_a_driver_that_crashes_too_often_is_quarantined_and_calls_fail_fast_with_a_diagnosis(
    tmp_path: Path,
) -> None:
    with bad_driver(tmp_path, "good", max_crashes=2) as bad:
        crash_until_quarantine(bad, 3)
        began = time.monotonic()
        with pytest.raises(PluginUnavailable, match="crashed more than 2 times within 60 s") as caught:
            bad.keystore.random(8)

        assert time.monotonic() - began < LONG_S / 2
        assert isinstance(caught.value.__cause__, PluginCrashed)
        assert caught.value.diagnosis is not None
        assert caught.value.diagnosis.exit == "SIGKILL"
        assert "-rwx" in caught.value.diagnosis.executable
        assert "host.release('bad')" in (caught.value.hint or "")
        status = bad.host.plugins()[0]
        assert status.diagnosis == caught.value.diagnosis
        assert status.last_error == "the driver process ended: SIGKILL"
        assert len(bad.journal.all("start")) == 3


def test_the_last_words_of_a_driver_stand_in_the_diagnosis(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "dies_later", "license server not found", max_crashes=0) as bad:
        os.kill(bad.pid, signal.SIGKILL)
        wait_until(lambda: is_in(bad, "QUARANTINED"), "quarantine")
        bad.host.release("bad")
        wait_until(lambda: len(bad.journal.all("start")) == 2 and is_in(bad, "QUARANTINED"), "the next one")

        diagnosis = bad.host.plugins()[0].diagnosis
        assert diagnosis is not None
        assert diagnosis.exit == "exit status 4"
        assert diagnosis.stderr == ("license server not found",)


def test_a_released_driver_starts_again_and_its_crashes_are_forgotten(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", max_crashes=1) as bad:
        crash_until_quarantine(bad, 2)
        bad.host.release("bad")

        assert len(bad.keystore.random(8)) == 8
        os.kill(bad.pid, signal.SIGKILL)
        assert len(bad.keystore.random(8)) == 8


def test_a_release_of_what_works_changes_nothing_and_of_what_is_unknown_is_refused(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad:
        pid = bad.pid
        bad.host.release("bad")
        with pytest.raises(ConfigurationError, match="no plugin 'other', there are: bad"):
            bad.host.release("other")

        assert len(bad.keystore.random(8)) == 8
        assert bad.pid == pid


def test_an_operator_releases_a_plugin_of_a_running_application_by_command(tmp_path: Path) -> None:
    table = misbehaving(tmp_path, "good", max_crashes=0)
    cli = Cli.new(tmp_path, "[plugins.bad]\n" + "".join(f"{k} = {v!r}\n" for k, v in table.items()))
    with bench(tmp_path) as (journal, gate), Host.open(tmp_path / "plugins.toml") as host:
        bad = Bad(host, journal, gate)
        for starts in (2, 3):
            os.kill(bad.pid, signal.SIGKILL)
            wait_until(lambda: is_in(bad, "QUARANTINED"), "quarantine")
            touched = cli.json("plugin", "release", "bad")["touched"]
            journal.wait_for("plugin.configure", starts)
            wait_until(lambda: is_in(bad, "READY"), "the next process")

        assert touched == str(tmp_path / "plugins.toml.release-bad")
        os.kill(bad.pid, signal.SIGKILL)  # what was touched before does not release what is caught later
        wait_until(lambda: is_in(bad, "QUARANTINED"), "quarantine")
        host.close()
        assert len(journal.all("start")) == 3


def test_the_command_refuses_to_release_what_the_configuration_does_not_name(tmp_path: Path) -> None:
    cli = Cli.new(tmp_path)

    assert "no plugin 'other', there are: local" in cli.error("plugin", "release", "other", code=2)["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plugins.toml"]


def test_one_process_in_quarantine_leaves_the_others_working(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", processes=2, max_crashes=0) as bad:
        os.kill(bad.pids[0], signal.SIGKILL)
        wait_until(lambda: is_in(bad, "DEGRADED"), "the loss to be noticed")

        assert [len(bad.keystore.random(8)) for _ in range(20)] == [8] * 20
        assert sorted(replica.state for replica in bad.host.plugins()[0].replicas) == ["QUARANTINED", "READY"]
        bad.host.release("bad")
        wait_until(lambda: is_in(bad, "READY"), "both")


def test_a_rejected_credential_is_tried_once_more_after_a_release_and_no_spare_tries_it(
    tmp_path: Path,
) -> None:
    """Three wrong PINs lock an HSM."""
    line = refusal("AUTHENTICATION_FAILED")
    plugin = ("says_later", "plugin.configure", line, "4")
    with bad_driver(tmp_path, *plugin, processes=2, spares=2) as bad, logged() as log:
        for pid in bad.pids:
            os.kill(pid, signal.SIGKILL)
        refused = "the driver did not start: the keystore refused the plugin's credential"
        wait_until(lambda: log.messages.count(refused) == 4, "all to be refused")
        assert len(bad.journal.all("plugin.configure")) == 4 + 1

        bad.host.release("bad")
        wait_until(lambda: log.messages.count(refused) == 8, "all to be refused again")
        assert is_in(bad, "QUARANTINED")
        assert len(bad.journal.all("plugin.configure")) == 4 + 1 + 1


def test_events_tell_each_change_of_state_with_its_reason(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", max_crashes=1) as bad, heard(bad.host) as events:
        crash_until_quarantine(bad, 2)
        event = events.wait_for("READY -> QUARANTINED")
        bad.host.close()

        assert event.plugin == "bad"
        assert "crashed more than 1 times within 60 s" in event.reason
        assert "SIGKILL" in event.reason
        assert event.when.tzinfo is not None
        assert events.steps == [
            "READY -> BACKOFF", "BACKOFF -> STARTING", "STARTING -> READY", "READY -> QUARANTINED",
            "QUARANTINED -> DRAINING", "DRAINING -> STOPPED",
        ]  # fmt: skip


def test_a_callback_that_raises_or_blocks_harms_nobody(tmp_path: Path) -> None:
    def refuse(_event: PluginEvent) -> None:
        raise SystemExit

    release, blocked = threading.Event(), threading.Event()

    def block(_event: PluginEvent) -> None:
        blocked.set()
        release.wait(LONG_S)

    with bad_driver(tmp_path, "good") as bad, logged() as log, heard(bad.host) as events:
        bad.host.subscribe(refuse)
        os.kill(bad.pid, signal.SIGKILL)
        log.wait_for("a callback for plugin events failed")
        events.wait_for("STARTING -> READY")
        bad.host.subscribe(block)
        os.kill(bad.pid, signal.SIGKILL)
        assert blocked.wait(LONG_S)

        assert len(bad.keystore.random(8)) == 8
        began = time.monotonic()
        bad.host.close()
        assert time.monotonic() - began < LONG_S / 2
        release.set()


def test_events_that_nobody_takes_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmsplug_host._events._MAX_WAITING", 1)
    gate, blocked, seen = threading.Semaphore(0), threading.Semaphore(0), []

    def slow(event: PluginEvent) -> None:
        blocked.release()
        gate.acquire(timeout=LONG_S)
        seen.append(event)

    with bad_driver(tmp_path, "good") as bad:
        bad.host.subscribe(slow)
        for starts in (2, 3):
            wait_for_end_of_ready(bad)
            bad.journal.wait_for("plugin.configure", starts)
            wait_until(lambda: is_in(bad, "READY"), "the next process")
        assert blocked.acquire(timeout=LONG_S)  # one is taken, one is kept, the four others are lost
        gate.release(2)
        wait_until(lambda: len(seen) == 2, "what was kept")
        wait_for_end_of_ready(bad)
        gate.release(100)
        wait_until(lambda: len(seen) > 2, "later events")

        assert (seen[0].dropped, seen[2].dropped) == (0, 4)


def wait_for_end_of_ready(bad: Bad) -> None:
    """Kill the only process and wait until it is gone."""
    pid = bad.pid
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)


def test_an_unsubscribed_callback_hears_nothing_more(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad, heard(bad.host) as events:
        with heard(bad.host) as others:
            pass
        os.kill(bad.pid, signal.SIGKILL)
        events.wait_for("STARTING -> READY")

        assert others.events == []


def test_a_failing_deep_check_degrades_a_plugin_until_one_passes(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "ill_at_first") as bad, heard(bad.host) as events:
        assert not bad.host.health("bad", deep=True).healthy
        assert is_in(bad, "DEGRADED")
        assert "the deep check failed: self" in events.wait_for("READY -> DEGRADED").reason
        assert len(bad.keystore.random(8)) == 8

        assert bad.host.health("bad", deep=True).healthy
        assert is_in(bad, "READY")


def test_deep_checks_are_made_by_themselves_where_they_are_asked_for(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "ill_at_first", deep_check_s=1) as bad, heard(bad.host) as events:
        events.wait_for("READY -> DEGRADED")
        events.wait_for("DEGRADED -> READY")


def test_two_plugins_do_not_share_their_crashes(tmp_path: Path) -> None:
    plugins = {name: misbehaving(tmp_path, "good", max_crashes=0) for name in ("one", "two")}
    with bench(tmp_path), Host.open({"plugins": plugins}) as host:
        pid = host.plugins()[0].replicas[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: host.plugins()[0].state is PluginState.QUARANTINED, "quarantine")

        assert host.plugins()[1].state is PluginState.READY
        assert len(host.keystore("two").random(8)) == 8
