"""Whether an executable may be run: nobody else can change it, and where it is pinned, nobody has.

Without a pin, owner and mode of the file, of every link on the way and of every folder above are looked at.
With ``sha256`` the bytes that were hashed are the bytes that run: they are copied into memory and sealed
first, because a file can be written to after it was hashed, under the same name and descriptor.
"""

import errno
import fcntl
import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .errors import ConfigurationError

_MAX_LINKS: Final = 40
_HEAD_BYTES: Final = 4096
_CHUNK_BYTES: Final = 1024 * 1024
_MAX_SOURCE_BYTES: Final = 4 * 1024 * 1024

# They look for the files beside a program by the program's own path, which a copy in memory does not have.
_BY_PATH: Final = ("node", "nodejs", "deno", "bun", "java", "ruby", "perl")
_INTERPRETERS: Final = (*_BY_PATH, "python", "pypy", "sh", "bash", "dash", "zsh", "env")
_PIN_FILES: Final = 'pin files = { "/path" = "sha256" } instead'


class UntrustedError(OSError):
    """A file may not be run. The text says why, and what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EACCES, reason)


def check_file(path: Path) -> None:
    """Refuse a file that another user could have changed, or could put another one in its place.

    Raises:
        UntrustedError: Its owner, its mode, or those of a link or folder on the way.
        OSError: It is not there, or cannot be looked at.
    """
    here, pending, links = Path("/"), list(reversed(path.parts[1:])), 0
    while pending:
        step = pending.pop()
        if step == "..":
            here = here.parent
            continue
        here /= step
        found = here.lstat()
        _check_owner(here, found)
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _MAX_LINKS:
                raise UntrustedError(f"{path} leads through too many symbolic links")
            target = here.readlink()
            here = Path("/") if target.is_absolute() else here.parent
            pending.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
        elif not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
            _check_writers(here, found)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise UntrustedError(
            f"{path} belongs to uid {found.st_uid}, who could change what is run: "
            f"chown it to root or to uid {os.geteuid()}"
        )


def _check_writers(path: Path, found: os.stat_result) -> None:
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid != 0 and not _is_own_group(found.st_gid)
    if by_group or found.st_mode & stat.S_IWOTH:
        raise UntrustedError(f"others can write to {path}: chmod go-w")


def _is_own_group(gid: int) -> bool:
    """Tell whether it is the private group of this user, which a umask of 002 goes with."""
    try:
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == os.getegid() and group.gr_name == user and set(group.gr_mem) <= {user}


def check_pinned(files: Mapping[Path, str]) -> None:
    """Compare files with their pins. They are read again when they are used: this finds accidents.

    Raises:
        UntrustedError: One is another than was pinned, or others can change it.
        OSError: One is not there.
    """
    for path, expected in files.items():
        check_file(path)
        with path.open("rb") as file:
            _compare(path, hashlib.file_digest(file, "sha256").hexdigest(), expected)


def seal(path: Path, sha256: str) -> int:
    """Copy an executable into memory, where nobody can change it, and return a descriptor of the copy.

    Raises:
        UntrustedError: It is another one.
        OSError: It cannot be read, or this system has no sealed memory.
    """
    if not hasattr(os, "memfd_create"):
        raise UntrustedError(f"sha256 needs Linux: {_PIN_FILES}")
    image = os.memfd_create(path.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        digest = hashlib.sha256()
        with path.open("rb") as file, open(image, "wb", closefd=False) as copy:
            while data := file.read(_CHUNK_BYTES):
                copy.write(data)
        os.fchmod(image, 0o500)
        fcntl.fcntl(
            image, fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE,
        )  # fmt: skip
        os.lseek(image, 0, os.SEEK_SET)
        while data := os.read(image, _CHUNK_BYTES):  # what is sealed, not what was read
            digest.update(data)
        os.lseek(image, 0, os.SEEK_SET)  # bwrap reads from here
        _compare(path, digest.hexdigest(), sha256)
    except BaseException:
        os.close(image)
        raise
    return image


def _compare(path: Path, found: str, expected: str) -> None:
    if found != expected.lower():
        raise UntrustedError(f"{path} has the SHA-256 {found}, which is not the pinned one")


def check_runs_sealed(path: Path, key: str) -> None:
    """Refuse the pin of an executable that would not work, or not be covered, as a copy in memory.

    Args:
        path: The executable.
        key: What to call it in an error.

    Raises:
        ConfigurationError: It is a script that looks for files beside it, or an interpreter.
        OSError: It cannot be read.
    """
    if path.resolve().name.rstrip("0123456789.") in _INTERPRETERS:
        raise ConfigurationError(
            f"{key}: {path} is an interpreter, a pin of it covers no script: {_PIN_FILES}"
        )
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        source = head + file.read(_MAX_SOURCE_BYTES)
    words = interpreter(head)
    names = {Path(word).name.rstrip("0123456789.") for word in words}
    if names & set(_BY_PATH):
        raise ConfigurationError(f"{key}: {path} runs by its path only: {_PIN_FILES}")
    if names & {"python", "pypy"} and (neighbour := _imported_neighbour(path, source)):
        raise ConfigurationError(
            f"{key}: {path} imports {neighbour!r} from beside it, which the pin does not cover: {_PIN_FILES}"
        )


def interpreter(head: bytes) -> list[str]:
    """Return the words of a script's first line after ``#!``; none for another file."""
    if not head.startswith(b"#!"):
        return []
    return head[2:].split(b"\n", 1)[0].decode("utf-8", "surrogateescape").split()


def _imported_neighbour(path: Path, source: bytes) -> str | None:
    """Return what a Python script imports from its own folder; an archive (zipapp) carries it inside."""
    import ast  # noqa: PLC0415 - only where a Python script is pinned

    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in (name.partition(".")[0] for name in names):
            if (path.parent / f"{name}.py").exists() or (path.parent / name / "__init__.py").exists():
                return name
    return None
