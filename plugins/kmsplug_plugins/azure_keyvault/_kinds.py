"""The tables: which keys there are at Azure, for what, under which names, and within which limits.

Capabilities are made of the same rows that the operations obey. Names are those of the REST API, limits those
of RFC 8017 and of the service's reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kmsplug_protocol import AssociatedData, KeyAlgorithm, KeyUsage, Mechanism

_A = KeyAlgorithm
_M = Mechanism

OPERATIONS: Final[Mapping[KeyUsage, tuple[str, str]]] = {
    KeyUsage.ENCRYPT_DECRYPT: ("encrypt", "decrypt"),
    KeyUsage.WRAP_UNWRAP: ("wrapKey", "unwrapKey"),
    KeyUsage.SIGN_VERIFY: ("sign", "verify"),
}
"""What a key of each usage may do, as Azure writes it in ``key_ops``."""

HSM_SUFFIX: Final = "-HSM"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of key.

    Attributes:
        kty: Its type, without the suffix of those in an HSM.
        usages: What it can be made for; one of them.
        size: Bits, where a key of the type has several sizes.
        curve: Of an elliptic-curve key.
        hsm_only: Whether it lives in a Managed HSM and nowhere else.
    """

    kty: str
    usages: tuple[KeyUsage, ...]
    size: int | None = None
    curve: str | None = None
    hsm_only: bool = False

    @property
    def modulus_bytes(self) -> int:
        """Length of what an RSA key makes."""
        return (self.size or 0) // 8


_RSA_USAGES: Final = (KeyUsage.ENCRYPT_DECRYPT, KeyUsage.WRAP_UNWRAP, KeyUsage.SIGN_VERIFY)

KINDS: Final[Mapping[KeyAlgorithm, Kind]] = {
    **{
        algorithm: Kind("RSA", _RSA_USAGES, size=bits)
        for algorithm, bits in ((_A.RSA_2048, 2048), (_A.RSA_3072, 3072), (_A.RSA_4096, 4096))
    },
    **{
        algorithm: Kind("EC", (KeyUsage.SIGN_VERIFY,), curve=curve)
        for algorithm, curve in ((_A.EC_P256, "P-256"), (_A.EC_P384, "P-384"), (_A.EC_P521, "P-521"))
    },
    _A.AES_128_GCM: Kind("oct", (KeyUsage.ENCRYPT_DECRYPT,), size=128, hsm_only=True),
    _A.AES_256_GCM: Kind("oct", (KeyUsage.ENCRYPT_DECRYPT,), size=256, hsm_only=True),
    _A.AES_256_KW: Kind("oct", (KeyUsage.WRAP_UNWRAP,), size=256, hsm_only=True),
}

# The one usage of a key for which none was asked, where one is what nearly everybody means.
NATURAL: Final[Mapping[KeyAlgorithm, KeyUsage]] = {
    algorithm: kind.usages[0] for algorithm, kind in KINDS.items() if len(kind.usages) == 1
}

_MAX_AES: Final = 4096  # ours: the service's own limit is documented nowhere
_MAX_WRAPPED: Final = 1024


@dataclass(frozen=True, slots=True)
class Way:
    """How one mechanism is used with one kind of key.

    Attributes:
        name: Azure's name of the algorithm.
        max_input: Longest input in bytes; None: it takes the hash of any message.
        wrap_algorithm: Its name in an envelope.
        associated_data: What it authenticates beside the input.
    """

    name: str
    max_input: int | None = None
    wrap_algorithm: str | None = None
    associated_data: AssociatedData = AssociatedData.NONE


def _oaep(size: int, hash_bytes: int, name: str) -> Way:
    return Way(name, max_input=size // 8 - 2 * hash_bytes - 2, wrap_algorithm=name)


def _rsa_ciphers(size: int) -> dict[Mechanism, Way]:
    return {
        _M.RSA_OAEP_SHA_256: _oaep(size, 32, "RSA-OAEP-256"),
        _M.RSA_OAEP_SHA_1: _oaep(size, 20, "RSA-OAEP"),
    }


def _gcm(bits: int) -> Way:
    # An envelope's data keys are 32 bytes long, and nothing shorter is to protect them.
    name = f"A{bits}GCM"
    return Way(name, _MAX_AES, name if bits == 256 else None, AssociatedData.BYTES)  # noqa: PLR2004


_RSA_SIGNATURES: Final = {
    _M.RSA_PSS_SHA_256: Way("PS256"),
    _M.RSA_PSS_SHA_384: Way("PS384"),
    _M.RSA_PSS_SHA_512: Way("PS512"),
    _M.RSA_PKCS1_SHA_256: Way("RS256"),
    _M.RSA_PKCS1_SHA_384: Way("RS384"),
    _M.RSA_PKCS1_SHA_512: Way("RS512"),
}

WAYS: Final[Mapping[tuple[KeyAlgorithm, KeyUsage], Mapping[Mechanism, Way]]] = {
    **{
        (algorithm, usage): _rsa_ciphers(kind.size or 0)
        for algorithm, kind in KINDS.items()
        if kind.kty == "RSA"
        for usage in (KeyUsage.ENCRYPT_DECRYPT, KeyUsage.WRAP_UNWRAP)
    },
    **{
        (algorithm, KeyUsage.SIGN_VERIFY): _RSA_SIGNATURES
        for algorithm, kind in KINDS.items()
        if kind.kty == "RSA"
    },
    (_A.EC_P256, KeyUsage.SIGN_VERIFY): {_M.ECDSA_SHA_256: Way("ES256")},
    (_A.EC_P384, KeyUsage.SIGN_VERIFY): {_M.ECDSA_SHA_384: Way("ES384")},
    (_A.EC_P521, KeyUsage.SIGN_VERIFY): {_M.ECDSA_SHA_512: Way("ES512")},
    (_A.AES_128_GCM, KeyUsage.ENCRYPT_DECRYPT): {_M.AES_128_GCM: _gcm(128)},
    (_A.AES_256_GCM, KeyUsage.ENCRYPT_DECRYPT): {_M.AES_256_GCM: _gcm(256)},
    (_A.AES_256_KW, KeyUsage.WRAP_UNWRAP): {_M.AES_256_KW: Way("A256KW", _MAX_WRAPPED)},
}
"""For each kind of key and usage its mechanisms, the default first."""


def algorithm_of(jwk: Mapping[str, Any], noted: str | None) -> KeyAlgorithm | None:
    """Return what a key is; None: a kind that this interface has no name for, as P-256K.

    Args:
        jwk: The key as the service describes it.
        noted: What this driver wrote down when it made the key. The service does not tell the size of an AES
        key.
    """
    kty = str(jwk.get("kty", "")).removesuffix(HSM_SUFFIX)
    if kty == "oct":
        found = next((one for one, kind in KINDS.items() if kind.kty == kty and one == noted), None)
        if found is not None:
            return found
        return _A.AES_256_KW if "wrapKey" in jwk.get("key_ops", ()) else _A.AES_256_GCM
    bits = _bits(jwk.get("n")) if kty == "RSA" else None
    for algorithm, kind in KINDS.items():
        if kind.kty == kty and kind.size == bits and kind.curve == jwk.get("crv"):
            return algorithm
    return None


def _bits(modulus: object) -> int | None:
    """Return the bits of a modulus in base64url, to whole bytes."""
    return len(modulus.rstrip("=")) * 6 // 8 * 8 if isinstance(modulus, str) else None


def usage_of(jwk: Mapping[str, Any]) -> KeyUsage | None:
    """Return the one purpose of a key; of one that others made for several, the first."""
    allowed = set(jwk.get("key_ops") or ())
    for usage, names in OPERATIONS.items():
        if allowed & set(names):
            return usage
    return None
