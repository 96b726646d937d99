"""Which change made what: two requests under one idempotency key have the effect of one.

Nothing is stored beside the keys. The id of a key is a digest of the idempotency key of its create, and each
version tells inside its box what made it; so the answer is there for as long as the key, as a tombstone too.
"""

import hashlib
from typing import Final

from kmsplug_protocol import ErrorCode, dcbor
from kmsplug_sdk import DriverError

from .lifecycle import KEY_NAMESPACE
from .records import StoredKey

_ID_BYTES: Final = 16


def id_of_created(store_id: bytes, change: str) -> str:
    """Return the id of the key that a create under this idempotency key makes."""
    label: list[dcbor.Value] = ["kmsplug-local/v1/key-id", store_id, change]
    return KEY_NAMESPACE + hashlib.sha512(dcbor.encode(label)).digest()[:_ID_BYTES].hex()


def was_created(key: StoredKey, change: str | None) -> bool:
    """Tell whether a create under this idempotency key made the key."""
    return change is not None and key.versions[0].made_by == change


def was_rotated(key: StoredKey, change: str | None) -> bool:
    """Tell whether a rotate under this idempotency key made one of the key's versions."""
    return change is not None and any(version.made_by == change for version in key.versions[1:])


def was_imported(key: StoredKey, change: str | None) -> bool:
    """Tell whether an import under this idempotency key gave the key its material."""
    return change is not None and any(version.filled_by == change for version in key.versions)


def require_same(stored: StoredKey, asked: StoredKey) -> StoredKey:
    """Return the stored key, if it is what was asked for now.

    Raises:
        DriverError: ALREADY_EXISTS: the idempotency key was used for another key.
    """
    if (stored.algorithm, stored.usage, stored.origin) != (asked.algorithm, asked.usage, asked.origin):
        raise DriverError(
            ErrorCode.ALREADY_EXISTS,
            f"the idempotency key was used for key {stored.key_id}, which is another",
        )
    return stored
