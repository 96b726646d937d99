import shutil
from pathlib import Path
from typing import Any

import pytest
from kmsplug_protocol import INVALID_CIPHERTEXT_MESSAGE, decode_base64
from unit.plugins.local_support import Keystore, b64, flip, keystore


@pytest.mark.parametrize("spelling", ["name", "alias/name"])
def test_an_alias_stands_for_its_key_in_every_operation(local: Keystore, spelling: str) -> None:
    key_id = local.create()
    local.call("key.set_alias", key_id=key_id, alias=spelling)

    for known_as in ("name", "alias/name"):
        made = local.call("crypto.encrypt", key_id=known_as, plaintext=b64(b"data"))
        assert made["key_id"] == key_id
        assert local.decrypt(known_as, made["ciphertext"]) == b"data"
        assert local.call("key.get", key_id=known_as)["key_id"] == key_id
        assert local.call("key.rotate", key_id=known_as)["key_id"] == key_id
        assert local.call("key.list_versions", key_id=known_as)["key_id"] == key_id
    assert local.call("key.get", key_id=key_id)["aliases"] == ["name"]
    assert local.call("key.list")["keys"][0]["aliases"] == ["name"]


def test_an_alias_that_points_elsewhere_is_moved_also_for_other_processes(folder: Path) -> None:
    with keystore(folder) as one, keystore(folder) as other:
        first, second = one.create(), one.create()
        for key_id in (first, second, first):
            one.call("key.set_alias", key_id=key_id, alias="name")
            assert other.call("key.get", key_id="alias/name")["key_id"] == key_id
            assert other.call("crypto.encrypt", key_id="name", plaintext="")["key_id"] == key_id
        assert other.call("key.get", key_id=second)["aliases"] == []


def test_setting_and_removing_an_alias_twice_is_doing_it_once(local: Keystore) -> None:
    key_id, other = local.create(), local.create()
    for _ in range(2):
        local.call("key.set_alias", key_id=key_id, alias="name")
    local.call("key.remove_alias", key_id=other, alias="name")  # not the other key's: left alone
    assert local.call("key.get", key_id="name")["key_id"] == key_id

    for _ in range(2):
        local.call("key.remove_alias", key_id=key_id, alias="alias/name")

    assert local.code("key.get", key_id="alias/name") == "KEY_NOT_FOUND"
    assert local.call("key.get", key_id=key_id)["aliases"] == []


@pytest.mark.parametrize("alias", ["key-1", "alias/", "alias/key-1", "alias/alias/x"])
def test_an_alias_that_could_be_taken_for_something_else_is_refused(local: Keystore, alias: str) -> None:
    assert local.code("key.set_alias", key_id=local.create(), alias=alias) == "INVALID_ARGUMENT"


def test_aliases_survive_the_driver(folder: Path) -> None:
    with keystore(folder) as session:
        key_id = session.create()
        for alias in ("b", "a", "büro"):
            session.call("key.set_alias", key_id=key_id, alias=alias)

    with keystore(folder) as session:
        assert session.call("key.get", key_id="büro")["aliases"] == ["a", "b", "büro"]


def test_tags_are_written_and_removed_in_one_step(local: Keystore) -> None:
    key_id = local.create(tags={"a": "1", "b": "2"})

    for _ in range(2):
        key = local.call("key.tag", key_id=key_id, set={"b": "3", "c": ""}, remove=["a", "unknown"])
        assert key["tags"] == {"b": "3", "c": ""}

    assert local.call("key.get", key_id=key_id) == key
    both: dict[str, Any] = {"set": {"x": ""}, "remove": ["x"]}
    assert local.code("key.tag", key_id=key_id, **both) == "INVALID_ARGUMENT"
    assert local.code("key.tag", key_id=key_id, set={"x": "y" * 1025}) == "INVALID_ARGUMENT"
    many = {str(number): "" for number in range(49)}
    assert local.code("key.tag", key_id=key_id, set=many) == "LIMIT_EXCEEDED"
    assert local.call("key.get", key_id=key_id) == key


def without_the_key(folder: Path, key_id: str, before: Path) -> None:
    """Bring back the file from before the key was made."""
    shutil.copy2(before / "keystore.db", folder / "keystore.db")
    with keystore(folder) as session:
        assert session.code("key.get", key_id=key_id) == "KEY_NOT_FOUND"


def test_a_restored_key_is_the_one_that_was_backed_up(folder: Path, tmp_path: Path) -> None:
    with keystore(folder) as session:
        session.create()
    shutil.copytree(folder, tmp_path / "before")
    with keystore(folder) as session:
        key_id = session.create(name="invoices", tags={"a": "b"})
        old = session.encrypt(key_id, b"old")
        key = session.call("key.rotate", key_id=key_id)
        session.call("key.set_alias", key_id=key_id, alias="name")
        backup = session.call("key.backup", key_id=key_id)["backup"]
        assert session.code("key.restore", backup=backup) == "ALREADY_EXISTS"
    without_the_key(folder, key_id, tmp_path / "before")

    with keystore(folder) as session:
        assert session.call("key.restore", backup=backup) == key
        assert session.decrypt(key_id, old) == b"old"
        assert session.states(key_id) == ["DEACTIVATED", "ACTIVE"]
        assert session.call("key.get", key_id=key_id)["aliases"] == []
        assert session.code("key.restore", backup=backup) == "ALREADY_EXISTS"


def test_a_purged_key_does_not_come_back_from_a_backup(local: Keystore) -> None:
    key_id = local.create()
    backup = local.call("key.backup", key_id=key_id)["backup"]
    local.call("key.schedule_deletion", key_id=key_id)
    local.call("key.purge", key_id=key_id)

    assert local.code("key.restore", backup=backup) == "ALREADY_EXISTS"
    assert local.states(key_id) == ["DESTROYED"]


def test_a_backup_that_was_changed_or_is_of_another_keystore_is_refused_alike(
    local: Keystore, tmp_path: Path
) -> None:
    backup = local.call("key.backup", key_id=local.create())["backup"]
    length = len(decode_base64(backup))
    with keystore(tmp_path / "other") as other:
        errors = [other.error("key.restore", backup=backup)]
        assert other.call("key.list")["keys"] == []

    errors += [
        local.error("key.restore", backup=flip(backup, position)) for position in (0, 30, 60, length - 1)
    ]
    errors += [local.error("key.restore", backup=b64(decode_base64(backup)[:cut])) for cut in (0, 55, -1)]

    for error in errors:
        assert error["data"]["code"] == "INVALID_CIPHERTEXT"
        assert error["message"] == INVALID_CIPHERTEXT_MESSAGE


def test_a_batch_answers_each_call_as_it_would_have_been_answered_alone(local: Keystore) -> None:
    key_id = local.create()
    ciphertext = local.encrypt(key_id, b"data")
    calls: list[tuple[str, dict[str, Any]]] = [
        ("crypto.decrypt", {"key_id": key_id, "ciphertext": ciphertext}),
        ("crypto.decrypt", {"key_id": key_id, "ciphertext": flip(ciphertext, 0)}),
        ("crypto.encrypt", {"key_id": "unknown", "plaintext": ""}),
        ("crypto.sign", {"key_id": key_id, "message": ""}),
        ("crypto.sign", {"key_id": key_id}),
        ("crypto.random", {"length_bytes": 0}),
        ("crypto.random", {}),
        ("crypto.decrypt", {"key_id": key_id, "ciphertext": "not base64!"}),
    ]
    batch = [{"method": method, "params": params} for method, params in calls]

    items = local.call("crypto.batch", calls=batch)["items"]

    for item, (method, params) in zip(items, calls, strict=True):
        alone = local.client.call(method, params)
        if "result" in alone:
            assert item == {"result": alone["result"]}
        else:
            assert item["error"]["data"] == alone["error"]["data"]
            assert item["error"]["code"] == alone["error"]["code"]
            assert "base64!" not in item["error"]["message"]


@pytest.mark.parametrize("method", ["crypto.batch", "key.create", "plugin.shutdown", "crypto.unknown", ""])
def test_what_is_no_crypto_operation_fails_alone_in_a_batch(local: Keystore, method: str) -> None:
    good = {"method": "crypto.random", "params": {"length_bytes": 4}}
    bad = {"method": method, "params": {"algorithm": "AES_256_GCM", "calls": [good]}}

    first, second, third = local.call("crypto.batch", calls=[good, bad, good])["items"]

    assert second["error"]["data"]["code"] == "UNSUPPORTED_OPERATION"
    assert len(decode_base64(first["result"]["data"])) == len(decode_base64(third["result"]["data"])) == 4
    assert local.call("key.list")["keys"] == []


def test_a_batch_whose_answers_fill_the_frame_says_which_calls_were_not_made(local: Keystore) -> None:
    calls = [{"method": "crypto.random", "params": {"length_bytes": 65536}}] * 1000

    items = local.call("crypto.batch", calls=calls)["items"]

    answered = [item for item in items if "result" in item]
    assert len(items) == 1000
    assert 5 < len(answered) < 12
    assert items[: len(answered)] == answered
    assert {item["error"]["data"]["code"] for item in items[len(answered) :]} == {"LIMIT_EXCEEDED"}


def test_a_batch_has_bounds(local: Keystore) -> None:
    call = {"method": "crypto.random", "params": {"length_bytes": 1}}

    assert local.code("crypto.batch", calls=[]) == "INVALID_ARGUMENT"
    assert local.code("crypto.batch", calls=[call] * 1001) == "INVALID_ARGUMENT"
    assert len(local.call("crypto.batch", calls=[call] * 1000)["items"]) == 1000
