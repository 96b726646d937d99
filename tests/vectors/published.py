"""Vectors of documents, typed or selected here: RFCs, and what the packaged files lack.

`published.json` holds the long ones: each with its source, a key as primes or seed, and messages with their
signatures or ciphertexts.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vectors import keys
from vectors.vector import Vector

FILE = Path(__file__).with_name("published.json")

# RFC 3394, sections 4.3, 4.5 and 4.6: the key data, and what the key 00 01 .. 1f makes of them.
_RFC_3394 = {
    "4.3": (
        "00112233445566778899aabbccddeeff",
        "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7",
    ),
    "4.5": (
        "00112233445566778899aabbccddeeff0001020304050607",
        "a8f9bc1612c68b3ff6e6f4fbe30e71e4769c8b80a32cb8958cd5d17d6b254da1",
    ),
    "4.6": (
        "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f",
        "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21",
    ),
}

# The GCM specification (McGrew and Viega), appendix B: key, IV, AAD, plaintext, ciphertext, tag.
_GCM = {
    "test case 2": (
        "00" * 16, "00" * 12, "", "00" * 16,
        "0388dace60b6a392f328c2b971b2fe78", "ab6e47d42cec13bdf53a67b21257bddf",
    ),
    "test case 14": (
        "00" * 32, "00" * 12, "", "00" * 16,
        "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919",
    ),
    "test case 16": (
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        ("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
         "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"),
        ("522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
         "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"),
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
}  # fmt: skip

# RFC 7748, section 6.1: both private keys, both public keys, the secret.
_ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
_ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
_BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
_BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
_SECRET = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def rfc_3394() -> Iterator[Vector]:
    for section, (key, wrapped) in _RFC_3394.items():
        data, made = bytes.fromhex(key), bytes.fromhex(wrapped)
        about = (f"RFC 3394, section {section}", "AES_256_KW", "WRAP_UNWRAP", bytes(range(32)))
        mechanism = {"mechanism": "AES_256_KW"}
        yield Vector(*about, "crypto.wrap_key", {**mechanism, "key": data}, {"wrapped_key": made})
        yield Vector(*about, "crypto.unwrap_key", {**mechanism, "wrapped_key": made}, {"key": data})


def gcm_specification() -> Iterator[Vector]:
    for case, values in _GCM.items():
        key, iv, associated_data, plaintext, ciphertext, tag = map(bytes.fromhex, values)
        algorithm = f"AES_{len(key) * 8}_GCM"
        yield Vector(
            f"GCM specification, {case}",
            algorithm,
            "ENCRYPT_DECRYPT",
            key,
            "crypto.decrypt",
            {
                "ciphertext": iv + ciphertext + tag,
                "associated_data": associated_data,
                "mechanism": algorithm,
            },
            {"plaintext": plaintext},
        )


def rfc_7748() -> Iterator[Vector]:
    for private, peer in ((_ALICE, _BOB_PUBLIC), (_BOB, _ALICE_PUBLIC)):
        yield Vector(
            "RFC 7748, section 6.1",
            "X25519",
            "KEY_AGREEMENT",
            keys.x25519_key(bytes.fromhex(private)),
            "crypto.derive",
            {"peer_public_key": keys.x25519_point(bytes.fromhex(peer)), "mechanism": "ECDH"},
            {"shared_secret": bytes.fromhex(_SECRET)},
        )


def selected() -> Iterator[Vector]:
    for group in json.loads(FILE.read_text(encoding="utf-8")):
        key = {name: bytes.fromhex(value) for name, value in group["key"].items()}
        material = keys.ml_dsa_key(key["seed"]) if "seed" in key else _rsa_key(key)
        for test in group["tests"]:
            yield _selected(group, material, test)


def _selected(group: dict[str, Any], material: bytes, test: dict[str, Any]) -> Vector:
    message, published = bytes.fromhex(test["message"]), bytes.fromhex(test["bytes"])
    opens = group["operation"] == "crypto.decrypt"
    number = f", test {test['number']}" if "number" in test else ""
    answer: dict[str, bytes | bool] | str = {"valid": test["valid"]}
    if opens:
        answer = {"plaintext": message} if test["valid"] else "INVALID_CIPHERTEXT"
    return Vector(
        group["source"] + number,
        group["algorithm"],
        "ENCRYPT_DECRYPT" if opens else "SIGN_VERIFY",
        material,
        group["operation"],
        {
            "mechanism": group["mechanism"],
            **({"ciphertext": published} if opens else {"message": message, "signature": published}),
        },
        answer,
    )


def _rsa_key(key: dict[str, bytes]) -> bytes:
    return keys.rsa_key(int.from_bytes(key["p"], "big"), int.from_bytes(key["q"], "big"))
