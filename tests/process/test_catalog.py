"""The catalog in SQLite and in PostgreSQL: no change is lost, no row is believed that was tampered with."""

import multiprocessing
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from kmsplug_host._redaction import Redactor
from kmsplug_host.catalog import CatalogHandle, Put
from kmsplug_host.catalog._database import DatabaseCatalog
from kmsplug_host.catalog._sealing import read_key
from kmsplug_host.config import CatalogSettings
from kmsplug_host.errors import ConfigurationError, KeystoreCorrupt, ShimFailed

KEY = b"k" * 32


@pytest.fixture
def catalog(url: str) -> Iterator[DatabaseCatalog]:
    catalog = DatabaseCatalog(url, KEY)
    yield catalog
    catalog.close()


def counted(body: dict[str, Any] | None) -> dict[str, Any]:
    return {"count": (body or {"count": 0})["count"] + 1}


def count_up(url: str, times: int) -> None:
    catalog = DatabaseCatalog(url, KEY)
    for _ in range(times):
        catalog.change("ks", "key", "a", "a", to=counted)
    catalog.close()


def test_processes_that_change_one_row_lose_nothing_of_each_other(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=count_up, args=(url, 40)) for _ in range(3)]
    for worker in workers:
        worker.start()  # they also make the tables at the same time
    for worker in workers:
        worker.join(60)

    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    catalog = DatabaseCatalog(url, KEY)
    assert catalog.get("ks", [("key", "a")])["key", "a"].body == {"count": 120}
    assert catalog.get("ks", [("key", "a")])["key", "a"].rev == 120
    catalog.close()


def test_changes_go_together_or_not_at_all(catalog: DatabaseCatalog) -> None:
    assert catalog.put("ks", [Put("key", "a", "a", 0, {"n": 1})])

    assert not catalog.put("ks", [Put("key", "b", "b", 0, {"n": 1}), Put("key", "a", "a", 0, {"n": 2})])
    assert not catalog.put("ks", [Put("key", "b", "b", 0, {"n": 1}), Put("key", "a", "a", 7, {"n": 2})])

    assert ("key", "b") not in catalog.get("ks", [("key", "b")])
    assert catalog.get("ks", [("key", "a")])["key", "a"].body == {"n": 1}


def test_rows_of_another_keystore_are_not_seen(catalog: DatabaseCatalog) -> None:
    catalog.change("one", "alias", "x", "key", to=lambda _: {"key": "key"})

    assert catalog.get("other", [("alias", "x")]) == {}
    assert catalog.owned("other", ["key"]) == []
    assert [entry.name for entry in catalog.owned("one", ["key"])] == ["x"]


def test_keys_whose_deletion_is_scheduled_are_found_and_no_others(catalog: DatabaseCatalog) -> None:
    for name, body in {
        "scheduled": {"deletion": "2030-01-01T00:00:00Z"},
        "never": {},
        "cancelled": {"deletion": None},
        "tagged": {"tags": {"note": '{"deletion":"2030"}', "deletion": "2030"}},
    }.items():
        catalog.change("ks", "key", name, name, to=lambda _, body=body: body)  # type: ignore[misc]
    catalog.change(
        "other", "key", "elsewhere", "elsewhere", to=lambda _: {"deletion": "2030-01-01T00:00:00Z"}
    )

    assert [entry.name for entry in catalog.scheduled("ks")] == ["scheduled"]


def test_the_databases_clock_is_told(catalog: DatabaseCatalog) -> None:
    before = datetime.now(UTC)
    told = catalog.now()  # the server is on this machine

    assert told.tzinfo is UTC
    assert abs(told - before) < timedelta(minutes=1)


def test_what_a_change_raises_ends_it(catalog: DatabaseCatalog) -> None:
    def refuse(body: dict[str, Any] | None) -> dict[str, Any]:
        raise KeystoreCorrupt("no")

    with pytest.raises(KeystoreCorrupt):
        catalog.change("ks", "key", "a", "a", to=refuse)
    assert catalog.get("ks", [("key", "a")]) == {}


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE kmsplug_catalog SET body = '{\"states\":{}}' WHERE name = 'a'",
        "UPDATE kmsplug_catalog SET rev = rev + 1 WHERE name = 'a'",
        "UPDATE kmsplug_catalog SET owner = 'b' WHERE name = 'a'",
        "UPDATE kmsplug_catalog SET name = 'c' WHERE name = 'a'",
        "UPDATE kmsplug_catalog AS x SET mac = y.mac FROM kmsplug_catalog y WHERE y.name='b' AND x.name='a'",
    ],
)
def test_a_row_that_was_changed_without_the_key_is_refused(catalog: DatabaseCatalog, tamper: str) -> None:
    for name in ("a", "b"):
        catalog.change("ks", "key", name, name, to=counted)
    with catalog._engine.connect() as connection, connection.begin():
        assert connection.execute(sa.text(tamper)).rowcount == 1

    with pytest.raises(KeystoreCorrupt):
        catalog.get("ks", [("key", "a")])
    with pytest.raises(KeystoreCorrupt):
        catalog.change("ks", "key", "a", "a", to=counted)
    assert catalog.get("ks", [("key", "b")])["key", "b"].body == {"count": 1}


def test_another_key_is_refused_before_any_row_is_believed(url: str) -> None:
    DatabaseCatalog(url, KEY).close()

    with pytest.raises(ConfigurationError, match="another key"):
        DatabaseCatalog(url, b"x" * 32)


def test_a_catalog_of_a_newer_version_is_left_alone(url: str, catalog: DatabaseCatalog) -> None:
    with catalog._engine.connect() as connection, connection.begin():
        connection.execute(sa.text("UPDATE kmsplug_catalog_version SET version_num = '9999'"))

    with pytest.raises(ConfigurationError, match="newer version"):
        DatabaseCatalog(url, KEY)


def test_a_database_that_is_not_there_is_told_without_its_password() -> None:
    with pytest.raises(ShimFailed, match="cannot be reached") as caught:
        DatabaseCatalog("postgresql://user:s3cr3t-w0rd@127.0.0.1:1/none", KEY)

    assert "s3cr3t" not in f"{caught.value!r} {caught.value.to_dict()} {caught.value.__context__!r}"


@pytest.mark.parametrize(
    "url", ["mysql://x/y", "sqlite:///relative.db", "sqlite://", "nonsense", "postgresql+asyncpg://x/y"]
)
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"catalog\.url"):
        DatabaseCatalog(url, KEY)


def test_by_default_it_lies_beside_the_configuration_readable_for_nobody_else(tmp_path: Path) -> None:
    handle = CatalogHandle(CatalogSettings(), tmp_path, Redactor())
    handle.open().change("ks", "key", "a", "a", to=counted)
    handle.close()

    again = CatalogHandle(CatalogSettings(), tmp_path, Redactor())
    assert again.open().get("ks", [("key", "a")])["key", "a"].body == {"count": 1}
    again.close()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes.keys() >= {"kmsplug-catalog.db", "kmsplug-catalog.key"}
    assert set(modes.values()) == {0o600}


def test_a_key_file_that_others_can_read_or_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = read_key(path)
    assert read_key(path) == key

    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="nobody else"):
        read_key(path)
    path.chmod(0o600)
    for content in (b"", b"KMSPLUG-CATALOG-KEY-1:", b"KMSPLUG-CATALOG-KEY-1:c2hvcnQ=\n", b"\0" * 100):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match="no key"):
            read_key(path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError):
        read_key(path)
