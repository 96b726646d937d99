"""Signatures checked in the host with a public key, in the layouts of SPEC.md 4.4."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kmsplug_protocol import KeyAlgorithm, Mechanism
from kmsplug_protocol.kinds import algorithms_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

_WITH_A_HASH: Final = ("RSA_PSS_SHA_", "RSA_PKCS1_SHA_", "ECDSA_SHA_")

_DEFAULTS: Final = {
    KeyAlgorithm.RSA_2048: Mechanism.RSA_PSS_SHA_256,
    KeyAlgorithm.RSA_3072: Mechanism.RSA_PSS_SHA_256,
    KeyAlgorithm.RSA_4096: Mechanism.RSA_PSS_SHA_256,
    KeyAlgorithm.EC_P256: Mechanism.ECDSA_SHA_256,
    KeyAlgorithm.EC_SECP256K1: Mechanism.ECDSA_SHA_256,
    KeyAlgorithm.EC_P384: Mechanism.ECDSA_SHA_384,
    KeyAlgorithm.EC_P521: Mechanism.ECDSA_SHA_512,
    KeyAlgorithm.ED25519: Mechanism.ED25519,
    KeyAlgorithm.ML_DSA_44: Mechanism.ML_DSA_44,
    KeyAlgorithm.ML_DSA_65: Mechanism.ML_DSA_65,
    KeyAlgorithm.ML_DSA_87: Mechanism.ML_DSA_87,
}

_OF_WHOLE_MESSAGES: Final = frozenset({
    Mechanism.ED25519, Mechanism.ML_DSA_44, Mechanism.ML_DSA_65, Mechanism.ML_DSA_87,
})  # fmt: skip

SIGNERS: Final = frozenset(_DEFAULTS)
"""Algorithms of the keys that sign."""


def default_mechanism(algorithm: KeyAlgorithm) -> Mechanism | None:
    """Return the mechanism that is meant where a caller names none and no row does."""
    return _DEFAULTS.get(algorithm)


def fits(mechanism: Mechanism, algorithm: KeyAlgorithm) -> bool:
    """Tell whether a mechanism makes signatures, with keys of this algorithm."""
    signs = mechanism.startswith(_WITH_A_HASH) or mechanism in _OF_WHOLE_MESSAGES
    return signs and algorithm in algorithms_of(mechanism)


def hash_name(mechanism: Mechanism) -> str | None:
    """Return the name of the hash that a mechanism begins with; None: it signs whole messages only."""
    return f"sha{mechanism.rsplit('_', 1)[1]}" if mechanism.startswith(_WITH_A_HASH) else None


def verify(
    public_key: bytes, mechanism: Mechanism, signature: bytes, *, message: bytes | None, digest: bytes | None
) -> bool:
    """Tell whether a signature is good. One of the wrong length or form is not.

    Args:
        public_key: DER SubjectPublicKeyInfo.
        mechanism: One that `fits` the key.
        signature: The signature.
        message: What was signed; or
        digest: its hash, as long as that of the mechanism.

    Raises:
        ValueError: The public key cannot be read, or is of another kind than the mechanism.
    """
    # Imported here: with all its kinds of keys it takes as long as the rest of the host.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415

    check = _checker(load_der_public_key(public_key), mechanism, signature, message, digest)
    try:
        check()
    except InvalidSignature:
        return False
    return True


def _checker(
    key: "PublicKeyTypes", mechanism: Mechanism, signature: bytes, message: bytes | None, digest: bytes | None
) -> Callable[[], None]:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils  # noqa: PLC0415

    name = hash_name(mechanism)
    if name is None:
        if isinstance(key, ed25519.Ed25519PublicKey) and mechanism is Mechanism.ED25519:
            return lambda: key.verify(signature, message or b"")
        from cryptography.hazmat.primitives.asymmetric import mldsa  # noqa: PLC0415 - not in every build

        own: dict[Mechanism, type] = {
            Mechanism.ML_DSA_44: mldsa.MLDSA44PublicKey,
            Mechanism.ML_DSA_65: mldsa.MLDSA65PublicKey,
            Mechanism.ML_DSA_87: mldsa.MLDSA87PublicKey,
        }
        lattice = (mldsa.MLDSA44PublicKey, mldsa.MLDSA65PublicKey, mldsa.MLDSA87PublicKey)
        if isinstance(key, lattice) and isinstance(key, own.get(mechanism, ())):
            return lambda: key.verify(signature, message or b"")
        raise ValueError("a public key of another kind")
    known: dict[str, hashes.HashAlgorithm] = {
        "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512(),
    }  # fmt: skip
    hashing = known[name]
    hashed = hashlib.new(name, message or b"").digest() if digest is None else digest
    prehashed = utils.Prehashed(hashing)
    if isinstance(key, ec.EllipticCurvePublicKey) and mechanism.startswith("ECDSA_"):
        return lambda: key.verify(signature, hashed, ec.ECDSA(prehashed))
    if isinstance(key, rsa.RSAPublicKey) and mechanism.startswith("RSA_"):
        if len(signature) != key.key_size // 8:  # OpenSSL would also take it without leading zeros
            return _mismatch
        scheme = (
            padding.PSS(padding.MGF1(hashing), hashing.digest_size)
            if mechanism.startswith("RSA_PSS_")
            else padding.PKCS1v15()
        )
        return lambda: key.verify(signature, hashed, scheme, prehashed)
    raise ValueError("a public key of another kind")


def _mismatch() -> None:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    raise InvalidSignature
