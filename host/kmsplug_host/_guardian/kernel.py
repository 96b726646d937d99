"""What the kernel offers and Python does not: prctl, and system calls by their number."""

from __future__ import annotations

import ctypes
import os
import sys

TYPE_CHECKING = False  # typing itself takes as long to import as the interpreter to start
if TYPE_CHECKING:
    from typing import Final

LINUX: Final = sys.platform == "linux"

PDEATHSIG: Final = 1
DUMPABLE: Final = 4
CHILD_SUBREAPER: Final = 36
NO_NEW_PRIVS: Final = 38

_libc: Final = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process; does nothing where there is no prctl.

    Raises:
        OSError: The kernel refused.
    """
    if LINUX and _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise _error()


def syscall(number: int, *arguments: object) -> int:
    """Make a system call. Integers are passed as long, anything else as ctypes does.

    Raises:
        OSError: It failed.
    """
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    _libc.syscall.restype = ctypes.c_long
    result = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise _error()
    return int(result)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
