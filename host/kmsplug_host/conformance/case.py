"""What a case is: one sentence about a driver, the clauses it stands on, and a function that tries it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .bench import Bench
from .capabilities import Capabilities


class Outcome(StrEnum):
    """How a case ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Need:
    """What a driver has to offer for a case to mean something.

    Attributes:
        reason: Why the case is skipped where it does not.
        met: Whether it does.
    """

    reason: str
    met: Callable[[Capabilities], bool]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that a driver has to do.

    Attributes:
        id: Its name, ``group.what``; stable between releases.
        clauses: Ids of the rules in SPEC.md that it stands on.
        sentence: What a conforming driver does.
        hint: Where the author of a driver that fails may look.
        needs: What it needs; all of it, else it is skipped.
        body: Tries it; raises `Failed` or `Skipped`.
    """

    id: str
    clauses: tuple[str, ...]
    sentence: str
    hint: str
    needs: tuple[Need, ...]
    body: Callable[[Bench], None]

    @property
    def group(self) -> str:
        """The first part of its id."""
        return self.id.partition(".")[0]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one case went.

    Attributes:
        case: The case.
        outcome: How it ended.
        detail: What was seen, or why it was skipped; empty where it passed.
        seconds: How long it took.
        asked: The methods that it asked for.
    """

    case: Case
    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0
    asked: frozenset[str] = frozenset()

    def as_json(self) -> dict[str, Any]:
        """Return it as an entry of a report."""
        return {
            "id": self.case.id,
            "outcome": self.outcome.value,
            "sentence": self.case.sentence,
            "clause": ", ".join(self.case.clauses),
            "detail": self.detail,
            "hint": self.case.hint,
        }


class Cases:
    """Collects the cases of one module in the order in which they stand there."""

    def __init__(self, group: str) -> None:
        self._group = group
        self.all: list[Case] = []

    def case(
        self, name: str, clauses: str, *needs: Need, hint: str = ""
    ) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
        """Make a case of a function, whose docstring is its sentence.

        Args:
            name: Second part of the id.
            clauses: Ids of the rules in SPEC.md, by spaces.
            needs: What it needs.
            hint: Where the author of a driver that fails may look.
        """

        def collect(body: Callable[[Bench], None]) -> Callable[[Bench], None]:
            sentence = " ".join((body.__doc__ or "").split())
            self.all.append(
                Case(f"{self._group}.{name}", tuple(clauses.split()), sentence, hint, needs, body)
            )
            return body

        return collect


def offers(*operations: str) -> Need:
    """Need all of these operations."""
    names = ", ".join(operations)
    return Need(f"needs {names}", lambda found: all(found.offers(name) for name in operations))
