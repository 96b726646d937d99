"""What a run could not check is told loudly; with CI=true it fails unless tests/optional.toml lists it."""

import os
import tomllib
from pathlib import Path

import pytest

_OPTIONAL = tuple(
    entry["reason"]
    for entry in tomllib.loads(Path(__file__).with_name("optional.toml").read_text(encoding="utf-8"))[
        "optional"
    ]
)
_skipped: dict[str, int] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the reasons of skipped tests."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        _skipped[reason] = _skipped.get(reason, 0) + 1


def _unlisted() -> list[str]:
    return [reason for reason in _skipped if not reason.startswith(_OPTIONAL)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a CI run fail that could not check something it must."""
    if os.environ.get("CI") == "true" and _unlisted() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line each what was not checked and how to get it."""
    for reason, count in _skipped.items():
        mark = "NOT CHECKED (optional)" if reason.startswith(_OPTIONAL) else "NOT CHECKED"
        terminalreporter.write_line(f"{mark}: {count} test(s): {reason}", yellow=True, bold=True)
    if os.environ.get("CI") == "true" and _unlisted():
        terminalreporter.write_line(
            "CI=true: a skip that tests/optional.toml does not list is a failure", red=True, bold=True
        )
