"""What AWS KMS calls kinds of keys, usages, states and mechanisms, and the capability rows made of it.

The numbers are those of the AWS KMS API Reference (CreateKey, Encrypt, Sign, GenerateMac, GenerateDataKey,
GenerateRandom, ScheduleKeyDeletion).
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

from kmsplug_protocol import AssociatedData, KeyAlgorithm, KeyState, KeyUsage, Mechanism, Protection
from kmsplug_sdk import provides
from kmsplug_sdk.driver import CapabilityRow

_A, _M, _U = KeyAlgorithm, Mechanism, KeyUsage
_Method = TypeVar("_Method", bound=Callable[..., Any])

SYMMETRIC: Final = _A.AES_256_GCM
RSA_KEYS: Final = (_A.RSA_2048, _A.RSA_3072, _A.RSA_4096)
AGREES: Final = (_A.EC_P256, _A.EC_P384, _A.EC_P521, _A.EC_SECP256K1)
_ML_DSA: Final = (_A.ML_DSA_44, _A.ML_DSA_65, _A.ML_DSA_87)
_ML_KEM: Final = (_A.ML_KEM_512, _A.ML_KEM_768, _A.ML_KEM_1024)
_HSM: Final = Protection.HSM

SPECS: Final[Mapping[KeyAlgorithm, str]] = MappingProxyType({
    _A.AES_256_GCM: "SYMMETRIC_DEFAULT",
    _A.RSA_2048: "RSA_2048",
    _A.RSA_3072: "RSA_3072",
    _A.RSA_4096: "RSA_4096",
    _A.EC_P256: "ECC_NIST_P256",
    _A.EC_P384: "ECC_NIST_P384",
    _A.EC_P521: "ECC_NIST_P521",
    _A.EC_SECP256K1: "ECC_SECG_P256K1",
    _A.ED25519: "ECC_NIST_EDWARDS25519",
    _A.HMAC_SHA_224: "HMAC_224",
    _A.HMAC_SHA_256: "HMAC_256",
    _A.HMAC_SHA_384: "HMAC_384",
    _A.HMAC_SHA_512: "HMAC_512",
    **{algorithm: algorithm.value for algorithm in (*_ML_DSA, *_ML_KEM)},
})  # fmt: skip
ALGORITHMS: Final[Mapping[str, KeyAlgorithm]] = {spec: algorithm for algorithm, spec in SPECS.items()}

# What no server that tests can start has: taken from the documents alone.
DOCUMENTED_ONLY: Final = frozenset({_A.ED25519, *_ML_DSA, *_ML_KEM})

USAGES: Final[Mapping[KeyUsage, str]] = MappingProxyType({
    _U.ENCRYPT_DECRYPT: "ENCRYPT_DECRYPT",
    _U.SIGN_VERIFY: "SIGN_VERIFY",
    _U.GENERATE_VERIFY_MAC: "GENERATE_VERIFY_MAC",
    _U.KEY_AGREEMENT: "KEY_AGREEMENT",
    _U.KEY_ENCAPSULATION: "ENCAPSULATE_DECAPSULATE",
})  # fmt: skip
USAGE_OF: Final[Mapping[str, KeyUsage]] = {name: usage for usage, name in USAGES.items()}

KINDS: Final[Mapping[KeyAlgorithm, tuple[KeyUsage, ...]]] = MappingProxyType({
    _A.AES_256_GCM: (_U.ENCRYPT_DECRYPT,),
    **dict.fromkeys(RSA_KEYS, (_U.ENCRYPT_DECRYPT, _U.SIGN_VERIFY)),
    **dict.fromkeys(AGREES, (_U.SIGN_VERIFY, _U.KEY_AGREEMENT)),
    _A.ED25519: (_U.SIGN_VERIFY,),
    **dict.fromkeys(
        (_A.HMAC_SHA_224, _A.HMAC_SHA_256, _A.HMAC_SHA_384, _A.HMAC_SHA_512), (_U.GENERATE_VERIFY_MAC,)
    ),
    **dict.fromkeys(_ML_DSA, (_U.SIGN_VERIFY,)),
    **dict.fromkeys(_ML_KEM, (_U.KEY_ENCAPSULATION,)),
})  # fmt: skip
"""What each kind can be made for, its natural usage first; RSA keys have none."""

# As SPEC.md 6.6 says. "Unavailable" is a key store that is disconnected: the key keeps its state, calls fail.
STATES: Final[Mapping[str, KeyState]] = MappingProxyType({
    "Creating": KeyState.PRE_ACTIVE,
    "PendingImport": KeyState.PRE_ACTIVE,
    "Enabled": KeyState.ACTIVE,
    "Updating": KeyState.ACTIVE,
    "Unavailable": KeyState.ACTIVE,
    "Disabled": KeyState.SUSPENDED,
    "PendingDeletion": KeyState.DESTROY_SCHEDULED,
    "PendingReplicaDeletion": KeyState.DESTROY_SCHEDULED,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cipher:
    """How KMS encrypts with a kind of key.

    Attributes:
        name: KMS's name of it.
        max_plaintext: In bytes.
        wrap_algorithm: Its name in an envelope; None: it is not used for one.
    """

    name: str
    max_plaintext: int
    wrap_algorithm: str | None = None


def _oaep(bits: int) -> dict[Mechanism, Cipher]:
    """Return both hashes for a length of key; RFC 8017: two hashes and two bytes are lost."""
    return {
        _M.RSA_OAEP_SHA_256: Cipher("RSAES_OAEP_SHA_256", bits // 8 - 2 * 32 - 2, "RSA-OAEP-256"),
        _M.RSA_OAEP_SHA_1: Cipher("RSAES_OAEP_SHA_1", bits // 8 - 2 * 20 - 2),
    }


CIPHERS: Final[Mapping[KeyAlgorithm, Mapping[Mechanism, Cipher]]] = MappingProxyType({
    _A.AES_256_GCM: {_M.AES_256_GCM: Cipher("SYMMETRIC_DEFAULT", 4096, "aws-kms")},
    _A.RSA_2048: _oaep(2048),
    _A.RSA_3072: _oaep(3072),
    _A.RSA_4096: _oaep(4096),
})  # fmt: skip
"""By kind of key; the first mechanism is the default."""

MAX_CIPHERTEXT: Final = 6144
MAX_MESSAGE: Final = 4096  # of GenerateMac, and of Sign without a digest
MAX_DATA_KEY: Final = 1024
MAX_RANDOM: Final = 1024
DELETION_WINDOW: Final = (7, 30)


@dataclass(frozen=True, slots=True)
class Signer:
    """How KMS signs by a mechanism.

    Attributes:
        name: KMS's name of it.
        digest: The hash that is applied before KMS sees anything; None: KMS takes the message itself.
    """

    name: str
    digest: Callable[[bytes], bytes] | None = None


def _hash(name: str) -> Callable[[bytes], bytes]:
    return lambda message: hashlib.new(name, message).digest()


_RSA_SIGNERS: Final = {
    Mechanism(f"RSA_{padding}_SHA_{bits}"): Signer(f"RSASSA_{name}_SHA_{bits}", _hash(f"sha{bits}"))
    for padding, name in (("PSS", "PSS"), ("PKCS1", "PKCS1_V1_5"))
    for bits in (256, 384, 512)
}
SIGNERS: Final[Mapping[KeyAlgorithm, Mapping[Mechanism, Signer]]] = MappingProxyType({
    **dict.fromkeys(RSA_KEYS, _RSA_SIGNERS),
    _A.EC_P256: {_M.ECDSA_SHA_256: Signer("ECDSA_SHA_256", _hash("sha256"))},
    _A.EC_P384: {_M.ECDSA_SHA_384: Signer("ECDSA_SHA_384", _hash("sha384"))},
    _A.EC_P521: {_M.ECDSA_SHA_512: Signer("ECDSA_SHA_512", _hash("sha512"))},
    _A.EC_SECP256K1: {_M.ECDSA_SHA_256: Signer("ECDSA_SHA_256", _hash("sha256"))},
    _A.ED25519: {_M.ED25519: Signer("ED25519_SHA_512")},
    **{algorithm: {_M(algorithm.value): Signer("ML_DSA_SHAKE_256")} for algorithm in _ML_DSA},
})  # fmt: skip
"""By kind of key; the first mechanism is the default."""

DIGEST_BYTES: Final[Mapping[Mechanism, int]] = {
    mechanism: len(signer.digest(b""))
    for signers in SIGNERS.values()
    for mechanism, signer in signers.items()
    if signer.digest is not None
}

MACS: Final[Mapping[KeyAlgorithm, Mechanism]] = MappingProxyType({
    _A.HMAC_SHA_224: _M.HMAC_SHA_224,
    _A.HMAC_SHA_256: _M.HMAC_SHA_256,
    _A.HMAC_SHA_384: _M.HMAC_SHA_384,
    _A.HMAC_SHA_512: _M.HMAC_SHA_512,
})  # fmt: skip
"""KMS has the same names."""

WITH_PUBLIC_HALF: Final = tuple(a for a in KINDS if a is not SYMMETRIC and a not in MACS)

# Ours and KMS's names of how material is wrapped.
WRAPPINGS: Final[Mapping[str, str]] = MappingProxyType({
    "RSA_OAEP_SHA_256": "RSAES_OAEP_SHA_256",
    "RSA_AES_KEY_WRAP_SHA_256": "RSA_AES_KEY_WRAP_SHA_256",
})  # fmt: skip
_BOTH: Final = tuple(WRAPPINGS)
_LONG: Final = _BOTH[1:]  # a private RSA key is longer than what OAEP takes


def provides_each(rows: Iterable[CapabilityRow]) -> Callable[[_Method], _Method]:
    """Declare several rows of a method at once; see `provides`."""

    def declare(method: _Method) -> _Method:
        for row in reversed(tuple(rows)):
            method = provides(**row)(method)
        return method

    return declare


def _row(algorithm: KeyAlgorithm) -> CapabilityRow:
    row = CapabilityRow(key_algorithm=algorithm, protection=_HSM)
    return {**row, "documented_only": True} if algorithm in DOCUMENTED_ONLY else row


CREATE: Final = tuple(
    CapabilityRow(**_row(algorithm), usage=usage) for algorithm, usages in KINDS.items() for usage in usages
)
PUBLIC_KEY: Final = tuple(_row(algorithm) for algorithm in WITH_PUBLIC_HALF)
IMPORT: Final = tuple(
    CapabilityRow(**_row(algorithm), import_formats=_LONG if algorithm in RSA_KEYS else _BOTH)
    for algorithm in (SYMMETRIC, *RSA_KEYS, *AGREES, *MACS)
)
ROTATE: Final = (_row(SYMMETRIC),)


def _cipher(algorithm: KeyAlgorithm, mechanism: Mechanism, cipher: Cipher) -> CapabilityRow:
    row = CapabilityRow(**_row(algorithm), mechanism=mechanism, max_input_bytes=cipher.max_plaintext)
    if algorithm is SYMMETRIC:
        row = {**row, "associated_data": AssociatedData.MAP}
    return row if cipher.wrap_algorithm is None else {**row, "wrap_algorithm": cipher.wrap_algorithm}


CIPHER: Final = tuple(
    _cipher(algorithm, mechanism, cipher)
    for algorithm, ciphers in CIPHERS.items()
    for mechanism, cipher in ciphers.items()
)
REENCRYPT: Final[tuple[CapabilityRow, ...]] = (
    {**_row(SYMMETRIC), "mechanism": _M.AES_256_GCM, "associated_data": AssociatedData.MAP},
)
DATA_KEY: Final[tuple[CapabilityRow, ...]] = tuple(
    {**row, "max_input_bytes": MAX_DATA_KEY} for row in REENCRYPT
)
SIGNATURE: Final = tuple(
    # What is hashed here may be of any length.
    CapabilityRow(**_row(algorithm), mechanism=mechanism)
    if signer.digest is not None
    else CapabilityRow(**_row(algorithm), mechanism=mechanism, max_input_bytes=MAX_MESSAGE)
    for algorithm, signers in SIGNERS.items()
    for mechanism, signer in signers.items()
)
MAC: Final = tuple(
    CapabilityRow(**_row(algorithm), mechanism=mechanism, max_input_bytes=MAX_MESSAGE)
    for algorithm, mechanism in MACS.items()
)
AGREEMENT: Final = tuple(CapabilityRow(**_row(algorithm), mechanism=_M.ECDH) for algorithm in AGREES)
ENCAPSULATION: Final = tuple(
    CapabilityRow(**_row(algorithm), mechanism=_M(algorithm.value)) for algorithm in _ML_KEM
)
