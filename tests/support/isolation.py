"""Which isolation levels this machine has."""

import subprocess

import pytest
from kmsplug_host._guardian import landlock


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
