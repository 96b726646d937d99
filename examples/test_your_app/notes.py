"""A small application under test: notes that are encrypted under a key of each tenant.

What it promises when the keystore is ill: it says so in time and stores nothing, and a tenant never ends up
with two keys.
"""

from collections.abc import Sequence

from kmsplug_host import Keystore, KmsplugError

PATIENCE_S = 2.0


class TryLater(Exception):  # noqa: N818 - reads as what the application answers
    """The keystore is ill. Nothing was stored."""


class Notes:
    """The notes of one tenant, encrypted at rest.

    Args:
        keystore: Where the tenant's key is, or will be.
        tenant: The tenant; bound to each note.
    """

    def __init__(self, keystore: Keystore, tenant: str) -> None:
        self._keystore = keystore
        self._context = {"tenant": tenant}
        self._rows: list[bytes] = []
        # Looked for first: a start that failed may have made it all the same.
        found = [key.key_id for key in keystore.list_keys().keys if key.name == tenant]
        self._key_id = found[0] if found else keystore.create_key("AES_256_GCM", name=tenant).key_id

    def add(self, text: str) -> None:
        """Store a note.

        Raises:
            TryLater: The keystore is ill.
        """
        try:
            sealed = self._keystore.encrypt(
                self._key_id, text.encode(), context=self._context, timeout=PATIENCE_S
            )
        except KmsplugError as error:
            raise TryLater("the note was not stored") from error
        self._rows.append(sealed.ciphertext)

    def all(self) -> Sequence[str]:
        """Return the notes."""
        return [self._keystore.decrypt(row, context=self._context).plaintext.decode() for row in self._rows]
