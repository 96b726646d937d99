"""Every driver of the zoo costs its own callers a typed error in bounded time, and nobody else anything."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kmsplug_host import Host, PluginState
from kmsplug_host.errors import KmsplugError, PluginCrashed, PluginUnavailable, Timeout
from kmsplug_protocol import Outcome
from support.host import LONG_S, Bad, begin, bench, misbehaving, wait_until
from support.tables import published
from support.zoo import STALL_S, Neighbour, beast, beside_a_neighbour

from .beasts import BEASTS, SHORT_S, STARTS, Beast

ATTEMPTS = 3
"""A machine that is busy stalls anybody now and then; a driver that stalls another one does so every time."""


def undisturbed(folder: Path, act: Callable[[Path], Neighbour]) -> None:
    """Do something that must not disturb a neighbour: no failed call ever, and no stall that repeats."""
    stalls = []
    for attempt in range(ATTEMPTS):
        place = folder / str(attempt)
        place.mkdir()
        neighbour = act(place)
        assert neighbour.failures == []
        assert neighbour.calls > 0
        if neighbour.slowest_s < STALL_S:
            return
        stalls.append(neighbour.slowest_s)
    pytest.fail(f"a call of another plugin took {stalls} s")


def call(bad: Bad, kind: Beast) -> None:
    """Make the call that the driver answers in its own way."""
    timeout = SHORT_S if kind.error is Timeout else max(LONG_S, kind.within_s)
    if kind.change:
        bad.keystore.create_key("HMAC_SHA_256", timeout=timeout)
    else:
        assert bad.keystore.mac("k", b"good", timeout=timeout).mac == b"good"


@pytest.mark.parametrize("kind", BEASTS, ids=lambda kind: kind.does)
def test_a_driver_that(kind: Beast, tmp_path: Path) -> None:
    def meet(folder: Path) -> Neighbour:
        with beside_a_neighbour(folder, *kind.mode, **kind.settings) as (bad, neighbour):
            first = bad.pid
            began = time.monotonic()
            if kind.error is None:
                call(bad, kind)
            else:
                with pytest.raises(KmsplugError, match=kind.match) as caught:
                    call(bad, kind)
                assert type(caught.value) is kind.error
                assert caught.value.details["plugin"] == "bad"
                assert caught.value.outcome is (Outcome.UNKNOWN if kind.change else Outcome.NOT_APPLIED)
            assert time.monotonic() - began < kind.within_s

            if kind.replaced:
                wait_until(lambda: first not in bad.pids, "the process to be replaced")
            assert len(bad.keystore.random(8)) == 8
            assert (bad.pid == first) is not kind.replaced
        return neighbour

    undisturbed(tmp_path, meet)


@pytest.mark.parametrize("kind", STARTS, ids=lambda kind: kind.does)
def test_a_driver_that_does_not_start_and(
    kind: Beast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline_s = 4.0 if kind.error is PluginUnavailable else LONG_S
    monkeypatch.setattr("kmsplug_host.client.START_DEADLINE_S", deadline_s)

    def meet(folder: Path) -> Neighbour:
        home = folder / "neighbour"
        home.mkdir()
        with Host.open({"plugins": {"good": misbehaving(home, "good")}}) as host:
            neighbour = Neighbour(host.keystore("good"))
            with neighbour.called(), bench(folder):
                began = time.monotonic()
                with pytest.raises(KmsplugError, match=kind.match) as caught:
                    Host.open({"plugins": {"bad": beast(folder, *kind.mode)}})
                assert time.monotonic() - began < kind.within_s
                assert type(caught.value) is kind.error
                assert caught.value.details["plugin"] == "bad"
                assert caught.value.diagnosis is not None
        return neighbour

    undisturbed(tmp_path, meet)


def test_two_calls_may_be_answered_in_any_order(tmp_path: Path) -> None:
    with beside_a_neighbour(tmp_path, "answers_out_of_order") as (bad, neighbour):
        first = begin(lambda: bad.keystore.mac("k", b"first"))
        bad.journal.wait_for("held")
        assert bad.keystore.mac("k", b"second").mac == b"second"
        assert first.result(LONG_S).mac == b"first"
    assert neighbour.failures == []


def test_a_driver_that_leaks_is_replaced_before_it_takes_the_machine_and_no_call_fails(
    tmp_path: Path,
) -> None:
    limit = 128 * 1024 * 1024
    with beside_a_neighbour(tmp_path, "leaks", recycle={"rss_bytes": limit}) as (bad, neighbour):
        first = bad.pid
        for index in range(12):
            assert bad.keystore.mac("k", b"%d" % index).mac == b"%d" % index
        usage = bad.host.plugins()[0].replicas[0].usage
        assert usage is not None
        assert usage.rss_bytes > limit
        wait_until(lambda: bad.pids != [first] and len(bad.pids) == 1, "another process", 60)
        assert len(bad.keystore.random(8)) == 8
    assert neighbour.failures == []


def test_a_driver_that_crashes_again_and_again_is_quarantined_and_said_to_be(tmp_path: Path) -> None:
    with beside_a_neighbour(tmp_path, "segfaults", max_crashes=2) as (bad, neighbour):
        for _ in range(3):
            with pytest.raises(PluginCrashed, match="SIGSEGV"):
                bad.keystore.create_key("HMAC_SHA_256")
        with pytest.raises(PluginUnavailable, match="crashed more than 2 times") as caught:
            bad.keystore.random(8)

        status = bad.host.plugins()[0]
        assert status.state is PluginState.QUARANTINED
        assert caught.value.diagnosis == status.diagnosis
        assert status.diagnosis is not None
        assert status.diagnosis.exit == "SIGSEGV"
    assert neighbour.failures == []


def test_the_readme_says_what_happens_when_a_driver_misbehaves() -> None:
    rows: dict[str, list[str]] = {}
    for kind in (*STARTS, *BEASTS):
        rows.setdefault(kind.gets, []).append(kind.does)
    table = {"; ".join(does): {"its callers get": gets} for gets, does in rows.items()}

    assert published("zoo", table) == table
