"""What a driver promises, asked in the ways in which cases ask: is it offered, on which keys, how much."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kmsplug_protocol import AssociatedData, Capability, KeyAlgorithm, KeyUsage, Mechanism

_U = KeyUsage
_A = KeyAlgorithm

RSA: Final = frozenset({_A.RSA_2048, _A.RSA_3072, _A.RSA_4096})
_EC: Final = frozenset({_A.EC_P256, _A.EC_P384, _A.EC_P521, _A.EC_SECP256K1})
_HMAC: Final = frozenset({_A.HMAC_SHA_224, _A.HMAC_SHA_256, _A.HMAC_SHA_384, _A.HMAC_SHA_512})
_ML_DSA: Final = frozenset({_A.ML_DSA_44, _A.ML_DSA_65, _A.ML_DSA_87})
_ML_KEM: Final = frozenset({_A.ML_KEM_512, _A.ML_KEM_768, _A.ML_KEM_1024})
SIGNING: Final = RSA | _EC | _ML_DSA | {_A.ED25519}
ASYMMETRIC: Final = SIGNING | _ML_KEM | {_A.X25519}

_NATURAL: Final[dict[KeyAlgorithm, tuple[KeyUsage, ...]]] = {
    _A.AES_128_GCM: (_U.ENCRYPT_DECRYPT,),
    _A.AES_256_GCM: (_U.ENCRYPT_DECRYPT,),
    _A.AES_256_KW: (_U.WRAP_UNWRAP,),
    **dict.fromkeys(RSA, (_U.SIGN_VERIFY, _U.ENCRYPT_DECRYPT, _U.WRAP_UNWRAP)),
    **dict.fromkeys(_EC, (_U.SIGN_VERIFY, _U.KEY_AGREEMENT)),
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


def natural_usages(algorithm: KeyAlgorithm) -> tuple[KeyUsage, ...]:
    """Return the usages that a kind of key can have, the commonest first."""
    return _NATURAL[algorithm]


@dataclass(frozen=True, slots=True)
class Target:
    """A promise together with a kind of key on which it can be tried.

    Attributes:
        row: The promise.
        algorithm: A kind of key that the driver makes and the promise covers.
        usage: What the key has to be made for.
    """

    row: Capability
    algorithm: KeyAlgorithm
    usage: KeyUsage

    @property
    def mechanism(self) -> Mechanism | None:
        """How; None: the row does not say."""
        return self.row.mechanism

    @property
    def associated_data(self) -> AssociatedData:
        """The kind that the row names."""
        return self.row.associated_data

    def __str__(self) -> str:
        mechanism = "" if self.mechanism is None else f" with {self.mechanism}"
        return f"{self.row.operation} on {self.algorithm}{mechanism}"


class Capabilities:
    """The rows of a driver."""

    def __init__(self, rows: Sequence[Capability]) -> None:
        self.rows = tuple(rows)

    def offers(self, operation: str) -> bool:
        """Tell whether an operation has a row."""
        return any(row.operation == operation for row in self.rows)

    def of(self, operation: str) -> list[Capability]:
        """Return the rows of an operation."""
        return [row for row in self.rows if row.operation == operation]

    def makes(self, algorithm: KeyAlgorithm, usage: KeyUsage) -> bool:
        """Tell whether a key of this kind can be made."""
        return usage in natural_usages(algorithm) and any(
            row.key_algorithm in (None, algorithm) and row.usage in (None, usage)
            for row in self.of("key.create")
        )

    def kinds(self) -> Iterator[tuple[KeyAlgorithm, KeyUsage]]:
        """Yield every kind of key that can be made."""
        for algorithm in KeyAlgorithm:
            for usage in natural_usages(algorithm):
                if self.makes(algorithm, usage):
                    yield algorithm, usage

    def targets(self, operation: str) -> list[Target]:
        """Return what an operation can be tried on with keys that the driver makes itself."""
        usage = USED_AS[operation]
        return [
            Target(row, algorithm, usage)
            for row in self.of(operation)
            for algorithm in ([row.key_algorithm] if row.key_algorithm else KeyAlgorithm)
            if self.makes(algorithm, usage)
        ]

    def row_for(self, operation: str, target: Target) -> Capability | None:
        """Return the row of another operation that covers the same key and mechanism."""
        for row in self.of(operation):
            if row.key_algorithm in (None, target.algorithm) and (
                None in (row.mechanism, target.mechanism) or row.mechanism == target.mechanism
            ):
                return row
        return None

    def covers(self, operation: str, algorithm: KeyAlgorithm) -> bool:
        """Tell whether an operation is offered for a kind of key."""
        return any(row.key_algorithm in (None, algorithm) for row in self.of(operation))
