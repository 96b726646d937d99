"""From the numbers in which vectors give their keys to the forms that the protocol takes."""

from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

CURVES: dict[str, ec.EllipticCurve] = {
    "EC_P256": ec.SECP256R1(),
    "EC_P384": ec.SECP384R1(),
    "EC_P521": ec.SECP521R1(),
}


def pkcs8(private: Any) -> bytes:
    encoded: bytes = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return encoded


def spki(public: Any) -> bytes:
    encoded: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


@cache
def rsa_key(p: int, q: int, e: int = 65537) -> bytes:
    d = pow(e, -1, (p - 1) * (q - 1))
    dp, dq, qi = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, rsa.RSAPublicNumbers(e, p * q))
    return pkcs8(numbers.private_key(unsafe_skip_rsa_key_validation=True))  # the driver checks it


def ec_key(algorithm: str, d: int) -> bytes:
    return pkcs8(ec.derive_private_key(d, CURVES[algorithm]))


def ec_point(algorithm: str, x: int, y: int) -> bytes:
    """Return a public key, also if it is no point of the curve."""
    size = (CURVES[algorithm].key_size + 7) // 8
    point = x.to_bytes(size, "big") + y.to_bytes(size, "big")
    some = spki(ec.derive_private_key(1, CURVES[algorithm]).public_key())
    return some[: -len(point)] + point


def ed25519_key(seed: bytes) -> bytes:
    return pkcs8(ed25519.Ed25519PrivateKey.from_private_bytes(seed))


def x25519_key(scalar: bytes) -> bytes:
    return pkcs8(x25519.X25519PrivateKey.from_private_bytes(scalar))


def x25519_point(u: bytes) -> bytes:
    return spki(x25519.X25519PublicKey.from_public_bytes(u))


def ml_dsa_key(seed: bytes) -> bytes:
    return pkcs8(mldsa.MLDSA65PrivateKey.from_seed_bytes(seed))


def ml_dsa_public(raw: bytes) -> bytes:
    return spki(mldsa.MLDSA65PublicKey.from_public_bytes(raw))


def ml_kem_key(seed: bytes) -> bytes:
    return pkcs8(mlkem.MLKEM768PrivateKey.from_seed_bytes(seed))


def ml_kem_public(raw: bytes) -> bytes:
    return spki(mlkem.MLKEM768PublicKey.from_public_bytes(raw))
