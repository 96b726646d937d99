"""Private files: what is checked before one is trusted, and how one comes into being.

A new file appears under its name complete or not at all. Of several processes that make it at once one
wins, and all of them go on with the winner's file.
"""

import contextlib
import grp
import os
import pwd
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from typing import Final

_NEW: Final = ".new"
_MAX_LINKS: Final = 40  # as many as Linux follows in one path
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class UnsafeFileError(Exception):
    """A file or folder cannot be trusted. The message says what to do about it."""


def make_folder(folder: Path) -> None:
    """Make a folder and whatever is missing above it, each for its owner alone."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)  # exist_ok: another process may be making it too
        _sync_folder(each.parent)


def check_folders(folder: Path, *, sole_writer: bool = False) -> None:
    """Refuse a folder that somebody else could empty or redirect.

    Every folder and every symbolic link that the kernel passes on its way is looked at, also those that
    a link leads through.

    Args:
        folder: An absolute path.
        sole_writer: Refuse a sticky last folder too: there nobody can replace a file of ours, but anybody
            can be the first to make one, as the ones that SQLite keeps beside its database.

    Raises:
        UnsafeFileError: Somebody else can write there, or it is not a folder.
        OSError: It is not there, or cannot be looked at.
    """
    here = Path(folder.anchor)
    _check_folder(here, here.lstat())
    pending, links = list(reversed(folder.parts[1:])), 0
    while pending:
        step = pending.pop()
        if step == "..":  # *here* holds no links, so its parent is what the kernel would go to
            here = here.parent
            continue
        here /= step
        found = here.lstat()
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _MAX_LINKS:
                raise UnsafeFileError(f"{folder} leads through too many symbolic links")
            _check_owner(here, found)
            target = here.readlink()
            here = Path(target.anchor) if target.is_absolute() else here.parent
            pending.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
        else:
            _check_folder(here, found)
    if sole_writer:
        _check_writers(here, here.lstat())


def _check_folder(folder: Path, found: os.stat_result) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFileError(f"{folder} is not a folder: choose another path")
    _check_owner(folder, found)
    if not found.st_mode & stat.S_ISVTX:
        _check_writers(folder, found)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise UnsafeFileError(
            f"{path} belongs to uid {found.st_uid}, who could replace what is in it: choose another path, "
            f"or chown {os.geteuid()} {quote(str(path))}"
        )


def _check_writers(folder: Path, found: os.stat_result) -> None:
    by_group = found.st_mode & stat.S_IWGRP and not _is_own_group(found.st_gid)
    if by_group or found.st_mode & stat.S_IWOTH:
        raise UnsafeFileError(f"others can write to {folder}: chmod go-w {quote(str(folder))}")


def _is_own_group(gid: int) -> bool:
    """Tell whether a group is the user-private group of this process's user.

    Many systems give each user such a group and a umask of 002; a folder that it can write to has no more
    writers than its owner.
    """
    if gid != os.getegid():
        return False
    try:
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


def check_private(path: Path, look: Callable[[], os.stat_result]) -> None:
    """Refuse a file that is not its owner's alone.

    Args:
        path: Its name.
        look: Returns its status, without following a symbolic link.

    Raises:
        UnsafeFileError: It is no regular file, has another owner or another name, or others may use it.
        OSError: What *look* raises.
    """
    found = look()
    if found.st_nlink > 1:
        _remove_leftovers(path, found)
        found = look()
    if stat.S_ISLNK(found.st_mode):
        raise UnsafeFileError(f"{path} is a symbolic link: name the file itself")
    if not stat.S_ISREG(found.st_mode):
        raise UnsafeFileError(f"{path} is not a regular file: choose another path")
    if found.st_uid != os.geteuid():
        raise UnsafeFileError(
            f"{path} belongs to uid {found.st_uid}: run as that user, "
            f"or chown {os.geteuid()} {quote(str(path))}"
        )
    if found.st_mode & _OTHERS:
        raise UnsafeFileError(f"others than its owner may use {path}: chmod 600 {quote(str(path))}")
    if found.st_nlink != 1:
        raise UnsafeFileError(f"{path} has {found.st_nlink} names (hard links): remove the others")


def _remove_leftovers(path: Path, found: os.stat_result) -> None:
    """Remove temporary names of a file that `appearing` linked but did not come to unlink.

    Its maker may have been killed in between, or may be just about to do it.
    """
    for other in path.parent.iterdir():
        if other.name.startswith(f".{path.name}.") and other.name.endswith(_NEW):
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(other.lstat(), found):
                    other.unlink()


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Let a new private file be filled, and give it its name when the block ends.

    Yields:
        The temporary name of an empty file of mode 0600 in the same folder. When the block ends the file
        is durable under *path*, unless a file of that name came first: then that one stays.
    """
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_NEW}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # the umask may have taken bits of the owner away
        yield new
        os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(new)
    finally:
        os.close(descriptor)
        new.unlink(missing_ok=True)
    _sync_folder(path.parent)  # also for the winner's file: we are about to rely on it


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
