import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unit.plugins.local_support import Keystore, keystore, opened, read, refused_configuration, sql

TABLES = ("keys", "versions", "aliases")


def snapshot(folder: Path) -> dict[str, list[Any]]:
    return {table: read(folder, f"SELECT * FROM {table}") for table in TABLES}  # noqa: S608


def put_back(folder: Path, table: str, rows: list[Any]) -> None:
    """Replace the rows of a table by others that were in it before."""
    marks = ", ".join("?" * len(rows[0]))
    with closing(sqlite3.connect(folder / "keystore.db", timeout=5)) as connection:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608
        connection.commit()


def is_found(session: Keystore, folder: Path, key_id: str) -> None:
    """The open session refuses everything, and so does the next start."""
    assert session.code("key.get", key_id=key_id) == "KEYSTORE_CORRUPT"
    assert session.code("key.create", algorithm="AES_256_GCM") == "KEYSTORE_CORRUPT"
    assert session.code("key.list") == "KEYSTORE_CORRUPT"
    health = session.call("plugin.health", depth="deep")
    assert [check["healthy"] for check in health["checks"]] == [True, False]
    for dry_run in (False, True):
        error = refused_configuration({"path": str(folder)}, dry_run=dry_run)
        assert error["data"]["code"] == "KEYSTORE_CORRUPT"


CHANGES: dict[str, Callable[[Keystore, str], object]] = {
    "keys": lambda session, key_id: session.call("key.rotate", key_id=key_id),
    "versions": lambda session, key_id: session.call("key.disable", key_id=key_id),
    "aliases": lambda session, key_id: session.call("key.set_alias", key_id=session.create(), alias="name"),
}


@pytest.mark.parametrize("table", TABLES)
def test_an_old_row_put_back_whole_is_found(local: Keystore, folder: Path, table: str) -> None:
    key_id = local.create()
    local.call("key.set_alias", key_id=key_id, alias="name")
    before = snapshot(folder)
    CHANGES[table](local, key_id)

    put_back(folder, table, before[table])

    is_found(local, folder, key_id)


def test_an_alias_that_was_removed_and_made_anew_cannot_be_pointed_back(
    local: Keystore, folder: Path
) -> None:
    key_id, other = local.create(), local.create()
    local.call("key.set_alias", key_id=key_id, alias="name")
    before = snapshot(folder)
    local.call("key.remove_alias", key_id=key_id, alias="name")
    local.call("key.set_alias", key_id=other, alias="name")

    put_back(folder, "aliases", before["aliases"])

    is_found(local, folder, key_id)


@pytest.mark.parametrize(
    "edits",
    [
        [
            "DELETE FROM keys WHERE position = 1",
            "DELETE FROM versions WHERE key_id NOT IN (SELECT key_id FROM keys)",
        ],
        ["DELETE FROM keys WHERE position = 2"],
        ["DELETE FROM versions WHERE number = 1"],
        ["DELETE FROM aliases"],
        ["INSERT INTO aliases SELECT place || x'00', key_id, revision, box FROM aliases"],
        ["INSERT INTO keys SELECT position + 9, key_id || 'x', current, revision, box FROM keys"],
        ["INSERT INTO versions SELECT key_id, number + 9, state, revision, box FROM versions"],
        ["UPDATE keys SET revision = revision + 1"],
        ["UPDATE keys SET revision = 1.5"],
        ["UPDATE versions SET key_id = x'00' WHERE number = 2"],
    ],
)  # fmt: skip
def test_deleted_and_added_rows_are_found(local: Keystore, folder: Path, edits: list[str]) -> None:
    key_id = local.create()
    local.create()
    local.call("key.rotate", key_id=key_id)
    local.call("key.set_alias", key_id=key_id, alias="name")
    local.encrypt(key_id, b"")

    sql(folder, *edits)

    is_found(local, folder, key_id)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE aliases SET key_id = (SELECT key_id FROM keys WHERE position = 2)",
        "UPDATE aliases SET box = zeroblob(length(box))",
    ],
)
def test_an_alias_cannot_be_pointed_elsewhere_by_editing(local: Keystore, folder: Path, edit: str) -> None:
    key_id = local.create()
    local.create()
    local.call("key.set_alias", key_id=key_id, alias="name")

    sql(folder, edit)

    assert local.code("key.get", key_id="alias/name") == "KEYSTORE_CORRUPT"


def test_a_change_does_not_cover_up_what_was_done_before_it(folder: Path) -> None:
    with opened(folder) as store, keystore(folder) as session:
        key_id = session.create()
        store.key(key_id)
        sql(folder, "DELETE FROM versions")

        assert session.code("key.create", algorithm="AES_256_GCM") == "KEYSTORE_CORRUPT"


def test_the_epoch_grows_with_every_change_and_only_then(local: Keystore) -> None:
    def epoch() -> int:
        checks = local.call("plugin.health", depth="deep")["checks"]
        (detail,) = [check["detail"] for check in checks if check["name"] == "database"]
        assert detail.startswith("epoch ")
        return int(detail.removeprefix("epoch "))

    assert epoch() == 0
    key_id = local.create("HMAC_SHA_256")
    assert epoch() == 1
    local.call("key.disable", key_id=key_id)
    assert epoch() == 2
    local.call("key.disable", key_id=key_id)
    local.call("key.get", key_id=key_id)
    local.code("key.rotate", key_id=key_id)
    assert epoch() == 2


def test_a_whole_old_file_is_not_found_but_its_epoch_is_lower(folder: Path, tmp_path: Path) -> None:
    with keystore(folder) as session:
        key_id = session.create()
    shutil.copytree(folder, tmp_path / "old")
    with keystore(folder) as session:
        session.call("key.disable", key_id=key_id)

    shutil.copy2(tmp_path / "old" / "keystore.db", folder / "keystore.db")

    with keystore(folder) as session:
        assert session.states(key_id) == ["ACTIVE"]
        details = [check.get("detail") for check in session.call("plugin.health", depth="deep")["checks"]]
        assert details == [None, "epoch 1"]


def test_names_of_aliases_stand_nowhere_in_the_file(folder: Path) -> None:
    with keystore(folder) as session:
        session.call("key.set_alias", key_id=session.create(), alias="telling-name")

    assert b"telling-name" not in (folder / "keystore.db").read_bytes()


def test_a_store_of_many_keys_is_checked_in_one_pass(folder: Path) -> None:
    with keystore(folder) as session:
        key_ids = [session.create() for _ in range(120)]
        sql(folder, "ANALYZE")  # another process committed something

        assert session.call("key.get", key_id=key_ids[-1])["state"] == "ACTIVE"
        assert len(session.call("key.list", limit=1000)["keys"]) == 120
