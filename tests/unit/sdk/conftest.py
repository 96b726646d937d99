import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest
from unit.sdk.drivers import Gated, SlowToOpen


@pytest.fixture
def gated() -> Iterator[type[Gated]]:
    """A class of one's own, whose gate is open at the end whatever happened."""

    class Fresh(Gated):
        begun = threading.Semaphore(0)
        gate = threading.Event()
        executed: ClassVar[list[str]] = []
        closed: ClassVar[list[str]] = []

    yield Fresh
    Fresh.gate.set()


@pytest.fixture
def slow_to_open() -> Iterator[type[SlowToOpen]]:
    class Fresh(SlowToOpen):
        begun = threading.Semaphore(0)
        gate = threading.Event()
        executed: ClassVar[list[str]] = []
        closed: ClassVar[list[str]] = []

    yield Fresh
    Fresh.gate.set()
