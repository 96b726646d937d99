"""Bringing one's own keys to a real OpenBao by the Vault driver: wrapped here, unwrapped there."""

import os
from typing import Any

import pytest
from backends.openbao import OpenBao
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kmsplug_protocol import decode_base64
from support.vault import Vault

WRAPPING = "RSA_AES_KEY_WRAP_SHA_256"
MISFIT = "the import token or the material does not fit this key: ask for import parameters again"


def pkcs8(private: Any) -> bytes:
    return bytes(
        private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def waiting(vault: Vault, algorithm: str, **params: Any) -> str:
    """Make a key that waits for its material."""
    return vault.make(algorithm, origin="imported", **params)


def wrapped(terms: dict[str, Any], material: bytes) -> bytes:
    """Wrap material as the terms say."""
    public = serialization.load_der_public_key(decode_base64(terms["public_key"]))
    assert isinstance(public, rsa.RSAPublicKey)
    ephemeral = os.urandom(32)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    return public.encrypt(ephemeral, oaep) + keywrap.aes_key_wrap_with_padding(ephemeral, material)


def terms_for(vault: Vault, key_id: str) -> dict[str, Any]:
    return vault.ask("key.get_import_parameters", key_id=key_id, wrapping_algorithm=WRAPPING)


def body(terms: dict[str, Any], material: bytes) -> dict[str, Any]:
    return {
        "key_id": terms["key_id"],
        "wrapping_algorithm": WRAPPING,
        "import_token": terms["import_token"],
        "wrapped_key": wrapped(terms, material),
    }


def bring(vault: Vault, key_id: str, material: bytes) -> dict[str, Any]:
    return vault.ask("key.import", **body(terms_for(vault, key_id), material))


RSA = rsa.generate_private_key(65537, 2048)
KINDS: dict[str, tuple[dict[str, Any], bytes]] = {
    "AES_128_GCM": ({}, bytes(range(16))),
    "AES_256_GCM": ({}, bytes(range(32))),
    "RSA_2048": ({"usage": "SIGN_VERIFY"}, pkcs8(RSA)),
    "EC_P256": ({}, pkcs8(ec.generate_private_key(ec.SECP256R1()))),
    "EC_P384": ({}, pkcs8(ec.generate_private_key(ec.SECP384R1()))),
    "EC_P521": ({}, pkcs8(ec.generate_private_key(ec.SECP521R1()))),
    "ED25519": ({}, pkcs8(ed25519.Ed25519PrivateKey.generate())),
    "HMAC_SHA_256": ({}, bytes(range(32))),
    "HMAC_SHA_512": ({}, bytes(range(64))),
}


@pytest.mark.parametrize("algorithm", KINDS)
def test_material_of_every_kind_becomes_the_key(vault: Vault, algorithm: str) -> None:
    params, material = KINDS[algorithm]
    key_id = waiting(vault, algorithm, **params)
    before = vault.ask("key.get", key_id=key_id)
    after = bring(vault, key_id, material)

    assert (before["state"], before["origin"]) == ("PRE_ACTIVE", "imported")
    assert (after["state"], after["origin"], after["algorithm"]) == ("ACTIVE", "imported", algorithm)
    assert after["key_id"] == key_id
    public = vault.try_("key.get_public_key", key_id=key_id)
    if "result" in public:
        loaded: Any = serialization.load_der_private_key(material, None)
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        der = loaded.public_key().public_bytes(serialization.Encoding.DER, spki)
        assert decode_base64(public["result"]["public_key"]) == der
    else:
        assert "GCM" in algorithm or "HMAC" in algorithm


def test_the_imported_bytes_are_the_key_unchanged(vault: Vault) -> None:
    key_id = waiting(vault, "AES_256_GCM")
    material = os.urandom(32)
    bring(vault, key_id, material)
    sealed = decode_base64(vault.encrypt(key_id, b"text", associated_data=b"a").split(b":")[2].decode())

    assert AESGCM(material).decrypt(sealed[:12], sealed[12:], b"a") == b"text"


def test_an_rsa_key_that_encrypts_is_imported_as_that(vault: Vault) -> None:
    key_id = waiting(vault, "RSA_2048", usage="ENCRYPT_DECRYPT")
    bring(vault, key_id, pkcs8(RSA))

    assert vault.decrypt(key_id, vault.encrypt(key_id)) == b"text"
    assert vault.code("crypto.sign", key_id=key_id, message=b"m") == "KEY_USAGE_MISMATCH"


def test_before_its_material_a_key_does_nothing_and_is_listed_under_its_own_name(
    bao: OpenBao, vault: Vault
) -> None:
    key_id = waiting(vault, "AES_256_GCM")
    stored = f"{key_id.removeprefix('transit/')}.import-pending"

    for method, given in (
        ("crypto.encrypt", {"plaintext": b"p"}),
        ("crypto.generate_data_key", {}),
        ("key.rotate", {}),
        ("key.disable", {}),
        ("key.enable", {}),
    ):
        assert vault.code(method, key_id=key_id, **given) == "KEY_INVALID_STATE"
    assert vault.code("key.get", key_id=stored) == "KEY_NOT_FOUND"
    assert (
        vault.code("key.create", algorithm="AES_256_GCM", name=stored.partition(".")[0]) == "ALREADY_EXISTS"
    )
    keys = {key["key_id"]: key["state"] for key in vault.ask("key.list", limit=1000)["keys"]}
    assert keys.get(key_id, "PRE_ACTIVE") == "PRE_ACTIVE"
    assert f"transit/{stored}" not in keys
    bring(vault, key_id, bytes(32))
    assert stored not in bao.api("LIST", "transit/keys")["data"]["keys"]


def test_a_waiting_key_can_be_given_up_and_is_gone(vault: Vault) -> None:
    key_id = waiting(vault, "AES_256_GCM")
    terms = terms_for(vault, key_id)
    vault.ask("key.schedule_deletion", key_id=key_id)
    assert vault.code("key.import", **body(terms, bytes(32))) == "KEY_PENDING_DELETION"
    assert vault.ask("key.cancel_deletion", key_id=key_id)["state"] == "PRE_ACTIVE"
    vault.ask("key.schedule_deletion", key_id=key_id)
    vault.ask("key.purge", key_id=key_id)
    assert vault.code("key.get", key_id=key_id) == "KEY_NOT_FOUND"


def flipped(data: bytes, index: int) -> bytes:
    changed = bytearray(data)
    changed[index] ^= 1
    return bytes(changed)


def test_whatever_does_not_fit_has_one_sentence_and_the_key_goes_on_waiting(vault: Vault) -> None:
    key_id, other = waiting(vault, "AES_256_GCM"), waiting(vault, "AES_256_GCM")
    terms, foreign = terms_for(vault, key_id), terms_for(vault, other)
    good = body(terms, bytes(32))
    wrong = {
        "another key's token": {"import_token": decode_base64(foreign["import_token"])},
        "no token": {"import_token": b""},
        "no material": {"wrapped_key": b""},
        "zeros": {"wrapped_key": bytes(600)},
        "too short": {"wrapped_key": bytes(512)},
        "too long": {"wrapped_key": bytes(20_000)},
        "a bit flipped in the wrapped key": {"wrapped_key": flipped(good["wrapped_key"], -1)},
        "a bit flipped in the wrapping": {"wrapped_key": flipped(good["wrapped_key"], 0)},
        "another length": {"wrapped_key": wrapped(terms, bytes(16))},
        "another kind": {"wrapped_key": wrapped(terms, pkcs8(RSA))},
    }
    for what, member in wrong.items():
        error = vault.try_("key.import", **{**good, **member})["error"]
        assert (error["data"]["code"], error["message"]) == ("INVALID_ARGUMENT", MISFIT), what
    assert vault.ask("key.get", key_id=key_id)["state"] == "PRE_ACTIVE"
    assert vault.ask("key.import", **good)["state"] == "ACTIVE"


@pytest.mark.parametrize(
    ("algorithm", "material"),
    [
        ("HMAC_SHA_256", bytes(64)),
        ("HMAC_SHA_512", bytes(32)),
        ("EC_P256", pkcs8(ec.generate_private_key(ec.SECP384R1()))),
        ("EC_P256", pkcs8(RSA)),
        ("ED25519", bytes(32)),
    ],
)
def test_material_of_another_kind_leaves_no_key_of_another_kind(
    vault: Vault, algorithm: str, material: bytes
) -> None:
    key_id = waiting(vault, algorithm)
    error = vault.try_("key.import", **body(terms_for(vault, key_id), material))["error"]

    assert (error["data"]["code"], error["message"]) == ("INVALID_ARGUMENT", MISFIT)
    found = vault.ask("key.get", key_id=key_id)
    assert (found["state"], found["algorithm"]) == ("PRE_ACTIVE", algorithm)


def test_material_is_taken_once_and_an_imported_key_is_not_rotated(vault: Vault) -> None:
    key_id = waiting(vault, "AES_256_GCM")
    terms = terms_for(vault, key_id)
    vault.ask("key.import", **body(terms, bytes(range(32))))

    assert vault.code("key.import", **body(terms, bytes(32))) == "KEY_INVALID_STATE"
    assert (
        vault.code("key.get_import_parameters", key_id=key_id, wrapping_algorithm=WRAPPING)
        == "KEY_INVALID_STATE"
    )
    assert vault.code("key.rotate", key_id=key_id) == "UNSUPPORTED_OPERATION"


def test_other_wrappings_and_dates_are_refused(vault: Vault) -> None:
    key_id = waiting(vault, "AES_256_GCM")
    terms = terms_for(vault, key_id)

    assert vault.code("key.get_import_parameters", key_id=key_id) == "UNSUPPORTED_OPERATION"
    body_ = {**body(terms, bytes(32)), "wrapping_algorithm": "RSA_OAEP_SHA_256"}
    assert vault.code("key.import", **body_) == "UNSUPPORTED_OPERATION"
    body_ = {**body(terms, bytes(32)), "expires_at": "2030-01-01T00:00:00Z"}
    assert vault.code("key.import", **body_) == "UNSUPPORTED_OPERATION"


def test_what_an_interrupted_import_leaves_behind_never_comes_to_light(bao: OpenBao, vault: Vault) -> None:
    key_id = waiting(vault, "AES_256_GCM")
    name = key_id.removeprefix("transit/")
    bring(vault, key_id, bytes(32))
    bao.api("POST", f"transit/keys/{name}.import-pending", {"type": "aes256-gcm96"})

    assert vault.ask("key.get", key_id=key_id)["state"] == "ACTIVE"
    found = [key["key_id"] for key in vault.ask("key.list", limit=1000)["keys"]]
    assert found.count(key_id) <= 1
    vault.ask("key.schedule_deletion", key_id=key_id)
    vault.ask("key.purge", key_id=key_id)
    assert vault.code("key.get", key_id=key_id) == "KEY_NOT_FOUND"
