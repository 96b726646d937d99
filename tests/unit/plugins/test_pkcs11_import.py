"""Importing: material is unwrapped on the token, once, by a pair that can do nothing else."""

import base64
import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_der_public_key
from kmsplug_plugins.pkcs11 import _imports
from kmsplug_plugins.pkcs11.driver import Pkcs11Driver
from kmsplug_sdk.testing import DriverClient, run_driver
from support.tokens import TOKENS, softhsm

MATERIAL = bytes(range(32))
HOW = {"wrapping_algorithm": "RSA_OAEP_SHA_256"}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DriverClient]:
    # Of the tokens at hand the one that both unwraps under OAEP with SHA-256 and tells what came of it.
    monkeypatch.setattr(_imports, "_WRAPPING_BITS", 2048)  # longer ones take this token seconds
    with TOKENS["kryoptic"](tmp_path) as tokens:
        for name, value in tokens.env.items():
            monkeypatch.setenv(name, value)
        with run_driver(Pkcs11Driver, tokens.config) as running:
            yield running


def waiting(client: DriverClient, algorithm: str = "AES_256_GCM") -> str:
    created = client.call("key.create", {"algorithm": algorithm, "origin": "imported", "name": "mine"})
    assert created["result"]["state"] == "PRE_ACTIVE"
    return str(created["result"]["key_id"])


def parameters(client: DriverClient, key_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.call("key.get_import_parameters", {"key_id": key_id, **HOW})["result"]
    return found


def wrapped(terms: dict[str, Any], material: bytes = MATERIAL) -> str:
    public = load_der_public_key(base64.b64decode(terms["public_key"]))
    assert isinstance(public, RSAPublicKey)
    hashed = hashes.SHA256()
    sealed = public.encrypt(material, padding.OAEP(padding.MGF1(hashed), hashed, None))
    return base64.b64encode(sealed).decode()


def imported(client: DriverClient, key_id: str, terms: dict[str, Any], **members: Any) -> dict[str, Any]:
    given = {"key_id": key_id, "wrapped_key": wrapped(terms), "import_token": terms["import_token"], **HOW}
    return client.call("key.import", {**given, **members})


def code(answer: dict[str, Any]) -> str | None:
    return str(answer["error"]["data"]["code"]) if "error" in answer else None


def test_what_was_handed_in_is_the_key_and_stays_on_the_token(client: DriverClient) -> None:
    key_id = waiting(client)
    early = client.call("crypto.encrypt", {"key_id": key_id, "plaintext": "aGVsbG8="})

    done = imported(client, key_id, parameters(client, key_id))["result"]
    sealed = client.call("crypto.encrypt", {"key_id": key_id, "plaintext": "aGVsbG8="})["result"]

    assert code(early) == "KEY_INVALID_STATE"
    assert (done["state"], done["origin"], done["name"], done["exportable"]) == (
        "ACTIVE",
        "imported",
        "mine",
        False,
    )
    ciphertext = base64.b64decode(sealed["ciphertext"])
    assert AESGCM(MATERIAL).decrypt(ciphertext[:12], ciphertext[12:], None) == b"hello"


def test_the_pair_serves_once(client: DriverClient) -> None:
    key_id = waiting(client)
    terms = parameters(client, key_id)

    first, second = imported(client, key_id, terms), imported(client, key_id, terms)
    again = client.call("key.get_import_parameters", {"key_id": key_id, **HOW})

    assert [code(answer) for answer in (first, second, again)] == [
        None,
        "KEY_INVALID_STATE",
        "KEY_INVALID_STATE",
    ]


def test_asking_twice_gives_the_same_pair(client: DriverClient) -> None:
    key_id = waiting(client)

    assert parameters(client, key_id) == parameters(client, key_id)


def test_whatever_does_not_fit_is_refused_in_one_sentence_and_the_key_still_waits(
    client: DriverClient,
) -> None:
    key_id, other = waiting(client), waiting(client)
    terms, others = parameters(client, key_id), parameters(client, other)
    noise = base64.b64encode(b"\x01" * 384).decode()

    answers = [
        imported(client, key_id, terms, wrapped_key=noise),
        imported(client, key_id, terms, wrapped_key="AAAA"),
        imported(client, key_id, terms, wrapped_key=wrapped(others)),
        imported(client, key_id, terms, wrapped_key=wrapped(terms, MATERIAL[:31])),
        imported(client, key_id, terms, wrapped_key=wrapped(terms, MATERIAL[:16])),
        imported(client, key_id, terms, import_token=others["import_token"]),
        imported(client, key_id, terms, import_token=""),
        imported(client, key_id, terms, wrapping_algorithm="RSA_PKCS1"),
    ]

    assert {code(answer) for answer in answers} == {"INVALID_ARGUMENT"}
    assert len({answer["error"]["message"] for answer in answers}) == 1
    assert client.call("key.get", {"key_id": key_id})["result"]["state"] == "PRE_ACTIVE"
    assert code(imported(client, key_id, terms)) is None


def test_an_hmac_key_has_to_be_as_long_as_its_hash(client: DriverClient) -> None:
    key_id = waiting(client, "HMAC_SHA_512")
    terms = parameters(client, key_id)

    assert code(imported(client, key_id, terms)) == "INVALID_ARGUMENT"
    assert code(imported(client, key_id, terms, wrapped_key=wrapped(terms, MATERIAL * 2))) is None


def test_after_a_day_a_pair_takes_nothing_in_and_is_replaced_when_it_is_asked_for(
    client: DriverClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_imports, "_VALID_S", 0)
        key_id = waiting(client)
    given = {"key_id": key_id, "wrapped_key": "AAAA", "import_token": "AAAA", **HOW}
    old = client.call("key.import", given)

    new = parameters(client, key_id)

    assert code(old) == "INVALID_ARGUMENT"
    assert code(imported(client, key_id, new)) is None


def test_keys_that_wait_are_listed_once_and_judged_as_not_usable(client: DriverClient) -> None:
    key_id = waiting(client)

    listed = client.call("key.list")["result"]["keys"]
    judged = client.call("key.validate", {"key_id": key_id})["result"]

    assert [(key["key_id"], key["state"]) for key in listed] == [(key_id, "PRE_ACTIVE")]
    assert judged["valid"] is False


def test_private_keys_and_expiring_material_are_refused(client: DriverClient) -> None:
    key_id = waiting(client)
    terms = parameters(client, key_id)

    assert (
        code(client.call("key.create", {"algorithm": "EC_P256", "origin": "imported"}))
        == "UNSUPPORTED_OPERATION"
    )
    expiring = imported(client, key_id, terms, expires_at="2030-01-01T00:00:00Z")
    assert code(expiring) == "UNSUPPORTED_OPERATION"


def test_what_was_imported_is_known_where_a_token_says_of_no_key_that_it_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_imports, "_WRAPPING_BITS", 2048)
    with TOKENS["nss"](tmp_path) as tokens:
        for name, value in tokens.env.items():
            monkeypatch.setenv(name, value)
        with run_driver(Pkcs11Driver, tokens.config) as client:
            key_id = waiting(client, "HMAC_SHA_256")
            done = imported(client, key_id, parameters(client, key_id))["result"]
            code_of = client.call("crypto.mac", {"key_id": key_id, "message": "aGVsbG8="})["result"]["mac"]
            made = [
                client.call("key.create", {"algorithm": name, "usage": usage})["result"]
                for name, usage in (("HMAC_SHA_256", None), ("EC_P256", None), ("RSA_2048", "SIGN_VERIFY"))
            ]

    assert base64.b64decode(code_of) == hmac.digest(MATERIAL, b"hello", "sha256")
    assert (done["origin"], done["exportable"]) == ("imported", False)
    assert {key["origin"] for key in made} == {"generated"}


def test_a_token_that_does_not_tell_what_it_unwrapped_takes_nothing_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = softhsm(tmp_path)
    for name, value in tokens.env.items():
        monkeypatch.setenv(name, value)
    with run_driver(Pkcs11Driver, tokens.config) as client:
        refused = client.call("key.create", {"algorithm": "AES_256_GCM", "origin": "imported"})
        terms = client.call("key.get_import_parameters", {"key_id": "p11-00"})

    assert (code(refused), code(terms)) == ("UNSUPPORTED_OPERATION", "UNSUPPORTED_OPERATION")
