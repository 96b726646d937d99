"""Landlock: a process gives up the file system, except for what it names, and with it its children.

What it cannot reach any more besides: processes outside (their memory, environment and descriptors, and
signals to them where the kernel knows that) and their abstract sockets. Needs no privilege.
"""

from __future__ import annotations

import ctypes
import os
import stat

from . import kernel

TYPE_CHECKING = False  # typing itself takes as long to import as the interpreter to start
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

# The numbers are the same on every architecture.
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FIRST_RIGHTS: Final = (1 << 13) - 1  # all of ABI 1

_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_SCOPES: Final = 1 << 0 | 1 << 1  # abstract sockets, signals
_SCOPES_ABI: Final = 6


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """Return the version of Landlock that this kernel offers; 0 for none."""
    if not kernel.LINUX:
        return 0
    try:
        return kernel.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def restrict(read: Sequence[str], write: Sequence[str]) -> None:
    """Give up everything but these files and folders, for ever. Needs ``no_new_privs``.

    Args:
        read: May be read and executed, with all that is in them; what does not exist is left out.
        write: May also be written, made and removed.

    Raises:
        OSError: The kernel has no Landlock, or refused.
    """
    version = abi()
    handled = _FIRST_RIGHTS
    handled |= _REFER if version >= 2 else 0  # noqa: PLR2004 - versions of the interface
    handled |= _TRUNCATE if version >= 3 else 0  # noqa: PLR2004
    handled |= _IOCTL_DEV if version >= 5 else 0  # noqa: PLR2004
    scoped = _SCOPES if version >= _SCOPES_ABI else 0
    attributes = _RulesetAttr(handled, 0, scoped)
    # A kernel refuses a longer structure than it knows, if what it does not know is set: it is not.
    ruleset = kernel.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    try:
        for path in read:
            _allow(ruleset, path, _READ)
        for path in write:
            _allow(ruleset, path, handled)
        kernel.syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_FILES
        rule = _PathBeneathAttr(rights, place)
        kernel.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(place)
