"""The manifest: one code over the places and revisions of all rows, rewritten with every change.

A box proves that a row was written by this driver, the manifest that it is there once and the latest. The
epoch counts the changes; each row's revision is the epoch in which it was written, so that no two states of
a row ever have the same one, also if it was removed in between. A whole old file agrees with itself: only
somebody who remembers its epoch notices.
"""

import hmac
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

from kmsplug_protocol import Secret, dcbor

from ._errors import corrupt

_KEYS: Final = "SELECT key_id, revision FROM keys ORDER BY key_id"
_VERSIONS: Final = "SELECT key_id, number, revision FROM versions ORDER BY key_id, number"
_ALIASES: Final = "SELECT place, revision FROM aliases ORDER BY place"
_META: Final = "SELECT name, value FROM meta WHERE name IN ('epoch', 'manifest')"
_PUT_META: Final = "UPDATE meta SET value = ? WHERE name = ?"

FIRST_EPOCH: Final = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """Writes and checks the manifest of one store.

    Attributes:
        key: The manifest key of the store.
        store_id: The store's id.
    """

    key: Secret
    store_id: bytes

    def of_nothing(self) -> bytes:
        """Return the manifest of a store without rows."""
        return self._code(FIRST_EPOCH, [])

    def check(self, connection: Connection) -> int:
        """Compare the manifest with the rows that are there.

        Returns:
            The epoch.

        Raises:
            DriverError: KEYSTORE_CORRUPT.
        """
        meta = {row["name"]: row["value"] for row in connection.execute(_META)}
        epoch, found = meta.get("epoch"), meta.get("manifest")
        if type(epoch) is not int or not isinstance(found, bytes):
            raise corrupt("the keystore's manifest")
        try:
            expected = self._code(epoch, _rows(connection))
        except (TypeError, ValueError):  # a value of another type than we write
            raise corrupt("the keystore's list of rows") from None
        if not hmac.compare_digest(found, expected):
            raise corrupt("the keystore's list of rows")
        return epoch

    def write(self, connection: Connection, epoch: int) -> None:
        """Write the manifest of the rows that are there now."""
        code = self._code(epoch, _rows(connection))
        connection.executemany(_PUT_META, ((epoch, "epoch"), (code, "manifest")))

    def _code(self, epoch: int, rows: list["dcbor.Value"]) -> bytes:
        message = dcbor.encode(["kmsplug-local/v1/manifest", self.store_id, epoch, rows])
        return hmac.digest(self.key, message, "sha512")


def _rows(connection: Connection) -> list["dcbor.Value"]:
    """Return [table, primary key, revision] of each row, sorted."""
    return [
        *(["aliases", place, revision] for place, revision in connection.execute(_ALIASES)),
        *(["keys", key_id, revision] for key_id, revision in connection.execute(_KEYS)),
        *(
            ["versions", [key_id, number], revision]
            for key_id, number, revision in connection.execute(_VERSIONS)
        ),
    ]
