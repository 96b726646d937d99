"""What the tests of the zoo share: a hostile driver beside a good one that is called all the while."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kmsplug_host import Host, Keystore

from .host import DRIVERS, Bad, bench, misbehaving

SOAK = os.environ.get("KMSPLUG_SOAK") == "1"
"""Whether this is the long run, ``make soak``."""

STALL_S = 1.0
"""No call of another plugin may take longer, whatever a driver does."""


def beast(folder: Path, mode: str, *arguments: str, **settings: Any) -> dict[str, Any]:
    """Return the table of a plugin whose driver is ``zoo.py``."""
    table = misbehaving(folder, mode, *arguments, **settings)
    programs = {str(DRIVERS / "misbehaving.py"): str(DRIVERS / "zoo.py")}
    return {**table, "command": [programs.get(part, part) for part in table["command"]]}


class Neighbour:
    """Calls a keystore again and again, on a thread of its own, and notes how that went."""

    def __init__(self, keystore: Keystore) -> None:
        self._keystore = keystore
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.failures: list[Exception] = []
        self.calls = 0
        self.slowest_s = 0.0

    @contextlib.contextmanager
    def called(self) -> Iterator["Neighbour"]:
        """Call it for as long as the block lasts."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._keystore.random(8)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test tells of it
                self.failures.append(error)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.calls += 1


@contextlib.contextmanager
def beside_a_neighbour(
    folder: Path, mode: str, *arguments: str, called: bool = True, **settings: Any
) -> Iterator[tuple[Bad, Neighbour]]:
    """Open a host with a beast ``bad`` and a good driver ``neighbour``, which is called all the while."""
    (folder / "neighbour").mkdir()
    plugins = {
        "bad": beast(folder, mode, *arguments, **settings),
        "neighbour": misbehaving(folder / "neighbour", "good"),
    }
    with bench(folder) as (journal, gate), Host.open({"plugins": plugins}) as host:
        neighbour = Neighbour(host.keystore("neighbour"))
        with neighbour.called() if called else contextlib.nullcontext():
            yield Bad(host, journal, gate), neighbour
