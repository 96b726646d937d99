"""Backups of single keys: a key and its versions, in one box under a key of its store."""

from dataclasses import replace
from typing import Any, Final

from kmsplug_protocol import INVALID_CIPHERTEXT_MESSAGE, ErrorCode, cobblestone, dcbor
from kmsplug_sdk import DriverError

from .boxes import box, open_box
from .records import StoredKey, StoredVersion
from .store import Store

_MAX_BYTES: Final = 700_000  # its base64 has to fit into a frame


def sealed_backup(store: Store, key: StoredKey) -> bytes:
    """Return the backup of a key.

    Raises:
        DriverError: LIMIT_EXCEEDED: it would not fit into a frame.
    """
    content: dict[str, Any] = {
        "key": key.columns(),
        "versions": [version.columns() for version in key.versions],
    }
    sealed = box(store.keys.backups, _label(store), dcbor.encode(content))
    if len(sealed) > _MAX_BYTES:
        raise DriverError(
            ErrorCode.LIMIT_EXCEEDED,
            f"key {key.key_id} has too many versions for a backup of its own: back up the whole keystore",
        )
    return sealed


def opened_backup(store: Store, backup: bytes) -> StoredKey:
    """Return the key in a backup, without aliases: they may belong to other keys by now.

    Raises:
        DriverError: INVALID_CIPHERTEXT: it is none of this keystore's, or was changed; nothing tells which.
    """
    try:
        content: dict[str, Any] = dcbor.decode(open_box(store.keys.backups, _label(store), backup))
        versions = tuple(StoredVersion.from_columns(columns, 0) for columns in content["versions"])
        key = StoredKey.from_columns(content["key"], versions, (), 0)
    except (cobblestone.CobblestoneError, KeyError, TypeError, ValueError):
        raise DriverError(ErrorCode.INVALID_CIPHERTEXT, INVALID_CIPHERTEXT_MESSAGE) from None
    return replace(key, position=0)


def _label(store: Store) -> list["dcbor.Value"]:
    return ["kmsplug-local/v1/backup", store.store_id]
