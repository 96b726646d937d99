"""Using keys by the Vault driver: what is bound, which version, how many at once, on a real OpenBao."""

import base64
import re
from typing import Any

import pytest
from backends.fault_proxy import Fault, fault_proxy
from backends.openbao import OpenBao
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from kmsplug_plugins.vault_transit.driver import VaultTransitDriver
from kmsplug_protocol import decode_base64, encode_base64
from kmsplug_sdk.testing import run_driver
from support.vault import Vault, new_name, settings


def test_associated_data_reach_the_server_and_what_it_does_not_bind_is_refused(
    bao: OpenBao, vault: Vault
) -> None:
    key_id = vault.make()
    sealed = vault.encrypt(key_id, associated_data=b"invoice 7")
    body = {"ciphertext": sealed.decode(), "associated_data": encode_base64(b"invoice 7")}

    opened = bao.api("POST", f"transit/decrypt/{key_id.removeprefix('transit/')}", body)["data"]
    assert decode_base64(opened["plaintext"]) == b"text"
    assert vault.code("crypto.decrypt", key_id=key_id, ciphertext=sealed) == "INVALID_CIPHERTEXT"
    # The server's own re-encryption takes none, and says nothing when some are given.
    moved = {"source_key_id": key_id, "key_id": key_id, "ciphertext": sealed}
    assert vault.code("crypto.reencrypt", **moved) == "INVALID_CIPHERTEXT"
    for name in ("source_associated_data", "associated_data"):
        assert vault.code("crypto.reencrypt", **moved, **{name: b"invoice 7"}) == "UNSUPPORTED_OPERATION"
    assert (
        vault.code("crypto.encrypt", key_id=key_id, plaintext=b"", context={"a": "b"})
        == "UNSUPPORTED_OPERATION"
    )


def test_reencryption_stays_within_a_key_and_moves_to_the_current_version(vault: Vault) -> None:
    key_id, other = vault.make(), vault.make()
    sealed = vault.encrypt(key_id)
    vault.ask("key.rotate", key_id=key_id)
    moved = vault.ask("crypto.reencrypt", source_key_id=key_id, key_id=key_id, ciphertext=sealed)

    assert (moved["source_key_version"], moved["key_version"]) == ("1", "2")
    assert vault.decrypt(key_id, decode_base64(moved["ciphertext"])) == b"text"
    assert (
        vault.code("crypto.reencrypt", source_key_id=key_id, key_id=other, ciphertext=sealed)
        == "UNSUPPORTED_OPERATION"
    )


def test_no_refusal_of_bytes_tells_what_the_server_said(vault: Vault) -> None:
    key_id = vault.make()
    sealed = vault.encrypt(key_id)
    wrong = [
        b"",
        b"x",
        sealed[:-5],
        sealed.replace(b"v1", b"v7"),
        sealed.replace(b"v1", b"v01"),
        sealed + b"\n",
    ]
    wrong += [re.sub(b".{4}$", b"AAAA", sealed), b"vault:v1:AAAA", sealed.replace(b"vault", b"VAULT")]
    errors = [vault.try_("crypto.decrypt", key_id=key_id, ciphertext=one)["error"] for one in wrong]

    told = [{name: value for name, value in error["data"].items() if name != "causes"} for error in errors]
    assert told == [{"code": "INVALID_CIPHERTEXT", "vendor": {"service": "transit", "withheld": True}}] * len(
        wrong
    )


def test_a_version_that_is_named_is_used_or_refused(vault: Vault) -> None:
    key_id = vault.make()
    first = vault.encrypt(key_id)
    vault.ask("key.rotate", key_id=key_id)

    assert vault.decrypt(key_id, first, key_version="1") == b"text"
    assert (
        vault.code("crypto.decrypt", key_id=key_id, ciphertext=first, key_version="2") == "INVALID_CIPHERTEXT"
    )
    assert vault.encrypt(key_id, key_version="1").startswith(b"vault:v1:")
    for version in ("3", "0", "01", "-1", "latest", "1e3"):
        for method, given in (
            ("crypto.decrypt", {"ciphertext": first}),
            ("crypto.encrypt", {"plaintext": b"p"}),
        ):
            assert vault.code(method, key_id=key_id, key_version=version, **given) == "KEY_NOT_FOUND"


def test_rsa_ciphertexts_are_bare_bytes_that_anybody_can_make_and_each_version_opens_its_own(
    vault: Vault,
) -> None:
    key_id = vault.make("RSA_2048", usage="ENCRYPT_DECRYPT")
    old = vault.encrypt(key_id)
    vault.ask("key.rotate", key_id=key_id)
    assert len(old) == 256
    assert vault.decrypt(key_id, old) == b"text"
    assert vault.ask("crypto.decrypt", key_id=key_id, ciphertext=old)["key_version"] == "1"
    assert (
        vault.code("crypto.decrypt", key_id=key_id, ciphertext=old, key_version="2") == "INVALID_CIPHERTEXT"
    )
    error = vault.try_("crypto.decrypt", key_id=key_id, ciphertext=bytes(256))["error"]
    assert error["data"]["vendor"] == {"service": "transit", "withheld": True}


def test_what_another_library_wraps_under_the_published_rsa_key_opens(bao: OpenBao, vault: Vault) -> None:
    key_id = vault.make("RSA_2048", usage="ENCRYPT_DECRYPT")
    der = vault.ask("key.get_public_key", key_id=key_id)["public_key"]
    public = load_der_public_key(decode_base64(der))
    assert isinstance(public, rsa.RSAPublicKey)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)

    assert vault.decrypt(key_id, public.encrypt(b"wrapped elsewhere", oaep)) == b"wrapped elsewhere"


@pytest.mark.parametrize(
    ("length", "bound"), [(16, b""), (32, b""), (64, b""), (32, b"a"), (17, b""), (1024, b"a")]
)
def test_a_data_key_of_any_length_is_bound_and_opens(vault: Vault, length: int, bound: bytes) -> None:
    key_id = vault.make()
    made = vault.ask("crypto.generate_data_key", key_id=key_id, length_bytes=length, associated_data=bound)
    opened = vault.decrypt(key_id, decode_base64(made["ciphertext"]), associated_data=bound)

    assert len(opened) == length
    assert opened == decode_base64(made["plaintext"])
    blind = vault.ask("crypto.generate_data_key", key_id=key_id, length_bytes=length, with_plaintext=False)
    assert "plaintext" not in blind


def batch(vault: Vault, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    body = [
        {
            "method": method,
            "params": {k: encode_base64(v) if isinstance(v, bytes) else v for k, v in params.items()},
        }
        for method, params in calls
    ]
    items: list[Any] = vault.ask("crypto.batch", calls=body)["items"]
    return [item["error"]["data"]["code"] if "error" in item else item["result"] for item in items]


def test_a_batch_answers_each_call_as_if_it_had_come_alone(vault: Vault) -> None:
    key_id, other, signer = vault.make(), vault.make(), vault.make("EC_P256")
    disabled = vault.make()
    lost = vault.encrypt(disabled)
    vault.ask("key.disable", key_id=disabled)
    sealed = vault.encrypt(key_id, associated_data=b"a")
    found = batch(
        vault,
        ("crypto.encrypt", {"key_id": key_id, "plaintext": b"1"}),
        ("crypto.decrypt", {"key_id": key_id, "ciphertext": sealed, "associated_data": b"a"}),
        ("crypto.decrypt", {"key_id": key_id, "ciphertext": sealed}),
        ("crypto.decrypt", {"key_id": other, "ciphertext": sealed, "associated_data": b"a"}),
        ("crypto.encrypt", {"key_id": key_id, "plaintext": b"2", "key_version": "9"}),
        ("crypto.encrypt", {"key_id": "nobody", "plaintext": b"3"}),
        ("crypto.encrypt", {"key_id": disabled, "plaintext": b"4"}),
        ("crypto.decrypt", {"key_id": disabled, "ciphertext": lost}),
        ("crypto.sign", {"key_id": signer, "message": b"m"}),
        ("crypto.mac", {"key_id": signer, "message": b"m"}),
        ("crypto.random", {"length_bytes": 8}),
        ("crypto.encrypt", {"key_id": key_id, "plaintext": "no base64"}),
        ("key.get", {"key_id": key_id}),
    )

    assert vault.decrypt(key_id, decode_base64(found[0]["ciphertext"])) == b"1"
    assert decode_base64(found[1]["plaintext"]) == b"text"
    assert found[2:8] == [
        "INVALID_CIPHERTEXT",
        "INVALID_CIPHERTEXT",
        "KEY_NOT_FOUND",
        "KEY_NOT_FOUND",
        "KEY_DISABLED",
        "KEY_DISABLED",
    ]
    signature = decode_base64(found[8]["signature"])
    assert vault.ask("crypto.verify", key_id=signer, message=b"m", signature=signature)["valid"] is True
    assert found[9] == "KEY_USAGE_MISMATCH"
    assert len(base64.b64decode(found[10]["data"])) == 8
    assert found[11:] == ["INVALID_ARGUMENT", "UNSUPPORTED_OPERATION"]


def test_a_thousand_calls_on_one_key_are_a_handful_of_requests(bao: OpenBao) -> None:
    with (
        fault_proxy(bao.url) as proxy,
        run_driver(VaultTransitDriver, {**settings(bao), "address": proxy.url}) as client,
    ):
        vault = Vault(client)
        key_id = vault.make()
        before = len(proxy.seen)
        sealed = batch(
            vault,
            *[("crypto.encrypt", {"key_id": key_id, "plaintext": f"{n}".encode()}) for n in range(1000)],
        )
        opened = batch(
            vault,
            *[
                ("crypto.decrypt", {"key_id": key_id, "ciphertext": decode_base64(one["ciphertext"])})
                for one in sealed
            ],
        )
        requests = len(proxy.seen) - before

    assert [decode_base64(one["plaintext"]) for one in opened] == [f"{n}".encode() for n in range(1000)]
    assert requests <= 10


@pytest.mark.parametrize("with_key", [False, True])
def test_a_good_deep_check_is_reused_and_a_bad_one_is_not(
    bao: OpenBao, vault: Vault, *, with_key: bool
) -> None:
    more = {"health_key": vault.make()} if with_key else {}
    with (
        fault_proxy(bao.url) as proxy,
        run_driver(VaultTransitDriver, {**settings(bao), "address": proxy.url, **more}) as client,
    ):

        def check() -> dict[str, Any]:
            result: dict[str, Any] = client.call("plugin.health", {"depth": "deep"})["result"]
            return result

        proxy.plan = lambda _seen: Fault(status=503, body=b'{"errors":["Vault is sealed"]}')
        bad = [check() for _ in range(2)]
        proxy.plan = lambda _seen: None
        good = check()
        before = len(proxy.seen)
        assert check() == good
        assert len(proxy.seen) == before

    assert [one["healthy"] for one in bad] == [False, False]
    assert bad[0]["checks"][0]["detail"] == "the server is sealed"
    assert good["healthy"] is True
    assert good["checks"][0]["name"] == ("encryption" if with_key else "random bytes")


def test_encrypting_makes_no_key_even_where_the_server_would(bao: OpenBao) -> None:
    bao.api("POST", "sys/mounts/makes-keys", {"type": "transit"})
    with run_driver(VaultTransitDriver, settings(bao, mount="makes-keys")) as client:
        vault = Vault(client)
        for method in ("crypto.encrypt", "crypto.generate_data_key"):
            given = {"plaintext": b"p"} if method == "crypto.encrypt" else {"associated_data": b"a"}
            assert vault.code(method, key_id=new_name(), **given) == "KEY_NOT_FOUND"
        assert batch(vault, ("crypto.encrypt", {"key_id": new_name(), "plaintext": b"p"})) == [
            "KEY_NOT_FOUND"
        ]
        assert vault.ask("key.list")["keys"] == []
        key_id = vault.make()
        assert vault.decrypt(key_id, vault.encrypt(key_id)) == b"text"
