import os
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from kmsplug_plugins._software.lifecycle import created, opening_versions, rotated
from kmsplug_protocol import KeyAlgorithm, KeyUsage, Secret, decode_base64
from unit.plugins.local_support import Keystore, b64, keystore


def test_a_new_key_is_active_and_described_in_full(local: Keystore) -> None:
    key = local.call("key.create", algorithm="AES_256_GCM", name="invoices", tags={"team": "büro"})

    assert re.fullmatch("key-[0-9a-f]{32}", key["key_id"])
    assert key["key_version"] == "1"
    assert key["state"] == "ACTIVE"
    assert key["usage"] == "ENCRYPT_DECRYPT"
    assert key["name"] == "invoices"
    assert key["tags"] == {"team": "büro"}
    assert key["origin"] == "generated"
    assert key["exportable"] is False
    assert key["protection"] == "software"
    assert key["executed_by"] == "native"
    assert local.call("key.get", key_id=key["key_id"]) == key


def test_a_key_survives_the_driver(folder: Path) -> None:
    with keystore(folder) as session:
        key_id = session.create()
        key = session.call("key.rotate", key_id=key_id)
        ciphertext = session.encrypt(key_id, b"data")

    with keystore(folder) as session:
        assert session.call("key.get", key_id=key_id) == key
        assert session.decrypt(key_id, ciphertext) == b"data"


def test_names_may_repeat(local: Keystore) -> None:
    assert local.create(name="same") != local.create(name="same")


@pytest.mark.parametrize(
    ("algorithm", "usage"),
    [
        ("AES_256_GCM", "ENCRYPT_DECRYPT"),
        ("EC_P256", "SIGN_VERIFY"),
        ("ED25519", "SIGN_VERIFY"),
        ("HMAC_SHA_256", "GENERATE_VERIFY_MAC"),
    ],
)
def test_the_usage_follows_from_the_algorithm(shared: Keystore, algorithm: str, usage: str) -> None:
    assert shared.call("key.create", algorithm=algorithm)["usage"] == usage


def test_an_rsa_key_needs_a_usage(shared: Keystore) -> None:
    error = shared.error("key.create", algorithm="RSA_3072")

    assert error["data"]["code"] == "INVALID_ARGUMENT"
    assert "give a usage" in error["message"]


@pytest.mark.parametrize(
    "demand",
    [
        {"algorithm": "AES_256_GCM", "protection": "hsm"},
        {"algorithm": "AES_256_GCM", "protection": "host"},
        {"algorithm": "AES_256_GCM", "exportable": True},
        {"algorithm": "AES_256_GCM", "usage": "SIGN_VERIFY"},
        {"algorithm": "RSA_3072", "usage": "WRAP_UNWRAP"},
        {"algorithm": "ML_KEM_768", "usage": "SIGN_VERIFY"},
        {"algorithm": "X25519", "usage": "SIGN_VERIFY"},
    ],
)
def test_what_cannot_be_met_is_refused_and_makes_no_key(local: Keystore, demand: dict[str, Any]) -> None:
    assert local.code("key.create", **demand) == "UNSUPPORTED_OPERATION"
    assert local.call("key.list")["keys"] == []


def test_software_protection_may_be_demanded(local: Keystore) -> None:
    assert (
        local.call("key.create", algorithm="AES_256_GCM", protection="software")["protection"] == "software"
    )


def test_a_tag_that_is_too_long_is_refused(local: Keystore) -> None:
    assert local.code("key.create", algorithm="AES_256_GCM", tags={"a": "x" * 1025}) == "INVALID_ARGUMENT"


def test_every_operation_refuses_an_unknown_key(shared: Keystore) -> None:
    unknown: dict[str, Any] = {"key_id": "key-" + "0" * 32}

    for method in ("get", "enable", "disable", "rotate", "list_versions", "get_public_key"):
        assert shared.code(f"key.{method}", **unknown) == "KEY_NOT_FOUND"
    assert shared.code("crypto.encrypt", plaintext="", **unknown) == "KEY_NOT_FOUND"
    assert shared.code("crypto.decrypt", ciphertext="", **unknown) == "KEY_NOT_FOUND"
    assert shared.code("crypto.generate_data_key", **unknown) == "KEY_NOT_FOUND"
    assert shared.code("crypto.sign", message="", **unknown) == "KEY_NOT_FOUND"
    assert shared.code("crypto.verify", message="", signature="", **unknown) == "KEY_NOT_FOUND"
    assert shared.code("crypto.mac", message="", **unknown) == "KEY_NOT_FOUND"
    assert shared.code("crypto.verify_mac", message="", mac="", **unknown) == "KEY_NOT_FOUND"


def test_keys_are_listed_by_pages_in_the_order_of_creation(local: Keystore) -> None:
    created = [local.create() for _ in range(7)]

    listed, cursors, cursor = [], [], None
    while True:
        page = local.call("key.list", limit=3, **({"cursor": cursor} if cursor else {}))
        listed += [key["key_id"] for key in page["keys"]]
        cursor = page.get("next_cursor")
        if cursor is None:
            break
        cursors.append(cursor)

    assert listed == created
    assert len(cursors) == 2


def test_a_full_last_page_has_no_cursor(local: Keystore) -> None:
    for _ in range(2):
        local.create()

    assert "next_cursor" not in local.call("key.list", limit=2)


@pytest.mark.parametrize("cursor", ["", "0", "-1", "1.5", "x", "9" * 40, "\u0661"])
def test_a_cursor_of_others_is_refused(local: Keystore, cursor: str) -> None:
    assert local.code("key.list", cursor=cursor) == "INVALID_ARGUMENT"


def test_rotation_leaves_the_former_version_to_decrypt_only(local: Keystore) -> None:
    key_id = local.create()
    old = local.encrypt(key_id, b"old")

    rotated = local.call("key.rotate", key_id=key_id)

    assert rotated["key_version"] == "2"
    assert rotated["state"] == "ACTIVE"
    assert local.states(key_id) == ["DEACTIVATED", "ACTIVE"]
    assert local.call("crypto.encrypt", key_id=key_id, plaintext="")["key_version"] == "2"
    assert local.code("crypto.encrypt", key_id=key_id, key_version="1", plaintext="") == "KEY_INVALID_STATE"
    assert local.decrypt(key_id, old) == b"old"


def test_versions_are_listed_by_pages(local: Keystore) -> None:
    key_id = local.create()
    for _ in range(4):
        local.call("key.rotate", key_id=key_id)

    first = local.call("key.list_versions", key_id=key_id, limit=3)
    second = local.call("key.list_versions", key_id=key_id, limit=3, cursor=first["next_cursor"])

    versions = first["versions"] + second["versions"]
    assert [version["key_version"] for version in versions] == ["1", "2", "3", "4", "5"]
    assert [version["current"] for version in versions] == [False] * 4 + [True]
    assert "next_cursor" not in second


def test_disable_suspends_every_version_and_enable_gives_each_its_state_back(local: Keystore) -> None:
    key_id = local.create()
    local.call("key.rotate", key_id=key_id)

    disabled = local.call("key.disable", key_id=key_id)

    assert disabled["state"] == "SUSPENDED"
    assert local.states(key_id) == ["SUSPENDED", "SUSPENDED"]

    enabled = local.call("key.enable", key_id=key_id)

    assert enabled["state"] == "ACTIVE"
    assert local.states(key_id) == ["DEACTIVATED", "ACTIVE"]


def test_disabling_and_enabling_twice_is_doing_it_once(local: Keystore) -> None:
    key_id = local.create()
    local.call("key.rotate", key_id=key_id)

    once = local.call("key.disable", key_id=key_id)
    assert local.call("key.disable", key_id=key_id) == once
    assert local.call("key.enable", key_id=key_id) == local.call("key.enable", key_id=key_id)
    assert local.states(key_id) == ["DEACTIVATED", "ACTIVE"]


def test_a_disabled_key_does_nothing_but_show_itself(local: Keystore) -> None:
    aes, mac, signing = local.create(), local.create("HMAC_SHA_256"), local.create("EC_P256")
    ciphertext = local.encrypt(aes, b"data")
    code = local.call("crypto.mac", key_id=mac, message="")["mac"]
    signature = local.call("crypto.sign", key_id=signing, message="")["signature"]
    for key_id in (aes, mac, signing):
        local.call("key.disable", key_id=key_id)

    refused = [
        local.code("crypto.encrypt", key_id=aes, plaintext=""),
        local.code("crypto.encrypt", key_id=aes, key_version="1", plaintext=""),
        local.code("crypto.decrypt", key_id=aes, ciphertext=ciphertext),
        local.code("crypto.decrypt", key_id=aes, key_version="1", ciphertext=ciphertext),
        local.code("crypto.generate_data_key", key_id=aes),
        local.code("crypto.mac", key_id=mac, message=""),
        local.code("crypto.verify_mac", key_id=mac, message="", mac=code),
        local.code("crypto.sign", key_id=signing, message=""),
        local.code("crypto.verify", key_id=signing, message="", signature=signature),
        local.code("key.rotate", key_id=aes),
    ]

    assert refused == ["KEY_DISABLED"] * len(refused)
    assert local.call("key.get", key_id=aes)["state"] == "SUSPENDED"
    assert local.call("key.list")["keys"][0]["state"] == "SUSPENDED"
    assert local.call("key.get_public_key", key_id=signing)["key_version"] == "1"


def test_an_enabled_key_works_again(local: Keystore) -> None:
    key_id = local.create()
    ciphertext = local.encrypt(key_id, b"data")
    local.call("key.disable", key_id=key_id)

    local.call("key.enable", key_id=key_id)

    assert local.decrypt(key_id, ciphertext) == b"data"


@pytest.mark.parametrize(
    ("algorithm", "kind", "params"),
    [
        ("RSA_3072", rsa.RSAPublicKey, {"usage": "ENCRYPT_DECRYPT"}),
        ("EC_P256", ec.EllipticCurvePublicKey, {}),
        ("ED25519", ed25519.Ed25519PublicKey, {}),
    ],
)
def test_public_keys_are_der(shared: Keystore, algorithm: str, kind: type, params: dict[str, Any]) -> None:
    key_id = shared.create(algorithm, **params)

    result = shared.call("key.get_public_key", key_id=key_id)

    assert isinstance(load_der_public_key(decode_base64(result["public_key"])), kind)
    assert result["algorithm"] == algorithm


def test_each_version_has_a_public_key_of_its_own(shared: Keystore) -> None:
    key_id = shared.create("ED25519")
    first = shared.call("key.get_public_key", key_id=key_id)
    shared.call("key.rotate", key_id=key_id)

    current = shared.call("key.get_public_key", key_id=key_id)

    assert current["key_version"] == "2"
    assert current["public_key"] != first["public_key"]
    assert shared.call("key.get_public_key", key_id=key_id, key_version="1") == first


def test_a_symmetric_key_has_no_public_half(shared: Keystore) -> None:
    assert shared.code("key.get_public_key", key_id=shared.create()) == "KEY_USAGE_MISMATCH"


@pytest.mark.parametrize("version", ["0", "2", "01", "-1", "x", "1 ", "\u0661"])
def test_an_unknown_version_is_not_found(shared: Keystore, version: str) -> None:
    key_id = shared.create()
    ciphertext = shared.encrypt(key_id, b"")

    asked: dict[str, Any] = {"key_id": key_id, "key_version": version}
    assert shared.code("crypto.encrypt", plaintext="", **asked) == "KEY_NOT_FOUND"
    assert shared.code("crypto.decrypt", ciphertext=ciphertext, **asked) == "KEY_NOT_FOUND"


def test_the_newest_version_is_tried_first() -> None:
    key = created(KeyAlgorithm.AES_256_GCM, KeyUsage.ENCRYPT_DECRYPT, Secret(b"1"), name=None, tags={})
    key = rotated(rotated(key, Secret(b"2")), Secret(b"3"))

    assert [version.name for version in opening_versions(key, None)] == ["3", "2", "1"]


def test_two_sessions_see_each_others_changes_at_once(folder: Path) -> None:
    with keystore(folder) as one, keystore(folder) as other:
        key_id = one.create()
        ciphertext = other.encrypt(key_id, b"data")
        one.call("key.disable", key_id=key_id)
        assert other.code("crypto.decrypt", key_id=key_id, ciphertext=ciphertext) == "KEY_DISABLED"
        other.call("key.enable", key_id=key_id)
        assert one.decrypt(key_id, ciphertext) == b"data"
        other.call("key.rotate", key_id=key_id)
        assert one.call("crypto.encrypt", key_id=key_id, plaintext="")["key_version"] == "2"


def test_deep_health_is_well_and_writes_nothing(local: Keystore, folder: Path) -> None:
    local.create()
    before = {path.name: path.read_bytes() for path in folder.glob("*.db*") if path.name != "keystore.db-shm"}

    result = local.call("plugin.health", depth="deep")

    assert result["healthy"] is True
    assert {check["name"] for check in result["checks"]} == {"cryptography", "database"}
    assert {
        path.name: path.read_bytes() for path in folder.glob("*.db*") if path.name != "keystore.db-shm"
    } == before


def test_a_database_that_was_moved_away_is_noticed_before_anything_is_lost(
    local: Keystore, folder: Path
) -> None:
    os.rename(folder / "keystore.db", folder / "moved.db")  # noqa: PTH104 - as an operator would

    error = local.error("key.create", algorithm="AES_256_GCM")

    assert error["data"]["code"] == "PROVIDER_UNAVAILABLE"
    assert error["data"]["outcome"] == "not_applied"
    assert "restart" in error["data"]["hint"]
    health = local.call("plugin.health", depth="deep")
    assert health["healthy"] is False


def test_random_bytes_are_as_many_as_asked_for(shared: Keystore) -> None:
    assert len(decode_base64(shared.call("crypto.random", length_bytes=1)["data"])) == 1
    assert len(decode_base64(shared.call("crypto.random", length_bytes=65536)["data"])) == 65536
    assert shared.code("crypto.random", length_bytes=65537) == "INVALID_ARGUMENT"
    assert b64(bytes(32)) != shared.call("crypto.random", length_bytes=32)["data"]
