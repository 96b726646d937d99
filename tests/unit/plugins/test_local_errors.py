"""Every row of the local keystore's table, made by a real SQLite, comes out as its code."""

import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from kmsplug_plugins.local._errors import TABLE, SqliteErrors
from kmsplug_sdk import DriverError
from kmsplug_sdk.mapping import Row


def database(folder: Path, query: str = "") -> sqlite3.Connection:
    return sqlite3.connect(f"file:{folder / 'db'}?{query}", uri=True, timeout=0, isolation_level=None)


def filled(folder: Path) -> Path:
    connection = database(folder)
    connection.execute("CREATE TABLE t (x)")
    connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    connection.close()
    return folder / "db"


def locked(folder: Path) -> None:
    filled(folder)
    one, other = database(folder), database(folder)
    try:
        one.execute("BEGIN EXCLUSIVE")
        other.execute("SELECT * FROM t")
    finally:
        one.close()
        other.close()


def locked_in_a_shared_cache(folder: Path) -> None:
    filled(folder)
    one, other = database(folder, "cache=shared"), database(folder, "cache=shared")
    try:
        one.execute("BEGIN")
        one.execute("DELETE FROM t")
        other.execute("SELECT * FROM t")
    finally:
        one.close()
        other.close()


def damaged(folder: Path) -> None:
    path = filled(folder)
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * 4096 + data[8192:])
    run(folder, "SELECT * FROM t")


def no_database(folder: Path) -> None:
    (folder / "db").write_bytes(b"this is no database, and long enough to be looked at" * 100)
    run(folder, "SELECT * FROM t")


def no_folder(folder: Path) -> None:
    run(folder / "none", "SELECT 1")


def no_room(folder: Path) -> None:
    filled(folder)
    run(folder, "PRAGMA max_page_count = 30", "INSERT INTO t VALUES (zeroblob(1000000))")


def too_large(folder: Path) -> None:
    filled(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    connection = database(folder)
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        connection.close()


def read_only(folder: Path) -> None:
    filled(folder)
    run(folder, "DELETE FROM t", query="mode=ro")


def run(folder: Path, *statements: str, query: str = "") -> None:
    connection = database(folder, query)
    try:
        for statement in statements:
            connection.execute(statement).fetchall()
    finally:
        connection.close()


HAPPEN: dict[str, Callable[[Path], None]] = {
    "locked by another connection": locked,
    "locked in a shared cache": locked_in_a_shared_cache,
    "damaged page": damaged,
    "no database": no_database,
    "no such folder": no_folder,
    "no room": no_room,
    "file too large for the process": too_large,
    "opened for reading": read_only,
}


@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.vendor)
def test_each_row_comes_out_of_sqlite_as_its_code(tmp_path: Path, row: Row) -> None:
    with pytest.raises(DriverError) as caught, SqliteErrors():
        HAPPEN[row.fixture["sqlite"]](tmp_path)
    error = caught.value

    assert (error.code, error.message, error.data.outcome, error.data.hint) == (
        row.code, row.says, row.outcome, row.hint,
    )  # fmt: skip
    assert isinstance(error.__cause__, sqlite3.Error)
    assert error.data.vendor is not None
    assert error.data.vendor.service == "sqlite"
    assert error.data.vendor.code == error.__cause__.sqlite_errorname
    assert (error.data.vendor.code + "_").startswith(row.vendor + "_")


@pytest.mark.parametrize("statement", ["SELECT nonsense", "INSERT INTO t VALUES (1, 2)"])
def test_a_mistake_in_our_own_sql_is_a_defect(tmp_path: Path, statement: str) -> None:
    filled(tmp_path)

    with pytest.raises(sqlite3.Error), SqliteErrors():
        run(tmp_path, statement)
