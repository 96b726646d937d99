"""Every driver of the zoo costs its own callers a typed error in bounded time, and nobody else anything."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kmsplug_host import Host
from kmsplug_host.errors import KmsplugError, Timeout
from kmsplug_protocol import Outcome
from support.host import LONG_S, Bad, bench, misbehaving, wait_until
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
    timeout = SHORT_S if kind.error is Timeout else LONG_S
    if kind.change:
        bad.keystore.create_key("HMAC_SHA_256", timeout=timeout)
    else:
        assert bad.keystore.mac("k", kind.message, timeout=timeout).mac == kind.message


@pytest.mark.parametrize("kind", BEASTS, ids=lambda kind: kind.does)
def test_a_driver_that(kind: Beast, tmp_path: Path) -> None:
    def meet(folder: Path) -> Neighbour:
        with beside_a_neighbour(folder, *kind.mode) as (bad, neighbour):
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
    monkeypatch.setattr("kmsplug_host.client.START_DEADLINE_S", 1.5)

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
        return neighbour

    undisturbed(tmp_path, meet)
