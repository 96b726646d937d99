"""Vectors of C2SP wycheproof, read from the folder that KMSPLUG_VECTORS names: they are not checked in."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vectors import keys
from vectors.nist import SHORTEST_HMAC_KEY
from vectors.vector import Vector

_INVALID = "INVALID_CIPHERTEXT"
_CURVES = {"secp256r1": "EC_P256", "secp384r1": "EC_P384", "secp521r1": "EC_P521"}


def rsa_oaep(folder: Path, bits: int) -> Iterator[Vector]:
    for source, group, test in _tests(folder, f"rsa_oaep_{bits}_sha256_mgf1sha256"):
        opens = test["result"] == "valid" and not test["label"]  # the protocol's label is empty
        yield Vector(
            source,
            f"RSA_{bits}",
            "ENCRYPT_DECRYPT",
            bytes.fromhex(group["privateKeyPkcs8"]),
            "crypto.decrypt",
            {"ciphertext": bytes.fromhex(test["ct"]), "mechanism": "RSA_OAEP_SHA_256"},
            {"plaintext": bytes.fromhex(test["msg"])} if opens else _INVALID,
        )


def aes_gcm(folder: Path) -> Iterator[Vector]:
    for source, group, test in _tests(folder, "aes_gcm"):
        if group["keySize"] not in (128, 256) or (group["ivSize"], group["tagSize"]) != (96, 128):
            continue
        algorithm = f"AES_{group['keySize']}_GCM"
        ciphertext = bytes.fromhex(test["iv"] + test["ct"] + test["tag"])
        yield Vector(
            source,
            algorithm,
            "ENCRYPT_DECRYPT",
            bytes.fromhex(test["key"]),
            "crypto.decrypt",
            {
                "ciphertext": ciphertext,
                "associated_data": bytes.fromhex(test["aad"]),
                "mechanism": algorithm,
            },
            {"plaintext": bytes.fromhex(test["msg"])} if test["result"] == "valid" else _INVALID,
        )


def key_wrap(folder: Path, padded: bool) -> Iterator[Vector]:
    for source, group, test in _tests(folder, "aes_kwp" if padded else "aes_wrap"):
        # What is merely acceptable are keys shorter than a format is meant for.
        if group["keySize"] != 256 or test["result"] == "acceptable":
            continue
        yield Vector(
            source,
            "AES_256_KW",
            "WRAP_UNWRAP",
            bytes.fromhex(test["key"]),
            "crypto.unwrap_key",
            {
                "wrapped_key": bytes.fromhex(test["ct"]),
                "mechanism": "AES_256_KWP" if padded else "AES_256_KW",
            },
            {"key": bytes.fromhex(test["msg"])} if test["result"] == "valid" else _INVALID,
        )


def hmac(folder: Path, bits: int) -> Iterator[Vector]:
    for source, group, test in _tests(folder, f"hmac_sha{bits}"):
        key = bytes.fromhex(test["key"])
        if len(key) < SHORTEST_HMAC_KEY or group["tagSize"] != bits:
            continue
        yield Vector(
            source,
            f"HMAC_SHA_{bits}",
            "GENERATE_VERIFY_MAC",
            key,
            "crypto.verify_mac",
            {
                "message": bytes.fromhex(test["msg"]),
                "mac": bytes.fromhex(test["tag"]),
                "mechanism": f"HMAC_SHA_{bits}",
            },
            {"valid": test["result"] == "valid"},
        )


def ecdh(folder: Path, curve: str) -> Iterator[Vector]:
    for source, _, test in _tests(folder, f"ecdh_{curve}"):
        if test["result"] == "acceptable":  # other encodings of good points: a reader may take or refuse them
            continue
        yield Vector(
            source,
            _CURVES[curve],
            "KEY_AGREEMENT",
            keys.ec_key(_CURVES[curve], int(test["private"], 16)),
            "crypto.derive",
            {"peer_public_key": bytes.fromhex(test["public"]), "mechanism": "ECDH"},
            {"shared_secret": bytes.fromhex(test["shared"])}
            if test["result"] == "valid"
            else "INVALID_ARGUMENT",
        )


def x25519(folder: Path) -> Iterator[Vector]:
    for source, _, test in _tests(folder, "x25519_asn"):
        zero = "ZeroSharedSecret" in test["flags"]
        if test["result"] == "acceptable" and not zero:
            continue
        good = test["result"] != "invalid" and not zero
        yield Vector(
            source,
            "X25519",
            "KEY_AGREEMENT",
            bytes.fromhex(test["private"]),
            "crypto.derive",
            {"peer_public_key": bytes.fromhex(test["public"]), "mechanism": "ECDH"},
            {"shared_secret": bytes.fromhex(test["shared"])} if good else "INVALID_ARGUMENT",
        )


def ml_dsa(folder: Path) -> Iterator[Vector]:
    for source, group, test in _tests(folder, "mldsa_65_sign_seed"):
        if test["result"] != "valid" or "msg" not in test:
            continue
        yield Vector(
            source,
            "ML_DSA_65",
            "SIGN_VERIFY",
            keys.ml_dsa_key(bytes.fromhex(group["privateSeed"])),
            "crypto.verify",
            {
                "message": bytes.fromhex(test["msg"]),
                "signature": bytes.fromhex(test["sig"]),
                "mechanism": "ML_DSA_65",
            },
            {"valid": not test.get("ctx")},  # the protocol's context is empty
        )


def ml_kem(folder: Path) -> Iterator[Vector]:
    for source, _, test in _tests(folder, "mlkem_768"):
        seed = bytes.fromhex(test["seed"])
        if len(seed) != 64:
            continue
        yield Vector(
            source,
            "ML_KEM_768",
            "KEY_ENCAPSULATION",
            keys.ml_kem_key(seed),
            "crypto.decapsulate",
            {"ciphertext": bytes.fromhex(test["c"]), "mechanism": "ML_KEM_768"},
            {"shared_secret": bytes.fromhex(test["K"])} if test["result"] == "valid" else _INVALID,
        )


def _tests(folder: Path, name: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    path = folder / f"{name}_test.json"
    for group in json.loads(path.read_text(encoding="utf-8"))["testGroups"]:
        for test in group["tests"]:
            yield f"wycheproof {path.name}, test {test['tcId']}", group, test
