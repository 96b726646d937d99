"""Key material of the scripted vault, and what the service does with it under its own names."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from backends.azure_entra import b64, unb64
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_der_private_key

_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
    "P-256K": ec.SECP256K1(),
}
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_FITTING: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
# RSA keys are slow to make: a vault has so many of each size, in turn.
_POOLS: Final = {2048: 16, 3072: 8, 4096: 4}
_IV: Final = 12
_TAG: Final = 16

_pools: dict[int, list[rsa.RSAPrivateKey]] = {}
_lock = threading.Lock()


class BadParameterError(Exception):
    """What the service answers with 400 and ``BadParameter``."""


@dataclass(frozen=True)
class Material:
    """The secret half of a version; one of its members."""

    private: rsa.RSAPrivateKey | None = None
    elliptic: ec.EllipticCurvePrivateKey | None = None
    oct: bytes = b""
    curve: str = ""

    def another(self) -> "Material":
        """Return new material of the same kind."""
        if self.private is not None:
            return new_material("RSA", self.private.key_size, "")
        if self.elliptic is not None:
            return new_material("EC", 0, self.curve)
        return replace(self, oct=os.urandom(len(self.oct)))

    def unpacked(self, blob: bytes, *, symmetric: bool) -> "Material":
        """Return what was wrapped under this for a transfer (CKM_RSA_AES_KEY_WRAP with SHA-1)."""
        assert self.private is not None
        size = self.private.key_size // 8
        try:
            ephemeral = self.private.decrypt(blob[:size], _oaep(hashes.SHA1()))  # noqa: S303 - Azure's own format
            inner = keywrap.aes_key_unwrap_with_padding(ephemeral, blob[size:])
        except (ValueError, keywrap.InvalidUnwrap):
            raise BadParameterError from None
        return Material(oct=inner) if symmetric else _of_private(load_der_private_key(inner, None))


def new_material(kty: str, size: int, curve: str) -> Material:
    """Return new material."""
    match kty.removesuffix("-HSM"):
        case "RSA" if size in _POOLS:
            return Material(private=_next_of(size))
        case "EC" if curve in _CURVES:
            return Material(elliptic=ec.generate_private_key(_CURVES[curve]), curve=curve)
        case "oct" if size in (128, 192, 256):
            return Material(oct=os.urandom(size // 8))
    raise BadParameterError


def _next_of(size: int) -> rsa.RSAPrivateKey:
    """Return a new key, until there are enough of them; then the one that was given out longest ago."""
    with _lock:
        pool = _pools.setdefault(size, [])
        full = len(pool) >= _POOLS[size]
        pool.append(pool.pop(0) if full else rsa.generate_private_key(65537, size))
        return pool[-1]


def _of_private(key: object) -> Material:
    if isinstance(key, rsa.RSAPrivateKey):
        return Material(private=key)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = next(name for name, curve in _CURVES.items() if curve.name == key.curve.name)
    return Material(elliptic=key, curve=name)


def material_of(jwk: Mapping[str, Any]) -> Material:
    """Return the material in a JSON web key, checked."""
    number = {
        name: int.from_bytes(unb64(jwk[name]))
        for name in ("n", "e", "d", "p", "q", "dp", "dq", "qi", "x", "y")
        if name in jwk
    }
    if jwk["kty"] == "RSA":
        public = rsa.RSAPublicNumbers(number["e"], number["n"])
        private = rsa.RSAPrivateNumbers(
            number["p"], number["q"], number["d"], number["dp"], number["dq"], number["qi"], public
        )
        return Material(private=private.private_key())
    curve = _CURVES[jwk["crv"]]
    point = ec.EllipticCurvePublicNumbers(number["x"], number["y"], curve)
    return Material(
        elliptic=ec.EllipticCurvePrivateNumbers(number["d"], point).private_key(), curve=jwk["crv"]
    )


def public_jwk(material: Material) -> dict[str, Any]:
    """Return the public members; of an AES key there are none, not even its size."""
    if material.private is not None:
        numbers = material.private.public_key().public_numbers()
        return {"n": b64(numbers.n.to_bytes(material.private.key_size // 8)), "e": b64(numbers.e.to_bytes(3))}
    if material.elliptic is not None:
        point = material.elliptic.public_key().public_numbers()
        size = (material.elliptic.key_size + 7) // 8
        return {"crv": material.curve, "x": b64(point.x.to_bytes(size)), "y": b64(point.y.to_bytes(size))}
    return {}


def use(material: Material, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Use a key as the service does.

    Raises:
        BadParameterError: The algorithm or the bytes do not fit it.
    """
    algorithm, value = body["alg"], unb64(body["value"])
    if verb in ("sign", "verify"):
        return _signature(material, verb, algorithm, value, body)
    try:
        if material.private is not None:
            return {"value": b64(_rsa(material.private, verb, algorithm, value))}
        if algorithm == f"A{len(material.oct) * 8}GCM":
            return _gcm(material.oct, verb, value, body)
        if algorithm == f"A{len(material.oct) * 8}KW":
            wrap = keywrap.aes_key_wrap if verb == "wrapkey" else keywrap.aes_key_unwrap
            return {"value": b64(wrap(material.oct, value))}
    except (ValueError, InvalidTag, keywrap.InvalidUnwrap):
        raise BadParameterError from None
    raise BadParameterError


def _oaep(hash_: hashes.HashAlgorithm) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(hash_), hash_, None)


def _rsa(key: rsa.RSAPrivateKey, verb: str, algorithm: str, value: bytes) -> bytes:
    scheme: padding.AsymmetricPadding = {
        "RSA-OAEP-256": _oaep(hashes.SHA256()),
        "RSA-OAEP": _oaep(hashes.SHA1()),  # noqa: S303 - what the service calls it
    }[algorithm]
    if verb in ("encrypt", "wrapkey"):
        return key.public_key().encrypt(value, scheme)
    return key.decrypt(value, scheme)


def _gcm(key: bytes, verb: str, value: bytes, body: Mapping[str, Any]) -> dict[str, Any]:
    bound = unb64(body["aad"]) if "aad" in body else None
    if verb == "encrypt":
        if "iv" in body:
            raise BadParameterError  # the service makes it
        iv = os.urandom(_IV)
        sealed = AESGCM(key).encrypt(iv, value, bound)
        return {"value": b64(sealed[:-_TAG]), "iv": b64(iv), "tag": b64(sealed[-_TAG:])}
    return {"value": b64(AESGCM(key).decrypt(unb64(body["iv"]), value + unb64(body["tag"]), bound))}


def _signature(
    material: Material, verb: str, algorithm: str, value: bytes, body: Mapping[str, Any]
) -> dict[str, Any]:
    digest = value if verb == "sign" else unb64(body["digest"])
    hash_ = _HASHES[algorithm[2:]]
    if len(digest) != hash_.digest_size:
        raise BadParameterError
    prehashed = utils.Prehashed(hash_)
    if material.elliptic is not None:
        if _FITTING.get(algorithm) != material.curve:
            raise BadParameterError
        return _ecdsa(material.elliptic, verb, ec.ECDSA(prehashed), value, digest)
    if material.private is None:
        raise BadParameterError
    scheme: padding.AsymmetricPadding = {
        "PS": padding.PSS(padding.MGF1(hash_), hash_.digest_size),
        "RS": padding.PKCS1v15(),
    }[algorithm[:2]]
    if verb == "sign":
        return {"value": b64(material.private.sign(digest, scheme, prehashed))}
    return {"value": _good(lambda: material.private.public_key().verify(value, digest, scheme, prehashed))}


def _ecdsa(
    key: ec.EllipticCurvePrivateKey, verb: str, scheme: ec.ECDSA, value: bytes, digest: bytes
) -> dict[str, Any]:
    size = (key.key_size + 7) // 8
    if verb == "sign":
        r, s = utils.decode_dss_signature(key.sign(digest, scheme))
        return {"value": b64(r.to_bytes(size) + s.to_bytes(size))}
    if len(value) != 2 * size:
        raise BadParameterError
    der = utils.encode_dss_signature(int.from_bytes(value[:size]), int.from_bytes(value[size:]))
    return {"value": _good(lambda: key.public_key().verify(der, digest, scheme))}


def _good(verify: Any) -> bool:
    try:
        verify()
    except InvalidSignature:
        return False
    return True
