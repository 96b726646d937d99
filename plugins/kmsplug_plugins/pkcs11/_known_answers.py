"""Trying out at the start what a token claims: its list of mechanisms is a claim, a right answer a fact.

Where a token takes a key from us for a moment, its answer is compared with that of a library that is known to
be right. Where it takes none, as in FIPS mode, it makes one for a moment, and has to open what it made and
nothing else. Nothing of that stays on the token, and no RSA key is made: of RSA the public side is tried.
"""

import hashlib
import hmac
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from kmsplug_protocol import KeyAlgorithm, KeyUsage, Mechanism, Probe

from . import _use
from ._client import Attribute, KeyType, Object, ObjectClass, PKCS11Error, Session
from ._encoding import POST_QUANTUM
from ._errors import NOT_NOW, name_of
from ._imports import unwrap_into
from ._keys import is_generated, make
from ._kinds import EDWARDS_NAME, EDWARDS_OID, KINDS, ORDER_BYTES, Kind
from ._profiles import Profile

_log: Final = logging.getLogger(__name__)

_M = Mechanism
_MESSAGE: Final = b"kmsplug known answer"
_BOUND: Final = b"bound"

# The primes of an RSA key for nothing but these tests: it protects nothing, and everybody may know it.
_P: Final = int(
    "f3d390c8183f0b0ad0ac81f66737dc05eab326cb8305b2540969094f00bf3b800cdd9ae5ca660e7840b7249f"
    "c98fa9e49046cda2dd4541214ab3dca144a68bfbd68fdc03ab0603dc8f135aa23ab6f61c726437d4ba40dab6"
    "b039d7cc2ddbda12dc543cf24b4e6e4da8b3f648a18b16ed42705189482665103b4e560ac25abc43",
    16,
)
_Q: Final = int(
    "b8f5217e1a3400e4e107112d00b6e3efc4adfd91c3a044fa6b58e8bbfa8ed29906ba075c5709997fa0155e5f"
    "79aec7d5ab566b3a69a90fc634eac6111dd6ad93b279adb300aed26cb5f0362f92bf2e0d84103b0ee7308cdd"
    "a800d5043513621211caa6fb22415f51259f9cbac4053e114a9400f21d07cc225a2a39f9c2553fbd",
    16,
)
_EXPONENT: Final = 65537


class WrongAnswerError(Exception):
    """The token answered, and what it answered is not right."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of trying a mechanism.

    Attributes:
        refusal: Why it cannot be offered; None: it works.
        probe: How that was seen, where it works.
    """

    refusal: str | None = None
    probe: Probe | None = None


def tried(session: Session, kind: Kind, mechanism: Mechanism, profile: Profile) -> Verdict:
    """Try one mechanism on one kind of key.

    Raises:
        PKCS11Error: The token cannot do anything now.
    """
    try:
        return Verdict(probe=_TRIALS[mechanism](session, kind, mechanism, profile))
    except PKCS11Error as error:
        if name_of(error) in NOT_NOW:
            raise
        return Verdict(f"the token answers {name_of(error)}")
    except WrongAnswerError as error:
        return Verdict(str(error))
    except (_use.UnfitError, InvalidSignature, InvalidTag, ValueError, AttributeError):
        return Verdict("the token's answer is not that of the standard")


def shows(kind: Kind, operation: str) -> bool:
    """Tell whether a trial says something about an operation.

    Of RSA only the public side is tried, and keys of one size.
    """
    if kind.key_type is not KeyType.RSA:
        return True
    return kind.size == (_P * _Q).bit_length() and operation in ("crypto.encrypt", "crypto.verify")


def unwraps(session: Session) -> bool:
    """Tell whether a token unwraps a key under RSA-OAEP, into one that does not leave it and has a length."""
    kind = next(each for each in KINDS if each.algorithm is KeyAlgorithm.HMAC_SHA_256)
    value, mechanism = os.urandom(32), _M.RSA_OAEP_SHA_256
    hashed = hashes.SHA256()
    wrapped = _rsa_private().public_key().encrypt(value, padding.OAEP(padding.MGF1(hashed), hashed, None))
    try:
        pair = session.create_object(_private_template())
        key = unwrap_into(pair, kind, mechanism, wrapped, key_id=b"", label="", store=False)
        code = _use.mac(key, _M.HMAC_SHA_256, _MESSAGE)
        good = hmac.compare_digest(code, hmac.digest(value, _MESSAGE, "sha256"))
        # Without its length nobody could tell what it is, or that it fits.
        fits = key[Attribute.VALUE_LEN] == len(value) and not is_generated(key)
        return good and fits and key[Attribute.SENSITIVE] and not key[Attribute.EXTRACTABLE]
    except (PKCS11Error, AttributeError) as error:
        _log.debug("no import: %s", type(error).__name__)
        return False


def _private_template() -> dict[Attribute, Any]:
    numbers = _rsa_private().private_numbers()
    values = {
        Attribute.MODULUS: numbers.public_numbers.n,
        Attribute.PUBLIC_EXPONENT: numbers.public_numbers.e,
        Attribute.PRIVATE_EXPONENT: numbers.d,
        Attribute.PRIME_1: numbers.p,
        Attribute.PRIME_2: numbers.q,
        Attribute.EXPONENT_1: numbers.dmp1,
        Attribute.EXPONENT_2: numbers.dmq1,
        Attribute.COEFFICIENT: numbers.iqmp,
    }
    return {
        Attribute.CLASS: ObjectClass.PRIVATE_KEY,
        Attribute.KEY_TYPE: KeyType.RSA,
        Attribute.TOKEN: False,
        Attribute.UNWRAP: True,
        **{name: value.to_bytes((value.bit_length() + 7) // 8, "big") for name, value in values.items()},
    }


def _gcm(session: Session, kind: Kind, _mechanism: Mechanism, profile: Profile) -> Probe:
    value = os.urandom((kind.size or 0) // 8)
    key, known = _secret(session, kind, value, profile)
    sealed = _use.gcm_encrypt(profile, key, _MESSAGE, _BOUND)
    _require(_use.gcm_decrypt(profile, key, sealed, _BOUND) == _MESSAGE)
    iv_bytes = _use.GCM_OVERHEAD[profile.gcm_iv] - 16
    if known:
        _require(AESGCM(value).decrypt(sealed[:iv_bytes], sealed[iv_bytes:], _BOUND) == _MESSAGE)
    try:
        _use.gcm_decrypt(profile, key, sealed, b"another")
    except PKCS11Error:
        return Probe.KNOWN_ANSWER if known else Probe.ROUND_TRIP
    raise WrongAnswerError("the token does not authenticate associated data")


def _key_wrap(session: Session, kind: Kind, mechanism: Mechanism, profile: Profile) -> Probe:
    value, material = os.urandom(32), os.urandom(32)
    key, known = _secret(session, kind, value, profile)
    ckm = _use.needed(mechanism, profile)
    # Of 13 bytes only KWP can make anything, whatever a token calls its mechanisms.
    material = material[:13] if mechanism is _M.AES_256_KWP else material
    wrapped = _use.wrap(session, key, ckm, material)
    _require(_use.unwrap(key, ckm, wrapped) == material)
    if known:
        wrap = keywrap.aes_key_wrap_with_padding if mechanism is _M.AES_256_KWP else keywrap.aes_key_wrap
        _require(wrap(value, material) == wrapped)
    return Probe.KNOWN_ANSWER if known else Probe.ROUND_TRIP


def _hmac(session: Session, kind: Kind, mechanism: Mechanism, profile: Profile) -> Probe:
    value = os.urandom((kind.size or 0) // 8)
    key, known = _secret(session, kind, value, profile)
    code = _use.mac(key, mechanism, _MESSAGE)
    if known:
        name = f"sha{mechanism.rpartition('_')[2]}"
        _require(hmac.compare_digest(hmac.digest(value, _MESSAGE, name), code))
    _require(_use.verify_mac(key, mechanism, _MESSAGE, code))
    _require(not _use.verify_mac(key, mechanism, _MESSAGE, bytes([code[0] ^ 1]) + code[1:]))
    return Probe.KNOWN_ANSWER if known else Probe.ROUND_TRIP


def _oaep(session: Session, _kind: Kind, mechanism: Mechanism, _profile: Profile) -> Probe:
    public = _rsa_public(session, Attribute.ENCRYPT)
    chosen = hashes.SHA1() if mechanism is _M.RSA_OAEP_SHA_1 else hashes.SHA256()  # noqa: S303 - what OAEP is named by
    opened = _rsa_private().decrypt(
        _use.oaep_encrypt(public, mechanism, _MESSAGE), padding.OAEP(padding.MGF1(chosen), chosen, None)
    )
    _require(opened == _MESSAGE)
    return Probe.KNOWN_ANSWER


def _rsa_signature(session: Session, _kind: Kind, mechanism: Mechanism, _profile: Profile) -> Probe:
    public = _rsa_public(session, Attribute.VERIFY)
    length = _use.hash_bytes(mechanism) or 0
    chosen: Any = {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}[length]
    scheme: Any = (
        padding.PSS(padding.MGF1(chosen), length) if mechanism.startswith("RSA_PSS") else padding.PKCS1v15()
    )
    digest = hashlib.new(f"sha{8 * length}", _MESSAGE).digest()
    signature = _rsa_private().sign(digest, scheme, Prehashed(chosen))
    for text, expected in ((_MESSAGE, True), (_BOUND, False)):
        found = _use.verify(public, mechanism, text, signature, hashed=False, order_bytes=0)
        _require(found is expected)
    return Probe.KNOWN_ANSWER


def _ecdsa(session: Session, kind: Kind, mechanism: Mechanism, _profile: Profile) -> Probe:
    private, public = make(session, kind, b"", "", curve=kind.curve, store=False)
    signature = _use.sign(private, mechanism, _MESSAGE, hashed=False)
    chosen: Any = {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}[
        _use.hash_bytes(mechanism) or 0
    ]
    point = _use.public_point(_there(public), KeyType.EC)
    ec.EllipticCurvePublicKey.from_encoded_point(_curve(kind), point).verify(
        signature, _MESSAGE, ec.ECDSA(chosen)
    )
    order_bytes = ORDER_BYTES[kind.algorithm]
    for text, expected in ((_MESSAGE, True), (_BOUND, False)):
        found = _use.verify(public, mechanism, text, signature, hashed=False, order_bytes=order_bytes)
        _require(found is expected)
    return Probe.KNOWN_ANSWER


def _ed25519(session: Session, kind: Kind, mechanism: Mechanism, profile: Profile) -> Probe:
    private, public = make(session, kind, b"", "", curve=edwards_params(profile), store=False)
    signature = _use.sign(private, mechanism, _MESSAGE, hashed=False)
    point = _use.public_point(_there(public), kind.key_type)
    ed25519.Ed25519PublicKey.from_public_bytes(point).verify(signature, _MESSAGE)
    for text, expected in ((_MESSAGE, True), (_BOUND, False)):
        found = _use.verify(public, mechanism, text, signature, hashed=False, order_bytes=0)
        _require(found is expected)
    return Probe.KNOWN_ANSWER


def _ml_dsa(session: Session, kind: Kind, mechanism: Mechanism, _profile: Profile) -> Probe:
    private, public = make(session, kind, b"", "", curve=None, store=False)
    signature = _use.sign(private, mechanism, _MESSAGE, hashed=False)
    point, probe = _use.public_point(_there(public), kind.key_type), Probe.ROUND_TRIP
    with suppress(UnsupportedAlgorithm):  # by the library that is known to be right, where it is an old one
        POST_QUANTUM[kind.algorithm].from_public_bytes(point).verify(signature, _MESSAGE)
        probe = Probe.KNOWN_ANSWER
    for text, expected in ((_MESSAGE, True), (_BOUND, False)):
        found = _use.verify(public, mechanism, text, signature, hashed=False, order_bytes=0)
        _require(found is expected)
    return probe


def _ml_kem(session: Session, kind: Kind, _mechanism: Mechanism, _profile: Profile) -> Probe:
    private, public = make(session, kind, b"", "", curve=None, store=False)
    secret, encapsulation = _use.encapsulate(public)
    _require(_use.decapsulate(private, encapsulation) == secret)
    point, probe = _use.public_point(_there(public), kind.key_type), Probe.ROUND_TRIP
    with suppress(UnsupportedAlgorithm):  # as above
        expected, encapsulation = POST_QUANTUM[kind.algorithm].from_public_bytes(point).encapsulate()
        _require(hmac.compare_digest(_use.decapsulate(private, encapsulation), expected))
        probe = Probe.KNOWN_ANSWER
    return probe


def _ecdh(session: Session, kind: Kind, _mechanism: Mechanism, _profile: Profile) -> Probe:
    private, public = make(session, kind, b"", "", curve=kind.curve, store=False)
    peer = ec.generate_private_key(_curve(kind))
    point = peer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    ours = ec.EllipticCurvePublicKey.from_encoded_point(
        _curve(kind), _use.public_point(_there(public), KeyType.EC)
    )
    expected = peer.exchange(ec.ECDH(), ours)
    _require(hmac.compare_digest(_use.derive(private, point, ORDER_BYTES[kind.algorithm]), expected))
    return Probe.KNOWN_ANSWER


_Trial = Callable[[Session, Kind, Mechanism, Profile], Probe]

_TRIALS: Final[Mapping[Mechanism, _Trial]] = {
    _M.AES_128_GCM: _gcm,
    _M.AES_256_GCM: _gcm,
    _M.AES_256_KW: _key_wrap,
    _M.AES_256_KWP: _key_wrap,
    _M.RSA_OAEP_SHA_1: _oaep,
    _M.RSA_OAEP_SHA_256: _oaep,
    **{
        mechanism: _rsa_signature for mechanism in Mechanism if mechanism.startswith(("RSA_PSS", "RSA_PKCS1"))
    },
    **{mechanism: _ecdsa for mechanism in Mechanism if mechanism.startswith("ECDSA")},
    _M.ED25519: _ed25519,
    **dict.fromkeys((_M.ML_DSA_44, _M.ML_DSA_65, _M.ML_DSA_87), _ml_dsa),
    _M.HMAC_SHA_256: _hmac,
    _M.HMAC_SHA_384: _hmac,
    _M.HMAC_SHA_512: _hmac,
    _M.ECDH: _ecdh,
    **dict.fromkeys((_M.ML_KEM_768, _M.ML_KEM_1024), _ml_kem),
}


def edwards_params(profile: Profile) -> bytes:
    """Return CKA_EC_PARAMS of edwards25519 as a token wants it."""
    return EDWARDS_NAME if profile.edwards_params == "name" else EDWARDS_OID


def _secret(session: Session, kind: Kind, value: bytes, profile: Profile) -> tuple[Object, bool]:
    """Return a key of the session, and whether it is *value*: some tokens take none in clear."""
    template: dict[Attribute, Any] = {
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: kind.key_type,
        Attribute.TOKEN: False,
        Attribute.VALUE: value,
    }
    permits = {
        KeyUsage.ENCRYPT_DECRYPT: (Attribute.ENCRYPT, Attribute.DECRYPT),
        KeyUsage.WRAP_UNWRAP: (Attribute.WRAP, Attribute.UNWRAP),
        KeyUsage.GENERATE_VERIFY_MAC: (Attribute.SIGN, Attribute.VERIFY),
    }[kind.usage]
    try:
        return session.create_object({**template, **dict.fromkeys(permits, True)}), True
    except PKCS11Error as error:
        _log.debug("%s takes no key in clear (%s): it makes one itself", profile.name, name_of(error))
        return make(session, kind, b"", "", curve=None, store=False)[0], False


def _rsa_private() -> rsa.RSAPrivateKey:
    d = pow(_EXPONENT, -1, (_P - 1) * (_Q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=_P, q=_Q, d=d, dmp1=d % (_P - 1), dmq1=d % (_Q - 1), iqmp=pow(_Q, -1, _P),
        public_numbers=rsa.RSAPublicNumbers(_EXPONENT, _P * _Q),
    )  # fmt: skip
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def _rsa_public(session: Session, permits: Attribute) -> Object:
    return session.create_object(
        {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            Attribute.KEY_TYPE: KeyType.RSA,
            Attribute.TOKEN: False,
            Attribute.MODULUS: (_P * _Q).to_bytes(256, "big"),
            Attribute.PUBLIC_EXPONENT: _EXPONENT.to_bytes(3, "big"),
            permits: True,
        }
    )


def _curve(kind: Kind) -> ec.EllipticCurve:
    return {32: ec.SECP256R1(), 48: ec.SECP384R1(), 66: ec.SECP521R1()}[ORDER_BYTES[kind.algorithm]]


def _there(public: Object | None) -> Object:
    if public is None:
        raise WrongAnswerError("the token made no public half")
    return public


def _require(fact: bool) -> None:
    if not fact:
        raise WrongAnswerError("the token's answer is not that of the standard")
