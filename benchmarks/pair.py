"""This tree against another commit, in alternating rounds: ``make bench BENCH="--pair REF"``.

Each side is a process of its own with the code of its commit, its driver included. What is told is the
median, over the rounds, of the ratio of the two in the same round: machines drift, ratios less.
"""

import contextlib
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from candidates import Candidate
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT: Final = Path(__file__).resolve().parents[1]
CALL: Final = "crypto.encrypt 64 B"
METRICS: Final = {
    "p50_us": "p50 of a call",
    "cpu_us": "processor time of a call, host and driver",
    "calls_s_16": "calls/s of 16 callers",
}


def checkout(ref: str, folder: Path) -> Path:
    """Install the code of *ref* into an environment beside this one, with the same libraries."""
    tree, environment = folder / "tree", folder / "venv"
    tree.mkdir()
    archive = subprocess.run(["git", "archive", ref], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    uv = ROOT / ".venv" / "bin" / "uv"
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--no-deps", "--python", python, tree]
    subprocess.run(install, check=True)
    found = sysconfig.get_path("purelib", vars={"base": str(environment)})
    Path(found, "zz_libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


@contextlib.contextmanager
def sides(ref: str) -> Iterator[tuple[Candidate, Candidate]]:
    """Yield this tree, and the commit *ref*."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as closing:
        folder = Path(name)
        pythons = (Path(sys.executable), checkout(ref, folder))
        ours, theirs = (Candidate("kmsplug", tempfile.mkdtemp(dir=folder), python) for python in pythons)
        closing.callback(ours.close)
        closing.callback(theirs.close)
        yield ours, theirs


def _round(side: Candidate, count: int) -> dict[str, float]:
    found = side.round(CALL, count)
    return {"p50_us": statistics.median(found.pop("samples_us")), **found}


def measure(ref: str, rounds: int, count: int) -> dict[str, Any]:
    """Run both in turn, *rounds* times, and compare them."""
    seen = []
    with sides(ref) as (ours, theirs):
        for index in track(range(rounds), description="rounds", console=Console(stderr=True)):
            order = (ours, theirs) if index % 2 == 0 else (theirs, ours)
            found = {side: _round(side, count) for side in order}
            seen.append({"this": found[ours], "ref": found[theirs]})
    ratios = {metric: [row["this"][metric] / row["ref"][metric] for row in seen] for metric in METRICS}
    return {
        "ref": ref,
        "rounds": rounds,
        "calls_a_round": count,
        "median_ratio": {metric: statistics.median(values) for metric, values in ratios.items()},
        "ratios": ratios,
        "rounds_seen": seen,
    }


def show(result: dict[str, Any]) -> None:
    """Print the comparison."""
    table = Table(title=f"This tree over {result['ref']}, {result['rounds']} rounds", title_justify="left")
    for column in ("", "median ratio", "least", "most"):
        table.add_column(column, justify="right" if column else "left")
    for metric, text in METRICS.items():
        values = result["ratios"][metric]
        row = (result["median_ratio"][metric], min(values), max(values))
        table.add_row(text, *(f"{value:.3f}" for value in row))
    Console(highlight=False).print(table)
