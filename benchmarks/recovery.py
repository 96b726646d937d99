"""How long a killed driver is missed: from SIGKILL under load to the first good answer of another process.

Each sample has a host of its own, so that it is always the first restart, which has no backoff. Counted is
the first answer to a call that began after the kill, so the killed process cannot have given it.
"""

import argparse
import json
import os
import signal
import statistics
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from kmsplug_host import Host, Keystore, PluginState
from rich.console import Console
from rich.progress import track
from rich.table import Table

RESULTS: Final = Path(__file__).parent / "results"
CALLERS: Final = 4
WARM_S: Final = 0.3  # of load before the kill
LONG_S: Final = 20.0

CASES: Final[dict[str, tuple[dict[str, Any], float]]] = {
    "cold": ({}, 300.0),
    "with a spare": ({"spares": 1}, 20.0),
}
"""Name: the settings of the plugin, and the goal in milliseconds."""


class Load:
    """Callers that never stop, and when their calls began and ended."""

    def __init__(self, keystore: Keystore, key_id: str) -> None:
        self._keystore = keystore
        self._key_id = key_id
        self._stop = threading.Event()
        self._answers: list[tuple[float, float]] = []
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def first_after(self, moment: float) -> float:
        """Return when the first call was answered that began after *moment*."""
        while time.perf_counter() - moment < LONG_S:
            found = [ended for began, ended in self._answers if began >= moment]
            if found:
                return min(found)
            time.sleep(0.001)
        raise TimeoutError("no answer after the kill")

    def _call(self) -> None:
        while not self._stop.is_set():
            began = time.perf_counter()
            self._keystore.encrypt(self._key_id, bytes(64), format="raw")
            self._answers.append((began, time.perf_counter()))


def sample_ms(folder: Path, settings: dict[str, Any]) -> float:
    """Kill the working process once; return the milliseconds until another one has answered."""
    folder.mkdir()
    config = {"path": str(folder / "store")}
    document = {
        "plugins": {"local": {"driver": "local", "config": config, **settings}},
        "keystores": {"main": {"plugin": "local", "allow_raw": True}},
    }
    with Host.open(document) as host:
        keystore = host.keystore("main")
        key_id = keystore.create_key("AES_256_GCM").key_id
        (working,) = [
            replica.pid
            for replica in host.plugins()[0].replicas
            if replica.role == "WORKING" and replica.state is PluginState.READY
        ]
        assert working is not None
        with Load(keystore, key_id) as load:
            time.sleep(WARM_S)
            killed = time.perf_counter()
            os.kill(working, signal.SIGKILL)
            return (load.first_after(killed) - killed) * 1000


def measure(kills: int) -> dict[str, Any]:
    """Return the samples of all cases, in alternation."""
    samples: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        for number in track(range(kills), description="kills", console=Console(stderr=True)):
            for name, (settings, _) in CASES.items():
                samples[name].append(sample_ms(Path(folder) / f"{number}-{name}", settings))
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "kills": kills,
        "median_ms": {name: statistics.median(found) for name, found in samples.items()},
        "samples_ms": samples,
    }


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(title="From SIGKILL under load to the next good answer (ms)", title_justify="left")
    for column in ("case", "median", "worst", "goal"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for name, found in result["samples_ms"].items():
        median, worst = statistics.median(found), max(found)
        table.add_row(name, f"{median:.1f}", f"{worst:.1f}", f"< {CASES[name][1]:.0f}")
    Console(highlight=False).print(table)


def main() -> None:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=11, help="of each case")
    result = measure(parser.parse_args().kills)
    show(result)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"recovery-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
