"""A driver that misses a deadline: it may be slow, but one that will never answer again is replaced."""

import asyncio
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import PluginState
from kmsplug_host._supervisor import Supervisor
from kmsplug_host._watchdog import Watchdog
from kmsplug_host.aio import AsyncHost
from kmsplug_host.config import PluginSettings
from kmsplug_host.errors import PluginCrashed, Timeout
from kmsplug_protocol import Outcome
from support.host import (
    LONG_S,
    ONE_ATTEMPT,
    Bad,
    bad_driver,
    begin,
    bench,
    logged,
    misbehaving,
    wait_for_end,
    wait_until,
)

SHORT_S = 0.2
BIG = b"x" * 500_000  # more than a pipe holds
PATIENT: dict[str, Any] = {"grace_s": 60, "overdue_s": 3600}


def miss(bad: Bad, calls: int = 1) -> None:
    """Let so many calls pass their deadlines."""
    waiting = [begin(lambda: bad.keystore.mac("k", b"message", timeout=SHORT_S)) for _ in range(calls)]
    for call in waiting:
        with pytest.raises(Timeout):
            call.result(LONG_S)


def test_a_stopped_driver_is_killed_after_a_missed_deadline_and_replaced(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", grace_s=SHORT_S) as bad, logged() as log:
        pid = bad.pid
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(Timeout):
            bad.keystore.random(8, timeout=SHORT_S)

        wait_for_end(pid)
        log.wait_for("the driver was ended: it answered neither its calls nor a ping within 0.2 s")
        assert len(bad.keystore.random(8)) == 8
        assert bad.host.plugins()[0].replicas[0].restarts == 1


def test_other_calls_of_a_driver_that_is_killed_get_the_honest_outcome(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", grace_s=SHORT_S) as bad:
        os.kill(bad.pid, signal.SIGSTOP)
        change = begin(lambda: bad.keystore.create_key("HMAC_SHA_256"))
        reading = begin(lambda: bad.keystore.mac("k", b"message"))
        wait_until(lambda: bad.sent == 2, "both requests to be sent")
        with pytest.raises(Timeout):
            bad.keystore.random(8, timeout=SHORT_S)

        with pytest.raises(PluginCrashed, match="was ended: it answered neither") as caught:
            change.result(LONG_S)
        assert caught.value.outcome is Outcome.UNKNOWN
        assert caught.value.diagnosis is not None
        assert reading.result(LONG_S).mac == b"message"  # it was repeated on the next process


def test_a_driver_that_takes_no_requests_any_more_is_killed_too(tmp_path: Path) -> None:
    """Its pipe is full: neither a call nor a ping can be written."""
    with bad_driver(tmp_path, "waits", grace_s=SHORT_S) as bad:
        pid = bad.pid
        first = begin(lambda: bad.keystore.mac("k", b"message"))
        bad.journal.wait_for("crypto.mac")
        second = begin(lambda: bad.keystore.mac("k", BIG))
        wait_until(lambda: bad.connection.in_flight == 2, "the second call to write")
        with pytest.raises(Timeout, match="does not read its requests"):
            bad.keystore.random(8, timeout=SHORT_S)

        wait_for_end(pid)
        bad.gate.open_gate(2)
        assert first.result(LONG_S).mac == b"message"
        assert second.result(LONG_S).mac == BIG


def test_a_driver_that_was_only_slow_is_left_alone(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "waits", grace_s=LONG_S, keystore=ONE_ATTEMPT) as bad:
        pid = bad.pid
        miss(bad)
        assert bad.host.plugins()[0].replicas[0].overdue == 1
        bad.gate.open_gate()

        wait_until(lambda: bad.host.plugins()[0].replicas[0].late_replies == 1, "the late answer")
        assert bad.host.plugins()[0].replicas[0].overdue == 0
        assert bad.pid == pid


def test_a_driver_that_answers_pings_and_has_room_for_other_calls_is_left_alone(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "hangs", "3", grace_s=1, overdue_s=0.0, keystore=ONE_ATTEMPT) as bad:
        pid = bad.pid
        miss(bad, 2)
        answers = bad.connection.answers
        wait_until(lambda: bad.connection.answers >= answers + 2, "some pings to be answered")

        assert bad.pid == pid
        assert bad.host.plugins()[0].state is PluginState.READY
        assert bad.host.plugins()[0].replicas[0].overdue == 2


def test_a_driver_whose_lost_calls_fill_all_it_can_work_on_is_replaced_though_it_answers_pings(
    tmp_path: Path,
) -> None:
    with (
        bad_driver(tmp_path, "hangs", "3", grace_s=2, overdue_s=0.1, keystore=ONE_ATTEMPT) as bad,
        logged() as log,
    ):
        pid = bad.pid
        miss(bad, 3)

        wait_for_end(pid)
        log.wait_for("the driver was ended: 3 calls are overdue by 0.1 s, which is all it works on")
        assert len(bad.keystore.random(8)) == 8


def test_a_driver_that_hangs_again_and_again_is_never_quarantined(tmp_path: Path) -> None:
    """A provider that does not answer looks the same, and comes back."""
    with bad_driver(
        tmp_path, "never_answers", grace_s=0.05, overdue_s=0.0, max_crashes=0, keystore=ONE_ATTEMPT
    ) as bad:
        for starts in (2, 3, 4):
            miss(bad)
            bad.journal.wait_for("plugin.configure", starts)

        assert len(bad.keystore.random(8)) == 8
        assert bad.host.plugins()[0].replicas[0].restarts == 3


def test_a_driver_that_ignores_sigterm_is_killed_and_other_processes_answer_meanwhile(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "stubborn_and_silent", processes=2, grace_s=0.1, overdue_s=0.0) as bad:
        pids = bad.pids
        miss(bad)
        wait_until(lambda: bad.host.plugins()[0].state is PluginState.DEGRADED, "one process to be given up")

        assert [len(bad.keystore.random(8)) for _ in range(20)] == [8] * 20
        (ended,) = set(pids) - {
            replica.pid for replica in bad.host.plugins()[0].replicas if replica.state is PluginState.READY
        }
        wait_for_end(ended)
        wait_until(lambda: bad.host.plugins()[0].state is PluginState.READY, "the next process")


def test_calls_that_a_task_cancels_count_once_their_own_deadline_has_passed(tmp_path: Path) -> None:
    settings = {"plugins": {"bad": misbehaving(tmp_path, "good", grace_s=SHORT_S)}}

    async def use() -> None:
        async with await AsyncHost.open(settings) as host:
            pid = host.plugins()[0].replicas[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(host.keystore("bad").random(8, timeout=1.0), 0.1)
            assert len(await host.keystore("bad").random(8, timeout=LONG_S)) == 8

    with bench(tmp_path):
        asyncio.run(use())


def test_an_answer_in_the_last_moment_is_never_counted_as_lost(tmp_path: Path) -> None:
    """Deadlines of about the time that an answer takes: whatever wins, nothing is owed in the end."""
    with bad_driver(tmp_path, "good", **PATIENT) as bad:
        ended: dict[bool, int] = {True: 0, False: 0}
        for number in range(600):
            try:
                bad.keystore.random(8, timeout=0.00005 * (number % 12))
            except Timeout:
                ended[False] += 1
            else:
                ended[True] += 1
        bad.keystore.random(8)  # answered after all the others: the driver keeps their order

        assert bad.connection.overdue == {}
        assert bad.connection.in_flight == 0


def test_a_host_that_was_itself_stopped_kills_nobody(tmp_path: Path) -> None:
    """Deadlines pass while it sleeps, but the time for a sign of life begins with the question."""
    watched = _Watched()
    watched.overdue = {1: time.monotonic() - 1000}
    judged = threading.Event()
    supervisor = Supervisor()
    given_up: list[str] = []
    watched.on_ping = judged.set
    settings = PluginSettings(driver="x", grace_s=0.2, overdue_s=3600)
    watchdog = Watchdog(watched, supervisor, settings, 1, given_up.append)
    watchdog.missed(False)
    assert judged.wait(LONG_S)
    watched.answers += 1
    watched.overdue.clear()
    supervisor.submit(partial(judged.clear), 0.5)
    wait_until(lambda: not judged.is_set(), "the verdict")
    supervisor.close()

    assert given_up == []
    assert watched.pings == 1


def test_a_ping_that_cannot_be_written_is_tried_again_before_the_driver_is_blamed() -> None:
    """Another caller may be writing just then."""
    watched = _Watched()
    watched.overdue = {1: time.monotonic()}
    watched.busy = 3
    supervisor = Supervisor()
    given_up: list[str] = []

    def answer() -> None:
        if watched.pings > watched.busy:
            watched.answers += 1
            watched.overdue.clear()

    watched.on_ping = answer
    settings = PluginSettings(driver="x", grace_s=1, overdue_s=3600)
    Watchdog(watched, supervisor, settings, 1, given_up.append).missed(False)
    wait_until(lambda: not watched.overdue, "a ping that was written")
    done = threading.Event()
    supervisor.submit(done.set, 1.5)
    assert done.wait(LONG_S)
    supervisor.close()

    assert given_up == []


class _Watched:
    """A connection that answers when the test says so."""

    def __init__(self) -> None:
        self.answers = 0
        self.overdue: dict[int, float] = {}
        self.ended = False
        self.pings = 0
        self.busy = 0
        self.on_ping: Any = lambda: None

    def ping(self) -> bool:
        """Note it."""
        self.pings += 1
        self.on_ping()
        return self.pings > self.busy
