"""Keys of the Vault driver: names, usages, versions, states and their end, on a real OpenBao."""

import json
import subprocess
import sys
import threading

import pytest
from backends.openbao import OpenBao
from kmsplug_plugins.vault_transit.driver import VaultTransitDriver
from kmsplug_sdk.testing import run_driver
from support.vault import Vault, new_name, settings


def versions(vault: Vault, key_id: str) -> list[str]:
    found = vault.ask("key.list_versions", key_id=key_id)["versions"]
    return [version["state"] for version in found]


def test_the_name_becomes_the_id_below_the_mount_and_the_bare_name_is_understood(vault: Vault) -> None:
    name = new_name()
    key = vault.ask("key.create", algorithm="AES_256_GCM", name=name)

    assert (key["key_id"], key["name"]) == (f"transit/{name}", name)
    assert vault.ask("key.get", key_id=name)["key_id"] == key["key_id"]
    assert vault.code("key.create", algorithm="RSA_2048", usage="SIGN_VERIFY", name=name) == "ALREADY_EXISTS"
    assert vault.ask("key.get", key_id=name)["algorithm"] == "AES_256_GCM"


@pytest.mark.parametrize(
    "name",
    ["../config/keys", "a/b", "a?help=1", "a%2e%2e", "-a", "a.", "a b", "é", "x" * 257, "a.import-pending"],
)
def test_a_name_that_could_lead_elsewhere_is_refused_and_found_nowhere(vault: Vault, name: str) -> None:
    assert vault.code("key.create", algorithm="AES_256_GCM", name=name) == "INVALID_ARGUMENT"
    assert vault.code("key.get", key_id=name) == "KEY_NOT_FOUND"
    assert vault.code("key.get", key_id=f"transit/{name}") == "KEY_NOT_FOUND"


def test_an_rsa_key_has_the_one_usage_that_its_name_or_the_settings_say(bao: OpenBao, vault: Vault) -> None:
    key_id = vault.make("RSA_2048", usage="ENCRYPT_DECRYPT")
    foreign, other = new_name(), new_name()
    for name in (foreign, other):
        bao.api("POST", f"transit/keys/{name}", {"type": "rsa-2048"})

    assert key_id.endswith(".encrypt")
    assert vault.code("crypto.sign", key_id=key_id, message=b"m") == "KEY_USAGE_MISMATCH"
    assert vault.code("crypto.encrypt", key_id=foreign, plaintext=b"p") == "KEY_USAGE_MISMATCH"
    with run_driver(VaultTransitDriver, settings(bao, usages={foreign: "ENCRYPT_DECRYPT"})) as client:
        told = Vault(client)
        assert told.decrypt(foreign, told.encrypt(foreign)) == b"text"
        assert told.code("crypto.sign", key_id=foreign, message=b"m") == "KEY_USAGE_MISMATCH"
        assert told.ask("crypto.sign", key_id=other, message=b"m")["key_version"] == "1"
    assert (
        vault.code("key.create", algorithm="RSA_2048", usage="SIGN_VERIFY", name="a.encrypt")
        == "INVALID_ARGUMENT"
    )


def test_keys_that_the_protocol_has_no_name_for_are_left_alone(bao: OpenBao, vault: Vault) -> None:
    chacha, derived = new_name(), new_name()
    bao.api("POST", f"transit/keys/{chacha}", {"type": "chacha20-poly1305"})
    bao.api("POST", f"transit/keys/{derived}", {"type": "aes256-gcm96", "derived": True})

    for name in (chacha, derived):
        assert vault.code("key.get", key_id=name) == "UNSUPPORTED_OPERATION"
        assert vault.code("crypto.encrypt", key_id=name, plaintext=b"p") == "UNSUPPORTED_OPERATION"
        assert vault.code("key.create", algorithm="AES_256_GCM", name=name) == "ALREADY_EXISTS"
    listed: set[str] = set()
    cursor: dict[str, str] = {}
    while True:
        page = vault.ask("key.list", **cursor)
        listed |= {key["key_id"] for key in page["keys"]}
        if page.get("next_cursor") is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert not {f"transit/{chacha}", f"transit/{derived}"} & listed


def test_what_is_demanded_of_a_key_is_given_or_refused(bao: OpenBao, vault: Vault) -> None:
    for demand in ({"protection": "hsm"}, {"tags": {"a": "b"}}):
        assert vault.code("key.create", algorithm="AES_256_GCM", **demand) == "UNSUPPORTED_OPERATION"
    key_id = vault.make(exportable=True)
    assert vault.ask("key.get", key_id=key_id)["exportable"] is True
    with run_driver(VaultTransitDriver, settings(bao, auto_rotate_hours=2)) as client:
        name = Vault(client).make().removeprefix("transit/")
    assert bao.api("GET", f"transit/keys/{name}")["data"]["auto_rotate_period"] == 7200


def test_thresholds_move_by_one_version_and_say_what_they_are(vault: Vault) -> None:
    key_id = vault.make()
    sealed = [vault.encrypt(key_id)]
    for _ in range(2):
        vault.ask("key.rotate", key_id=key_id)
        sealed.append(vault.encrypt(key_id))

    def set_(state: str, version: str) -> None:
        vault.ask("key.set_state", key_id=key_id, state=state, key_version=version)

    set_("DEACTIVATED", "1")
    assert versions(vault, key_id) == ["DEACTIVATED", "ACTIVE", "ACTIVE"]
    assert vault.decrypt(key_id, sealed[0]) == b"text"
    assert vault.code("crypto.encrypt", key_id=key_id, plaintext=b"p", key_version="1") == "KEY_INVALID_STATE"
    set_("SUSPENDED", "1")
    set_("DEACTIVATED", "2")
    assert versions(vault, key_id) == ["SUSPENDED", "DEACTIVATED", "ACTIVE"]
    assert vault.code("crypto.decrypt", key_id=key_id, ciphertext=sealed[0]) == "KEY_DISABLED"
    set_("ACTIVE", "2")
    set_("ACTIVE", "2")
    set_("ACTIVE", "1")
    assert versions(vault, key_id) == ["ACTIVE", "ACTIVE", "ACTIVE"]
    assert [vault.decrypt(key_id, one) for one in sealed] == [b"text"] * 3


def test_what_thresholds_cannot_say_is_refused_and_nothing_moves(vault: Vault) -> None:
    key_id = vault.make()
    for _ in range(2):
        vault.ask("key.rotate", key_id=key_id)

    def code(state: str, version: str | None) -> str:
        params = {} if version is None else {"key_version": version}
        return vault.code("key.set_state", key_id=key_id, state=state, **params)

    assert code("SUSPENDED", "2") == "KEY_INVALID_STATE"  # version 1 would be suspended as well
    assert code("DEACTIVATED", "2") == "KEY_INVALID_STATE"
    assert code("DEACTIVATED", "3") == "UNSUPPORTED_OPERATION"
    assert code("COMPROMISED", None) == "UNSUPPORTED_OPERATION"
    assert code("DEACTIVATED", None) == "UNSUPPORTED_OPERATION"
    assert code("SUSPENDED", "4") == "KEY_NOT_FOUND"
    assert versions(vault, key_id) == ["ACTIVE"] * 3


def test_trimmed_versions_are_destroyed(bao: OpenBao, vault: Vault) -> None:
    key_id = vault.make()
    sealed = vault.encrypt(key_id)
    vault.ask("key.rotate", key_id=key_id)
    path = f"transit/keys/{key_id.removeprefix('transit/')}"
    bao.api("POST", f"{path}/config", {"min_decryption_version": 2, "min_encryption_version": 2})
    bao.api("POST", f"{path}/trim", {"min_available_version": 2})

    assert versions(vault, key_id) == ["DESTROYED", "ACTIVE"]
    assert vault.code("crypto.decrypt", key_id=key_id, ciphertext=sealed) == "KEY_DESTROYED"
    assert vault.code("crypto.encrypt", key_id=key_id, plaintext=b"p", key_version="1") == "KEY_DESTROYED"
    assert vault.code("key.set_state", key_id=key_id, state="ACTIVE", key_version="1") == "KEY_DESTROYED"


def test_a_key_in_use_is_never_deletable_and_a_purge_needs_a_schedule(bao: OpenBao, vault: Vault) -> None:
    key_id = vault.make()
    path = f"transit/keys/{key_id.removeprefix('transit/')}"
    assert vault.code("key.purge", key_id=key_id) == "KEY_INVALID_STATE"
    assert vault.code("key.schedule_deletion", key_id=key_id, window_days=30) == "UNSUPPORTED_OPERATION"

    vault.ask("key.schedule_deletion", key_id=key_id)
    assert vault.ask("key.cancel_deletion", key_id=key_id)["state"] == "SUSPENDED"
    assert bao.api("GET", path)["data"]["deletion_allowed"] is False
    vault.ask("key.enable", key_id=key_id)

    bao.api("POST", f"{path}/config", {"deletion_allowed": True})  # as an operator may have left it
    assert vault.ask("key.disable", key_id=key_id)["state"] == "SUSPENDED"
    assert vault.code("key.purge", key_id=key_id) == "KEY_INVALID_STATE"


def test_a_key_that_somebody_else_deletes_is_gone_at_once_and_does_not_come_back(
    bao: OpenBao, vault: Vault
) -> None:
    key_id = vault.make()
    vault.encrypt(key_id)  # so that the driver knows it
    path = f"transit/keys/{key_id.removeprefix('transit/')}"
    bao.api("POST", f"{path}/config", {"deletion_allowed": True})
    bao.api("DELETE", path)

    assert vault.code("crypto.encrypt", key_id=key_id, plaintext=b"p") == "KEY_NOT_FOUND"
    assert vault.code("key.get", key_id=key_id) == "KEY_NOT_FOUND"


def test_of_two_who_rotate_at_once_none_loses_a_version_and_a_conflict_claims_nothing(
    bao: OpenBao, vault: Vault
) -> None:
    """OpenBao may make a version although it says that the transaction failed: so the outcome is unknown."""
    key_id = vault.make()
    rotated: list[str] = []
    conflicts: list[str] = []

    def rotate() -> None:
        with run_driver(VaultTransitDriver, settings(bao)) as client:
            for _ in range(5):
                answer = Vault(client).try_("key.rotate", key_id=key_id)
                if "result" in answer:
                    rotated.append(answer["result"]["key_version"])
                else:
                    assert answer["error"]["data"]["code"] == "CONFLICT", answer
                    conflicts.append(answer["error"]["data"]["outcome"])

    threads = [threading.Thread(target=rotate) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(rotated) + len(conflicts) == 10
    assert {*conflicts} <= {"unknown"}
    latest = int(vault.ask("key.get", key_id=key_id)["key_version"])
    assert 1 + len(rotated) <= latest <= 11


def test_versions_come_in_pages_and_a_foreign_cursor_is_refused(vault: Vault) -> None:
    key_id = vault.make("HMAC_SHA_256")
    for _ in range(4):
        vault.ask("key.rotate", key_id=key_id)

    first = vault.ask("key.list_versions", key_id=key_id, limit=3)
    rest = vault.ask("key.list_versions", key_id=key_id, limit=3, cursor=first["next_cursor"])
    assert [version["key_version"] for version in first["versions"]] == ["1", "2", "3"]
    assert [version["key_version"] for version in rest["versions"]] == ["4", "5"]
    for cursor in ("x", "0", "-1", "after:../x"):
        assert vault.code("key.list_versions", key_id=key_id, cursor=cursor) == "INVALID_ARGUMENT"
        if cursor != "x":
            assert vault.code("key.list", cursor=cursor) == "INVALID_ARGUMENT"


def manage(bao: OpenBao, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "kmsplug_plugins.vault_transit.manage",
        "trim",
        "--config",
        "-",
        *arguments,
    ]
    return subprocess.run(
        command, input=json.dumps(settings(bao)), capture_output=True, text=True, check=False, timeout=60
    )


def test_an_operator_trims_versions_that_are_suspended_and_no_others(bao: OpenBao, vault: Vault) -> None:
    key_id = vault.make()
    for _ in range(2):
        vault.ask("key.rotate", key_id=key_id)

    early = manage(bao, key_id, "3")
    assert (early.returncode, versions(vault, key_id)) == (1, ["ACTIVE"] * 3)
    assert "are in use" in early.stderr
    for version in ("1", "2"):
        vault.ask("key.set_state", key_id=key_id, state="SUSPENDED", key_version=version)
    for beyond, said in (("4", "has no version 4"), ("x", "has no version x")):
        done = manage(bao, key_id, beyond)
        assert (done.returncode, said in done.stderr) == (1, True)
    done = manage(bao, key_id, "3")
    assert (done.returncode, done.stdout) == (0, "2 versions destroyed\n")
    assert versions(vault, key_id) == ["DESTROYED", "DESTROYED", "ACTIVE"]
    assert manage(bao, key_id, "3").stdout == "0 versions destroyed\n"
    assert bao.root not in early.stderr
    assert manage(bao, "nobody", "1").returncode == 1
