"""The store: keys by id, read and changed in transactions, kept open in memory between two changes.

What is returned was authenticated; what was changed is on the disk. Opened keys are kept until this or
another process commits, so that using a key costs neither a query nor a box.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from sqlite3 import Connection
from typing import Any, Final

from kmsplug_protocol import ErrorCode, Outcome, dcbor
from kmsplug_sdk import DriverError

from kmsplug_plugins._software.boxes import box, open_box
from kmsplug_plugins._software.records import StoredKey

from ._database import Database
from ._errors import corrupt
from ._hierarchy import Header, StoreKeys
from ._tables import Change, Tables

_META: Final = "SELECT value FROM meta WHERE name = ?"
_PUT_META: Final = "UPDATE meta SET value = ? WHERE name = ?"

_MAX_OPEN: Final = 1000  # keys kept open; bounds how many secrets are in memory


class Store:
    """The keys of one keystore.

    Args:
        database: The open database; closed by `close`.
        header: What stands in it in clear.
        keys: What its rows are sealed under.
    """

    def __init__(self, database: Database, header: Header, keys: StoreKeys) -> None:
        self.store_id = header.store_id
        self.keys = keys
        self.lock = database.lock
        """Hold it to do several things as one, as far as this process goes."""
        self._database = database
        self._header = header
        self._tables = Tables(keys, header.store_id)
        self._open: dict[str, StoredKey] = {}
        self._checked_at: int | None = None

    def key(self, key_id: str) -> StoredKey:
        """Return a key as it is now.

        Args:
            key_id: Its id or an alias.

        Raises:
            DriverError: KEY_NOT_FOUND, or KEYSTORE_CORRUPT.
        """
        with self.lock:
            if self._database.data_version() == self._checked_at:
                key = self._open.get(key_id)
                if key is not None:
                    return key
            with self._database.reading() as connection:
                self._notice_changes(connection)
                key = self._tables.find(connection, key_id)
            if len(self._open) >= _MAX_OPEN:
                self._open.clear()
            self._open[key_id] = key
            return key

    def page(self, after: int, limit: int) -> list[StoredKey]:
        """Return up to *limit* keys in the order of creation, from the one after position *after*."""
        with self._database.reading() as connection:
            self._notice_changes(connection)
            return self._tables.page(connection, after, limit)

    def add(self, key: StoredKey, *, again: bool = False) -> StoredKey:
        """Store a new key and return it as stored.

        Args:
            key: The key.
            again: Return a key of this id that is there already, whatever it is.

        Raises:
            DriverError: ALREADY_EXISTS.
        """
        with self._changing() as change:
            taken = change.connection.execute("SELECT 1 FROM keys WHERE key_id = ?", (key.key_id,)).fetchone()
            if taken is not None:
                if again:
                    return self._tables.find(change.connection, key.key_id)
                raise DriverError(ErrorCode.ALREADY_EXISTS, f"key {key.key_id} is there already")
            (last,) = change.connection.execute("SELECT coalesce(max(position), 0) FROM keys").fetchone()
            change.put(replace(key, position=last + 1))
            return self._tables.find(change.connection, key.key_id)

    def update(self, key_id: str, change: Callable[[StoredKey], StoredKey]) -> StoredKey:
        """Replace a key by what *change* makes of it.

        Nobody else changes the key meanwhile; only rows that differ are written.

        Returns:
            The key as stored, read back before the commit.

        Raises:
            DriverError: KEY_NOT_FOUND, KEYSTORE_CORRUPT, or what *change* raised; nothing was changed then.
        """
        with self._changing() as writes:
            before = self._tables.find(writes.connection, key_id)
            after = change(before)
            writes.put(after, before)
            for alias in set(before.aliases) - set(after.aliases):
                writes.drop_alias(alias)
            for alias in set(after.aliases) - set(before.aliases):
                writes.point(alias, before.key_id)
            return self._tables.find(writes.connection, before.key_id)

    def rekey(self, header: Header, keys: StoreKeys) -> None:
        """Seal everything anew under other keys, in one transaction."""
        tables = Tables(keys, self.store_id)
        with self._changing() as writes:
            stored = self._tables.page(writes.connection, 0, -1)
            writes.connection.execute("DELETE FROM aliases")  # their places are digests under the former keys
            writes.tables = tables
            for key in stored:
                writes.put(key)
                for alias in key.aliases:
                    writes.point(alias, key.key_id)
            self._put_header(writes, header)
        self.keys, self._tables, self._header = keys, tables, header
        self.forget_deleted()

    def replace_header(self, header: Header) -> None:
        """Box the store key anew; all rows stay as they are."""
        with self._changing() as writes:
            self._put_header(writes, header)
        self._header = header
        self.forget_deleted()

    def forget_deleted(self) -> bool:
        """Take what was overwritten out of the journal too.

        Returns:
            Whether it is gone; false while another process reads. Then it goes with one of the next changes.
        """
        return self._database.truncate_journal()

    def probe(self) -> None:
        """Seal and open something under the row key, in memory only.

        Raises:
            DriverError: KEYSTORE_CORRUPT: what was sealed does not open.
        """
        label: dcbor.Value = ["kmsplug-local/v1/probe", self.store_id]
        sample = os.urandom(32)
        if open_box(self.keys.rows, label, box(self.keys.rows, label, sample)) != sample:
            raise corrupt("the row key")

    def check(self) -> int:
        """See that the database is where it was, and that no row is missing, old or twice there.

        Returns:
            The epoch: it grows with every change.

        Raises:
            DriverError: PROVIDER_UNAVAILABLE or KEYSTORE_CORRUPT.
        """
        self._database.check_in_place()
        with self._database.reading() as connection:
            if _meta(connection, "store_id") != self.store_id:
                raise corrupt("the keystore's header")
            return self._check_manifest(connection)

    def close(self) -> None:
        """Forget the opened keys and close the database."""
        self._open.clear()
        self._database.close()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Change]:
        """Change rows in the block, all of them or none."""
        with self.lock:
            try:
                with self._database.writing() as connection:
                    # What is about to be covered by a new manifest has to be good under the present one.
                    self._notice_changes(connection)
                    change = Change(connection, self._tables, _meta(connection, "epoch"))
                    yield change
                    change.finish()
            finally:
                # Also after a failure: a commit that reported an error may be in the file all the same.
                self._open.clear()

    def _notice_changes(self, connection: Connection) -> None:
        """Check the manifest and drop the opened keys, if another connection has committed anything.

        In a transaction, so that the number belongs to what is read in it.
        """
        (data_version,) = connection.execute("PRAGMA data_version").fetchone()
        if data_version != self._checked_at:
            self._open.clear()
            self._check_manifest(connection)
            self._checked_at = data_version

    def _check_manifest(self, connection: Connection) -> int:
        try:
            return self._tables.manifest.check(connection)
        except DriverError:
            if _meta(connection, "store_key") == self._header.sealed:
                raise
        raise DriverError(
            ErrorCode.PROVIDER_UNAVAILABLE,
            "the keystore was given new keys while it was open",
            outcome=Outcome.NOT_APPLIED,
            hint="restart the plugin",
        )

    def _put_header(self, writes: Change, header: Header) -> None:
        if _meta(writes.connection, "store_key") != self._header.sealed:
            raise DriverError(ErrorCode.CONFLICT, "another process gave the keystore a new header meanwhile")
        values = {"kdf": dcbor.encode(header.record), "store_key": header.sealed}
        writes.connection.executemany(_PUT_META, ((value, name) for name, value in values.items()))
        writes.written = True


def _meta(connection: Connection, name: str) -> Any:
    row = connection.execute(_META, (name,)).fetchone()
    return None if row is None else row["value"]
