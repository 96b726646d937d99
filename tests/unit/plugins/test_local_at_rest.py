import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from kmsplug_plugins._software.backup import sealed_backup
from kmsplug_plugins._software.records import StoredKey, StoredVersion
from kmsplug_protocol import KeyState
from unit.plugins.local_support import Keystore, b64, keystore, opened, read, refused_configuration, sql

# Each exchanges something between the two keys of a store.
SWAPS = {
    "boxes of keys": (
        "CREATE TEMP TABLE was AS SELECT * FROM keys",
        "UPDATE keys SET box = (SELECT box FROM was WHERE was.key_id <> keys.key_id)",
    ),
    "boxes of versions": (
        "CREATE TEMP TABLE was AS SELECT * FROM versions",
        "UPDATE versions SET box = (SELECT box FROM was WHERE was.key_id <> versions.key_id)",
    ),
    "names of keys": (
        "CREATE TEMP TABLE was AS SELECT * FROM keys",
        "UPDATE keys SET key_id = 'x' || key_id",
        "UPDATE keys SET key_id = (SELECT key_id FROM was WHERE 'x' || was.key_id <> keys.key_id)",
    ),
    "names of versions": (
        "CREATE TEMP TABLE was AS SELECT * FROM versions",
        "UPDATE versions SET key_id = 'x' || key_id",
        "UPDATE versions SET key_id = (SELECT key_id FROM was WHERE 'x' || was.key_id <> versions.key_id)",
    ),
}


@pytest.mark.parametrize(
    "what",
    [
        ["boxes of keys"],
        ["boxes of versions"],
        ["names of keys"],
        ["names of versions"],
        ["names of keys", "names of versions"],
    ],
)
def test_two_swapped_rows_are_reported_as_corruption(local: Keystore, folder: Path, what: list[str]) -> None:
    one, other = local.create(), local.create()
    local.encrypt(one, b"")  # its key is open in memory from here on

    for each in what:
        sql(folder, *SWAPS[each])

    for key_id in (one, other):
        assert local.code("crypto.encrypt", key_id=key_id, plaintext="") == "KEYSTORE_CORRUPT"
        assert local.code("key.get", key_id=key_id) == "KEYSTORE_CORRUPT"
        if not any(each.startswith("names") for each in what):
            assert key_id in local.error("key.rotate", key_id=key_id)["message"]
    assert local.code("key.list") == "KEYSTORE_CORRUPT"


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE versions SET state = 'ACTIVE' WHERE number = 1",
        "UPDATE versions SET state = CAST(x'ff' AS TEXT)",
        "UPDATE versions SET number = 7 WHERE number = 2",
        "UPDATE versions SET revision = revision + 1",
        "UPDATE versions SET revision = 'x'",
        "UPDATE versions SET revision = -1",
        "UPDATE versions SET revision = 1.5",
        "UPDATE versions SET box = 'text'",
        "UPDATE versions SET box = x''",
        "UPDATE versions SET box = zeroblob(length(box))",
        "UPDATE versions SET box = substr(box, 1, length(box) - 1)",
        "UPDATE keys SET box = box || x'00'",
        "UPDATE keys SET current = 1",
        "UPDATE keys SET current = 3",
        "UPDATE keys SET position = 9",
        "UPDATE keys SET revision = 1",
        "DELETE FROM versions",
        "DELETE FROM versions WHERE number = 1",
        "DELETE FROM versions WHERE number = 2",
        "INSERT INTO versions SELECT key_id, 3, state, revision, box FROM versions WHERE number = 2",
    ],
)
def test_an_edited_row_is_reported_as_corruption(local: Keystore, folder: Path, edit: str) -> None:
    key_id = local.create()
    local.call("key.rotate", key_id=key_id)
    local.encrypt(key_id, b"")

    sql(folder, edit)

    assert local.code("crypto.encrypt", key_id=key_id, plaintext="") == "KEYSTORE_CORRUPT"
    assert local.code("key.rotate", key_id=key_id) == "KEYSTORE_CORRUPT"
    assert local.code("key.enable", key_id=key_id) == "KEYSTORE_CORRUPT"
    assert local.code("key.list") == "KEYSTORE_CORRUPT"


def test_every_single_bit_of_a_box_counts(local: Keystore, folder: Path) -> None:
    key_id = local.create()
    ((good,),) = read(folder, "SELECT box FROM versions")

    for position in range(0, len(good), 7):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        with closing(sqlite3.connect(folder / "keystore.db", timeout=5)) as connection:
            connection.execute("UPDATE versions SET box = ?", (bytes(bad),))
            connection.commit()
        assert local.code("key.get", key_id=key_id) == "KEYSTORE_CORRUPT"


def test_enabling_by_editing_both_index_and_former_box_fails(local: Keystore, folder: Path) -> None:
    key_id = local.create()
    ((active_box,),) = read(folder, "SELECT box FROM versions")
    local.call("key.disable", key_id=key_id)

    with closing(sqlite3.connect(folder / "keystore.db", timeout=5)) as connection:
        connection.execute("UPDATE versions SET state = 'ACTIVE', box = ?", (active_box,))
        connection.commit()

    assert local.code("crypto.encrypt", key_id=key_id, plaintext="") == "KEYSTORE_CORRUPT"


def test_an_old_row_that_is_put_back_whole_is_reported_as_corruption(local: Keystore, folder: Path) -> None:
    key_id = local.create()
    (active,) = read(folder, "SELECT state, revision, box FROM versions")
    local.call("key.disable", key_id=key_id)

    with closing(sqlite3.connect(folder / "keystore.db", timeout=5)) as connection:
        connection.execute("UPDATE versions SET state = ?, revision = ?, box = ?", active)
        connection.commit()

    assert local.code("crypto.encrypt", key_id=key_id, plaintext="") == "KEYSTORE_CORRUPT"


def test_a_row_of_another_keystore_does_not_open(local: Keystore, folder: Path, tmp_path: Path) -> None:
    key_id = local.create()
    other = tmp_path / "other"
    with keystore(other, key_file=str(folder / "master.key")) as session:
        foreign = session.create()

    boxes = [*read(other, "SELECT box FROM keys")[0], *read(other, "SELECT box FROM versions")[0]]
    with closing(sqlite3.connect(folder / "keystore.db", timeout=5)) as connection:
        connection.execute("UPDATE keys SET key_id = ?, box = ?", (foreign, boxes[0]))
        connection.execute("UPDATE versions SET key_id = ?, box = ?", (foreign, boxes[1]))
        connection.commit()

    assert local.code("key.get", key_id=foreign) == "KEYSTORE_CORRUPT"
    assert local.code("key.get", key_id=key_id) == "KEYSTORE_CORRUPT"


@pytest.mark.parametrize(
    "edit",
    [
        "CREATE TRIGGER undo AFTER UPDATE ON versions BEGIN DELETE FROM keys; END",
        "CREATE TRIGGER sqlitex AFTER UPDATE ON versions BEGIN DELETE FROM keys; END",
        "CREATE TABLE extra (x)",
        "CREATE VIEW seen AS SELECT * FROM keys",
        "DROP TABLE meta",
        "DROP TABLE versions",
        "DELETE FROM meta WHERE name = 'schema'",
        "DELETE FROM meta WHERE name = 'kdf'",
        "DELETE FROM meta WHERE name = 'store_key'",
        "DELETE FROM meta WHERE name = 'epoch'",
        "DELETE FROM meta WHERE name = 'manifest'",
        "UPDATE meta SET value = value + 1 WHERE name = 'epoch'",
        "UPDATE meta SET value = 'x' WHERE name = 'epoch'",
        "UPDATE meta SET value = zeroblob(64) WHERE name = 'manifest'",
        "UPDATE meta SET value = 'text' WHERE name = 'manifest'",
        "DROP TABLE aliases",
        "DROP INDEX aliases_of_key",
        "UPDATE meta SET value = 'x' WHERE name = 'store_id'",
        "UPDATE meta SET value = x'00' WHERE name = 'store_id'",
        "UPDATE meta SET value = x'a0' WHERE name = 'kdf'",
        "UPDATE meta SET value = x'ff' WHERE name = 'kdf'",
        "UPDATE meta SET value = 'one' WHERE name = 'schema'",
    ],
)
def test_a_database_that_is_not_as_the_driver_made_it_is_not_opened(folder: Path, edit: str) -> None:
    with keystore(folder):
        pass

    sql(folder, edit)

    assert refused_configuration({"path": str(folder)})["data"]["code"] == "KEYSTORE_CORRUPT"
    assert refused_configuration({"path": str(folder)}, dry_run=True)["data"]["code"] == "KEYSTORE_CORRUPT"


@pytest.mark.parametrize("record", [StoredKey, StoredVersion])
def test_what_a_newer_version_wrote_is_refused_as_that_and_not_as_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch, record: type[StoredKey | StoredVersion]
) -> None:
    columns = record.columns
    with keystore(folder) as session, opened(folder) as newer:
        key_id = session.create()
        key = newer.key(key_id)
        with monkeypatch.context() as patch, newer._changing() as change:
            patch.setattr(record, "columns", lambda stored: {**columns(stored), "colour": "red"})
            change.put(changed(key))
            backup = b64(sealed_backup(newer, key))

        for error in (session.error("key.get", key_id=key_id), session.error("key.restore", backup=backup)):
            assert error["data"]["code"] == "UNSUPPORTED_OPERATION"
            assert error["data"]["hint"] == "upgrade kmsplug"
            assert "'colour'" in error["message"]


def changed(key: StoredKey) -> StoredKey:
    """Change both records of a key."""
    return replace(key.with_version(replace(key.current, state=KeyState.DEACTIVATED)), name="new")


def test_a_file_that_is_no_database_is_reported_as_corruption(folder: Path) -> None:
    with keystore(folder):
        pass
    (folder / "keystore.db").write_bytes(os.urandom(8192))

    assert refused_configuration({"path": str(folder)})["data"]["code"] == "KEYSTORE_CORRUPT"


def test_a_journal_without_its_database_is_not_applied_to_a_new_one(folder: Path) -> None:
    with keystore(folder) as session:
        session.create()
        journal = (folder / "keystore.db-wal").read_bytes()
    (folder / "keystore.db").unlink()
    (folder / "keystore.db-wal").write_bytes(journal)

    error = refused_configuration({"path": str(folder)})

    assert error["data"] == {"code": "CONFIGURATION_ERROR", "path": "path"}
    assert not (folder / "keystore.db").exists()


def test_statistics_and_a_vacuum_of_an_operator_are_harmless(folder: Path) -> None:
    with keystore(folder) as session:
        key_id = session.create()

    sql(folder, "ANALYZE")
    sql(folder, "VACUUM")

    with keystore(folder) as session:
        assert session.states(key_id) == ["ACTIVE"]


def test_a_keystore_of_an_older_schema_is_left_alone(folder: Path) -> None:
    with keystore(folder):
        pass
    sql(folder, "UPDATE meta SET value = 1 WHERE name = 'schema'", "DROP TABLE aliases")

    error = refused_configuration({"path": str(folder)})

    assert error["data"]["code"] == "CONFIGURATION_ERROR"
    assert "make a new keystore" in error["message"]


def test_a_keystore_of_a_newer_schema_is_left_alone(folder: Path) -> None:
    with keystore(folder):
        pass
    sql(folder, "UPDATE meta SET value = 3 WHERE name = 'schema'", "CREATE TABLE newer (x)")

    error = refused_configuration({"path": str(folder)})

    assert error["data"]["code"] == "CONFIGURATION_ERROR"
    assert "upgrade" in error["message"]


def test_key_bytes_stand_nowhere_in_the_files(folder: Path) -> None:
    with keystore(folder) as session:
        for algorithm in ("AES_256_GCM", "ED25519", "HMAC_SHA_256", "EC_P256"):
            session.call("key.rotate", key_id=session.create(algorithm, name="label"))
        with opened(folder) as store:
            secrets = [version.material for key in store.page(0, 9) for version in key.versions]
        # Copies, because closing a descriptor of the file itself would end SQLite's locks on it.
        shutil.copytree(folder, folder.with_name("copy"))
    everything = b"".join(path.read_bytes() for path in folder.with_name("copy").iterdir())

    assert len(secrets) == 8
    for secret in secrets:
        assert secret[-32:] not in everything
        assert secret[-16:].hex().encode() not in everything
    assert b"label" not in everything


def test_records_do_not_show_their_material(local: Keystore, folder: Path) -> None:
    key_id = local.create()
    with opened(folder) as store:
        key = store.key(key_id)

    assert repr(bytes(key.current.material))[2:-1] not in repr(key)
    assert "material" not in repr(key)


def test_a_box_that_was_replaced_is_not_left_in_the_file(folder: Path) -> None:
    with keystore(folder) as session:
        key_ids = [session.create() for _ in range(20)]
        former = [box for (box,) in read(folder, "SELECT box FROM versions")]
        for key_id in key_ids:
            session.call("key.disable", key_id=key_id)

    content = (folder / "keystore.db").read_bytes()

    assert not any(box[:32] in content or box[-32:] in content for box in former)


def test_a_commit_waits_for_the_disk(folder: Path) -> None:
    with opened(folder) as store, store._database.reading() as connection:
        settings = [
            connection.execute(pragma).fetchone()[0]
            for pragma in ("PRAGMA synchronous", "PRAGMA journal_mode", "PRAGMA busy_timeout")
        ]

    assert settings == [2, "wal", 5000]  # 2 is FULL


def test_a_refused_change_changes_nothing(local: Keystore, folder: Path) -> None:
    key_id = local.create()
    local.call("key.disable", key_id=key_id)
    disabled = read(folder, "SELECT * FROM versions")

    assert local.code("key.rotate", key_id=key_id) == "KEY_DISABLED"

    assert read(folder, "SELECT * FROM versions") == disabled
