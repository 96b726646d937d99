import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)
from kmsplug_plugins._software.boxes import box, open_box
from kmsplug_plugins._software.symmetric import KeyWrap
from kmsplug_protocol import Mechanism, dcbor, decode_base64
from unit.plugins.local_support import Keystore, b64, flip, opened

SHA_256 = hashes.SHA256()
OAEP = padding.OAEP(padding.MGF1(SHA_256), SHA_256, None)
AES_KEY_WRAP = "RSA_AES_KEY_WRAP_SHA_256"

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


def pkcs8(private: Any) -> bytes:
    encoded: bytes = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return encoded


def wrap(parameters: dict[str, Any], material: bytes) -> dict[str, Any]:
    """Return the params of `key.import`, wrapped as somebody with the public key alone would."""
    public = load_der_public_key(decode_base64(parameters["public_key"]))
    assert isinstance(public, rsa.RSAPublicKey)
    if parameters["wrapping_algorithm"] == AES_KEY_WRAP:
        ephemeral = os.urandom(32)
        wrapped = public.encrypt(ephemeral, OAEP) + keywrap.aes_key_wrap_with_padding(ephemeral, material)
    else:
        wrapped = public.encrypt(material, OAEP)
    return {
        "key_id": parameters["key_id"],
        "wrapped_key": b64(wrapped),
        "wrapping_algorithm": parameters["wrapping_algorithm"],
        "import_token": parameters["import_token"],
    }


def imported(session: Keystore, algorithm: str, material: bytes, usage: str | None = None) -> str:
    key_id = session.create(algorithm, origin="imported", **({"usage": usage} if usage else {}))
    parameters = session.call("key.get_import_parameters", key_id=key_id, wrapping_algorithm=AES_KEY_WRAP)
    session.call("key.import", **wrap(parameters, material))
    return key_id


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


# RFC 4231, test cases 1, 4 and 6; the key of case 2 is shorter than any that is accepted.
RFC_4231 = [
    ("0b" * 20, b"Hi There".hex(),
     "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
     "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
     ("87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
      "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854")),
    ("0102030405060708090a0b0c0d0e0f10111213141516171819", "cd" * 50,
     "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
     "3e8a69b7783c25851933ab6290af6ca77a9981480850009cc5577c6e1f573b4e6801dd23c4a7d679ccf8a386c674cffb",
     ("b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3db"
      "a91ca5c11aa25eb4d679275cc5788063a5f19741120c4f2de2adebeb10a298dd")),
    ("aa" * 131, b"Test Using Larger Than Block-Size Key - Hash Key First".hex(),
     "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
     "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
     ("80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352"
      "6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598")),
]  # fmt: skip


@pytest.mark.parametrize("case", RFC_4231)
def test_macs_are_those_of_rfc_4231(shared: Keystore, case: tuple[str, str, str, str, str]) -> None:
    key, message, *macs = case
    for bits, mac in zip((256, 384, 512), macs, strict=True):
        key_id = imported(shared, f"HMAC_SHA_{bits}", bytes.fromhex(key))
        asked: dict[str, Any] = {"key_id": key_id, "message": b64(bytes.fromhex(message))}
        assert decode_base64(shared.call("crypto.mac", **asked)["mac"]).hex() == mac


# The GCM specification (McGrew and Viega), test cases 14 and 16: key, IV, AAD, plaintext, ciphertext, tag.
GCM = [
    ("00" * 32, "00" * 12, "", "00" * 16,
     "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"),
    ("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     ("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
      "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"),
     ("522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
      "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"),
     "76fc6ece0f4e1768cddf8853bb2d551b"),
    ("00" * 16, "00" * 12, "", "00" * 16,
     "0388dace60b6a392f328c2b971b2fe78", "ab6e47d42cec13bdf53a67b21257bddf"),
]  # fmt: skip


@pytest.mark.parametrize("case", GCM)
def test_ciphertexts_of_the_gcm_specification_open(shared: Keystore, case: tuple[str, ...]) -> None:
    key, iv, associated_data, plaintext, ciphertext, tag = map(bytes.fromhex, case)
    key_id = imported(shared, f"AES_{len(key) * 8}_GCM", key)

    opened = shared.decrypt(key_id, b64(iv + ciphertext + tag), associated_data=b64(associated_data))

    assert opened == plaintext


def test_keys_are_wrapped_as_in_rfc_3394(shared: Keystore) -> None:
    key_id = imported(shared, "AES_256_KW", bytes(range(32)))
    cases = {  # sections 4.3, 4.5 and 4.6
        "00112233445566778899aabbccddeeff": "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7",
        "00112233445566778899aabbccddeeff0001020304050607":
            "a8f9bc1612c68b3ff6e6f4fbe30e71e4769c8b80a32cb8958cd5d17d6b254da1",
        "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f":
            "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21",
    }  # fmt: skip
    for key, wrapped in cases.items():
        result = shared.call("crypto.wrap_key", key_id=key_id, key=b64(bytes.fromhex(key)))
        assert decode_base64(result["wrapped_key"]).hex() == wrapped


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


def test_ed25519_signs_as_in_rfc_8032(shared: Keystore) -> None:
    seed = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
    key_id = imported(shared, "ED25519", pkcs8(ed25519.Ed25519PrivateKey.from_private_bytes(seed)))

    signature = shared.call("crypto.sign", key_id=key_id, message=b64(b"\xaf\x82"))["signature"]

    assert decode_base64(signature).hex() == (  # section 7.1, test 3
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )


def test_x25519_agrees_as_in_rfc_7748(shared: Keystore) -> None:
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    key_id = imported(shared, "X25519", pkcs8(x25519.X25519PrivateKey.from_private_bytes(alice)))
    peer = x25519.X25519PublicKey.from_public_bytes(bob)
    spki = peer.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    secret = shared.call("crypto.derive", key_id=key_id, peer_public_key=b64(spki))["shared_secret"]

    assert decode_base64(secret).hex() == (  # section 6.1
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    )


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
