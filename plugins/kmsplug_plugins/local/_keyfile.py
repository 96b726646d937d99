"""The key file: one line of text that holds the master key, readable by its owner alone."""

import errno
import os
from pathlib import Path
from typing import Final

from kmsplug_protocol import Secret, decode_base64, encode_base64

from ._files import UnsafeFileError, appearing, check_folders, check_private
from ._hierarchy import KEY_BYTES

_PREFIX: Final = b"KMSPLUG-LOCAL-MASTER-KEY-1:"
_LENGTH: Final = len(_PREFIX) + 44 + 1  # base64 of 32 bytes, newline


def create_key_file(path: Path) -> None:
    """Make a key file with a fresh key, unless another process makes one first.

    Raises:
        UnsafeFileError: Somebody else could replace it.
        OSError: Its folder is not there or cannot be written to.
    """
    check_folders(path.parent)
    with appearing(path) as new:
        new.write_bytes(_PREFIX + encode_base64(os.urandom(KEY_BYTES)).encode("ascii") + b"\n")


def read_key_file(path: Path) -> Secret:
    """Return the master key.

    Everything is checked on the open file, so that it cannot be exchanged between check and use.

    Raises:
        UnsafeFileError: The file is not private, or not a key file.
        OSError: It is not there or cannot be read.
    """
    check_folders(path.parent)
    try:
        # Non-blocking, because opening a named pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafeFileError(f"{path} is a symbolic link: name the file itself") from None
        raise
    try:
        check_private(path, lambda: os.fstat(descriptor))
        return _parse(path, os.read(descriptor, _LENGTH + 1))
    finally:
        os.close(descriptor)


def _parse(path: Path, content: bytes) -> Secret:
    if len(content) == _LENGTH and content.startswith(_PREFIX) and content.endswith(b"\n"):
        try:
            return Secret(decode_base64(content[len(_PREFIX) : -1].decode("ascii")))
        except ValueError:
            pass  # the reason would quote the line
    raise UnsafeFileError(f"{path} is not a key file of this driver, or is damaged: restore it from a backup")
