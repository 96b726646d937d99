"""A PIN that stands in a file."""

import os
import stat
from pathlib import Path
from typing import Final

from kmsplug_protocol import ErrorCode
from kmsplug_sdk import DriverError

_MAX_BYTES: Final = 256


def read_pin(path: Path) -> str:
    """Return the PIN in a file, without one newline at its end.

    The file has to be a regular one that is this user's or root's and that nobody else may read.

    Raises:
        DriverError: CONFIGURATION_ERROR; the message holds nothing of what stands in it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _wrong(f"{path}: {(error.strerror or 'cannot be opened').lower()}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _wrong(f"{path} is not a regular file")
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise _wrong(f"{path} can be reached by others: chown it to this user and chmod it to 0400")
        content = os.read(descriptor, _MAX_BYTES + 2)
    finally:
        os.close(descriptor)
    try:
        pin = content.removesuffix(b"\n").decode("utf-8")
    except UnicodeDecodeError:
        raise _wrong(f"{path} does not hold a PIN in UTF-8") from None
    if not 0 < len(pin.encode()) <= _MAX_BYTES:
        raise _wrong(f"{path} does not hold a PIN of 1 to {_MAX_BYTES} bytes")
    return pin


def _wrong(message: str) -> DriverError:
    return DriverError(ErrorCode.CONFIGURATION_ERROR, message, path="uri")
