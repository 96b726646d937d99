"""The tables: which kinds of key there are, how a token makes each, and by which mechanisms it is used.

Every mechanism stands here with its name in the standard; nothing is left to a default of a library or a
token. Encrypting with RSAES-PKCS1-v1_5 (CKM_RSA_PKCS) or without authentication (CKM_AES_CBC_PAD) has no row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kmsplug_protocol import KeyAlgorithm, KeyUsage, Mechanism
from kmsplug_protocol.kinds import RSA_BITS

from ._client import Ckm, KeyType, MechanismFlag, MLDSAParameterSet, MLKEMParameterSet

_A = KeyAlgorithm
_M = Mechanism
_U = KeyUsage
_F = MechanismFlag


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of key: an algorithm, made for one purpose.

    Attributes:
        algorithm: Ours.
        usage: Ours.
        key_type: CKA_KEY_TYPE.
        made_by: The mechanism that generates it.
        flags: What the token is to permit (CKA_ENCRYPT and so on).
        size: Bits of a symmetric key or a modulus.
        curve: DER of CKA_EC_PARAMS.
        parameter_set: CKA_PARAMETER_SET.
    """

    algorithm: KeyAlgorithm
    usage: KeyUsage
    key_type: KeyType
    made_by: Ckm
    flags: MechanismFlag
    size: int | None = None
    curve: bytes | None = None
    parameter_set: int | None = None

    @property
    def symmetric(self) -> bool:
        """Whether it is one secret, without a public half."""
        return self.key_type in (KeyType.AES, KeyType.GENERIC_SECRET)


def _oid(*der: int) -> bytes:
    return bytes((0x06, len(der), *der))


CURVES: Final[Mapping[KeyAlgorithm, bytes]] = {
    _A.EC_P256: _oid(0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07),
    _A.EC_P384: _oid(0x2B, 0x81, 0x04, 0x00, 0x22),
    _A.EC_P521: _oid(0x2B, 0x81, 0x04, 0x00, 0x23),
}
"""CKA_EC_PARAMS by RFC 5480."""

EDWARDS_OID: Final = _oid(0x2B, 0x65, 0x70)
"""edwards25519 as RFC 8410 names it."""

EDWARDS_NAME: Final = b"\x13\x0cedwards25519"
"""The same as PKCS #11 v3.0 names it, which older modules want: a PrintableString."""

ORDER_BYTES: Final[Mapping[KeyAlgorithm, int]] = {_A.EC_P256: 32, _A.EC_P384: 48, _A.EC_P521: 66}

ML_DSA: Final[Mapping[KeyAlgorithm, MLDSAParameterSet]] = {
    _A.ML_DSA_44: MLDSAParameterSet.ML_DSA_44,
    _A.ML_DSA_65: MLDSAParameterSet.ML_DSA_65,
    _A.ML_DSA_87: MLDSAParameterSet.ML_DSA_87,
}

# Not ML-KEM-512: there is no other implementation at hand to encode its public half and compare answers with.
ML_KEM: Final[Mapping[KeyAlgorithm, MLKEMParameterSet]] = {
    _A.ML_KEM_768: MLKEMParameterSet.ML_KEM_768,
    _A.ML_KEM_1024: MLKEMParameterSet.ML_KEM_1024,
}

_HMAC_BITS: Final = {_A.HMAC_SHA_256: 256, _A.HMAC_SHA_384: 384, _A.HMAC_SHA_512: 512}


def _aes(algorithm: KeyAlgorithm, usage: KeyUsage, bits: int, flags: MechanismFlag) -> Kind:
    return Kind(algorithm, usage, KeyType.AES, Ckm.AES_KEY_GEN, flags, size=bits)


KINDS: Final = (
    _aes(_A.AES_128_GCM, _U.ENCRYPT_DECRYPT, 128, _F.ENCRYPT | _F.DECRYPT),
    _aes(_A.AES_256_GCM, _U.ENCRYPT_DECRYPT, 256, _F.ENCRYPT | _F.DECRYPT),
    _aes(_A.AES_256_KW, _U.WRAP_UNWRAP, 256, _F.WRAP | _F.UNWRAP),
    *(
        Kind(algorithm, usage, KeyType.RSA, Ckm.RSA_PKCS_KEY_PAIR_GEN, flags, size=bits)
        for algorithm, bits in RSA_BITS.items()
        for usage, flags in (
            (_U.SIGN_VERIFY, _F.SIGN | _F.VERIFY),
            (_U.ENCRYPT_DECRYPT, _F.ENCRYPT | _F.DECRYPT),
        )
    ),
    *(
        Kind(algorithm, usage, KeyType.EC, Ckm.EC_KEY_PAIR_GEN, flags, curve=curve)
        for algorithm, curve in CURVES.items()
        for usage, flags in ((_U.SIGN_VERIFY, _F.SIGN | _F.VERIFY), (_U.KEY_AGREEMENT, _F.DERIVE))
    ),
    Kind(
        _A.ED25519,
        _U.SIGN_VERIFY,
        KeyType.EC_EDWARDS,
        Ckm.EC_EDWARDS_KEY_PAIR_GEN,
        _F.SIGN | _F.VERIFY,
        curve=EDWARDS_OID,
    ),
    *(
        Kind(
            algorithm,
            _U.GENERATE_VERIFY_MAC,
            KeyType.GENERIC_SECRET,
            Ckm.GENERIC_SECRET_KEY_GEN,
            _F.SIGN | _F.VERIFY,
            size=bits,
        )
        for algorithm, bits in _HMAC_BITS.items()
    ),
    *(
        Kind(
            algorithm,
            _U.SIGN_VERIFY,
            KeyType.ML_DSA,
            Ckm.ML_DSA_KEY_PAIR_GEN,
            _F.SIGN | _F.VERIFY,
            parameter_set=parameter_set,
        )
        for algorithm, parameter_set in ML_DSA.items()
    ),
    *(
        Kind(
            algorithm,
            _U.KEY_ENCAPSULATION,
            KeyType.ML_KEM,
            Ckm.ML_KEM_KEY_PAIR_GEN,
            MechanismFlag(0),  # CKA_ENCAPSULATE and CKA_DECAPSULATE are set by the library
            parameter_set=parameter_set,
        )
        for algorithm, parameter_set in ML_KEM.items()
    ),
)

_RSA_SIGNATURES: Final = (
    _M.RSA_PSS_SHA_256, _M.RSA_PSS_SHA_384, _M.RSA_PSS_SHA_512,
    _M.RSA_PKCS1_SHA_256, _M.RSA_PKCS1_SHA_384, _M.RSA_PKCS1_SHA_512,
)  # fmt: skip

_OWN: Final[Mapping[KeyAlgorithm, tuple[Mechanism, ...]]] = {
    _A.AES_128_GCM: (_M.AES_128_GCM,),
    _A.AES_256_GCM: (_M.AES_256_GCM,),
    _A.AES_256_KW: (_M.AES_256_KW, _M.AES_256_KWP),
    _A.EC_P256: (_M.ECDSA_SHA_256,),
    _A.EC_P384: (_M.ECDSA_SHA_384,),
    _A.EC_P521: (_M.ECDSA_SHA_512,),
    _A.ED25519: (_M.ED25519,),
    _A.HMAC_SHA_256: (_M.HMAC_SHA_256,),
    _A.HMAC_SHA_384: (_M.HMAC_SHA_384,),
    _A.HMAC_SHA_512: (_M.HMAC_SHA_512,),
    **{algorithm: (_M(algorithm.value),) for algorithm in (*ML_DSA, *ML_KEM)},
}


def mechanisms(kind: Kind) -> tuple[Mechanism, ...]:
    """Return our mechanisms of a kind, the default first."""
    if kind.key_type is KeyType.RSA:
        encrypts = kind.usage is KeyUsage.ENCRYPT_DECRYPT
        return (_M.RSA_OAEP_SHA_256, _M.RSA_OAEP_SHA_1) if encrypts else _RSA_SIGNATURES
    if kind.usage is KeyUsage.KEY_AGREEMENT:
        return (_M.ECDH,)
    return _OWN[kind.algorithm]


def default_usage(algorithm: KeyAlgorithm) -> KeyUsage | None:
    """Return the usage of a key for which none was asked; None: it has to be said."""
    usages = [kind.usage for kind in KINDS if kind.algorithm is algorithm]
    if len(usages) == 1 or algorithm in CURVES:
        return usages[0]  # an EC key signs, unless it is said otherwise
    return None
