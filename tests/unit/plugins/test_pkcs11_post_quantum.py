"""EdDSA, ML-DSA and ML-KEM on a token, with another implementation at the other end."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PublicKey,
    MLDSA65PublicKey,
    MLDSA87PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey, MLKEM1024PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from kmsplug_plugins.pkcs11.driver import Pkcs11Driver
from kmsplug_sdk.testing import DriverClient, run_driver
from support.tokens import TOKENS

SIGNS = ("ED25519", "ML_DSA_44", "ML_DSA_65", "ML_DSA_87")
AGREES = ("ML_KEM_768", "ML_KEM_1024")


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DriverClient]:
    with TOKENS["kryoptic"](tmp_path) as tokens:
        for name, value in tokens.env.items():
            monkeypatch.setenv(name, value)
        with run_driver(Pkcs11Driver, {**tokens.config, "algorithms": [*SIGNS, *AGREES]}) as it:
            yield it


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def result(client: DriverClient, operation: str, key_id: str, **params: str) -> dict[str, Any]:
    found: dict[str, Any] = client.call(operation, {"key_id": key_id, **params})["result"]
    return found


def made(client: DriverClient, algorithm: str) -> tuple[str, Any]:
    """Make a key, and return its id and its public half as the other implementation reads it."""
    key_id = client.call("key.create", {"algorithm": algorithm})["result"]["key_id"]
    public = result(client, "key.get_public_key", key_id)["public_key"]
    return key_id, load_der_public_key(base64.b64decode(public))


@pytest.mark.parametrize("algorithm", SIGNS)
def test_what_the_token_signs_others_verify_and_of_another_message_nobody_does(
    client: DriverClient, algorithm: str
) -> None:
    key_id, public = made(client, algorithm)

    signature = result(client, "crypto.sign", key_id, message=text(b"m"))["signature"]
    valid = [
        result(client, "crypto.verify", key_id, message=text(message), signature=signature)["valid"]
        for message in (b"m", b"n")
    ]

    assert isinstance(public, Ed25519PublicKey | MLDSA44PublicKey | MLDSA65PublicKey | MLDSA87PublicKey)
    public.verify(base64.b64decode(signature), b"m")
    with pytest.raises(InvalidSignature):
        public.verify(base64.b64decode(signature), b"n")
    assert valid == [True, False]


@pytest.mark.parametrize("algorithm", AGREES)
def test_what_others_encapsulate_the_token_opens_with_that_key_alone(
    client: DriverClient, algorithm: str
) -> None:
    key_id, public = made(client, algorithm)
    another, _ = made(client, algorithm)
    assert isinstance(public, MLKEM768PublicKey | MLKEM1024PublicKey)

    secret, encapsulation = public.encapsulate()
    opened = [
        result(client, "crypto.decapsulate", each, ciphertext=text(encapsulation))["shared_secret"]
        for each in (key_id, another)
    ]
    own = result(client, "crypto.encapsulate", key_id)
    own_opened = result(client, "crypto.decapsulate", key_id, ciphertext=own["ciphertext"])

    assert opened[0] == text(secret)
    assert opened[1] != text(secret)
    assert own_opened["shared_secret"] == own["shared_secret"]


@pytest.mark.parametrize("length", [1, 1087, 1089, 1568])
def test_an_encapsulation_of_another_length_is_no_ciphertext(client: DriverClient, length: int) -> None:
    key_id, _ = made(client, "ML_KEM_768")

    refused = client.call("crypto.decapsulate", {"key_id": key_id, "ciphertext": text(bytes(length))})

    assert refused["error"]["data"]["code"] == "INVALID_CIPHERTEXT"
