"""A reload goes over to other processes, settings and executables under load, and no call fails for it."""

import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from kmsplug_host import Host, Keystore, PluginEvent, PluginState
from kmsplug_host.aio import AsyncHost
from kmsplug_host.errors import (
    AuthenticationFailed,
    ConfigurationError,
    PluginCrashed,
    PluginUnavailable,
    Timeout,
)
from process.test_host_crash import refusal
from process.test_supervise_replace import goes_on, under_load
from support.events import heard
from support.host import (
    DRIVERS,
    LONG_S,
    bad_driver,
    begin,
    bench,
    misbehaving,
    threads,
    wait_for_end,
    wait_until,
)


def folders(folder: Path, *names: str) -> list[Path]:
    """Make a folder for each driver, so that they do not share their counters."""
    found = [folder / name for name in names]
    for one in found:
        one.mkdir()
    return found


def working(host: Host, plugin: int = 0) -> list[int | None]:
    """Return the processes that work."""
    return [replica.pid for replica in host.plugins()[plugin].replicas if replica.role == "WORKING"]


def test_a_rolling_restart_under_load_fails_no_call_and_leaves_no_old_process(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", processes=2, spares=1) as bad, heard(bad.host) as events:
        before = bad.pids
        with under_load(bad.keystore, 8) as answers:
            for _ in range(3):
                bad.host.reload()
                goes_on(answers)
        for pid in before:
            wait_for_end(pid)
        wait_until(lambda: len(bad.pids) == 3, "the last old processes to go")

        assert not set(before) & set(bad.pids)
        assert events.steps == []
        assert bad.host.plugins()[0].state is PluginState.READY


def test_an_executable_that_was_replaced_is_taken_at_a_reload(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    shutil.copy(DRIVERS / "misbehaving.py", script)
    table = misbehaving(tmp_path, "good")
    table["command"] = [sys.executable, "-I", "-S", str(script), "good", str(tmp_path)]
    with bench(tmp_path), Host.open({"plugins": {"bad": table}}) as host:
        keystore = host.keystore("bad")
        script.write_text(script.read_text().replace('"version": "1.0"', '"version": "2.0"'))
        with under_load(keystore) as answers:
            host.reload()
            goes_on(answers)

        assert host.plugins()[0].driver == "misbehaving 2.0"


def test_a_changed_file_is_read_anew_and_its_settings_hold(tmp_path: Path) -> None:
    config = tmp_path / "plugins.toml"

    def write(processes: int, deadline_s: float) -> None:
        command = misbehaving(tmp_path, "never_answers")["command"]
        config.write_text(
            f"[plugins.bad]\ncommand = {command}\nprocesses = {processes}\ndeadline_s = {deadline_s}\n"
            + "".join(f"{key} = {value!r}\n" for key, value in extra.items())
        )

    extra = {k: v for k, v in misbehaving(tmp_path, "x").items() if k not in ("command", "deadline_s")}
    write(1, LONG_S)
    with bench(tmp_path), Host.open(config) as host:
        keystore = host.keystore("bad")
        write(3, 0.1)
        host.reload()

        assert len(working(host)) == 3
        with pytest.raises(Exception, match="before the deadline"):
            keystore.mac("k", b"message")


@pytest.mark.parametrize(("plugins", "kind"), [
    ({"bad": {"command": ["/no/such/driver"]}}, ConfigurationError),
    ({}, ConfigurationError),
    ({"bad": {"driver": "no-such"}}, ConfigurationError),
])  # fmt: skip
def test_a_wrong_configuration_changes_nothing(tmp_path: Path, plugins: Any, kind: type[Exception]) -> None:
    with bad_driver(tmp_path, "good") as bad:
        pid = bad.pid
        with pytest.raises(kind):
            bad.host.reload({"plugins": plugins})

        assert len(bad.keystore.random(8)) == 8
        assert bad.pids == [pid]
        bad.host.reload()  # and what is read anew is still the old one
        assert len(bad.keystore.random(8)) == 8


def test_one_plugin_that_does_not_start_keeps_all_of_the_old_ones(tmp_path: Path) -> None:
    good, broken = folders(tmp_path, "good", "broken")
    plugins = {"good": misbehaving(good, "good"), "bad": misbehaving(broken, "good")}
    with bench(good) as (journal, _), Host.open({"plugins": plugins}) as host, heard(host) as events:
        before = working(host, 0) + working(host, 1)
        changed = {
            "good": misbehaving(good, "good"),
            "bad": misbehaving(broken, "dies_at_start", "3", "no license"),
            "new": misbehaving(good, "good"),
        }
        with under_load(host.keystore("good")) as answers:
            with pytest.raises(PluginCrashed, match="exit status 3") as caught:
                host.reload({"plugins": changed})
            goes_on(answers)

        assert caught.value.diagnosis is not None
        assert caught.value.diagnosis.stderr == ("no license",)
        assert working(host, 0) + working(host, 1) == before
        assert [plugin.name for plugin in host.plugins()] == ["good", "bad"]
        for line in journal.all("start"):
            pid = int(line.split()[1])
            assert pid in before or not psutil.pid_exists(pid)
        assert events.steps == [] or all(event.plugin == "new" for event in events.events)


def test_a_wrong_credential_in_the_new_configuration_is_tried_once_and_the_old_one_works_on(
    tmp_path: Path,
) -> None:
    old, new = folders(tmp_path, "old", "new")
    line = refusal("AUTHENTICATION_FAILED")
    wrong = misbehaving(new, "says", "plugin.configure", line, processes=3, spares=1)
    with bench(new) as (journal, _), Host.open({"plugins": {"bad": misbehaving(old, "good")}}) as host:
        with pytest.raises(AuthenticationFailed):
            host.reload({"plugins": {"bad": wrong}})

        assert len(journal.all("plugin.configure")) == 1
        assert len(host.keystore("bad").random(8)) == 8


def test_a_plugin_in_quarantine_comes_back_by_a_reload(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", max_crashes=0) as bad:
        os.kill(bad.pid, signal.SIGKILL)
        wait_until(lambda: bad.host.plugins()[0].state is PluginState.QUARANTINED, "quarantine")
        bad.host.reload()

        assert bad.host.plugins()[0].state is PluginState.READY
        assert len(bad.keystore.random(8)) == 8


def test_a_call_that_waits_for_a_process_gets_one_of_the_new_ones(tmp_path: Path) -> None:
    old, new = folders(tmp_path, "old", "new")
    with (
        bench(old) as (journal, gate),
        Host.open({"plugins": {"bad": misbehaving(old, "hangs_later")}}) as host,
    ):
        (pid,) = working(host)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        journal.wait_for("start", 2)
        call = begin(lambda: host.keystore("bad").random(8))
        host.reload({"plugins": {"bad": misbehaving(new, "good")}})

        assert len(call.result(LONG_S)) == 8
        gate.open_gate()


def test_calls_in_flight_end_on_the_old_processes(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "waits") as bad:
        old = bad.pid
        call = begin(lambda: bad.keystore.create_key("HMAC_SHA_256"))
        bad.journal.wait_for("key.create")
        bad.host.reload()
        assert not call.done()
        assert psutil.pid_exists(old)

        bad.gate.open_gate()
        assert call.result(LONG_S).key_id == "k"
        wait_for_end(old)
        assert len(bad.journal.all("key.create")) == 1


def test_keystores_move_to_another_plugin_and_calls_go_on(tmp_path: Path) -> None:
    one, two = folders(tmp_path, "one", "two")
    before = {"plugins": {"one": misbehaving(one, "good")}, "keystores": {"main": {"plugin": "one"}}}
    after = {"plugins": {"two": misbehaving(two, "good")}, "keystores": {"main": {"plugin": "two"}}}
    with bench(tmp_path), Host.open(before) as host:
        keystore = host.keystore("main")
        (old,) = working(host)
        assert old is not None
        with under_load(keystore) as answers:
            host.reload(after)
            goes_on(answers)

            assert host.keystore("main") is keystore
            assert [plugin.name for plugin in host.plugins()] == ["two"]
            wait_for_end(old)
            goes_on(answers)


def test_a_removed_keystore_refuses_every_call_and_an_added_one_works(tmp_path: Path) -> None:
    (one,) = folders(tmp_path, "one")
    plugins = {"one": misbehaving(one, "good")}
    before = {"plugins": plugins, "keystores": {"a": {"plugin": "one"}, "b": {"plugin": "one"}}}
    after = {"plugins": plugins, "keystores": {"b": {"plugin": "one"}, "c": {"plugin": "one"}}}
    with bench(tmp_path), Host.open(before) as host:
        removed, kept = host.keystore("a"), host.keystore("b")
        host.reload(after)

        with pytest.raises(PluginUnavailable, match="the keystore 'a' was removed by a reload"):
            removed.random(8)
        with pytest.raises(ConfigurationError, match="no keystore 'a', there are: b, c"):
            host.keystore("a")
        assert len(kept.random(8)) == 8
        assert len(host.keystore("c").random(8)) == 8
        assert host.keystores() == ("b", "c")


def test_a_removed_plugin_that_still_works_on_a_call_ends_with_the_host(tmp_path: Path) -> None:
    one, two, three = folders(tmp_path, "one", "two", "three")
    with bench(one) as (journal, _), Host.open({"plugins": {"one": misbehaving(one, "waits")}}) as host:
        keystore = host.keystore("one")
        (pid,) = working(host)
        assert pid is not None
        call = begin(lambda: keystore.create_key("HMAC_SHA_256"))
        journal.wait_for("key.create")
        for name, folder in (("two", two), ("three", three)):
            host.reload({"plugins": {name: misbehaving(folder, "good")}})
        wait_until(lambda: keystore_is_gone(keystore), "the plugin to go")
        assert psutil.pid_exists(pid)

        host.close()
        with pytest.raises(PluginCrashed):
            call.result(LONG_S)
        assert not psutil.pid_exists(pid)


def keystore_is_gone(keystore: Keystore) -> bool:
    """Tell whether a keystore refuses calls because of a reload."""
    try:
        keystore.random(8, timeout=0.1)
    except PluginUnavailable as error:
        return "removed by a reload" in str(error)
    except Timeout:
        pass
    return False


def test_a_keystore_can_be_asked_for_at_any_moment_of_a_reload(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad:
        stop = threading.Event()

        def ask() -> int:
            count = 0
            while not stop.is_set():
                count += len(bad.host.keystore("bad").name) + len(bad.host.plugins())
            return count

        asking = [begin(ask) for _ in range(3)]
        for _ in range(3):
            bad.host.reload()
        stop.set()

        assert all(asked.result(LONG_S) > 0 for asked in asking)


def test_a_host_of_some_keystores_stays_so_and_refuses_to_lose_one(tmp_path: Path) -> None:
    one, two = folders(tmp_path, "one", "two")
    plugins = {"one": misbehaving(one, "good"), "two": misbehaving(two, "good")}
    with bench(tmp_path), Host.open({"plugins": plugins}, keystores=["one"]) as host:
        host.reload()
        assert host.keystores() == ("one",)

        with pytest.raises(ConfigurationError, match="no keystore 'one'"):
            host.reload({"plugins": {"two": plugins["two"]}})
        assert len(host.keystore("one").random(8)) == 8


def test_reloads_at_the_same_time_follow_one_another(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad, under_load(bad.keystore) as answers:
        for reload in [begin(bad.host.reload) for _ in range(4)]:
            reload.result(LONG_S)
        goes_on(answers)


def test_closing_ends_a_reload_that_waits_for_its_processes(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "hangs_later") as bad:
        reload = begin(bad.host.reload)
        bad.journal.wait_for("start", 2)
        bad.host.close()

        with pytest.raises(PluginUnavailable, match="closed"):
            reload.result(LONG_S)
        with pytest.raises(PluginUnavailable, match="closed"):
            bad.host.reload()


def test_nothing_grows_over_ten_reloads(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad:
        assert len(bad.keystore.random(8)) == 8
        before = len(threads())
        for _ in range(10):
            bad.host.reload()
            assert len(bad.keystore.random(8)) == 8

        wait_until(lambda: len(bad.pids) == 1, "the old processes to go")
        wait_until(lambda: len(threads()) <= before, "the threads of the old processes to go")


def test_a_source_that_is_no_configuration_is_refused(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad:
        with pytest.raises(ConfigurationError, match="no such file"):
            bad.host.reload(tmp_path / "nowhere.toml")
        with pytest.raises(ConfigurationError, match="either driver"):
            bad.host.reload({"plugins": {"bad": {"driver": "local", "command": ["x"]}}})
        assert len(bad.keystore.random(8)) == 8


def test_an_asynchronous_host_reloads_releases_and_tells_of_it(tmp_path: Path) -> None:
    settings = {"plugins": {"bad": misbehaving(tmp_path, "good", max_crashes=0)}}

    def kill(host: AsyncHost) -> None:
        (pid,) = [replica.pid for replica in host.plugins()[0].replicas if replica.state == "READY"]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: host.plugins()[0].state is PluginState.QUARANTINED, "quarantine")

    async def use() -> None:
        async with await AsyncHost.open(settings) as host:
            seen: list[PluginEvent] = []
            unsubscribe = host.subscribe(seen.append)
            kill(host)
            await host.reload()
            assert len(await host.keystore("bad").random(8)) == 8
            kill(host)
            host.release("bad")
            assert len(await host.keystore("bad").random(8)) == 8
            unsubscribe()
            assert "QUARANTINED" in [event.new for event in seen]

    with bench(tmp_path):
        anyio.run(use)
