"""Whether anybody has committed is seen without a query, and never missed."""

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kmsplug_plugins.local._database import Database, fill_new
from kmsplug_plugins.local._wal_index import WalIndex

bounded = settings(derandomize=True, deadline=None, max_examples=60)

_COMMIT = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
    "c.execute('UPDATE meta SET value = value + 1')"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.db"
    path.touch()
    fill_new(path, {"epoch": 1})
    return path


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database(path)
    yield database
    database.close()


@contextlib.contextmanager
def _other(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def _index(database: Database) -> WalIndex:
    assert database._index is not None
    return database._index


def test_a_commit_of_another_process_is_seen_by_the_next_look(path: Path, database: Database) -> None:
    for _ in range(3):
        before = database.data_version()
        subprocess.run([sys.executable, "-c", _COMMIT, str(path)], check=True, timeout=60)
        assert database.data_version() != before


def test_while_nobody_commits_no_query_is_made(path: Path, database: Database) -> None:
    asked: list[str] = []
    version = database.data_version()
    database._connection.set_trace_callback(asked.append)
    with _other(path) as other:
        other.execute("SELECT count(*) FROM keys").fetchone()
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE meta SET value = 7")
        assert database.data_version() == version
        other.execute("ROLLBACK")

    assert database.data_version() == version
    assert asked == []


_STEPS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "insert": lambda other: other.execute("INSERT INTO meta VALUES (hex(randomblob(8)), 0)"),
    "same again": lambda other: other.execute("UPDATE meta SET value = 5 WHERE name = 'epoch'"),
    "large": lambda other: other.execute("UPDATE meta SET value = zeroblob(300000) WHERE name = 'epoch'"),
    "empty": lambda other: other.execute("DELETE FROM meta WHERE name != 'epoch'"),
    "vacuum": lambda other: other.execute("VACUUM"),
    "passive": lambda other: other.execute("PRAGMA wal_checkpoint(PASSIVE)"),
    "truncate": lambda other: other.execute("PRAGMA wal_checkpoint(TRUNCATE)"),
    "read": lambda other: other.execute("SELECT * FROM meta").fetchall(),
}


@bounded
@given(steps=st.lists(st.sampled_from(sorted(_STEPS)), min_size=1, max_size=30))
def test_the_answer_is_always_that_of_a_query(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    path = tmp_path_factory.mktemp("store") / "keys.db"
    path.touch()
    fill_new(path, {"epoch": 1})
    database = Database(path)
    with contextlib.closing(database), _other(path) as other:
        for step in steps:
            with contextlib.suppress(sqlite3.OperationalError):  # a database that is in use is not vacuumed
                _STEPS[step](other)
            seen = database.data_version()
            assert seen == database._connection.execute("PRAGMA data_version").fetchone()[0], step


def test_what_the_connection_itself_commits_changes_no_version(database: Database) -> None:
    version = database.data_version()
    with database.writing() as connection:
        connection.execute("UPDATE meta SET value = 2")

    assert database.data_version() == version


@pytest.mark.parametrize(
    "header",
    [
        b"",
        bytes(48),
        (3007001).to_bytes(4, sys.byteorder) + bytes(8) + b"\1" + bytes(35),
        (3007000).to_bytes(4, sys.byteorder) + bytes(44),
    ],
    ids=["empty", "zeros", "another version", "not initialized"],
)
def test_an_index_that_is_not_understood_says_nothing(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "keys.db-shm").write_bytes(header + bytes(4096 if header else 0))
    index = WalIndex(tmp_path / "keys.db")

    assert index.sign() is None
    index.close()


def test_a_database_without_an_index_is_asked_each_time(tmp_path: Path) -> None:
    index = WalIndex(tmp_path / "keys.db")

    assert index.sign() is None
    index.close()


def test_one_database_that_is_closed_takes_no_lock_from_another(path: Path) -> None:
    first, second = Database(path), Database(path)
    try:
        first.close()
        assert _is_locked(path)
        assert second.data_version() == second.data_version()
        assert _index(second).sign() is not None
    finally:
        second.close()


def test_nothing_is_left_open_after_the_last_one(path: Path) -> None:
    databases = [Database(path), Database(path)]
    assert _descriptors(path)
    for database in databases:
        database.close()
        database.close()

    assert _descriptors(path) == []


def _descriptors(path: Path) -> list[str]:
    """Return what of a database this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # another thread has closed it
            found.append(str(link.readlink()))
    return [name for name in found if name.startswith(str(path))]


def _is_locked(path: Path) -> bool:
    """Tell whether anybody holds the lock by which SQLite knows that a database is in use."""
    program = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+b'); "
        "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)"
    )
    tried = subprocess.run(
        [sys.executable, "-c", program, f"{path}-shm"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert tried.returncode == 0 or "BlockingIOError" in tried.stderr, tried.stderr
    return tried.returncode != 0
