"""What goes with what: operations, usages, kinds of keys and mechanisms, as SPEC.md 4.4 and 4.6 have it."""

from typing import Final

from .types import KeyAlgorithm, KeyUsage, Mechanism

_A = KeyAlgorithm
_U = KeyUsage

RSA_BITS: Final = {_A.RSA_2048: 2048, _A.RSA_3072: 3072, _A.RSA_4096: 4096}
RSA: Final = frozenset(RSA_BITS)
EC: Final = frozenset({_A.EC_P256, _A.EC_P384, _A.EC_P521, _A.EC_SECP256K1})
CIPHERS: Final = RSA | {_A.AES_128_GCM, _A.AES_256_GCM}
_HMAC: Final = frozenset({_A.HMAC_SHA_224, _A.HMAC_SHA_256, _A.HMAC_SHA_384, _A.HMAC_SHA_512})
_ML_DSA: Final = frozenset({_A.ML_DSA_44, _A.ML_DSA_65, _A.ML_DSA_87})
_ML_KEM: Final = frozenset({_A.ML_KEM_512, _A.ML_KEM_768, _A.ML_KEM_1024})
HMAC_BYTES: Final = {
    _A.HMAC_SHA_224: 28, _A.HMAC_SHA_256: 32, _A.HMAC_SHA_384: 48, _A.HMAC_SHA_512: 64,
}  # fmt: skip
"""How long a whole code is."""
SIGNING: Final = RSA | EC | _ML_DSA | {_A.ED25519}
ASYMMETRIC: Final = SIGNING | _ML_KEM | {_A.X25519}

_ECDSA: Final = {
    Mechanism.ECDSA_SHA_256: frozenset({_A.EC_P256, _A.EC_SECP256K1}),
    Mechanism.ECDSA_SHA_384: frozenset({_A.EC_P384}),
    Mechanism.ECDSA_SHA_512: frozenset({_A.EC_P521}),
}

_USAGES: Final[dict[KeyAlgorithm, tuple[KeyUsage, ...]]] = {
    _A.AES_128_GCM: (_U.ENCRYPT_DECRYPT,),
    _A.AES_256_GCM: (_U.ENCRYPT_DECRYPT,),
    _A.AES_256_KW: (_U.WRAP_UNWRAP,),
    **dict.fromkeys(RSA, (_U.SIGN_VERIFY, _U.ENCRYPT_DECRYPT, _U.WRAP_UNWRAP)),
    **dict.fromkeys(EC, (_U.SIGN_VERIFY, _U.KEY_AGREEMENT)),
    **dict.fromkeys(_HMAC, (_U.GENERATE_VERIFY_MAC,)),
    _A.ED25519: (_U.SIGN_VERIFY,),
    **dict.fromkeys(_ML_DSA, (_U.SIGN_VERIFY,)),
    _A.X25519: (_U.KEY_AGREEMENT,),
    **dict.fromkeys(_ML_KEM, (_U.KEY_ENCAPSULATION,)),
}

USED_AS: Final = {
    "crypto.encrypt": _U.ENCRYPT_DECRYPT,
    "crypto.decrypt": _U.ENCRYPT_DECRYPT,
    "crypto.generate_data_key": _U.ENCRYPT_DECRYPT,
    "crypto.reencrypt": _U.ENCRYPT_DECRYPT,
    "crypto.wrap_key": _U.WRAP_UNWRAP,
    "crypto.unwrap_key": _U.WRAP_UNWRAP,
    "crypto.sign": _U.SIGN_VERIFY,
    "crypto.verify": _U.SIGN_VERIFY,
    "crypto.mac": _U.GENERATE_VERIFY_MAC,
    "crypto.verify_mac": _U.GENERATE_VERIFY_MAC,
    "crypto.derive": _U.KEY_AGREEMENT,
    "crypto.encapsulate": _U.KEY_ENCAPSULATION,
    "crypto.decapsulate": _U.KEY_ENCAPSULATION,
}
"""What a key has to be for, by operation."""

PUBLIC_ALGORITHMS: Final = frozenset({"RSA-OAEP-256", "RSA-OAEP"})
"""Wrap algorithms that anybody can write with: opening one proves nothing about its sender."""

_SEALS: Final = ("AES_128_GCM", "AES_256_GCM", "RSA_OAEP")

# How the mechanisms of a usage begin; others would be another operation, or no authenticated one.
_MECHANISMS: Final[dict[KeyUsage, tuple[str, ...]]] = {
    _U.ENCRYPT_DECRYPT: _SEALS,
    _U.WRAP_UNWRAP: (*_SEALS, "AES_256_KW"),
    _U.SIGN_VERIFY: ("RSA_PSS", "RSA_PKCS1", "ECDSA", "ED25519", "ML_DSA"),
    _U.GENERATE_VERIFY_MAC: ("HMAC",),
    _U.KEY_ENCAPSULATION: ("ML_KEM",),
    _U.KEY_AGREEMENT: ("ECDH",),
}


def usages_of(algorithm: KeyAlgorithm) -> tuple[KeyUsage, ...]:
    """Return the usages that a kind of key can have, the commonest first."""
    return _USAGES[algorithm]


def algorithms_of(mechanism: Mechanism) -> frozenset[KeyAlgorithm]:
    """Return the algorithms of the keys that a mechanism is for."""
    if mechanism.startswith("RSA_"):
        return RSA
    if mechanism in _ECDSA:
        return _ECDSA[mechanism]
    if mechanism is Mechanism.ECDH:
        return EC | {_A.X25519}
    if mechanism is Mechanism.AES_256_KWP:
        return frozenset({_A.AES_256_KW})
    return frozenset({KeyAlgorithm(mechanism.value)})


def is_way_of(mechanism: Mechanism, operation: str) -> bool:
    """Tell whether an operation can be done by a mechanism; True where it has no mechanisms."""
    usage = USED_AS.get(operation)
    return usage is None or mechanism.startswith(_MECHANISMS[usage])
