"""What takes long to make and is the same for every run and checkout: kept in the user's cache."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path


class UnavailableError(Exception):
    """It cannot be had here; the text says why."""


def place(name: str) -> Path:
    """Return the folder of this name, be it made or not."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kmsplug" / name


def is_made(name: str) -> bool:
    """Tell whether it is there, whole."""
    return (place(name) / "complete").exists()


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that is made once, by whoever is first.

    Args:
        name: Names its content, versions included.
        make: Makes it; what an interrupted one left may be there.

    Raises:
        UnavailableError: It cannot be made here.
    """
    folder = place(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_made(name):
            make(folder)
            (folder / "complete").touch()
    return folder
