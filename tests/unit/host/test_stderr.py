"""A driver's stderr: lines are logged up to a rate, and over it counted, reported and thrown away."""

import logging
from types import SimpleNamespace

import pytest
from kmsplug_host._redaction import Redactor
from kmsplug_host._stderr import Stderr

MIB = 1024 * 1024


class Clock:
    """A clock that the test sets; sleeping sets it too."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    fake = SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep)
    monkeypatch.setattr("kmsplug_host._flow.time", fake)
    monkeypatch.setattr("kmsplug_host._stderr.time", fake)
    return clock


@pytest.fixture
def stderr(caplog: pytest.LogCaptureFixture) -> Stderr:
    caplog.set_level(logging.DEBUG)
    return Stderr(logging.getLogger("kmsplug.plugin.test"), Redactor())


def test_lines_are_put_together_from_pieces(stderr: Stderr, caplog: pytest.LogCaptureFixture) -> None:
    for piece in (b"one", b" line\ntw", b"o\n\nlast"):
        stderr.take(piece)
    stderr.end()

    assert caplog.messages == ["one line", "two", "last"] == list(stderr.tail)


def test_over_the_rate_nothing_is_logged_but_how_much_was_dropped(
    clock: Clock, stderr: Stderr, caplog: pytest.LogCaptureFixture
) -> None:
    stderr.take(b"before\n")
    block = b"x" * 65_535 + b"\n"
    for _ in range(100 * 16):  # 100 MiB
        stderr.take(block)
    clock.now += 1
    stderr.take(b"end of a line that was cut\nafter\n")
    stderr.end()

    reports = [message for message in caplog.messages if "dropped" in message]
    assert stderr.dropped_bytes > 90 * MIB
    assert sum(int(report.split()[0]) for report in reports) == stderr.dropped_bytes
    assert len(reports) <= clock.now - 1000 + 2
    assert sum(len(message) for message in caplog.messages) < 8 * MIB
    assert "before" in caplog.messages
    assert caplog.messages[-2] == "after" or caplog.messages[-1] == "after"
    assert not [message for message in caplog.messages if "cut" in message]


def test_a_flood_is_read_no_faster_than_its_share(clock: Clock, stderr: Stderr) -> None:
    for _ in range(1600):
        stderr.take(b"x" * 65_536)

    assert 2 < clock.now - 1000 < 10


def test_short_lines_count_for_the_work_that_they_are(
    clock: Clock, stderr: Stderr, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        stderr.take(b"a\n" * 1000)

    assert len(caplog.messages) < 2100
    assert stderr.dropped_bytes > 0


def test_the_last_words_of_a_flood_are_kept_for_the_diagnosis(clock: Clock, stderr: Stderr) -> None:
    for _ in range(100):
        stderr.take(b"noise\n" * 10_000)
    stderr.take(b"assertion failed\nin free()")
    stderr.end()

    assert stderr.tail[-2:] == ("assertion failed", "in free()")
    assert len(stderr.tail) == 20


def test_a_line_without_end_is_cut(stderr: Stderr, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(10):
        stderr.take(b"x" * 20_000)
    stderr.take(b"\nnext\n")

    assert max(map(len, caplog.messages)) < 4200
    assert caplog.messages[-1] == "next"
