"""Opening the keystore: from the settings to a store, made on the way if there is none.

A keystore comes into being in two steps, each atomic: its key file, then its database. A database without
its key file is therefore never a new keystore, and no key file is made for it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kmsplug_protocol import ErrorCode, Secret, cobblestone, dcbor
from kmsplug_sdk import DriverError

from ._database import Database, fill_new
from ._errors import corrupt, file_errors
from ._files import UnsafeFileError, appearing, check_folders, check_private, make_folder
from ._hierarchy import (
    KEY_FILE,
    STORE_ID_BYTES,
    Header,
    StoreKeys,
    check_record,
    new_scrypt_record,
    new_store_key,
    stretch,
)
from ._keyfile import create_key_file, read_key_file
from ._manifest import FIRST_EPOCH, Manifest
from ._store import Store
from .config import LocalConfig

# One sentence for both: a box that does not open cannot tell which, and nothing else must hint at it.
_REFUSED: Final = "the master key does not open this keystore: it is wrong, or the keystore is damaged"


def open_store(config: LocalConfig) -> Store:
    """Open the keystore, and make it first if it is missing.

    Raises:
        DriverError: CONFIGURATION_ERROR (a file or setting is wrong), AUTHENTICATION_FAILED (the master
            key is not this keystore's), KEYSTORE_CORRUPT, or PROVIDER_UNAVAILABLE.
    """
    with file_errors("path"):
        make_folder(config.folder)
        check_folders(config.folder, sole_writer=True)
    if not _exists(config):
        _create(config)
    return unlocked(config)[0]


def unlocked(config: LocalConfig) -> tuple[Store, Header, Secret]:
    """Open a keystore that is there, and return its header and store key with it.

    Raises:
        DriverError: As `open_store`.
    """
    with file_errors("path"):
        check_folders(config.folder, sole_writer=True)
    _exists(config)  # refuses a file that is not private
    database = _open_database(config, read_only=False)
    try:
        header = _read_header(database)
        store_key = _unlock(header, config)
        store = Store(database, header, StoreKeys.of(store_key))
        store.check()
    except BaseException:
        database.close()
        raise
    return store, header, store_key


def inspect_store(config: LocalConfig) -> bytes | None:
    """Check everything that can be checked without changing anything.

    Returns:
        The store id; None where the keystore would be made.

    Raises:
        DriverError: As `open_store`.
    """
    with file_errors("path"):
        nearest = config.folder
        while not nearest.exists():
            nearest = nearest.parent
        check_folders(nearest, sole_writer=nearest == config.folder)
    if not _exists(config):
        _check_can_be_made(config, nearest)
        return None
    database = _open_database(config, read_only=True)
    try:
        header = _read_header(database)
        Store(database, header, StoreKeys.of(_unlock(header, config))).check()
    finally:
        database.close()
    return header.store_id


def _exists(config: LocalConfig) -> bool:
    """Tell whether there is a database, and refuse one that is not private.

    It is looked at by name: closing a descriptor of it would end the locks that SQLite holds on it.
    """
    with file_errors("path"):
        try:
            check_private(config.database_path, config.database_path.lstat)
        except FileNotFoundError:
            return False
    return True


def _create(config: LocalConfig) -> None:
    """Make the database, unless another process makes one first."""
    journal = config.database_path.with_name(f"{config.database_path.name}-wal")
    if journal.exists() and not _exists(config):  # else another process has just made the database
        raise DriverError(
            ErrorCode.CONFIGURATION_ERROR,
            f"{journal} stands there without its database, and would be applied to a new one: "
            "restore the database, or remove both it and the -shm",
            path="path",
        )
    if config.passphrase is None:
        with file_errors("key_file"):
            if not config.key_path.exists():
                create_key_file(config.key_path)
        record = KEY_FILE
    else:
        record = new_scrypt_record()
    store_id, store_key = os.urandom(STORE_ID_BYTES), new_store_key()
    meta = {
        "store_id": store_id,
        "kdf": dcbor.encode(record),
        "store_key": Header.of(store_id, store_key, master_key(config, record), record).sealed,
        "epoch": FIRST_EPOCH,
        "manifest": Manifest(StoreKeys.of(store_key).manifest, store_id).of_nothing(),
    }
    with file_errors("path"), appearing(config.database_path) as new:
        fill_new(new, meta)


def _check_can_be_made(config: LocalConfig, nearest: Path) -> None:
    """Check, without making anything, what `_create` needs; *nearest* is the lowest folder that is there."""
    with file_errors("path"):
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise UnsafeFileError(
                f"nothing can be made in {nearest}: choose another path, or change its owner"
            )
    if config.passphrase is None:
        with file_errors("key_file"):
            if config.key_path.exists():
                read_key_file(config.key_path)
            elif config.key_file is not None:
                check_folders(config.key_path.parent)


def _open_database(config: LocalConfig, *, read_only: bool) -> Database:
    database = Database(config.database_path, read_only=read_only)
    try:
        database.check_schema()
    except BaseException:
        database.close()
        raise
    return database


def _read_header(database: Database) -> Header:
    with database.reading() as connection:
        meta = {row["name"]: row["value"] for row in connection.execute("SELECT name, value FROM meta")}
    store_id, record, sealed = (meta.get(name) for name in ("store_id", "kdf", "store_key"))
    if not (isinstance(store_id, bytes) and isinstance(record, bytes) and isinstance(sealed, bytes)):
        raise corrupt("the keystore's header")
    try:
        header = Header(store_id, check_record(dcbor.decode(record)), sealed)
    except ValueError:
        raise corrupt("the keystore's header") from None
    if len(store_id) != STORE_ID_BYTES:
        raise corrupt("the keystore's header")
    return header


def _unlock(header: Header, config: LocalConfig) -> Secret:
    """Return the store key."""
    by_key_file = header.record == KEY_FILE
    if by_key_file != (config.passphrase is None):
        message = (
            "a key file opens this keystore: give no passphrase"
            if by_key_file
            else ("a passphrase opens this keystore: give it, and no key file")
        )
        raise DriverError(ErrorCode.CONFIGURATION_ERROR, message, path="passphrase")
    try:
        return header.store_key(master_key(config, header.record))
    except cobblestone.CobblestoneError:
        raise DriverError(ErrorCode.AUTHENTICATION_FAILED, _REFUSED) from None


def master_key(config: LocalConfig, record: Mapping[str, Any]) -> Secret:
    """Return the key that the settings stand for.

    Raises:
        DriverError: CONFIGURATION_ERROR.
    """
    if config.passphrase is not None:
        try:
            return stretch(config.passphrase.get_secret_value(), record)
        except MemoryError:
            raise DriverError(
                ErrorCode.CONFIGURATION_ERROR,
                f"too little memory to derive a key from the passphrase: it takes {record['n'] >> 10} MiB",
                path="passphrase",
            ) from None
    with file_errors("key_file"):
        try:
            return read_key_file(config.key_path)
        except FileNotFoundError:
            raise UnsafeFileError(
                f"{config.key_path} is missing: put the keystore's key file there, nothing else opens it"
            ) from None
