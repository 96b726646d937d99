"""The three tables: keys, their versions, and aliases, each row opened and sealed on its way.

Aliases are found by a keyed digest of their name, because names tell something and the file is not secret.
"""

import hmac
from collections.abc import Iterable
from sqlite3 import Connection, Row
from typing import Final

from kmsplug_protocol import ErrorCode
from kmsplug_sdk import DriverError

from kmsplug_plugins._software.records import ALIAS_PREFIX, StoredKey, StoredVersion

from ._errors import corrupt
from ._hierarchy import StoreKeys
from ._manifest import Manifest
from ._rows import Rows

_KEY: Final = "SELECT position, key_id, current, revision, box FROM keys WHERE key_id = ?"
_KEYS_AFTER: Final = (
    "SELECT position, key_id, current, revision, box FROM keys WHERE position > ? ORDER BY position LIMIT ?"
)
_VERSIONS: Final = "SELECT number, state, revision, box FROM versions WHERE key_id = ? ORDER BY number"
_ALIAS: Final = "SELECT place, key_id, revision, box FROM aliases WHERE place = ?"
_ALIASES_OF: Final = "SELECT place, key_id, revision, box FROM aliases WHERE key_id = ?"
_PUT_KEY: Final = (
    "INSERT OR REPLACE INTO keys (position, key_id, current, revision, box) VALUES (?, ?, ?, ?, ?)"
)
_PUT_VERSION: Final = (
    "INSERT OR REPLACE INTO versions (key_id, number, state, revision, box) VALUES (?, ?, ?, ?, ?)"
)
_PUT_ALIAS: Final = "INSERT OR REPLACE INTO aliases (place, key_id, revision, box) VALUES (?, ?, ?, ?)"
_DROP_ALIAS: Final = "DELETE FROM aliases WHERE place = ?"


class Tables:
    """Reads the rows of one store.

    Args:
        keys: The keys that its rows are sealed under.
        store_id: Its id.
    """

    def __init__(self, keys: StoreKeys, store_id: bytes) -> None:
        self.manifest = Manifest(keys.manifest, store_id)
        self.keys = Rows("keys", keys.rows, store_id)
        self.versions = Rows("versions", keys.rows, store_id)
        self.aliases = Rows("aliases", keys.rows, store_id)
        self._places = keys.aliases

    def find(self, connection: Connection, key_id: str) -> StoredKey:
        """Return a key by its id, or by an alias with or without the prefix.

        Raises:
            DriverError: KEY_NOT_FOUND, or KEYSTORE_CORRUPT.
        """
        row = connection.execute(_KEY, (key_id,)).fetchone()
        if row is None:
            target = self.target(connection, key_id.removeprefix(ALIAS_PREFIX))
            row = None if target is None else connection.execute(_KEY, (target,)).fetchone()
        if row is None:
            raise DriverError(ErrorCode.KEY_NOT_FOUND, f"this keystore has no key {key_id!r}")
        return self._opened(connection, row)

    def page(self, connection: Connection, after: int, limit: int) -> list[StoredKey]:
        """Return up to *limit* keys in the order of creation, from the one after position *after*."""
        rows = connection.execute(_KEYS_AFTER, (after, limit)).fetchall()
        return [self._opened(connection, row) for row in rows]

    def target(self, connection: Connection, alias: str) -> str | None:
        """Return the id of the key that an alias points to; None: there is no such alias."""
        row = connection.execute(_ALIAS, (self.place(alias),)).fetchone()
        return None if row is None else self._opened_alias(row)[1]

    def place(self, alias: str) -> bytes:
        """Return the primary key of an alias."""
        return hmac.digest(self._places, alias.encode("utf-8"), "sha256")

    def _opened(self, connection: Connection, row: Row) -> StoredKey:
        key_id = row["key_id"]
        try:
            versions = tuple(
                StoredVersion.from_columns(
                    self.versions.open([key_id, each["number"]], each), each["revision"]
                )
                for each in connection.execute(_VERSIONS, (key_id,))
            )
            aliases = (self._opened_alias(each)[0] for each in connection.execute(_ALIASES_OF, (key_id,)))
            return StoredKey.from_columns(
                self.keys.open(key_id, row), versions, tuple(sorted(aliases)), row["revision"]
            )
        except (KeyError, TypeError, ValueError):  # whichever way it is wrong, it means the same
            raise corrupt(f"key {key_id}") from None

    def _opened_alias(self, row: Row) -> tuple[str, str]:
        try:
            columns = self.aliases.open(row["place"], row)
            return columns["name"], columns["key_id"]
        except (KeyError, TypeError, ValueError):
            raise corrupt("an alias") from None


class Change:
    """The writes of one transaction.

    Args:
        connection: In which it is open.
        tables: What seals the rows.
        epoch: The epoch that ends with it.
    """

    def __init__(self, connection: Connection, tables: Tables, epoch: int) -> None:
        self.connection = connection
        self.tables = tables
        self.epoch = epoch + 1
        """The epoch that it makes, if it writes anything."""
        self.written = False

    def put(self, key: StoredKey, before: StoredKey | None = None) -> None:
        """Write a key, or only what differs from how it was before; not its aliases."""
        if before is None or key.columns() != before.columns():
            sealed = self.tables.keys.seal(key.key_id, self.epoch, key.columns())
            row = (key.position, key.key_id, len(key.versions), self.epoch, sealed)
            self._write(_PUT_KEY, row)
        known = () if before is None else frozenset(before.versions)
        self._put_versions(key.key_id, (version for version in key.versions if version not in known))

    def point(self, alias: str, key_id: str) -> None:
        """Make an alias point to a key, also if it points elsewhere."""
        place = self.tables.place(alias)
        columns = {"place": place, "name": alias, "key_id": key_id}
        self._write(
            _PUT_ALIAS, (place, key_id, self.epoch, self.tables.aliases.seal(place, self.epoch, columns))
        )

    def drop_alias(self, alias: str) -> None:
        """Remove an alias."""
        self._write(_DROP_ALIAS, (self.tables.place(alias),))

    def finish(self) -> None:
        """Write the manifest, if anything was written; the last thing before the commit."""
        if self.written:
            self.tables.manifest.write(self.connection, self.epoch)

    def _put_versions(self, key_id: str, versions: Iterable[StoredVersion]) -> None:
        for version in versions:
            sealed = self.tables.versions.seal([key_id, version.number], self.epoch, version.columns())
            self._write(_PUT_VERSION, (key_id, version.number, version.state.value, self.epoch, sealed))

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        self.connection.execute(statement, values)
        self.written = True
