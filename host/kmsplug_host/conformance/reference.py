"""The other half of the cryptography, done here with a library of its own: what a driver makes must fit it.

`cryptography` is imported when a case needs it.
"""

import hashlib
from typing import Any, Final

from kmsplug_protocol import KeyAlgorithm, Mechanism
from kmsplug_protocol.kinds import RSA_BITS

from .verdict import Failed, Skipped

_CURVES: Final = {
    KeyAlgorithm.EC_P256: "secp256r1",
    KeyAlgorithm.EC_P384: "secp384r1",
    KeyAlgorithm.EC_P521: "secp521r1",
    KeyAlgorithm.EC_SECP256K1: "secp256k1",
}


def hash_name(mechanism: Mechanism) -> str | None:
    """Return the name of the hash that a mechanism applies to a message; None: none, or its own."""
    for bits in ("256", "384", "512"):
        if mechanism.endswith(f"SHA_{bits}"):
            return f"sha{bits}"
    return None


def digest(mechanism: Mechanism, message: bytes) -> bytes | None:
    """Return what may stand for a message; None where nothing may."""
    name = hash_name(mechanism)
    if name is None or not mechanism.startswith(("RSA", "ECDSA")):
        return None
    return hashlib.new(name, message).digest()


def any_public_key(der: bytes) -> Any:
    """Load a SubjectPublicKeyInfo.

    Raises:
        Failed: It is none.
    """
    from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415

    try:
        return load_der_public_key(der)
    except Exception:  # noqa: BLE001 - the library has several, and all mean the same here
        raise Failed("the public key is no DER SubjectPublicKeyInfo") from None


def public_key(algorithm: KeyAlgorithm, der: bytes) -> Any:
    """Load a SubjectPublicKeyInfo and make sure that it is of the right kind.

    Raises:
        Failed: It is not.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519  # noqa: PLC0415

    key = any_public_key(der)
    match algorithm:
        case KeyAlgorithm.RSA_2048 | KeyAlgorithm.RSA_3072 | KeyAlgorithm.RSA_4096:
            fits = isinstance(key, rsa.RSAPublicKey) and key.key_size == RSA_BITS[algorithm]
        case KeyAlgorithm.EC_P256 | KeyAlgorithm.EC_P384 | KeyAlgorithm.EC_P521 | KeyAlgorithm.EC_SECP256K1:
            fits = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == _CURVES[algorithm]
        case KeyAlgorithm.ED25519:
            fits = isinstance(key, ed25519.Ed25519PublicKey)
        case KeyAlgorithm.X25519:
            fits = isinstance(key, x25519.X25519PublicKey)
        case _:
            fits = True
    if not fits:
        raise Failed(f"the public key is not one of {algorithm}")
    return key


def require_valid(key: Any, mechanism: Mechanism, signature: bytes, message: bytes) -> None:
    """Verify a signature with a published key.

    Raises:
        Failed: It is not good.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, padding  # noqa: PLC0415

    name = hash_name(mechanism)
    algorithm = None if name is None else getattr(hashes, name.upper())()
    try:
        match mechanism.partition("_SHA_")[0]:
            case "RSA_PSS":
                pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)  # type: ignore[union-attr,arg-type]
                key.verify(signature, message, pss, algorithm)
            case "RSA_PKCS1":
                key.verify(signature, message, padding.PKCS1v15(), algorithm)
            case "ECDSA":
                key.verify(signature, message, ec.ECDSA(algorithm))  # type: ignore[arg-type]
            case _:
                key.verify(signature, message)
    except InvalidSignature:
        raise Failed(f"a signature by {mechanism} does not fit the published key (SPEC.md 4.4)") from None


def oaep(key: Any, wrapping: str, plaintext: bytes) -> bytes:
    """Encrypt with RSA-OAEP, MGF1 with the same hash and an empty label."""
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415

    algorithm: hashes.HashAlgorithm = hashes.SHA1() if wrapping.endswith("SHA_1") else hashes.SHA256()  # noqa: S303
    sealed: bytes = key.encrypt(plaintext, padding.OAEP(padding.MGF1(algorithm), algorithm, None))
    return sealed


def agree(algorithm: KeyAlgorithm, der: bytes) -> tuple[bytes, bytes]:
    """Make a peer for a key agreement.

    Returns:
        The peer's public key as DER, and the secret that both sides must have.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, x25519  # noqa: PLC0415

    other = public_key(algorithm, der)
    peer: Any
    if algorithm is KeyAlgorithm.X25519:
        peer = x25519.X25519PrivateKey.generate()
        secret = peer.exchange(other)
    else:
        peer = ec.generate_private_key(other.curve)
        secret = peer.exchange(ec.ECDH(), other)
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return peer.public_key().public_bytes(serialization.Encoding.DER, spki), secret


def open_gcm(key: bytes, sealed: bytes) -> bytes:
    """Open iv || ciphertext || tag, to which nothing was bound.

    Raises:
        Failed: It cannot be opened.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    try:
        return AESGCM(key).decrypt(sealed[:12], sealed[12:], None)
    except (InvalidTag, ValueError):
        raise Failed("the imported key, used here, does not open what the driver made with it") from None


def require_library() -> None:
    """Skip the case where `cryptography` is not installed."""
    try:
        import cryptography  # noqa: F401, PLC0415
    except ImportError:
        raise Skipped("needs the library `cryptography`") from None
