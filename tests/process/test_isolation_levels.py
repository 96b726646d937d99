"""What a hostile driver reaches at each isolation level; README.md shows the same table."""

import subprocess
from pathlib import Path

import pytest
from kmsplug_host._guardian import landlock
from support.siblings import reached_at
from support.tables import published

TABLE = "isolation"


def bwrap_works() -> bool:
    """Tell whether bubblewrap is here and may make namespaces."""
    command = ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except FileNotFoundError:
        return False


def require(level: str) -> None:
    """Skip, loudly, where this machine does not have the level."""
    if level == "landlock" and landlock.abi() < 6:
        pytest.skip("LANDLOCK NOT CHECKED: this kernel has none, or one without scopes (Linux 6.12)")
    if level == "bwrap" and not bwrap_works():
        pytest.skip("BWRAP NOT CHECKED: bubblewrap is not installed, or may not make namespaces here")


def test_the_readme_tells_what_a_hostile_driver_reaches_at_each_level(tmp_path: Path) -> None:
    for level in ("landlock", "bwrap"):
        require(level)
    measured: dict[str, dict[str, str]] = {}
    for level in ("process", "landlock", "bwrap"):
        for attempt, reached in reached_at(level, tmp_path).items():
            measured.setdefault(attempt, {})[f"`{level}`"] = "**reached**" if reached else "denied"

    shown = published(TABLE, measured)

    assert shown.keys() == measured.keys()
    for attempt, cells in measured.items():
        assert (cells["`landlock`"], cells["`bwrap`"]) == ("denied", "denied"), attempt
        # A stricter kernel (Yama) denies more than the README says, never less.
        assert cells["`process`"] in (shown[attempt]["`process`"], "denied"), attempt
    assert measured["read the master key file of the other driver"]["`process`"] == "**reached**"
