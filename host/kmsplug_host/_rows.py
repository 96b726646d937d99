"""The capability rows of one keystore: what its driver promises, by operation, key and mechanism."""

from collections.abc import Iterable

from kmsplug_protocol import AssociatedData, Capability, KeyAlgorithm, Mechanism
from kmsplug_protocol.framing import MAX_INTEGER

_RSA = frozenset({KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096})
_EC = {
    Mechanism.ECDSA_SHA_256: frozenset({KeyAlgorithm.EC_P256, KeyAlgorithm.EC_SECP256K1}),
    Mechanism.ECDSA_SHA_384: frozenset({KeyAlgorithm.EC_P384}),
    Mechanism.ECDSA_SHA_512: frozenset({KeyAlgorithm.EC_P521}),
}


class Rows:
    """Capability rows, unchanging.

    Args:
        rows: As the driver promises them.
        unbound: Key algorithms whose promise of associated data was found to be untrue.
    """

    def __init__(
        self, rows: Iterable[Capability], unbound: frozenset[KeyAlgorithm | None] = frozenset()
    ) -> None:
        self.all = tuple(_unbound(row) if row.key_algorithm in unbound else row for row in rows)
        self._by_operation: dict[str, tuple[Capability, ...]] = {}
        for row in self.all:
            self._by_operation[row.operation] = (*self._by_operation.get(row.operation, ()), row)
        self._least: dict[str, int] = {}
        self._covered: dict[tuple[str, frozenset[KeyAlgorithm], Mechanism | None], bool] = {}

    def of(self, operation: str) -> tuple[Capability, ...]:
        """Return the rows of an operation."""
        return self._by_operation.get(operation, ())

    def find(
        self, operation: str, algorithm: KeyAlgorithm | None = None, mechanism: Mechanism | None = None
    ) -> Capability | None:
        """Return the first row that holds for a key of this algorithm and for this mechanism.

        Without *algorithm*, one that holds for any key; without *mechanism*, by any.
        """
        for row in self.of(operation):
            if row.key_algorithm not in (None, algorithm) and algorithm is not None:
                continue
            if mechanism is None or row.mechanism in (None, mechanism):
                return row
        return None

    def wraps(
        self, operation: str, algorithm: KeyAlgorithm | None, wrap_algorithm: str | None = None
    ) -> tuple[Capability, ...]:
        """Return the rows by which a key of this algorithm, or any, wraps or unwraps data keys.

        Of rows that differ in nothing that matters for one call, the first.
        """
        found: dict[tuple[object, ...], Capability] = {}
        for row in self.of(operation):
            if row.wrap_algorithm is None or wrap_algorithm not in (None, row.wrap_algorithm):
                continue
            if algorithm is None or row.key_algorithm in (None, algorithm):
                found.setdefault((row.wrap_algorithm, row.mechanism, row.associated_data), row)
        return tuple(found.values())

    def covers(
        self, operation: str, algorithms: frozenset[KeyAlgorithm], mechanism: Mechanism | None
    ) -> bool:
        """Tell whether rows hold for the keys of all these algorithms that the mechanism fits."""
        asked = operation, algorithms, mechanism
        found = self._covered.get(asked)
        if found is None:
            fitting = algorithms if mechanism is None else algorithms & algorithms_of(mechanism)
            found = all(self.find(operation, algorithm, mechanism) for algorithm in fitting)
            self._covered[asked] = found
        return found

    def least_input(self, operation: str) -> int:
        """Return the smallest of the rows' limits of an operation; 2^53 where they have none."""
        found = self._least.get(operation)
        if found is None:
            found = min(
                (row.max_input_bytes or MAX_INTEGER for row in self.of(operation)), default=MAX_INTEGER
            )
            self._least[operation] = found
        return found

    def algorithms(self) -> frozenset[KeyAlgorithm]:
        """Return the algorithms that any row names."""
        return frozenset(row.key_algorithm for row in self.all if row.key_algorithm is not None)


def algorithms_of(mechanism: Mechanism) -> frozenset[KeyAlgorithm]:
    """Return the algorithms of the keys that a mechanism is for."""
    if mechanism.startswith("RSA_"):
        return _RSA
    if mechanism in _EC:
        return _EC[mechanism]
    if mechanism is Mechanism.ECDH:
        return frozenset({KeyAlgorithm.X25519}).union(*_EC.values())
    if mechanism is Mechanism.AES_256_KWP:
        return frozenset({KeyAlgorithm.AES_256_KW})
    return frozenset({KeyAlgorithm(mechanism.value)})


def _unbound(row: Capability) -> Capability:
    if row.associated_data is AssociatedData.NONE:
        return row
    return row.model_copy(update={"associated_data": AssociatedData.NONE})
