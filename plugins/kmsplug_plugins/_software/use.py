"""What every use of a key begins with: finding it, and refusing what it does not offer."""

from kmsplug_protocol import ErrorCode, KeyUsage
from kmsplug_sdk import DriverError

from .records import StoredKey
from .store import Store


def key_for(store: Store, key_id: str, usage: KeyUsage) -> StoredKey:
    """Return a key by its id or alias.

    Raises:
        DriverError: KEY_NOT_FOUND, KEYSTORE_CORRUPT, or KEY_USAGE_MISMATCH: it is for something else.
    """
    key = store.key(key_id)
    if key.usage is not usage:
        raise DriverError(
            ErrorCode.KEY_USAGE_MISMATCH, f"key {key.key_id} is for {key.usage}, and {usage} was asked of it"
        )
    return key
