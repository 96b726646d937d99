from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from kmsplug_plugins._software.boxes import box, open_box
from kmsplug_plugins._software.symmetric import KeyWrap
from kmsplug_protocol import Mechanism, dcbor, decode_base64
from unit.plugins.local_support import (
    AES_KEY_WRAP,
    OAEP,
    SHA_256,
    Keystore,
    b64,
    flip,
    imported,
    opened,
    pkcs8,
    wrap,
)

PRIVATE_KEYS: dict[str, Callable[[], Any]] = {
    "RSA_2048": lambda: rsa.generate_private_key(65537, 2048),
    "EC_P256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EC_P384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EC_P521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ED25519": ed25519.Ed25519PrivateKey.generate,
    "X25519": x25519.X25519PrivateKey.generate,
    "ML_DSA_65": mldsa.MLDSA65PrivateKey.generate,
    "ML_KEM_768": mlkem.MLKEM768PrivateKey.generate,
}


def test_a_key_waits_for_its_material_and_works_with_it(shared: Keystore) -> None:
    key = shared.call("key.create", algorithm="HMAC_SHA_256", origin="imported")
    key_id = key["key_id"]
    assert (key["state"], key["origin"]) == ("PRE_ACTIVE", "imported")
    assert shared.code("crypto.mac", key_id=key_id, message="") == "KEY_INVALID_STATE"
    parameters = shared.call("key.get_import_parameters", key_id=key_id)
    assert parameters["wrapping_algorithm"] == "RSA_OAEP_SHA_256"

    key = shared.call("key.import", **wrap(parameters, bytes(32)))

    assert (key["state"], key["origin"], key["exportable"]) == ("ACTIVE", "imported", False)
    assert shared.call("crypto.mac", key_id=key_id, message="")["key_version"] == "1"


def test_padded_keys_are_wrapped_as_in_rfc_5649() -> None:
    # Its vectors are of 192-bit keys, which the driver does not have: they are tried on what it is made of.
    wrapper = KeyWrap(bytes.fromhex("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8"))
    cases = {
        "c37b7e6492584340bed12207808941155068f738":
            "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a",
        "466f7250617369": "afbeb0f07dfbf5419200f2ccb50bb24f",
    }  # fmt: skip
    for key, wrapped in cases.items():
        assert wrapper.wrap(Mechanism.AES_256_KWP, bytes.fromhex(key)).hex() == wrapped
        assert wrapper.unwrap(Mechanism.AES_256_KWP, bytes.fromhex(wrapped)).hex() == key


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
def test_a_private_key_comes_in_as_pkcs_8(shared: Keystore, algorithm: str) -> None:
    private = PRIVATE_KEYS[algorithm]()
    usage = {"X25519": "KEY_AGREEMENT", "ML_KEM_768": "KEY_ENCAPSULATION"}.get(algorithm, "SIGN_VERIFY")

    key_id = imported(shared, algorithm, pkcs8(private), usage)

    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert decode_base64(shared.call("key.get_public_key", key_id=key_id)["public_key"]) == public


def test_an_imported_rsa_key_opens_and_signs_what_its_owner_can_check(shared: Keystore) -> None:
    private = rsa.generate_private_key(65537, 2048)
    opening = imported(shared, "RSA_2048", pkcs8(private), "ENCRYPT_DECRYPT")
    signing = imported(shared, "RSA_2048", pkcs8(private), "SIGN_VERIFY")

    assert shared.decrypt(opening, b64(private.public_key().encrypt(b"data", OAEP))) == b"data"
    signature = shared.call("crypto.sign", key_id=signing, message=b64(b"m"))["signature"]
    pss = padding.PSS(padding.MGF1(SHA_256), 32)
    private.public_key().verify(decode_base64(signature), b"m", pss, SHA_256)


@pytest.mark.parametrize(
    ("algorithm", "material"),
    [
        ("AES_256_GCM", bytes(16)),
        ("AES_256_GCM", bytes(33)),
        ("AES_256_KW", bytes(24)),
        ("HMAC_SHA_256", b"Jefe"),
        ("HMAC_SHA_256", bytes(1025)),
        ("ED25519", bytes(32)),
        ("ED25519", pkcs8(x25519.X25519PrivateKey.generate())),
        ("EC_P256", pkcs8(ec.generate_private_key(ec.SECP384R1()))),
        ("EC_P256", ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())),
        ("ML_KEM_768", pkcs8(mlkem.MLKEM1024PrivateKey.generate())),
        ("ML_DSA_65", b"\x30\x82\xff\xff\x02\x01\x00\x30"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)  # fmt: skip
def test_material_that_does_not_fit_is_refused_by_one_sentence(
    shared: Keystore, algorithm: str, material: bytes
) -> None:
    key_id = shared.create(algorithm, origin="imported")
    parameters = shared.call("key.get_import_parameters", key_id=key_id, wrapping_algorithm=AES_KEY_WRAP)
    good = wrap(parameters, material)

    errors = [
        shared.error("key.import", **good),
        shared.error("key.import", **{**good, "wrapped_key": flip(good["wrapped_key"], 5)}),
        shared.error("key.import", **{**good, "wrapped_key": flip(good["wrapped_key"], -1)}),
        shared.error("key.import", **{**good, "wrapped_key": ""}),
        shared.error("key.import", **{**good, "wrapped_key": b64(bytes(20000))}),
        shared.error("key.import", **{**good, "wrapping_algorithm": "RSA_OAEP_SHA_256"}),
        shared.error("key.import", **{**good, "import_token": flip(good["import_token"], 60)}),
        shared.error("key.import", **{**good, "import_token": ""}),
    ]

    assert {error["data"]["code"] for error in errors} == {"INVALID_ARGUMENT"}
    assert len({error["message"] for error in errors}) == 1
    assert shared.states(key_id) == ["PRE_ACTIVE"]


def test_a_token_is_for_one_key_and_serves_once(shared: Keystore) -> None:
    one, other = (shared.create(origin="imported") for _ in range(2))
    request = wrap(shared.call("key.get_import_parameters", key_id=one), bytes(32))

    assert shared.code("key.import", **{**request, "key_id": other}) == "INVALID_ARGUMENT"
    shared.call("key.import", **request)
    assert shared.code("key.import", **request) == "KEY_INVALID_STATE"
    assert shared.code("key.get_import_parameters", key_id=one) == "KEY_INVALID_STATE"


def test_a_token_ends_after_a_day(local: Keystore, folder: Path) -> None:
    key_id = local.create(origin="imported")
    parameters = local.call("key.get_import_parameters", key_id=key_id)
    request = wrap(parameters, bytes(32))
    left = datetime.strptime(parameters["valid_to"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) - datetime.now(
        UTC
    )
    assert timedelta(hours=23) < left <= timedelta(hours=24)

    with opened(folder) as store:  # a token that was made a day and a second earlier
        label: dcbor.Value = ["kmsplug-local/v1/import-token", store.store_id, key_id]
        content = dcbor.decode(open_box(store.keys.imports, label, decode_base64(request["import_token"])))
        content["expires"] -= 24 * 3600 + 1
        expired = b64(box(store.keys.imports, label, dcbor.encode(content)))

    assert local.code("key.import", **{**request, "import_token": expired}) == "INVALID_ARGUMENT"
    assert local.call("key.import", **request)["state"] == "ACTIVE"


def test_what_the_driver_cannot_do_with_imported_keys_is_refused(shared: Keystore) -> None:
    key_id = shared.create(origin="imported")
    request = wrap(shared.call("key.get_import_parameters", key_id=key_id), bytes(32))

    expiring = {**request, "expires_at": "2030-01-01T00:00:00Z"}
    assert shared.code("key.import", **expiring) == "UNSUPPORTED_OPERATION"
    asked: dict[str, Any] = {"key_id": key_id, "wrapping_algorithm": "RSA_PKCS1"}
    assert shared.code("key.get_import_parameters", **asked) == "UNSUPPORTED_OPERATION"
    shared.call("key.import", **request)
    assert shared.code("key.rotate", key_id=key_id) == "UNSUPPORTED_OPERATION"
    assert shared.code("key.get_import_parameters", key_id=shared.create()) == "KEY_INVALID_STATE"
    assert shared.code("key.get_public_key", key_id=shared.create("ED25519", origin="imported")) == (
        "KEY_INVALID_STATE"
    )
