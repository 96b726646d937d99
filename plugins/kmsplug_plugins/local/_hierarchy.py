"""The keys above the keys: master key, store key, what follows from it, and the one kind of box.

A box commits to its key and is bound to a label, so it opens only as what it was sealed as. Python cannot
erase memory: the keys here live as long as the driver, the passphrase only while the store is opened.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from kmsplug_protocol import Secret, cobblestone, dcbor

from kmsplug_plugins._software.boxes import box, open_box

KEY_BYTES: Final = 32
STORE_ID_BYTES: Final = 16

_SALT_BYTES: Final = 32
_SCRYPT_N: Final = 2**17  # 128 MiB and a third of a second on an ordinary machine
_SCRYPT_R: Final = 8

# The parameters come from the file. Below, a damaged file could make guessing cheap; above, it could
# take all memory.
_SMALLEST_N: Final = 2**15
_LARGEST_N: Final = 2**20
_LARGEST_P: Final = 4

KEY_FILE: Final[Mapping[str, "dcbor.Value"]] = {"kdf": "key-file"}
"""The key derivation record of a store that a key file opens."""


def new_scrypt_record() -> dict[str, "dcbor.Value"]:
    """Return a key derivation record with a fresh salt."""
    return {"kdf": "scrypt", "salt": os.urandom(_SALT_BYTES), "n": _SCRYPT_N, "r": _SCRYPT_R, "p": 1}


def check_record(record: Any) -> Mapping[str, Any]:
    """Return a key derivation record that was read from a file, if it is one, with bearable parameters.

    Raises:
        ValueError: It is not.
    """
    if record == KEY_FILE:
        return KEY_FILE
    match record:
        case {"kdf": "scrypt", "salt": bytes(salt), "n": int(n), "r": int(r), "p": int(p)} if (
            len(record) == 5  # noqa: PLR2004 - the five members named here
            and len(salt) == _SALT_BYTES
            and _SMALLEST_N <= n <= _LARGEST_N
            and n.bit_count() == 1
            and r == _SCRYPT_R
            and 1 <= p <= _LARGEST_P
        ):
            return dict(record)
    raise ValueError("not a key derivation record")


def stretch(passphrase: str, record: Mapping[str, Any]) -> Secret:
    """Derive the master key from a passphrase. Takes long, on purpose.

    Args:
        passphrase: Taken as it is given, in UTF-8, without normalisation.
        record: A checked scrypt record.
    """
    kdf = Scrypt(salt=record["salt"], length=KEY_BYTES, n=record["n"], r=record["r"], p=record["p"])
    return Secret(kdf.derive(passphrase.encode("utf-8")))


@dataclass(frozen=True, slots=True)
class StoreKeys:
    """What follows from the store key, one key for each purpose.

    Attributes:
        rows: Seals all rows.
        manifest: Authenticates the manifest.
        aliases: Hides the names of aliases in the index.
        backups: Seals backups.
        imports: Seals import tokens.
    """

    rows: Secret
    manifest: Secret
    aliases: Secret
    backups: Secret
    imports: Secret

    @classmethod
    def of(cls, store_key: bytes) -> Self:
        """Derive them."""

        def derived(purpose: bytes, length: int = KEY_BYTES) -> Secret:
            return Secret(cobblestone.expand(store_key, b"kmsplug/local@v1/" + purpose, length))

        return cls(
            rows=derived(b"rows"),
            manifest=derived(b"manifest", 64),
            aliases=derived(b"aliases"),
            backups=derived(b"backups"),
            imports=derived(b"imports"),
        )


def new_store_key() -> Secret:
    """Return a fresh store key."""
    return Secret(os.urandom(KEY_BYTES))


@dataclass(frozen=True, slots=True)
class Header:
    """What stands in the file in clear: the store's id, and its key in a box.

    Attributes:
        store_id: 16 random bytes; part of every label.
        record: How the master key is derived.
        sealed: The box of the store key.
    """

    store_id: bytes
    record: Mapping[str, Any]
    sealed: bytes

    @classmethod
    def of(cls, store_id: bytes, store_key: bytes, master_key: bytes, record: Mapping[str, Any]) -> Self:
        """Box a store key."""
        key_encryption_key = _key_encryption_key(master_key, store_id)
        return cls(store_id, record, box(key_encryption_key, _store_key_label(store_id, record), store_key))

    def store_key(self, master_key: bytes) -> Secret:
        """Return the store key.

        Raises:
            CobblestoneError: The master key is not this store's, or the header is damaged; nothing tells
                which.
        """
        label = _store_key_label(self.store_id, self.record)
        return open_box(_key_encryption_key(master_key, self.store_id), label, self.sealed)


def _key_encryption_key(master_key: bytes, store_id: bytes) -> bytes:
    return cobblestone.expand(master_key, b"kmsplug/local@v1/kek\x00" + store_id, KEY_BYTES)


def _store_key_label(store_id: bytes, record: Mapping[str, Any]) -> list["dcbor.Value"]:
    return ["kmsplug-local/v1/store-key", store_id, record]
