"""Between the forms of PKCS#11 and those of the protocol: signatures, points, public keys."""

from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from kmsplug_protocol import KeyAlgorithm

from ._kinds import CURVES, Kind

_CURVES: Final = {
    KeyAlgorithm.EC_P256: ec.SECP256R1(),
    KeyAlgorithm.EC_P384: ec.SECP384R1(),
    KeyAlgorithm.EC_P521: ec.SECP521R1(),
}

POST_QUANTUM: Final[Mapping[KeyAlgorithm, Any]] = {
    KeyAlgorithm.ML_DSA_44: mldsa.MLDSA44PublicKey,
    KeyAlgorithm.ML_DSA_65: mldsa.MLDSA65PublicKey,
    KeyAlgorithm.ML_DSA_87: mldsa.MLDSA87PublicKey,
    KeyAlgorithm.ML_KEM_768: mlkem.MLKEM768PublicKey,
    KeyAlgorithm.ML_KEM_1024: mlkem.MLKEM1024PublicKey,
}
"""Public keys as the other implementation has them."""

_OCTET_STRING: Final = 0x04
_LONG_FORM: Final = 0x80


def der_signature(raw: bytes) -> bytes:
    """Turn r and s, side by side, into DER (RFC 3279)."""
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


def raw_signature(der: bytes, order_bytes: int) -> bytes | None:
    """Turn a DER signature into r and s, side by side; None: it is not their one encoding."""
    try:
        r, s = decode_dss_signature(der)
        # Compared, because readers of DER forgive more than one encoding, and a signature has one.
        if encode_dss_signature(r, s) != der:
            return None
        return r.to_bytes(order_bytes, "big") + s.to_bytes(order_bytes, "big")
    except (ValueError, OverflowError):
        return None


def octet_string(content: bytes) -> bytes:
    """Wrap bytes as a DER OCTET STRING, the form of CKA_EC_POINT."""
    if len(content) < _LONG_FORM:
        return bytes((_OCTET_STRING, len(content))) + content
    return bytes((_OCTET_STRING, 0x81, len(content))) + content


def point_of(attribute: bytes) -> bytes:
    """Return the point in a CKA_EC_POINT, which some modules wrap as an OCTET STRING and some do not."""
    if attribute[:1] == bytes((_OCTET_STRING,)):
        for header in (2, 3):
            if octet_string(attribute[header:]) == attribute:
                return attribute[header:]
    return attribute


def rsa_public_key_info(modulus: bytes, exponent: bytes) -> bytes:
    """Return the DER SubjectPublicKeyInfo of an RSA key.

    Raises:
        ValueError: The token's attributes are no such key.
    """
    numbers = rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big"))
    return numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def public_key_info(kind: Kind, point: bytes) -> bytes:
    """Return the DER SubjectPublicKeyInfo of a public key's attributes.

    Args:
        kind: What it is; not RSA.
        point: The point, of an elliptic curve; CKA_VALUE of a post-quantum key.

    Raises:
        ValueError: The token's attributes are no such key.
    """
    key: Any
    try:
        if kind.algorithm in CURVES:
            key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[kind.algorithm], point)
        elif kind.algorithm is KeyAlgorithm.ED25519:
            key = ed25519.Ed25519PublicKey.from_public_bytes(point)
        else:
            key = POST_QUANTUM[kind.algorithm].from_public_bytes(point)
    except UnsupportedAlgorithm as error:
        raise ValueError("the cryptographic library here does not know such keys") from error
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def point_of_peer(algorithm: KeyAlgorithm, der: bytes) -> bytes | None:
    """Return the point of a peer's public key; None: it is none on the curve of *algorithm*."""
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != _CURVES[algorithm].name:
        return None
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
