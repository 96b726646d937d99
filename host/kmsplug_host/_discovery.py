"""Drivers that could be configured: installed entry points, and executables in the folders that are named.

None of them is run or imported: what is found here is only told, and a driver runs when plugins.toml says so.
"""

import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import _trust
from ._launch import available_drivers

_NAME: Final = re.compile(r"kmsplug-driver-([a-z0-9][a-z0-9_.-]{0,63})")
_MOST_ENTRIES: Final = 10_000
_MOST_BYTES: Final = 512 * 1024 * 1024
_CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Available:
    """A driver that was found.

    Attributes:
        name: What it calls itself by its entry point or file.
        kind: ``entry point`` or ``executable``.
        target: Its class, or its path.
        sha256: Digest of the file as it is now, to be compared and pinned.
        problem: Why the host would not run it as it is; None: nothing was found.
    """

    name: str
    kind: str
    target: str
    sha256: str | None = None
    problem: str | None = None


def find(folders: Sequence[Path]) -> list[Available]:
    """Return what is installed and what is in *folders*, by name. A folder that cannot be read is told."""
    found = [Available(name, "entry point", target) for name, target in available_drivers().items()]
    for folder in folders:
        found += _executables(folder)
    return sorted(found, key=lambda one: (one.name, one.kind, one.target))


def _executables(folder: Path) -> Iterator[Available]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, _MOST_ENTRIES)]
    except OSError as error:
        yield Available("", "executable", str(folder), problem=f"the folder cannot be read: {error.strerror}")
        return
    for name in names:
        path = folder / name
        if (match := _NAME.fullmatch(name)) is not None and path.is_file():
            yield _looked_at(match[1], path)


def _looked_at(name: str, path: Path) -> Available:
    digest, problem = None, None
    try:
        digest = _digest(path)
        _trust.check_file(path)
        if not os.access(path, os.X_OK):
            problem = "it is not executable"
    except OSError as error:
        problem = error.strerror or "it cannot be looked at"
    return Available(name, "executable", str(path), digest, problem)


def _digest(path: Path) -> str | None:
    """Return the digest of a file, unless it is larger than any driver."""
    if path.stat().st_size > _MOST_BYTES:
        return None
    seen = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            seen.update(chunk)
    return seen.hexdigest()
