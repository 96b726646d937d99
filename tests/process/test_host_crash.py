"""Drivers that die: what becomes of the calls in flight, and when the next process comes."""

import json
import os
import signal
import threading
from functools import partial
from pathlib import Path

import pytest
from kmsplug_host import Host, PluginState
from kmsplug_host.errors import (
    AuthenticationFailed,
    ConfigurationError,
    KmsplugError,
    PluginCrashed,
    PluginUnavailable,
    ProtocolViolation,
)
from kmsplug_protocol import Outcome
from support.host import (
    LONG_S,
    Bad,
    bad_driver,
    begin,
    bench,
    logged,
    misbehaving,
    wait_for_end,
    wait_until,
)


def refusal(code: str) -> str:
    """Return the line with which a driver refuses its settings."""
    error = {"code": -32000, "message": "no such user", "data": {"code": code, "vendor": {"code": "E42"}}}
    return json.dumps({"jsonrpc": "2.0", "id": "$ID", "error": error}).replace('"$ID"', "$ID")


def states(bad: Bad) -> list[str]:
    """Return the states of all processes, sorted."""
    return sorted(replica.state.value for replica in bad.host.plugins()[0].replicas)


def is_replaced(bad: Bad, pid: int) -> bool:
    """Tell whether all processes are there, and this one is none of them."""
    return pid not in bad.pids and set(states(bad)) == {"READY"}


def kill(bad: Bad, replica: int = 0) -> int:
    """Kill a process of a driver, and return its id."""
    pid = bad.pids[replica]
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_repeatable_call_whose_driver_is_killed_is_answered_by_the_next_process(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "dies") as bad:
        first = bad.pid
        assert bad.keystore.mac("k", b"message").mac == b"message"

        assert bad.pid != first
        assert len(bad.journal.all("crypto.mac")) == 2
        assert bad.host.plugins()[0].replicas[0].restarts == 1


def test_a_call_that_kills_three_processes_fails_with_all_attempts(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "dies", "3") as bad:
        with pytest.raises(PluginCrashed) as caught:
            bad.keystore.mac("k", b"message")

        assert [attempt.code for attempt in caught.value.attempts] == ["PLUGIN_CRASHED"] * 2
        assert caught.value.attempts[0].elapsed_s > 0
        assert caught.value.outcome is Outcome.NOT_APPLIED
        assert len(bad.journal.all("crypto.mac")) == 3
        assert bad.keystore.mac("k", b"message").mac == b"message"


def test_a_change_whose_driver_is_killed_is_not_repeated_and_its_outcome_is_unknown(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "dies") as bad:
        with pytest.raises(PluginCrashed, match="SIGKILL") as caught:
            bad.keystore.create_key("HMAC_SHA_256", name="once")

        error = caught.value
        assert error.outcome is Outcome.UNKNOWN
        assert error.retry == "reconnect"
        assert error.attempts == ()
        assert error.diagnosis is not None
        assert error.diagnosis.exit == "SIGKILL"
        assert len(bad.keystore.random(8)) == 8
        assert len(bad.journal.all("start")) == 2
        assert len(bad.journal.all("key.create")) == 1


def test_a_call_to_a_driver_that_was_killed_before_is_not_lost(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad:
        for index in range(4):
            wait_for_end(kill(bad))
            key = bad.keystore.create_key(
                "HMAC_SHA_256", name=f"n{index}"
            )  # could not be sent: may be repeated
            assert key.name == f"n{index}"
            assert len(bad.journal.all("key.create")) == index + 1


def test_an_attempt_that_did_nothing_does_not_speak_for_the_one_before(tmp_path: Path) -> None:
    """The first process may have disabled the key, the second one never came."""
    line = refusal("AUTHENTICATION_FAILED")
    with bad_driver(tmp_path, "says_later", "plugin.configure", line) as bad:
        pid = bad.pid
        os.kill(pid, signal.SIGSTOP)
        change = begin(lambda: bad.keystore.disable_key("k"))
        wait_until(lambda: bad.sent == 1, "the request to be sent")
        os.kill(pid, signal.SIGKILL)

        with pytest.raises(PluginUnavailable) as caught:
            change.result(LONG_S)
        assert caught.value.outcome is Outcome.UNKNOWN
        assert [attempt.code for attempt in caught.value.attempts] == ["PLUGIN_CRASHED"]


def test_the_end_of_a_driver_is_logged_and_stands_in_its_status(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad, logged() as log:
        pid = kill(bad)
        log.wait_for("the driver process ended: SIGKILL; it is started again")
        wait_until(lambda: bad.host.plugins()[0].state is PluginState.READY, "the next process")

        status = bad.host.plugins()[0]
        assert status.last_error == "the driver process ended: SIGKILL"
        assert status.replicas[0].pid not in (None, pid)
        assert status.replicas[0].usage is not None


def test_a_driver_that_dies_right_after_its_start_does_not_open(tmp_path: Path) -> None:
    with bench(tmp_path):
        settings = {"plugins": {"bad": misbehaving(tmp_path, "dies_after_configure")}}

        def use() -> None:
            with Host.open(settings) as host:  # it may seem ready for a moment
                host.keystore("bad").random(8)

        with pytest.raises(PluginCrashed, match="exit status 9"):
            use()


def test_a_driver_that_dies_again_and_again_waits_longer_and_longer(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad:
        for starts in range(2, 6):
            kill(bad)
            bad.journal.wait_for("plugin.configure", starts)
            wait_until(lambda: bad.host.plugins()[0].state is PluginState.READY, "the next process")
        kill(bad)
        wait_until(lambda: bad.host.plugins()[0].state is PluginState.BACKOFF, "a wait")

        with pytest.raises(PluginUnavailable) as caught:
            bad.keystore.random(8, timeout=0.01)
        assert isinstance(caught.value.__cause__, PluginCrashed)
        assert caught.value.diagnosis is not None
        assert caught.value.diagnosis.exit == "SIGKILL"
        assert caught.value.hint is not None
        assert "SIGKILL" in caught.value.hint
        assert len(bad.keystore.random(8)) == 8


@pytest.mark.parametrize(
    ("code", "kind"),
    [("AUTHENTICATION_FAILED", AuthenticationFailed), ("CONFIGURATION_ERROR", ConfigurationError)],
)
def test_a_refused_login_at_a_restart_is_final_and_fails_fast_with_its_cause(
    tmp_path: Path, code: str, kind: type[KmsplugError]
) -> None:
    with bad_driver(tmp_path, "says_later", "plugin.configure", refusal(code)) as bad:
        wait_for_end(kill(bad))
        wait_until(lambda: bad.host.plugins()[0].state is PluginState.QUARANTINED, "quarantine")

        with pytest.raises(PluginUnavailable, match="refuses to work") as caught:
            bad.keystore.random(8)
        cause = caught.value.__cause__
        assert isinstance(cause, kind)
        assert cause.vendor is not None
        assert cause.vendor.code == "E42"
        assert caught.value.hint is not None
        assert str(cause) in caught.value.hint
        assert len(bad.journal.all("plugin.configure")) == 2


def test_a_wrong_pin_is_tried_once_however_many_processes_there_are(tmp_path: Path) -> None:
    """Three wrong PINs lock an HSM."""
    plugin = misbehaving(tmp_path, "says", "plugin.configure", refusal("AUTHENTICATION_FAILED"), processes=4)
    with bench(tmp_path) as (journal, _):
        with pytest.raises(AuthenticationFailed):
            Host.open({"plugins": {"bad": plugin}})
        assert len(journal.all("plugin.configure")) == 1


def test_processes_that_are_restarted_together_try_a_refused_login_once(tmp_path: Path) -> None:
    line = refusal("AUTHENTICATION_FAILED")
    with bad_driver(tmp_path, "says_later", "plugin.configure", line, "3", processes=3) as bad:
        for pid in bad.pids:  # as they were: who is dead has none
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: bad.host.plugins()[0].state is PluginState.QUARANTINED, "quarantine")

        assert len(bad.journal.all("plugin.configure")) == 3 + 1


def test_a_driver_that_comes_back_as_another_keystore_is_refused(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "changes_identity") as bad:
        kill(bad)
        bad.journal.wait_for("plugin.configure", 3)

        with pytest.raises(PluginUnavailable) as caught:
            bad.keystore.random(8, timeout=0.2)
        assert isinstance(caught.value.__cause__, ProtocolViolation)
        assert "identity of another keystore" in str(caught.value.__cause__)


def test_processes_of_one_plugin_must_be_one_keystore(tmp_path: Path) -> None:
    with bench(tmp_path), pytest.raises(ProtocolViolation, match="identity of another keystore"):
        Host.open({"plugins": {"bad": misbehaving(tmp_path, "changes_identity", processes=2)}})


def test_of_three_processes_one_may_die_without_a_call_being_lost(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", processes=3) as bad:
        pids = set(bad.pids)
        assert len(pids) == 3
        stop, answers = threading.Event(), []

        def call() -> None:
            while not stop.is_set():
                answers.append(len(bad.keystore.random(8)))

        callers = [begin(call) for _ in range(3)]
        for _ in range(3):
            killed = kill(bad)
            wait_until(partial(is_replaced, bad, killed), "a new process")
        stop.set()

        for caller in callers:
            caller.result(LONG_S)
        assert set(answers) == {8}


def test_a_plugin_is_degraded_while_some_of_its_processes_are_missing(tmp_path: Path) -> None:
    line = refusal("AUTHENTICATION_FAILED")
    with bad_driver(tmp_path, "says_later", "plugin.configure", line, "3", processes=3) as bad:
        assert bad.host.plugins()[0].state is PluginState.READY
        kill(bad, replica=1)
        wait_until(lambda: len(bad.pids) == 2, "the loss to be noticed")

        wait_until(lambda: bad.host.plugins()[0].state is PluginState.DEGRADED, "the refusal")
        assert [len(bad.keystore.random(8)) for _ in range(20)] == [8] * 20
        wait_until(lambda: states(bad) == ["QUARANTINED", "READY", "READY"], "quarantine")
        assert bad.host.plugins()[0].state is PluginState.DEGRADED


def test_a_driver_that_closes_its_stdout_and_lives_on_is_killed_and_reported(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "closes_stdout") as bad:
        pid = bad.pid
        with pytest.raises(ProtocolViolation, match="closed its stdout") as caught:
            bad.keystore.create_key("HMAC_SHA_256")

        assert caught.value.outcome is Outcome.UNKNOWN
        assert caught.value.diagnosis is not None
        wait_for_end(pid)
        assert len(bad.keystore.random(8)) == 8


def test_a_driver_that_closes_its_stdin_and_lives_on_is_replaced_and_no_call_is_lost(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "closes_stdin") as bad:
        pid = bad.pid
        lost = begin(lambda: bad.keystore.create_key("HMAC_SHA_256"))
        bad.journal.wait_for("closed")

        assert len(bad.keystore.random(8)) == 8
        with pytest.raises(ProtocolViolation, match="closed its stdin"):
            lost.result(LONG_S)
        wait_for_end(pid)


def test_a_child_of_a_driver_that_holds_its_pipes_open_does_not_hide_its_end(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "hands_down") as bad:
        with pytest.raises(PluginCrashed, match="SIGKILL"):
            bad.keystore.create_key("HMAC_SHA_256")

        assert len(bad.keystore.random(8)) == 8
        bad.journal.wait_for("grandchild")


def test_the_end_of_a_process_is_seen_where_no_descriptor_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS."""
    monkeypatch.delattr(os, "pidfd_open")
    with bad_driver(tmp_path, "hands_down") as bad:
        with pytest.raises(PluginCrashed, match="SIGKILL"):
            bad.keystore.create_key("HMAC_SHA_256")

        assert len(bad.keystore.random(8)) == 8


def test_a_host_that_can_start_no_thread_for_a_while_recovers(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad, logged() as log:
        size = threading.stack_size(2**46)  # more than there is: no thread can be started
        try:
            kill(bad)
            log.wait_for("the driver cannot be run: can't start new thread")
        finally:
            threading.stack_size(size)

        assert len(bad.keystore.random(8)) == 8


def test_an_application_that_reaps_all_children_itself_does_no_harm(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad:
        before = signal.signal(
            signal.SIGCHLD, signal.SIG_IGN
        )  # the system reaps them, nobody learns their status
        try:
            kill(bad)
            assert len(bad.keystore.random(8)) == 8
        finally:
            signal.signal(signal.SIGCHLD, before)
