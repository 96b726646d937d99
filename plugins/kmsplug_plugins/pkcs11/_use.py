"""Using key objects: each of our mechanisms as the token is asked for it, parameters included.

All functions work on objects of the library, wherever they come from, so that what is tried out at the start
is what is done afterwards. They raise the library's errors; what is wrong already before the token is asked
is `UnfitError`.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any, Final

from kmsplug_protocol import Mechanism, Secret

from ._ckr import Ckr
from ._client import (
    KDF,
    MGF,
    Attribute,
    Ckm,
    DecapsulateMixin,
    DecryptMixin,
    DeriveMixin,
    EncapsulateMixin,
    EncryptMixin,
    GcmParameters,
    KeyType,
    MechanismFlag,
    Object,
    ObjectClass,
    PKCS11Error,
    Session,
    SignMixin,
    UnwrapMixin,
    VerifyMixin,
    WrapMixin,
)
from ._encoding import der_signature, point_of, raw_signature
from ._profiles import Profile

_M = Mechanism

GCM_OVERHEAD: Final[Mapping[str, int]] = {"caller": 12 + 16, "written": 12 + 16, "appended": 16 + 16}
"""What is longer about a ciphertext than its plaintext, by who makes the IV: IV and tag."""

_TAG_BYTES: Final = 16
_IV_BYTES: Final = 12
_APPENDED_IV_BYTES: Final = 16

_HASHES: Final[Mapping[Mechanism, tuple[str, Ckm, MGF]]] = {
    mechanism: row
    for names, row in (
        ((_M.RSA_OAEP_SHA_1,), ("sha1", Ckm.SHA_1, MGF.SHA1)),
        (
            (_M.RSA_OAEP_SHA_256, _M.RSA_PSS_SHA_256, _M.RSA_PKCS1_SHA_256, _M.ECDSA_SHA_256),
            ("sha256", Ckm.SHA256, MGF.SHA256),
        ),
        ((_M.RSA_PSS_SHA_384, _M.RSA_PKCS1_SHA_384, _M.ECDSA_SHA_384), ("sha384", Ckm.SHA384, MGF.SHA384)),
        ((_M.RSA_PSS_SHA_512, _M.RSA_PKCS1_SHA_512, _M.ECDSA_SHA_512), ("sha512", Ckm.SHA512, MGF.SHA512)),
    )
    for mechanism in names
}

# DER of DigestInfo up to the digest (RFC 8017, 9.2, note 1).
_DIGEST_INFO: Final = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}

_HMACS: Final[Mapping[Mechanism, tuple[Ckm, int]]] = {
    _M.HMAC_SHA_256: (Ckm.SHA256_HMAC, 32),
    _M.HMAC_SHA_384: (Ckm.SHA384_HMAC, 48),
    _M.HMAC_SHA_512: (Ckm.SHA512_HMAC, 64),
}

_SHARED_SECRET_BYTES: Final = 32  # of ML-KEM


class UnfitError(Exception):
    """The bytes cannot be what they should: too short, too long, not of the form."""


def _permitted(key: Any, use: type) -> Any:
    """Return a key object that has a use; what its attributes do not permit, the library has no method for.

    Raises:
        PKCS11Error: As if the token had been asked.
    """
    if not isinstance(key, use):
        raise PKCS11Error(f"Unmapped error code {Ckr.CKR_KEY_FUNCTION_NOT_PERMITTED:#x}: by its attributes")
    return key


def needed(mechanism: Mechanism, profile: Profile) -> Ckm:
    """Return the mechanism that has to be in the token's list."""
    if mechanism in (_M.AES_128_GCM, _M.AES_256_GCM):
        return Ckm.AES_GCM
    if mechanism in _HMACS:
        return _HMACS[mechanism][0]
    if mechanism is _M.AES_256_KWP:
        return Ckm[profile.kwp]
    return _PLAIN[mechanism]


_PLAIN: Final[Mapping[Mechanism, Ckm]] = {
    _M.AES_256_KW: Ckm.AES_KEY_WRAP,
    _M.RSA_OAEP_SHA_1: Ckm.RSA_PKCS_OAEP,
    _M.RSA_OAEP_SHA_256: Ckm.RSA_PKCS_OAEP,
    **dict.fromkeys((_M.RSA_PSS_SHA_256, _M.RSA_PSS_SHA_384, _M.RSA_PSS_SHA_512), Ckm.RSA_PKCS_PSS),
    **dict.fromkeys((_M.RSA_PKCS1_SHA_256, _M.RSA_PKCS1_SHA_384, _M.RSA_PKCS1_SHA_512), Ckm.RSA_PKCS),
    **dict.fromkeys((_M.ECDSA_SHA_256, _M.ECDSA_SHA_384, _M.ECDSA_SHA_512), Ckm.ECDSA),
    _M.ED25519: Ckm.EDDSA,
    _M.ECDH: Ckm.ECDH1_DERIVE,
    **dict.fromkeys((_M.ML_DSA_44, _M.ML_DSA_65, _M.ML_DSA_87), Ckm.ML_DSA),
    **dict.fromkeys((_M.ML_KEM_768, _M.ML_KEM_1024), Ckm.ML_KEM),
}


def hash_bytes(mechanism: Mechanism) -> int | None:
    """Return the length of the digest that a mechanism signs; None: it signs messages only."""
    return hashlib.new(_HASHES[mechanism][0]).digest_size if mechanism in _HASHES else None


def gcm_encrypt(profile: Profile, key: Any, plaintext: bytes, associated_data: bytes) -> bytes:
    """Return IV, ciphertext and tag. Where the device makes the IV, it is taken from what the device gave."""
    match profile.gcm_iv:
        case "caller":
            iv = os.urandom(_IV_BYTES)
        case "written":
            iv = bytes(_IV_BYTES)
        case "appended":
            iv = b""
    parameters = GcmParameters(iv, associated_data)
    sealed: bytes = _permitted(key, EncryptMixin).encrypt(
        plaintext, mechanism=Ckm.AES_GCM, mechanism_param=parameters.packed
    )
    if profile.gcm_iv == "appended":
        return sealed[-_APPENDED_IV_BYTES:] + sealed[:-_APPENDED_IV_BYTES]
    if profile.gcm_iv == "written" and parameters.iv == iv:
        raise UnfitError("the device was to write its IV, and did not")
    return parameters.iv + sealed


def gcm_decrypt(profile: Profile, key: Any, ciphertext: bytes, associated_data: bytes) -> Secret:
    """Open what `gcm_encrypt` made."""
    overhead = GCM_OVERHEAD[profile.gcm_iv]
    if len(ciphertext) < overhead:
        raise UnfitError
    iv_bytes = overhead - _TAG_BYTES
    parameters = GcmParameters(ciphertext[:iv_bytes], associated_data)
    return Secret(
        _permitted(key, DecryptMixin).decrypt(
            ciphertext[iv_bytes:], mechanism=Ckm.AES_GCM, mechanism_param=parameters.packed
        )
    )


def oaep_encrypt(key: Any, mechanism: Mechanism, plaintext: bytes) -> bytes:
    """Encrypt by RSA-OAEP, MGF1 with the same hash, empty label."""
    return bytes(
        _permitted(key, EncryptMixin).encrypt(
            plaintext, mechanism=Ckm.RSA_PKCS_OAEP, mechanism_param=oaep(mechanism)
        )
    )


def oaep_decrypt(key: Any, mechanism: Mechanism, ciphertext: bytes) -> Secret:
    """Open what `oaep_encrypt` made."""
    return Secret(
        _permitted(key, DecryptMixin).decrypt(
            ciphertext, mechanism=Ckm.RSA_PKCS_OAEP, mechanism_param=oaep(mechanism)
        )
    )


def oaep(mechanism: Mechanism) -> tuple[Ckm, MGF, None]:
    """Return the parameters of RSA-OAEP."""
    _, hashed, mask = _HASHES[mechanism]
    return hashed, mask, None


def sign(key: Any, mechanism: Mechanism, data: bytes, *, hashed: bool) -> bytes:
    """Sign a message, or its digest where *hashed*."""
    ckm, parameter, prepared = _prepared(mechanism, data, hashed=hashed)
    signature: bytes = _permitted(key, SignMixin).sign(prepared, mechanism=ckm, mechanism_param=parameter)
    return der_signature(signature) if ckm is Ckm.ECDSA else signature


def verify(
    key: Any, mechanism: Mechanism, data: bytes, signature: bytes, *, hashed: bool, order_bytes: int
) -> bool:
    """Tell whether a signature is good.

    Args:
        key: The public object.
        mechanism: How.
        data: The message, or its digest.
        signature: In the protocol's form.
        hashed: Whether *data* is a digest.
        order_bytes: Length of a number below the curve's order; without meaning elsewhere.
    """
    ckm, parameter, prepared = _prepared(mechanism, data, hashed=hashed)
    raw: bytes | None = raw_signature(signature, order_bytes) if ckm is Ckm.ECDSA else signature
    if not raw:
        return False
    return bool(_permitted(key, VerifyMixin).verify(prepared, raw, mechanism=ckm, mechanism_param=parameter))


def _prepared(mechanism: Mechanism, data: bytes, *, hashed: bool) -> tuple[Ckm, Any, bytes]:
    """Return mechanism, parameter and what is signed. Messages are hashed here: one way serves all tokens."""
    if mechanism not in _HASHES:
        return _PLAIN[mechanism], None, data
    name, ckm_hash, mask = _HASHES[mechanism]
    digest = data if hashed else hashlib.new(name, data).digest()
    ckm = _PLAIN[mechanism]
    if ckm is Ckm.RSA_PKCS_PSS:
        return ckm, (ckm_hash, mask, len(digest)), digest
    return ckm, None, _DIGEST_INFO[name] + digest if ckm is Ckm.RSA_PKCS else digest


def mac(key: Any, mechanism: Mechanism, message: bytes) -> bytes:
    """Authenticate a message."""
    return bytes(_permitted(key, SignMixin).sign(message, mechanism=_HMACS[mechanism][0]))


def verify_mac(key: Any, mechanism: Mechanism, message: bytes, code: bytes) -> bool:
    """Tell whether a code is good: the token compares, in its own time, which does not depend on the code."""
    ckm, length = _HMACS[mechanism]
    return len(code) == length and bool(_permitted(key, VerifyMixin).verify(message, code, mechanism=ckm))


def wrap(session: Session, key: Any, ckm: Ckm, material: bytes) -> bytes:
    """Wrap bytes under an AES key. They are an object of the session meanwhile, as the token wants it."""
    held = session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
            Attribute.TOKEN: False,
            Attribute.SENSITIVE: False,
            Attribute.EXTRACTABLE: True,
            Attribute.VALUE: material,
        }
    )
    try:
        return bytes(_permitted(key, WrapMixin).wrap_key(held, mechanism=ckm))
    finally:
        held.destroy()


def unwrap(key: Any, ckm: Ckm, wrapped: bytes) -> Secret:
    """Unwrap bytes. They are an object of the session meanwhile, as the token wants it."""
    held: Object = _permitted(key, UnwrapMixin).unwrap_key(
        ObjectClass.SECRET_KEY,
        KeyType.GENERIC_SECRET,
        wrapped,
        mechanism=ckm,
        store=False,
        capabilities=MechanismFlag(0),
        template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
    )
    return _taken(held)


def derive(key: Any, point: bytes, length: int) -> Secret:
    """Agree on a secret with a peer's point (ECDH, no key derivation): its x coordinate."""
    held = _permitted(key, DeriveMixin).derive_key(
        KeyType.GENERIC_SECRET,
        8 * length,
        mechanism=Ckm.ECDH1_DERIVE,
        mechanism_param=(KDF.NULL, None, point),
        capabilities=MechanismFlag(0),
        template=_OPEN,
    )
    return _taken(held)


def encapsulate(key: Any) -> tuple[Secret, bytes]:
    """Make a secret for the holder of an ML-KEM key; return it and its encapsulation."""
    encapsulation, held = _permitted(key, EncapsulateMixin).encapsulate_key(
        KeyType.GENERIC_SECRET,
        8 * _SHARED_SECRET_BYTES,
        mechanism=Ckm.ML_KEM,
        capabilities=MechanismFlag(0),
        template=_OPEN,
    )
    return _taken(held), bytes(encapsulation)


def decapsulate(key: Any, encapsulation: bytes) -> Secret:
    """Open what `encapsulate` made."""
    held = _permitted(key, DecapsulateMixin).decapsulate_key(
        encapsulation,
        KeyType.GENERIC_SECRET,
        8 * _SHARED_SECRET_BYTES,
        mechanism=Ckm.ML_KEM,
        capabilities=MechanismFlag(0),
        template=_OPEN,
    )
    return _taken(held)


# Of what leaves the token by the meaning of the operation.
_OPEN: Final = {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True, Attribute.PRIVATE: False}


def _taken(held: Object) -> Secret:
    try:
        return Secret(held[Attribute.VALUE])
    finally:
        held.destroy()


def public_point(public: Object, key_type: KeyType) -> bytes:
    """Return what a public object holds: the point of a curve, or the value of a post-quantum key."""
    if key_type in (KeyType.EC, KeyType.EC_EDWARDS):
        return point_of(bytes(public[Attribute.EC_POINT]))
    return bytes(public[Attribute.VALUE])
