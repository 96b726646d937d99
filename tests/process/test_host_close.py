"""Closing: nothing stays behind, which `bench` looks after, and it takes bounded time."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from kmsplug_host import Host, PluginState
from kmsplug_host.errors import (
    ConfigurationError,
    InvalidArgument,
    PluginCrashed,
    PluginUnavailable,
    RateLimitExceeded,
)
from support.host import (
    DRIVERS,
    LONG_S,
    bad_driver,
    begin,
    bench,
    logged,
    misbehaving,
    wait_until,
)

MOST_S = 7.0
"""4 s to end by itself, 1.5 s after SIGTERM, and a little for a busy machine."""


def test_a_good_driver_is_closed_at_once_and_again_without_harm(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", processes=2) as bad:
        pids = bad.pids
        began = time.monotonic()
        bad.host.close()
        assert time.monotonic() - began < 3
        assert not any(psutil.pid_exists(pid) for pid in pids)

        bad.host.close()
        status = bad.host.plugins()[0]
        assert status.state is PluginState.STOPPED
        assert [(replica.pid, replica.usage) for replica in status.replicas] == [(None, None)] * 2


def test_drivers_that_ignore_everything_are_killed_in_bounded_time(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "stubborn", processes=3) as bad, logged() as log:
        pids = bad.pids
        began = time.monotonic()
        bad.host.close()

        assert time.monotonic() - began < MOST_S
        assert not any(psutil.pid_exists(pid) for pid in pids)
        for pid in pids:  # never silently
            assert f"process {pid} goes on after its stdin was closed: SIGTERM" in log.messages
            assert f"process {pid} ignores SIGTERM: SIGKILL" in log.messages


def test_calls_in_flight_are_waited_for(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "waits") as bad:
        call = begin(lambda: bad.keystore.mac("k", b"message"))
        bad.journal.wait_for("crypto.mac")
        closing = begin(bad.host.close)
        wait_until(lambda: bad.host.plugins()[0].state is PluginState.DRAINING, "the closing to begin")
        with pytest.raises(PluginUnavailable, match="closed"):
            bad.keystore.random(8)
        assert not closing.done()

        bad.gate.open_gate()
        assert call.result(LONG_S).mac == b"message"
        closing.result(LONG_S)


def test_calls_in_flight_that_do_not_end_are_ended(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "waits") as bad:
        call = begin(lambda: bad.keystore.create_key("HMAC_SHA_256"))
        bad.journal.wait_for("key.create")
        began = time.monotonic()
        bad.host.close()

        assert time.monotonic() - began < MOST_S
        with pytest.raises(PluginCrashed, match="SIGTERM"):
            call.result(LONG_S)


def test_a_call_that_waits_for_a_process_is_told_of_the_end(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "hangs_later") as bad:
        os.kill(bad.pid, signal.SIGKILL)
        bad.journal.wait_for("start", 2)
        call = begin(lambda: bad.keystore.random(8))
        closing = begin(bad.host.close)

        with pytest.raises(PluginUnavailable, match="closed"):
            call.result(LONG_S)
        bad.gate.open_gate()
        closing.result(LONG_S)


def test_a_call_that_waits_for_its_next_attempt_is_told_of_the_end(tmp_path: Path) -> None:
    data = {"code": "RATE_LIMIT_EXCEEDED", "retry_after_ms": 60_000}
    error = {"code": -32000, "message": "slow down", "data": data}
    line = json.dumps({"jsonrpc": "2.0", "id": "$ID", "error": error}).replace('"$ID"', "$ID")
    with bad_driver(tmp_path, "says", "crypto.mac", line) as bad:
        call = begin(lambda: bad.keystore.mac("k", b"message", timeout=120))
        wait_until(lambda: bool(bad.host.stats()[0].failures), "the first attempt to fail")
        bad.host.close()

        with pytest.raises(PluginUnavailable, match="closed") as caught:
            call.result(LONG_S)
        assert isinstance(caught.value.__cause__, RateLimitExceeded)


def test_a_driver_may_close_its_stdout_before_it_ends(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "ends_slowly") as bad:
        pid = bad.pid
        closing = begin(bad.host.close)
        # Longer than the second that a driver has which closes its stdout in the middle of a session.
        assert bad.journal.wait_for("closing") == str(pid)
        with pytest.raises(TimeoutError):
            closing.result(1.3)
        bad.gate.open_gate()

        closing.result(LONG_S)
        assert bad.journal.wait_for("ended in order") == str(pid)


def test_after_the_end_every_use_is_refused_at_once(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad:
        keystore = bad.keystore
        bad.host.close()
        began = time.monotonic()
        for use in (
            lambda: keystore.random(8),
            lambda: keystore.create_key("HMAC_SHA_256"),
            lambda: keystore.encrypt("k", b"data"),
            lambda: list(keystore.keys()),
        ):
            with pytest.raises(PluginUnavailable, match="the host is closed") as caught:
                use()
            assert caught.value.outcome == "not_applied"

        health = bad.host.health("bad")
        assert not health.healthy
        assert isinstance(health.error, PluginUnavailable)
        assert time.monotonic() - began < 3


def test_an_exception_in_the_with_block_ends_everything_and_comes_through(tmp_path: Path) -> None:
    class OfTheApplicationError(Exception):
        pass

    with pytest.raises(OfTheApplicationError), bad_driver(tmp_path, "good"):
        raise OfTheApplicationError


def test_one_plugin_that_does_not_start_leaves_no_process_of_the_others(tmp_path: Path) -> None:
    good, broken = tmp_path / "good", tmp_path / "broken"
    good.mkdir()
    broken.mkdir()
    plugins = {
        "good": misbehaving(good, "good", processes=2),
        "broken": misbehaving(broken, "dies_at_start", "3", "no license"),
    }
    with bench(good) as (journal, _):
        with pytest.raises(PluginCrashed) as caught:
            Host.open({"plugins": plugins})

        for line in journal.all("start"):
            assert not psutil.pid_exists(int(line.split()[1]))
        assert caught.value.details["plugin"] == "broken"


def test_a_keystore_that_does_not_exist_starts_nothing(tmp_path: Path) -> None:
    with bench(tmp_path) as (journal, _):
        with pytest.raises(ConfigurationError, match="no keystore 'other', there are: bad"):
            Host.open({"plugins": {"bad": misbehaving(tmp_path, "good")}}, keystores=["other"])
        with pytest.raises(InvalidArgument, match=r"as \['bad'\]"):
            Host.open({"plugins": {"bad": misbehaving(tmp_path, "good")}}, keystores="bad")
        assert journal.all() == []


@pytest.mark.parametrize("moment", ["at once", "noticed", "started", "configured"])
def test_closing_while_a_process_is_replaced_leaves_neither(tmp_path: Path, moment: str) -> None:
    with bad_driver(tmp_path, "good") as bad:
        os.kill(bad.pid, signal.SIGKILL)
        match moment:
            case "noticed":
                wait_until(lambda: bad.host.plugins()[0].last_error is not None, "the end to be noticed")
            case "started":
                bad.journal.wait_for("start", 2)
            case "configured":
                bad.journal.wait_for("plugin.configure", 2)
        began = time.monotonic()
        bad.host.close()

        assert time.monotonic() - began < MOST_S
        with pytest.raises(PluginUnavailable, match="closed"):
            bad.keystore.random(8)


def test_many_threads_may_close_at_once(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", processes=2) as bad:
        barrier = threading.Barrier(8)

        def close() -> None:
            barrier.wait(LONG_S)
            bad.host.close()

        for closing in [begin(close) for _ in range(8)]:
            closing.result(LONG_S)


FORKS = """
import os, sys, time
from pathlib import Path
from kmsplug_host import Host
from kmsplug_host.errors import PluginUnavailable
from support.host import misbehaving

hold, release = os.pipe()
with Host.open({"plugins": {"bad": misbehaving(Path(sys.argv[1]), "good")}}) as host:
    keystore, pid = host.keystore("bad"), host.plugins()[0].replicas[0].pid
    child = os.fork()
    if child == 0:
        os.close(release)
        for use in (lambda: keystore.random(8), host.plugins):
            try:
                use()
            except PluginUnavailable as error:
                print(error, flush=True)
        with host:
            pass
        os.read(hold, 1)
        sys.exit(0)
    for _ in range(100):
        assert len(keystore.random(8)) == 8
    assert host.plugins()[0].replicas[0].pid == pid
    began = time.monotonic()
print(time.monotonic() - began < 3, flush=True)
os.close(release)
print(os.waitpid(child, 0)[1])
"""


def test_a_forked_child_neither_uses_nor_ends_nor_holds_the_drivers_of_its_parent(tmp_path: Path) -> None:
    with bench(tmp_path):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FORKS, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(DRIVERS.parent)},
            timeout=60, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split("\n")) == [
        "",
        "0",
        "True",
        *["the host was opened in another process"] * 2,
    ]


PROGRAM = """
import os, signal, sys, threading
from kmsplug_host import Host
from support.host import misbehaving
from pathlib import Path

folder, when = Path(sys.argv[1]), sys.argv[2]
def interrupt(): os.kill(os.getpid(), signal.SIGINT)
mode = {"close": "stubborn", "open": "hangs_at_start"}[when]
timer = threading.Timer(0.3, interrupt)
timer.daemon = True
if when == "open":
    timer.start()
host = Host.open({"plugins": {"bad": misbehaving(folder, mode)}})
timer.start()
host.close()
"""


@pytest.mark.parametrize("when", ["open", "close"])
def test_control_c_while_opening_or_closing_leaves_nothing_behind(tmp_path: Path, when: str) -> None:
    with bench(tmp_path) as (journal, _):
        environment = {**os.environ, "PYTHONPATH": str(DRIVERS.parent)}
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path), when],
            env=environment, timeout=60, capture_output=True, check=False,
        )  # fmt: skip

        assert done.returncode in (1, -signal.SIGINT), done.stderr.decode()
        assert b"KeyboardInterrupt" in done.stderr
        assert time.monotonic() - began < 2 * MOST_S
        assert not psutil.pid_exists(int(journal.wait_for("start")))
