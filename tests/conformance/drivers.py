"""The drivers that the suite is tried on, and how to run it on them."""

import sys
from collections.abc import Collection
from pathlib import Path

from kmsplug_host.conformance import Outcome, Report, run

TESTS = Path(__file__).resolve().parents[1]
PLAIN = TESTS / "drivers" / "plain_driver.py"
EVERYTHING = TESTS / "conformance" / "everything_driver.py"
MANAGING = TESTS / "conformance" / "managing_driver.py"


def try_file(path: Path, *, only: Collection[str] | None = None, timeout_s: float = 20) -> Report:
    """Run the suite on a driver that is one Python file."""
    return run([sys.executable, str(path)], only=only, timeout_s=timeout_s)


def failures(report: Report) -> dict[str, str]:
    """Return what failed, and why."""
    return {result.case.id: result.detail for result in report.failed}


def skipped(report: Report) -> dict[str, str]:
    """Return what was skipped, and why."""
    return {result.case.id: result.detail for result in report.cases if result.outcome is Outcome.SKIPPED}


def untried(report: Report) -> set[str]:
    """Return the cases that were skipped for what a driver is rather than for an operation that it lacks."""
    return {case for case, why in skipped(report).items() if not why.startswith("needs ")}
