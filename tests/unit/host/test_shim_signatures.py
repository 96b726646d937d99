"""Signatures that the host checks itself: every kind of key and mechanism, and nothing else."""

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from kmsplug_host.shims import signatures
from kmsplug_protocol import KeyAlgorithm, Mechanism
from kmsplug_protocol.kinds import algorithms_of

MESSAGE = b"what was signed"
HASHES: dict[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512(),
}  # fmt: skip
MAKERS: dict[KeyAlgorithm, Any] = {
    KeyAlgorithm.RSA_2048: lambda: rsa.generate_private_key(65537, 2048),
    KeyAlgorithm.EC_P256: lambda: ec.generate_private_key(ec.SECP256R1()),
    KeyAlgorithm.EC_SECP256K1: lambda: ec.generate_private_key(ec.SECP256K1()),
    KeyAlgorithm.EC_P384: lambda: ec.generate_private_key(ec.SECP384R1()),
    KeyAlgorithm.EC_P521: lambda: ec.generate_private_key(ec.SECP521R1()),
    KeyAlgorithm.ED25519: ed25519.Ed25519PrivateKey.generate,
    KeyAlgorithm.ML_DSA_44: mldsa.MLDSA44PrivateKey.generate,
    KeyAlgorithm.ML_DSA_65: mldsa.MLDSA65PrivateKey.generate,
    KeyAlgorithm.ML_DSA_87: mldsa.MLDSA87PrivateKey.generate,
}
KEYS = {algorithm: make() for algorithm, make in MAKERS.items()}
CASES = [
    (algorithm, mechanism)
    for algorithm in KEYS
    for mechanism in Mechanism
    if signatures.fits(mechanism, algorithm)
]


def sign(algorithm: KeyAlgorithm, mechanism: Mechanism) -> bytes:
    key, how = KEYS[algorithm], list[Any]()
    if signatures.hash_name(mechanism) is not None:
        hashing = HASHES[mechanism.rsplit("_", 1)[1]]
        if mechanism.startswith("ECDSA"):
            how = [ec.ECDSA(hashing)]
        elif mechanism.startswith("RSA_PSS"):
            how = [padding.PSS(padding.MGF1(hashing), hashing.digest_size), hashing]
        else:
            how = [padding.PKCS1v15(), hashing]
    return bytes(key.sign(MESSAGE, *how))


def public(algorithm: KeyAlgorithm) -> bytes:
    data: bytes = KEYS[algorithm].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return data


def test_every_mechanism_is_for_some_keys() -> None:
    assert all(algorithms_of(mechanism) for mechanism in Mechanism)
    assert signatures.SIGNERS - {KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096} == KEYS.keys()
    for algorithm in signatures.SIGNERS:
        default = signatures.default_mechanism(algorithm)
        assert default is not None
        assert signatures.fits(default, algorithm)


@pytest.mark.parametrize(("algorithm", "mechanism"), CASES)
def test_a_signature_is_good_for_its_message_only(algorithm: KeyAlgorithm, mechanism: Mechanism) -> None:
    signature, key = sign(algorithm, mechanism), public(algorithm)

    def valid(signed: bytes, message: bytes | None = MESSAGE, digest: bytes | None = None) -> bool:
        return signatures.verify(key, mechanism, signed, message=message, digest=digest)

    assert valid(signature)
    assert not valid(signature, MESSAGE + b".")
    for wrong in (b"", signature[:-1], signature + b"\0", b"\0" + signature, bytes(len(signature))):
        assert not valid(wrong)
    name = signatures.hash_name(mechanism)
    if name is not None:
        assert valid(signature, None, hashlib.new(name, MESSAGE).digest())
        assert not valid(signature, None, hashlib.new(name, b"another").digest())


@pytest.mark.parametrize(("algorithm", "mechanism"), CASES)
def test_a_public_key_of_another_kind_is_no_mismatch_but_an_error(
    algorithm: KeyAlgorithm, mechanism: Mechanism
) -> None:
    strange = KeyAlgorithm.ED25519 if mechanism is not Mechanism.ED25519 else KeyAlgorithm.EC_P256

    with pytest.raises(ValueError, match="another kind"):
        signatures.verify(public(strange), mechanism, bytes(64), message=MESSAGE, digest=None)
