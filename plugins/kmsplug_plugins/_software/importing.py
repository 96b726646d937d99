"""Taking in material: import tokens, the wrapping that they stand for, and what material has to be.

A token is its own record: the private half of a fresh wrapping key, in a box bound to the key that it was
made for. So asking for one changes nothing, and the wrapping key can be used for nothing else. It serves
once, because a key takes material once.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, rsa, x25519
from cryptography.hazmat.primitives.serialization import load_der_private_key
from kmsplug_protocol import ErrorCode, KeyAlgorithm, Secret, cobblestone, dcbor
from kmsplug_sdk import DriverError

from .asymmetric import RsaOaep, new_rsa, pkcs8, public_half
from .boxes import box, open_box
from .records import StoredKey
from .store import Store
from .symmetric import InvalidCiphertextError

_A = KeyAlgorithm

OAEP: Final = "RSA_OAEP_SHA_256"
AES_KEY_WRAP: Final = "RSA_AES_KEY_WRAP_SHA_256"
FORMATS: Final = (OAEP, AES_KEY_WRAP)

VALID_HOURS: Final = 24

_WRAPPING_BITS: Final = 3072
_AES_BYTES: Final = frozenset({16, 24, 32})
_SHORTEST_HMAC_KEY: Final = 14  # 112 bits, the least that NIST SP 800-131A accepts
_LONGEST_HMAC_KEY: Final = 1024
_MAX_WRAPPED: Final = 16 * 1024


class UnfitMaterialError(Exception):
    """The token, the wrapping or the material does not fit. Which, nobody is told: it could be an oracle."""


def misfit() -> DriverError:
    """Return the one refusal of everything that does not fit."""
    return DriverError(
        ErrorCode.INVALID_ARGUMENT,
        "the import token or the material does not fit this key: ask for import parameters again",
    )


def new_token(store: Store, key: StoredKey, wrapping_algorithm: str) -> tuple[bytes, bytes]:
    """Return the public half of a fresh wrapping key, and the token that goes with it. Takes a while."""
    private = new_rsa(_WRAPPING_BITS)
    content: dict[str, Any] = {
        "expires": int(time.time()) + VALID_HOURS * 3600,
        "private": bytes(private),
        "wrapping": wrapping_algorithm,
    }
    return public_half(private), box(store.keys.imports, _label(store, key), dcbor.encode(content))


def unwrapped(store: Store, key: StoredKey, wrapping_algorithm: str, token: bytes, wrapped: bytes) -> Secret:
    """Return the material in a wrapped key, checked and in the form in which it is stored.

    Raises:
        UnfitMaterialError: Whatever is wrong with any of them.
    """
    try:
        content: dict[str, Any] = dcbor.decode(open_box(store.keys.imports, _label(store, key), token))
    except (cobblestone.CobblestoneError, ValueError):
        raise UnfitMaterialError from None
    if content["wrapping"] != wrapping_algorithm or content["expires"] <= time.time():
        raise UnfitMaterialError
    try:
        material = _unwrap(content["private"], wrapping_algorithm, wrapped)
    except (InvalidCiphertextError, keywrap.InvalidUnwrap):
        raise UnfitMaterialError from None
    return _CHECKS[key.algorithm](material)


def _unwrap(private: bytes, wrapping_algorithm: str, wrapped: bytes) -> bytes:
    if len(wrapped) > _MAX_WRAPPED:
        raise UnfitMaterialError
    oaep = RsaOaep(private)
    if wrapping_algorithm == OAEP:
        return oaep.decrypt(wrapped, None)
    modulus_bytes = _WRAPPING_BITS // 8
    ephemeral = oaep.decrypt(wrapped[:modulus_bytes], None)
    if len(ephemeral) not in _AES_BYTES:
        raise UnfitMaterialError
    return keywrap.aes_key_unwrap_with_padding(ephemeral, wrapped[modulus_bytes:])


def _label(store: Store, key: StoredKey) -> list["dcbor.Value"]:
    return ["kmsplug-local/v1/import-token", store.store_id, key.key_id]


def _raw(shortest: int, longest: int) -> Callable[[bytes], Secret]:
    def check(material: bytes) -> Secret:
        if not shortest <= len(material) <= longest:
            raise UnfitMaterialError
        return Secret(material)

    return check


def _private(kind: type[Any], size: int | None = None, curve: str | None = None) -> Callable[[bytes], Secret]:
    def check(material: bytes) -> Secret:
        if not _is_private_key_info(material):
            raise UnfitMaterialError
        try:
            # With all checks, unlike when it is loaded later: this key was made by somebody else.
            private: Any = load_der_private_key(material, None)
            stored = pkcs8(private)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise UnfitMaterialError from None
        if (
            not isinstance(private, kind)
            or (size is not None and private.key_size != size)
            or (curve is not None and private.curve.name != curve)
        ):
            raise UnfitMaterialError
        return stored

    return check


def _is_private_key_info(der: bytes) -> bool:
    """Tell PKCS #8 (a version, then an algorithm) from the older forms, which the library reads as well."""
    start = 2 + (der[1] & 0x7F if len(der) > 1 and der[1] & 0x80 else 0)
    return der[start : start + 2] == b"\x02\x01" and der[start + 3 : start + 4] == b"\x30"


_HMAC_KEY: Final = _raw(_SHORTEST_HMAC_KEY, _LONGEST_HMAC_KEY)

_CHECKS: Final[Mapping[KeyAlgorithm, Callable[[bytes], Secret]]] = {
    _A.AES_128_GCM: _raw(16, 16),
    _A.AES_256_GCM: _raw(32, 32),
    _A.AES_256_KW: _raw(32, 32),
    _A.HMAC_SHA_256: _HMAC_KEY,
    _A.HMAC_SHA_384: _HMAC_KEY,
    _A.HMAC_SHA_512: _HMAC_KEY,
    _A.RSA_2048: _private(rsa.RSAPrivateKey, size=2048),
    _A.RSA_3072: _private(rsa.RSAPrivateKey, size=3072),
    _A.RSA_4096: _private(rsa.RSAPrivateKey, size=4096),
    _A.EC_P256: _private(ec.EllipticCurvePrivateKey, curve="secp256r1"),
    _A.EC_P384: _private(ec.EllipticCurvePrivateKey, curve="secp384r1"),
    _A.EC_P521: _private(ec.EllipticCurvePrivateKey, curve="secp521r1"),
    _A.ED25519: _private(ed25519.Ed25519PrivateKey),
    _A.X25519: _private(x25519.X25519PrivateKey),
    _A.ML_DSA_65: _private(mldsa.MLDSA65PrivateKey),
    _A.ML_KEM_768: _private(mlkem.MLKEM768PrivateKey),
}
