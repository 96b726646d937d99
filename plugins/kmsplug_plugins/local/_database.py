"""The SQLite file: durable when a transaction ends, shared by several processes, one connection in each.

A transaction that was killed anywhere leaves the file as it was before. The file, and the -wal and -shm
beside it that inherit its mode, belong to one user alone.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from kmsplug_protocol import ErrorCode, Outcome
from kmsplug_sdk import DriverError

from ._errors import SqliteErrors, corrupt
from ._wal_index import WalIndex

SCHEMA_VERSION: Final = 2

_SCHEMA: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    (
        "CREATE TABLE keys (position INTEGER PRIMARY KEY, key_id TEXT NOT NULL UNIQUE, "
        "current INTEGER NOT NULL, revision INTEGER NOT NULL, box BLOB NOT NULL)"
    ),
    (
        "CREATE TABLE versions (key_id TEXT NOT NULL, number INTEGER NOT NULL, state TEXT NOT NULL, "
        "revision INTEGER NOT NULL, box BLOB NOT NULL, PRIMARY KEY (key_id, number)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE aliases (place BLOB PRIMARY KEY, key_id TEXT NOT NULL, revision INTEGER NOT NULL, "
        "box BLOB NOT NULL) WITHOUT ROWID"
    ),
    "CREATE INDEX aliases_of_key ON aliases (key_id)",
)

# Without the indexes that SQLite makes for itself, and the statistics that an ANALYZE leaves.
_FOUND_SCHEMA: Final = (
    "SELECT sql FROM sqlite_schema "
    r"WHERE sql IS NOT NULL AND NOT (type = 'table' AND name LIKE 'sqlite\_%' ESCAPE '\')"
)

# How long a transaction waits for another process's. Writes take milliseconds; a second of them is a lot.
_BUSY_TIMEOUT_S: Final = 5.0

_SQLITE_ERRORS: Final = SqliteErrors()


class Database:
    """One connection, used by one thread at a time.

    Args:
        path: The file, which must be there.
        read_only: Change nothing, and make no files beside it where there are none.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.lock = threading.RLock()
        """Held during transactions; hold it to do several things as one."""
        self._path = path
        self._sign: bytes | None = None  # of the last commit when `_version` was asked for
        self._version = 0
        with _SQLITE_ERRORS:
            self._connection = sqlite3.connect(
                _uri(path, read_only=read_only),
                uri=True,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,  # transactions begin and end where this module says
                check_same_thread=False,  # the lock sees to it
            )
        try:
            with _SQLITE_ERRORS:
                self._set_up(read_only=read_only)
            self._inode = _inode(path)
            self._index = None if read_only else WalIndex(path)
        except BaseException:
            self._connection.close()
            raise

    def _set_up(self, *, read_only: bool) -> None:
        self._connection.row_factory = sqlite3.Row
        # Text that is not UTF-8 was not written by us: it becomes text that no box agrees with.
        self._connection.text_factory = lambda data: data.decode("utf-8", "replace")
        self._connection.execute("PRAGMA trusted_schema = OFF")
        self._connection.execute("PRAGMA temp_store = MEMORY")
        if not read_only:
            # Deleted rows are overwritten, and a commit is on the disk when it returns. macOS needs to be
            # told that once more.
            self._connection.execute("PRAGMA secure_delete = ON")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA fullfsync = ON")
            (mode,) = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise DriverError(
                    ErrorCode.CONFIGURATION_ERROR,
                    "the file system lacks the shared memory that SQLite's WAL needs: use a local disk",
                    path="path",
                )

    def data_version(self) -> int:
        """Return a number that changes whenever another connection, of any process, has committed."""
        # Looked at before the question: of what is committed meanwhile it is the sign of before.
        sign = None if self._index is None else self._index.sign()
        if sign is None or sign != self._sign:
            with _SQLITE_ERRORS:
                self._version = self._connection.execute("PRAGMA data_version").fetchone()[0]
            self._sign = sign
        return self._version

    def truncate_journal(self) -> bool:
        """Move the whole journal into the file and cut it off.

        Returns:
            Whether that was done; false while another process reads or writes.
        """
        with self.lock, _SQLITE_ERRORS:
            (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return bool(busy == 0)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read everything in the block from one state of the file."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write everything in the block or nothing of it; durable when the block has ended.

        All writes go through here: what has to change with every write belongs before the commit.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            self.check_in_place()
            yield connection

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self.lock, _SQLITE_ERRORS:
            self._connection.execute(begin)
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def check_in_place(self) -> None:
        """Refuse to go on when the file was moved away: what is written then would be lost.

        Raises:
            DriverError: PROVIDER_UNAVAILABLE.
        """
        if _inode(self._path) != self._inode:
            raise DriverError(
                ErrorCode.PROVIDER_UNAVAILABLE,
                "the database was moved or replaced while it was open",
                outcome=Outcome.NOT_APPLIED,
                hint="restart the plugin",
            )

    def check_schema(self) -> None:
        """Refuse a file of another schema: one that is newer, or one with tables and triggers of others.

        Raises:
            DriverError: CONFIGURATION_ERROR or KEYSTORE_CORRUPT.
        """
        with self.reading() as connection:
            found = {row["sql"] for row in connection.execute(_FOUND_SCHEMA)}
            if _SCHEMA[0] not in found:
                raise corrupt("the database")
            version = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        if version is None or type(version["value"]) is not int:
            raise corrupt("the database's schema version")
        if version["value"] > SCHEMA_VERSION:
            raise DriverError(
                ErrorCode.CONFIGURATION_ERROR,
                f"the keystore has schema {version['value']} and this driver knows {SCHEMA_VERSION}: "
                "upgrade kmsplug",
                path="path",
            )
        if version["value"] < SCHEMA_VERSION:
            raise DriverError(
                ErrorCode.CONFIGURATION_ERROR,
                f"the keystore has schema {version['value']}, of a version before the first release: "
                "make a new keystore",
                path="path",
            )
        if found != set(_SCHEMA):
            raise corrupt("the database's schema")

    def close(self) -> None:
        """Close the connection; the last one of all processes folds the -wal into the file."""
        with self.lock:
            self._connection.close()
            if self._index is not None:
                self._index.close()


def fill_new(path: Path, meta: Mapping[str, object]) -> None:
    """Turn an empty file into a database with tables and *meta*, leaving nothing beside it."""
    database = Database(path)
    try:
        with database.writing() as connection:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.executemany(
                "INSERT INTO meta (name, value) VALUES (?, ?)", {"schema": SCHEMA_VERSION, **meta}.items()
            )
    finally:
        database.close()


def _uri(path: Path, *, read_only: bool) -> str:
    if not read_only:
        return f"{path.as_uri()}?mode=rw"
    # A reader of a WAL database makes the files beside it. Where there is none nobody has the database
    # open, so it can be read as it is, without making them.
    in_use = path.with_name(f"{path.name}-wal").exists()
    return f"{path.as_uri()}?mode=ro" + ("" if in_use else "&immutable=1")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
