"""A catalog in a database. The only module that talks to SQLAlchemy, beside the tables and migrations."""

import contextlib
import hashlib
import hmac
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from kmsplug_protocol import dcbor
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, SQLAlchemyError

from kmsplug_host.errors import ConfigurationError, Conflict, KeystoreCorrupt, ShimFailed

from ._sealing import row_mac
from ._tables import ENTRIES, HEAD, VERSION_TABLE
from .entries import Body, Entry, Put

_TIMEOUT_S: Final = 5
_ATTEMPTS: Final = 64  # of a change, when others come between
_PAUSE_S: Final = 0.02
_LOCK: Final = 0x6B6D_7370_6C75_6701  # of PostgreSQL, while the tables are made
_CHECK: Final = ("", "catalog", "key")  # a row of no keystore, to see whether the key is the right one


class DatabaseCatalog:
    """A catalog in SQLite or PostgreSQL.

    Args:
        url: ``sqlite:////path`` or ``postgresql://...``.
        key: Of the rows' MACs.
    """

    def __init__(self, url: str, key: bytes) -> None:
        self._key = key
        parsed = _parse(url)
        self.shared = parsed.get_backend_name() == "postgresql"
        self._engine = _engine(parsed)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.close)
            with _reached():
                self._migrate()
            self._check_key()
            on_failure.pop_all()

    def get(self, keystore: str, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Entry]:
        """See `Catalog`."""
        ids = [_place_id(keystore, kind, name) for kind, name in names]
        with _reached(), self._engine.connect() as connection:
            rows = connection.execute(sa.select(ENTRIES).where(ENTRIES.c.id.in_(ids))).all()
        found = [self._entry(keystore, row) for row in rows]
        return {(entry.kind, entry.name): entry for entry in found}

    def owned(self, keystore: str, owners: Sequence[str]) -> list[Entry]:
        """See `Catalog`."""
        ids = [_owner_id(keystore, owner) for owner in owners]
        with _reached(), self._engine.connect() as connection:
            rows = connection.execute(sa.select(ENTRIES).where(ENTRIES.c.owner_id.in_(ids))).all()
        return [self._entry(keystore, row) for row in rows]

    def scheduled(self, keystore: str) -> list[Entry]:
        """See `Catalog`."""
        wanted = ENTRIES.c.body.like('%"deletion":"%'), ENTRIES.c.keystore == keystore
        with _reached(), self._engine.connect() as connection:
            rows = connection.execute(sa.select(ENTRIES).where(*wanted)).all()
        entries = [self._entry(keystore, row) for row in rows]
        return [entry for entry in entries if entry.body and entry.body.get("deletion")]

    def now(self) -> datetime:
        """See `Catalog`."""
        if not self.shared:
            return datetime.now(UTC)
        with _reached(), self._engine.connect() as connection:
            moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)

    def put(self, keystore: str, puts: Sequence[Put]) -> bool:
        """See `Catalog`."""
        with _reached(), self._engine.connect() as connection, connection.begin() as transaction:
            for put in puts:
                if not self._write(connection, keystore, put):
                    transaction.rollback()
                    return False
        return True

    def change(
        self, keystore: str, kind: str, name: str, owner: str, *, to: Callable[[Body | None], Body | None]
    ) -> Body | None:
        """See `Catalog`."""
        for _ in range(_ATTEMPTS):
            entry = self.get(keystore, [(kind, name)]).get((kind, name))
            before = None if entry is None else entry.body
            after = to(before)
            if after == before:
                return after
            if self.put(keystore, [Put(kind, name, owner, 0 if entry is None else entry.rev, after)]):
                return after
            time.sleep(random.uniform(0, _PAUSE_S))  # noqa: S311 - spreads the hosts, protects nothing
        raise Conflict("other hosts changed the same row of the catalog all the time")

    def close(self) -> None:
        """See `Catalog`."""
        self._engine.dispose()

    def _write(self, connection: Connection, keystore: str, put: Put) -> bool:
        body = json.dumps(put.body, sort_keys=True, separators=(",", ":"))
        rev = put.rev + 1
        mac = row_mac(self._key, (keystore, put.kind, put.name), put.owner, rev, body)
        place = _place_id(keystore, put.kind, put.name)
        values = {
            "owner_id": _owner_id(keystore, put.owner),
            "owner": put.owner,
            "rev": rev,
            "body": body,
            "mac": mac,
        }
        if put.rev:
            statement = sa.update(ENTRIES).where(ENTRIES.c.id == place, ENTRIES.c.rev == put.rev)
            return connection.execute(statement.values(**values)).rowcount == 1
        new = {"id": place, "keystore": keystore, "kind": put.kind, "name": put.name, **values}
        try:
            connection.execute(sa.insert(ENTRIES).values(**new))
        except IntegrityError:  # somebody else has made it
            return False
        return True

    def _entry(self, keystore: str, row: Any) -> Entry:
        mac = row_mac(self._key, (keystore, row.kind, row.name), row.owner, row.rev, row.body)
        if (
            row.keystore != keystore
            or row.id != _place_id(keystore, row.kind, row.name)
            or row.owner_id != _owner_id(keystore, row.owner)
            or not hmac.compare_digest(mac, bytes(row.mac))
        ):
            raise KeystoreCorrupt(
                "a row of the catalog was changed by somebody who does not have the catalog's key",
                hint="find out who writes to the database, and put a backup of it back",
            )
        return Entry(row.kind, row.name, row.owner, row.rev, json.loads(row.body))

    def _migrate(self) -> None:
        """Make the tables, or bring them up to date. One host at a time does it."""
        with self._engine.connect() as connection, connection.begin():
            if self.shared:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            found = None
            if sa.inspect(connection).has_table(VERSION_TABLE):
                found = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
            if found == HEAD:
                return
            if found is not None and found > HEAD:
                raise ConfigurationError("the catalog was written by a newer version of kmsplug")
            # Imported here: it takes longer than all the rest, and is needed once.
            from alembic import command  # noqa: PLC0415
            from alembic.config import Config  # noqa: PLC0415

            config = Config()
            config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _check_key(self) -> None:
        """See that the rows were written with this key, before any is believed.

        Raises:
            ConfigurationError: They were not.
        """
        try:
            if self.get(_CHECK[0], [_CHECK[1:]]):
                return
        except KeystoreCorrupt:
            raise ConfigurationError(
                "the catalog was made with another key than that in catalog.key_file",
                hint="copy the key file of the host that made it",
            ) from None
        if not self.put(_CHECK[0], [Put(_CHECK[1], _CHECK[2], "", 0, {"version": 1})]):
            self._check_key()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError("catalog.url: not a URL; it may hold a password and is not shown") from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql") or "+" in parsed.drivername:
        raise ConfigurationError("catalog.url: expected sqlite:////path or postgresql://user@host/name")
    return parsed.set(drivername="postgresql+psycopg") if backend == "postgresql" else parsed


def _engine(url: URL) -> sa.Engine:
    if url.get_backend_name() == "postgresql":
        options = f"-c statement_timeout={_TIMEOUT_S * 1000} -c lock_timeout={_TIMEOUT_S * 1000}"
        arguments = {"connect_timeout": _TIMEOUT_S, "options": options}
        return sa.create_engine(url, connect_args=arguments, pool_pre_ping=True, pool_timeout=_TIMEOUT_S)
    path = Path(url.database or "")
    if not path.is_absolute():
        raise ConfigurationError("catalog.url: the path of a SQLite database must be absolute")
    with contextlib.suppress(FileExistsError):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            raise
        except OSError as error:
            raise ConfigurationError(f"catalog.url: {path}: {error.strerror}") from None
    engine = sa.create_engine(url, connect_args={"timeout": _TIMEOUT_S, "check_same_thread": False})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy begins transactions itself, see below
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    # At once for writing: a transaction that first reads and then cannot write would have to be thrown away.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """Tell what the database says as an error of this library, without its text: it may quote values."""
    try:
        yield
    except OperationalError as error:
        failure = ShimFailed(
            f"the catalog's database cannot be reached: {type(error.orig).__name__}",
            hint="shims that keep state refuse their operations until it can",
        )
    except SQLAlchemyError as error:
        failure = ShimFailed(f"the catalog's database failed: {type(error).__name__}")
    else:
        return
    raise failure


def _place_id(keystore: str, kind: str, name: str) -> str:
    return hashlib.sha256(dcbor.encode(["place", keystore, kind, name])).hexdigest()


def _owner_id(keystore: str, owner: str) -> str:
    return hashlib.sha256(dcbor.encode(["owner", keystore, owner])).hexdigest()
