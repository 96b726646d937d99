"""While one driver floods, another one keeps more than half of its calls a second."""

import os
import signal
import statistics
import time
from pathlib import Path

import psutil
import pytest
from kmsplug_host import Keystore
from kmsplug_host.errors import PluginCrashed, ProtocolViolation
from support.host import LONG_S, begin, logged, wait_until
from support.zoo import SOAK, beside_a_neighbour

ROUNDS, MEASURE_S = (15, 1.0) if SOAK else (5, 0.5)
ATTEMPTS = 3
"""A busy machine slows anybody down now and then; a host that lets floods starve others does so always."""


def calls_a_second(keystore: Keystore) -> float:
    """Call a keystore for a while."""
    calls, began = 0, time.monotonic()
    while (seconds := time.monotonic() - began) < MEASURE_S:
        keystore.random(8)
        calls += 1
    return calls / seconds


def what_is_left(folder: Path, mode: tuple[str, ...]) -> float:
    """Return the part of a neighbour's calls a second that a flood leaves it.

    Rounds are paired, because machines drift, and the median counts, because they stall.
    """
    ratios = []
    for index in range(ROUNDS):
        place = folder / str(index)
        place.mkdir(parents=True)
        with beside_a_neighbour(place, *mode, called=False) as (bad, _):
            neighbour = bad.host.keystore("neighbour")
            quiet = calls_a_second(neighbour)
            flood = begin(lambda: bad.keystore.create_key("HMAC_SHA_256"))
            bad.journal.wait_for("key.create")
            ratios.append(calls_a_second(neighbour) / quiet)
            os.kill(bad.pid, signal.SIGKILL)
            flood.exception(LONG_S)
    return statistics.median(ratios)


@pytest.mark.parametrize(
    "mode", [("floods", "text"), ("floods", "notifications"), ("floods_stderr",)], ids=" ".join
)
def test_a_neighbour_keeps_more_than_half_of_its_calls_beside_a_driver_that(
    mode: tuple[str, ...], tmp_path: Path
) -> None:
    assert any(what_is_left(tmp_path / str(attempt), mode) > 0.5 for attempt in range(ATTEMPTS))


def test_what_a_flood_says_is_hardly_logged_and_all_counted(tmp_path: Path) -> None:
    with beside_a_neighbour(tmp_path, "floods", "text") as (bad, _), logged() as log:
        connection = bad.connection
        began = time.monotonic()
        bad.keystore.create_key("HMAC_SHA_256")
        wait_until(lambda: connection.ended, "the end of the flood")
        seconds = time.monotonic() - began

    failure = connection.failure()
    assert isinstance(failure, ProtocolViolation)
    assert "floods its stdout" in str(failure)
    # A pipe holds 11,000 of them; read as fast as it goes, there would be millions.
    assert connection.stray_lines < (seconds + 2) * 15_000
    assert sum("not a message" in message for message in log.messages) < (seconds + 2) * 150


def test_a_hundred_megabytes_on_stderr_are_counted_and_take_no_memory(tmp_path: Path) -> None:
    with beside_a_neighbour(tmp_path, "floods_stderr") as (bad, neighbour), logged() as log:
        before = psutil.Process().memory_info().rss
        bad.keystore.create_key("HMAC_SHA_256", timeout=60)
        assert psutil.Process().memory_info().rss - before < 32 * 1024 * 1024
        assert len(bad.keystore.random(8)) == 8

    reports = [message for message in log.messages if message.endswith("more than 1 MiB a second")]
    assert 50_000_000 < sum(int(report.split()[0]) for report in reports) <= 100_100_000
    assert neighbour.failures == []


def test_a_driver_that_dies_in_a_flood_is_seen_to_have_died_at_once(tmp_path: Path) -> None:
    with (
        beside_a_neighbour(tmp_path, "floods_stderr_and_dies") as (bad, _),
        pytest.raises(PluginCrashed, match="SIGABRT") as caught,
    ):
        bad.keystore.create_key("HMAC_SHA_256", timeout=60)

    assert caught.value.diagnosis is not None
    assert caught.value.diagnosis.stderr[-1] == "the last words"
