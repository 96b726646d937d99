"""The capability rows of one keystore: what its driver promises, by operation, key and mechanism."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from kmsplug_protocol import KeyAlgorithm, KeyUsage, Mechanism, SignedForm
from kmsplug_protocol.framing import MAX_INTEGER
from kmsplug_protocol.kinds import algorithms_of

if TYPE_CHECKING:
    from kmsplug_protocol import Capability


class Rows:
    """Capability rows, unchanging.

    Args:
        rows: As the driver promises them and as far as they are believed.
        withdrawn: Rows that are not, and why.
    """

    def __init__(self, rows: Iterable[Capability], withdrawn: Mapping[Capability, str] | None = None) -> None:
        self.all = tuple(rows)
        self._withdrawn = dict(withdrawn or {})
        self._by_operation: dict[str, tuple[Capability, ...]] = {}
        for row in self.all:
            self._by_operation[row.operation] = (*self._by_operation.get(row.operation, ()), row)
        self._least: dict[str, int] = {}
        self._only: dict[tuple[str, SignedForm], bool] = {}
        self._covered: dict[tuple[str, frozenset[KeyAlgorithm], Mechanism | None], bool] = {}
        self.lost_operations = frozenset(row.operation for row in self._withdrawn)
        """Operations of which a row was withdrawn."""

    def of(self, operation: str) -> tuple[Capability, ...]:
        """Return the rows of an operation."""
        return self._by_operation.get(operation, ())

    def find(
        self,
        operation: str,
        algorithm: KeyAlgorithm | None = None,
        mechanism: Mechanism | None = None,
        usage: KeyUsage | None = None,
    ) -> Capability | None:
        """Return the first row that holds for a key of this algorithm and for this mechanism.

        Without *algorithm*, one that holds for any key; without *mechanism*, by any; without *usage*, which
        rows of ``key.create`` name, for any.
        """
        return next((row for row in self.of(operation) if _is_for(row, algorithm, mechanism, usage)), None)

    def lost(
        self,
        operation: str,
        algorithm: KeyAlgorithm | None = None,
        mechanism: Mechanism | None = None,
        usage: KeyUsage | None = None,
    ) -> str | None:
        """Return why the row was withdrawn that would have held; None: one holds, or there was none."""
        if (
            operation not in self.lost_operations
            or self.find(operation, algorithm, mechanism, usage) is not None
        ):
            return None
        rows = (row for row in self._withdrawn if row.operation == operation)
        held = (row for row in rows if _is_for(row, algorithm, mechanism, usage))
        return next((self._withdrawn[row] for row in held), None)

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

    def takes_only(self, operation: str, form: SignedForm) -> bool:
        """Tell whether there are rows of a signing operation that take this form only."""
        asked = operation, form
        found = self._only.get(asked)
        if found is None:
            found = self._only[asked] = any(row.signs is form for row in self.of(operation))
        return found

    def algorithms(self) -> frozenset[KeyAlgorithm]:
        """Return the algorithms that any row names."""
        return frozenset(row.key_algorithm for row in self.all if row.key_algorithm is not None)


def _is_for(
    row: Capability, algorithm: KeyAlgorithm | None, mechanism: Mechanism | None, usage: KeyUsage | None
) -> bool:
    return (
        (algorithm is None or row.key_algorithm in (None, algorithm))
        and (mechanism is None or row.mechanism in (None, mechanism))
        and (usage is None or row.usage in (None, usage))
    )
