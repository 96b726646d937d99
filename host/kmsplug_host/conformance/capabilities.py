"""What a driver promises, asked in the ways in which cases ask: is it offered, on which keys, how much."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kmsplug_protocol import AssociatedData, Capability, KeyAlgorithm, KeyUsage, Mechanism
from kmsplug_protocol.kinds import USED_AS, usages_of


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
        return usage in usages_of(algorithm) and any(
            row.key_algorithm in (None, algorithm) and row.usage in (None, usage)
            for row in self.of("key.create")
        )

    def kinds(self) -> Iterator[tuple[KeyAlgorithm, KeyUsage]]:
        """Yield every kind of key that can be made."""
        for algorithm in KeyAlgorithm:
            for usage in usages_of(algorithm):
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
