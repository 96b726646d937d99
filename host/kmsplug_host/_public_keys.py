"""Public keys as a keystore shows them: of which kind they are, and the secret that a peer agrees on."""

from typing import Any, Final

from kmsplug_protocol import KeyAlgorithm
from kmsplug_protocol.kinds import RSA_BITS

_CURVES: Final = {
    KeyAlgorithm.EC_P256: "secp256r1",
    KeyAlgorithm.EC_P384: "secp384r1",
    KeyAlgorithm.EC_P521: "secp521r1",
    KeyAlgorithm.EC_SECP256K1: "secp256k1",
}


def is_of(public_key: bytes, algorithm: KeyAlgorithm) -> bool:
    """Tell whether a DER SubjectPublicKeyInfo is that of a key of an algorithm, as far as that can be seen.

    Of ML-DSA and ML-KEM it is only seen that there is one.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - takes as long as the rest of the host
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415

    if algorithm.startswith("ML_"):
        return bool(public_key)
    try:
        key = load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        return False
    if algorithm in RSA_BITS:
        return isinstance(key, rsa.RSAPublicKey) and key.key_size == RSA_BITS[algorithm]
    if algorithm in _CURVES:
        return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == _CURVES[algorithm]
    kinds: dict[KeyAlgorithm, type] = {
        KeyAlgorithm.ED25519: ed25519.Ed25519PublicKey, KeyAlgorithm.X25519: x25519.X25519PublicKey,
    }  # fmt: skip
    return isinstance(key, kinds[algorithm])


def agree(public_key: bytes) -> tuple[bytes, bytes]:
    """Make a peer for a moment; return its public key, and the secret that it and the key's holder share."""
    from cryptography.hazmat.primitives.asymmetric import ec, x25519  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
        load_der_public_key,
    )

    key: Any = load_der_public_key(public_key)
    peer: Any
    if isinstance(key, x25519.X25519PublicKey):
        peer = x25519.X25519PrivateKey.generate()
        secret = peer.exchange(key)
    else:
        peer = ec.generate_private_key(key.curve)
        secret = peer.exchange(ec.ECDH(), key)
    shown = peer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return shown, secret
