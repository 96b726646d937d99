"""The drivers that the suite is tried on, and how to run it on them."""

import sys
from collections.abc import Collection
from pathlib import Path

from kmsplug_host.conformance import CASES, Outcome, Report, run
from kmsplug_protocol import KEYSTORE_API

TESTS = Path(__file__).resolve().parents[1]
PLAIN = TESTS / "drivers" / "plain_driver.py"
EVERYTHING = TESTS / "conformance" / "everything_driver.py"
MANAGING = TESTS / "conformance" / "managing_driver.py"

# Skipped where nobody names settings for a provider that is played, and a login that it rejects.
WITHOUT_PROVIDER = frozenset(case.id for case in CASES if case.group == "provider")
LOGIN = "provider.login"

KEYSTORES = {f"keystore.{what}" for what in ("provision", "deprovision", "grant_trust", "remove_trust")}
ALIASES = {"key.set_alias", "key.remove_alias"}
MACS = {"crypto.mac", "crypto.verify_mac"}
KEMS = {"crypto.encapsulate", "crypto.decapsulate"}


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
    """Return the cases that were skipped though the driver offers the operations that they need."""
    return {
        result.case.id
        for result in report.cases
        if result.outcome is Outcome.SKIPPED
        and result.detail not in {need.reason for need in result.case.needs}
    }


def not_offered(report: Report) -> set[str]:
    """Return the operations that a driver does not declare, having looked at its keystore."""
    return {operation.wire for operation in KEYSTORE_API} - {row.operation for row in report.rows}
