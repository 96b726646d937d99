"""The catalog's key, and the MAC that every row carries under it.

The MAC binds a row to its place and revision. It does not show that a row is the latest: whoever can write
to the database can put an old row back, or take rows away.
"""

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from kmsplug_protocol import dcbor

from kmsplug_host.errors import ConfigurationError

_HEAD: Final = b"KMSPLUG-CATALOG-KEY-1:"
_KEY_BYTES: Final = 32
_LINE_BYTES: Final = len(_HEAD) + 44 + 1


def row_mac(key: bytes, place: tuple[str, str, str], owner: str, rev: int, body: str) -> bytes:
    """Return the MAC of a row. *place* is keystore, kind and name."""
    message = dcbor.encode(["kmsplug/catalog@v1", *place, owner, rev, body])
    return hmac.digest(key, message, hashlib.sha256)


def read_key(path: Path) -> bytes:
    """Return the catalog's key; makes the file where there is none.

    Raises:
        ConfigurationError: It cannot be read or made, others can read it, or it is no such file.
    """
    try:
        if not (path.is_symlink() or path.exists()):
            with contextlib.suppress(FileExistsError):  # another process was faster
                _make(path)
        return _read(path)
    except OSError as error:
        raise ConfigurationError(f"catalog.key_file: {path}: {error.strerror}") from None


def _make(path: Path) -> None:
    """Make the file, whole or not at all."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    line = _HEAD + base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n"
    try:
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.write(file, line)
            os.fsync(file)
        finally:
            os.close(file)
        path.hardlink_to(beside)
    finally:
        beside.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        data = os.read(file, _LINE_BYTES + 1)
    finally:
        os.close(file)
    if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"catalog.key_file: {path} must be a file of this user that nobody else can read",
            hint=f"chmod 600 {path}",
        )
    try:
        key = base64.b64decode(data.removeprefix(_HEAD).removesuffix(b"\n"), validate=True)
    except binascii.Error:
        key = b""
    if not data.startswith(_HEAD) or len(key) != _KEY_BYTES:
        raise ConfigurationError(f"catalog.key_file: {path} holds no key of a catalog")
    return key
