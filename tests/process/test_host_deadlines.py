"""Every call ends: by its answer, or when its deadline passes, whatever the driver does meanwhile."""

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host.errors import InvalidArgument, ProtocolViolation, Timeout
from kmsplug_protocol import Outcome
from support.host import LONG_S, ONE_ATTEMPT, bad_driver, begin, wait_until

SHORT_S = 0.3
BIG = b"x" * 500_000  # more than a pipe holds


def test_a_driver_that_never_answers_costs_a_call_its_deadline_and_hears_of_it(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "never_answers") as bad:
        began = time.monotonic()
        with pytest.raises(Timeout, match=r"no answer to crypto\.mac") as caught:
            bad.keystore.mac("k", b"message", timeout=SHORT_S)

        assert SHORT_S <= time.monotonic() - began < SHORT_S + 5
        assert caught.value.outcome is Outcome.NOT_APPLIED  # a mac changes nothing
        assert bad.journal.wait_for("plugin.cancel") == bad.journal.wait_for("crypto.mac")
        assert len(bad.keystore.random(8)) == 8
        assert bad.connection.in_flight == 0


def test_a_change_that_was_not_answered_in_time_has_an_unknown_outcome(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "never_answers") as bad:
        with pytest.raises(Timeout) as caught:
            bad.keystore.create_key("HMAC_SHA_256", timeout=SHORT_S)

        assert caught.value.outcome is Outcome.UNKNOWN
        assert caught.value.retry == "reconcile"
        assert caught.value.attempts == ()
        assert len(bad.journal.all("key.create")) == 1


def test_an_answer_after_the_deadline_is_dropped_and_counted(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "answers_late", keystore=ONE_ATTEMPT) as bad:

        def is_late(count: int) -> bool:
            return bad.connection.late_replies == count

        for late in range(1, 4):
            with pytest.raises(Timeout):
                bad.keystore.mac("k", b"old", timeout=0.1)
            assert len(bad.keystore.random(8)) == 8
            wait_until(partial(is_late, late), "the late answer")


def test_the_deadline_of_the_plugin_holds_where_the_caller_says_nothing(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "never_answers", deadline_s=SHORT_S) as bad, pytest.raises(Timeout):
        bad.keystore.mac("k", b"message")


@pytest.mark.parametrize("timeout", [0, -1, 0.0, -1e300])
def test_a_call_without_time_is_not_sent(tmp_path: Path, timeout: float) -> None:
    with bad_driver(tmp_path, "good") as bad:
        with pytest.raises(Timeout) as caught:
            bad.keystore.create_key("HMAC_SHA_256", timeout=timeout)

        assert caught.value.outcome is Outcome.NOT_APPLIED
        assert len(bad.keystore.random(8)) == 8
        assert bad.journal.all("key.create") == []


@pytest.mark.parametrize("timeout", [float("inf"), float("nan"), 1e300, 100_000, "5", b"5", [1]])
def test_a_timeout_that_nobody_can_wait_for_is_refused(tmp_path: Path, timeout: Any) -> None:
    with bad_driver(tmp_path, "good") as bad:
        with pytest.raises(InvalidArgument, match="timeout must be at most 86400 seconds"):
            bad.keystore.random(8, timeout=timeout)
        with pytest.raises(InvalidArgument, match="timeout must be"):
            bad.host.health("bad", timeout=timeout)
        assert len(bad.keystore.random(8, timeout=86_400)) == 8


def test_a_driver_that_stops_reading_costs_each_call_its_deadline_and_no_more(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "waits", deadline_s=SHORT_S, keystore=ONE_ATTEMPT) as bad:
        with pytest.raises(Timeout):
            bad.keystore.mac("k", b"message")  # from here on it reads nothing
        began = time.monotonic()
        calls = [begin(lambda: bad.keystore.random(1)) for _ in range(40)]
        for call in calls:
            with pytest.raises(Timeout) as caught:
                call.result(LONG_S)
            assert caught.value.outcome is Outcome.NOT_APPLIED

        assert time.monotonic() - began < SHORT_S + 5
        bad.gate.open_gate()
        assert len(bad.keystore.random(8, timeout=LONG_S)) == 8


def test_a_request_that_was_half_written_at_its_deadline_ends_the_session(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "waits", keystore=ONE_ATTEMPT) as bad:
        pid = bad.pid
        stuck = begin(lambda: bad.keystore.create_key("HMAC_SHA_256"))
        bad.journal.wait_for("key.create")
        with pytest.raises(Timeout, match="does not read its requests") as caught:
            bad.keystore.mac("k", BIG, timeout=SHORT_S)

        assert caught.value.outcome is Outcome.NOT_APPLIED
        with pytest.raises(ProtocolViolation, match="in the middle of a request") as violation:
            stuck.result(LONG_S)
        assert violation.value.outcome is Outcome.UNKNOWN
        assert len(bad.keystore.random(8)) == 8
        assert bad.pid != pid


def test_a_call_behind_a_request_that_cannot_be_written_keeps_its_own_deadline(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "waits") as bad:
        first = begin(lambda: bad.keystore.mac("k", b"message"))
        bad.journal.wait_for("crypto.mac")
        second = begin(lambda: bad.keystore.mac("k", BIG))
        wait_until(lambda: bad.connection.in_flight == 2, "the second call to write")
        began = time.monotonic()
        with pytest.raises(Timeout, match="does not read its requests"):
            bad.keystore.random(8, timeout=SHORT_S)

        assert time.monotonic() - began < SHORT_S + 5
        bad.gate.open_gate(2)
        assert first.result(LONG_S).mac == b"message"
        assert second.result(LONG_S).mac == BIG


def test_a_stopped_driver_is_waited_for_until_the_deadline_and_can_go_on(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", keystore=ONE_ATTEMPT) as bad:
        os.kill(bad.pid, signal.SIGSTOP)
        with pytest.raises(Timeout):
            bad.keystore.random(8, timeout=SHORT_S)
        os.kill(bad.pid, signal.SIGCONT)

        assert len(bad.keystore.random(8)) == 8
        wait_until(lambda: bad.connection.late_replies == 1, "the late answer")


def test_while_no_process_is_ready_a_call_waits_no_longer_than_its_deadline(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "hangs_later") as bad:
        os.kill(bad.pid, signal.SIGKILL)
        bad.journal.wait_for("start", 2)
        began = time.monotonic()
        with pytest.raises(Exception, match="no driver process became ready") as caught:
            bad.keystore.random(8, timeout=SHORT_S)

        assert time.monotonic() - began < SHORT_S + 5
        assert caught.type.__name__ == "PluginUnavailable"
        bad.gate.open_gate()
        assert len(bad.keystore.random(8)) == 8
