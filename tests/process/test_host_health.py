"""Health is an answer, never an exception, and comes in bounded time whatever the driver does."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import Host, PluginState
from kmsplug_host.errors import ConfigurationError, PluginUnavailable, ProtocolViolation, Timeout
from support.host import bad_driver, bench, misbehaving, wait_until


def health_line(result: Any) -> str:
    """Return the line that answers a health check."""
    return json.dumps({"jsonrpc": "2.0", "id": "$ID", "result": result}).replace('"$ID"', "$ID")


@pytest.mark.parametrize(("deep", "depth"), [(False, "shallow"), (True, "deep")])
def test_a_good_driver_is_healthy_at_both_depths(tmp_path: Path, deep: bool, depth: str) -> None:
    with bad_driver(tmp_path, "good") as bad:
        health = bad.host.health("bad", deep=deep)

        assert health.healthy
        assert health.plugin == "bad"
        assert health.error is None
        assert health.ping_s is not None
        assert 0 < health.ping_s < 5
        assert [(check.name, check.detail) for check in health.checks] == [("self", depth)]


def test_an_ill_driver_says_what_is_wrong_in_safe_words(tmp_path: Path) -> None:
    checks = [{"name": "tok\x1ben", "healthy": False, "detail": "slot\r\n\u202e2 is empty"}]
    line = health_line({"healthy": False, "checks": checks})
    with bad_driver(tmp_path, "says", "plugin.health", line) as bad:
        health = bad.host.health("bad")

    assert not health.healthy
    assert health.error is None
    assert [(check.name, check.detail) for check in health.checks] == [
        ("tok\\u{1b}en", "slot\\u{d}\\u{a}\\u{202e}2 is empty")
    ]


def test_a_driver_that_hangs_is_ill_after_the_time_that_it_was_given(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "silent", "plugin.health") as bad:
        began = time.monotonic()
        health = bad.host.health("bad", deep=True, timeout=0.3)

        assert time.monotonic() - began < 5
        assert not health.healthy
        assert isinstance(health.error, Timeout)
        assert health.ping_s is not None  # it answers, it only does not tell how it is


def test_a_driver_that_does_not_even_answer_a_ping_is_ill(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "silent", "plugin.ping", deadline_s=0.3) as bad:
        health = bad.host.health("bad")

        assert not health.healthy
        assert isinstance(health.error, Timeout)
        assert health.ping_s is None


def test_a_malformed_answer_about_health_is_illness(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "says", "plugin.health", health_line({"healthy": "perhaps"})) as bad:
        assert isinstance(bad.host.health("bad").error, ProtocolViolation)


def test_a_plugin_without_a_process_is_ill_with_its_cause(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "hangs_later") as bad:
        os.kill(bad.pid, signal.SIGKILL)
        bad.journal.wait_for("start", 2)
        health = bad.host.health("bad", timeout=0.2)

        assert not health.healthy
        assert isinstance(health.error, PluginUnavailable)
        assert health.error.__cause__ is not None
        bad.gate.open_gate()


def test_an_unknown_plugin_has_no_health(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad:
        with pytest.raises(ConfigurationError, match="no plugin 'good', there are: bad"):
            bad.host.health("good")
        with pytest.raises(ConfigurationError, match="no keystore 'good', there are: bad"):
            bad.host.keystore("good")


def test_one_ill_plugin_does_not_touch_the_health_of_another(tmp_path: Path) -> None:
    plugins = {"good": misbehaving(tmp_path, "good"), "ill": misbehaving(tmp_path, "silent", "plugin.health")}
    with bench(tmp_path), Host.open({"plugins": plugins}) as host:
        assert not host.health("ill", timeout=0.1).healthy
        assert host.health("good").healthy


def test_the_snapshot_shows_plugins_processes_and_what_they_use(tmp_path: Path) -> None:
    plugins = {"one": misbehaving(tmp_path, "good"), "two": misbehaving(tmp_path, "good", processes=2)}
    keystores = {"main": {"plugin": "one"}, "other": {"plugin": "one"}}
    with bench(tmp_path), Host.open({"plugins": plugins, "keystores": keystores}) as host:
        one, two = host.plugins()
        assert host.keystores() == ("two", "main", "other")
        assert (one.name, one.state, one.driver, one.identity) == (
            "one", PluginState.READY, "misbehaving 1.0", "misbehaving:1",
        )  # fmt: skip
        assert (one.last_error, one.warnings) == (None, ())
        assert [replica.state for replica in two.replicas] == [PluginState.READY] * 2
        for replica in (*one.replicas, *two.replicas):
            assert replica.usage is not None
            assert replica.usage.rss_bytes > 1_000_000
            assert replica.usage.threads == 1
            assert (replica.restarts, replica.in_flight) == (0, 0)
        assert len({replica.pid for replica in (*one.replicas, *two.replicas)}) == 3


def test_only_the_plugins_of_the_wanted_keystores_are_started(tmp_path: Path) -> None:
    plugins = {
        "one": misbehaving(tmp_path, "good"),
        "two": {"command": ["/no/such/driver"], "isolation": "process"},
    }
    with bench(tmp_path), Host.open({"plugins": plugins}, keystores=["one"]) as host:
        assert [plugin.name for plugin in host.plugins()] == ["one"]
        assert host.keystores() == ("one",)


def test_the_snapshot_counts_calls_in_flight(tmp_path: Path) -> None:
    from support.host import LONG_S, begin

    with bad_driver(tmp_path, "waits") as bad:
        calls = [begin(lambda: bad.keystore.mac("k", b"message")) for _ in range(3)]
        wait_until(lambda: bad.host.plugins()[0].replicas[0].in_flight == 3, "three calls")
        bad.gate.open_gate(3)
        for call in calls:
            call.result(LONG_S)
        assert bad.host.plugins()[0].replicas[0].in_flight == 0
