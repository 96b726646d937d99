"""What a call through the host costs, beside Python gRPC and the MCP SDK doing the same: ``make bench``.

Rounds alternate between the candidates in one run, because machines drift; the median of the rounds is
printed and written to benchmarks/results/. Compare ratios, not microseconds.
"""

import argparse
import contextlib
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pair
from candidates import CANDIDATES, Candidate
from measure import PARTS, summary
from plot import draw, percentiles
from rich.console import Console
from rich.progress import track
from rich.table import Table

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def import_facts() -> dict[str, Any]:
    """Return how long ``import kmsplug_host`` takes, as the median of 5, and how many modules it loads."""
    program = (
        "import time, sys; t = time.perf_counter(); before = set(sys.modules); import kmsplug_host; "
        "print((time.perf_counter() - t) * 1000, len(set(sys.modules) - before))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(5)
    ]
    return {
        "import_ms": statistics.median(float(run[0]) for run in runs),
        "import_modules": int(runs[0][1]),
    }


def loop_ms() -> float:
    """Return what three million additions take, as the median of 5: by this, machines can be compared.

    Interpreters, too: one that was built without profile-guided optimization takes half as long again.
    """
    times = []
    for _ in range(5):
        began, total = time.perf_counter(), 0
        for number in range(3_000_000):
            total += number
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def measure(rounds: int, count: int) -> dict[str, Any]:
    """Run all candidates in turn, *rounds* times."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as closing:
        opened = {name: Candidate(name, folder) for name in CANDIDATES}
        for candidate in opened.values():
            closing.callback(candidate.close)
        facts = opened["kmsplug"].facts
        calls = {call: candidate for candidate in opened.values() for call in candidate.facts.pop("calls")}
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
        distribution: dict[str, list[float]] = {name: [] for name in calls}
        for _ in track(range(rounds), description="rounds", console=Console(stderr=True)):
            for name, candidate in calls.items():
                found = candidate.round(name, count)
                samples = found.pop("samples_us")
                distribution[name] += samples
                seen[name].append({**summary(samples), **found})
    medians = {
        name: {metric: statistics.median(found[metric] for found in samples) for metric in samples[0]}
        for name, samples in seen.items()
    }
    base = medians["crypto.encrypt 64 B"]
    ratios = {
        f"{name}: {metric}": medians[name][metric] / base[metric]
        if metric == "p50"
        else base[metric] / medians[name][metric]
        for name in ("Python gRPC 64 B", "MCP SDK 64 B")
        for metric in ("p50", "calls_s_16")
    }
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()} {platform.python_implementation()} {platform.python_version()}",
        "rounds": rounds,
        "calls_a_round": count,
        "facts": {**facts, **import_facts(), "loop_ms": loop_ms()},
        "microseconds": medians,
        "times_better_than": ratios,
        "percentiles_us": {name: percentiles(samples) for name, samples in distribution.items()},
        "rounds_seen": seen,
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console(highlight=False)
    table = Table(
        title="One caller (us), and 16 callers (calls/s): median of the rounds", title_justify="left"
    )
    for column in ("call", "p50", "p99", "p99.9", "calls/s", "16 callers"):
        table.add_column(column, justify="left" if column == "call" else "right")
    for name, row in result["microseconds"].items():
        table.add_row(name, *(f"{row[key]:,.0f}" for key in (*PARTS, "calls_s", "calls_s_16")))
    console.print(table)
    for name, ratio in result["times_better_than"].items():
        console.print(f"  {ratio:5.1f} times better than {name}")
    for name, value in result["facts"].items():
        console.print(f"  {name}: {value:,.0f}")


def main() -> None:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=2000, help="calls of each candidate in a round")
    parser.add_argument("--pair", metavar="REF", help="instead: this tree against another commit")
    arguments = parser.parse_args()
    if arguments.pair is not None:
        name, result = "pair", pair.measure(arguments.pair, arguments.rounds, arguments.count)
        pair.show(result)
    else:
        name, result = "bench", measure(arguments.rounds, arguments.count)
        show(result)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path.relative_to(HERE.parent)}")
    if arguments.pair is None:
        picture = path.with_suffix(".png")
        draw(result["percentiles_us"], picture)
        print(f"written: {picture.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
