"""What is known of a driver's promises beyond that it made them: tried out, found untrue, or only declared.

One record for all processes of a plugin under one configuration; a reload begins a new one. What is withdrawn
is warned of once, and not believed again.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from kmsplug_protocol import AssociatedData, KeyAlgorithm, Mechanism, untrusted
from msgspec import Struct

from ._rows import Rows

if TYPE_CHECKING:
    from kmsplug_protocol import Capability

_Place = tuple[KeyAlgorithm | None, Mechanism | None]


class RowStatus(StrEnum):
    """How far a row is believed."""

    PROBED = "probed"
    """It was tried, and did what it promises."""
    DECLARED = "declared"
    """The driver says so, and nobody has tried."""
    WITHDRAWN = "withdrawn"
    """It is not true, or cannot be: nothing relies on it."""


class RowReport(Struct, frozen=True):
    """One capability row, and what is known of it.

    Attributes:
        row: As the driver promised it.
        status: How far it is believed.
        reason: By whom and how it was probed, why it was withdrawn, or why it could not be tried.
    """

    row: Capability
    status: RowStatus
    reason: str | None = None

    @property
    def about(self) -> str:
        """What the row is about, in a few words; what a driver chose is escaped."""
        return _about(self.row)


class Evidence:
    """What is known of the rows of one plugin. May be used by many threads.

    Args:
        plugin: Its name, for the log.
    """

    def __init__(self, plugin: str) -> None:
        self._log = logging.getLogger(f"kmsplug.plugin.{plugin}")
        self._lock = threading.Lock()
        self._known: tuple[tuple[Capability, ...], Rows] = (), Rows(())
        self._as_told: dict[Capability, Capability] = {}  # rows that are believed only in part
        self._withdrawn: dict[Capability, str] = {}
        self.unbound: set[KeyAlgorithm | None] = set()
        """Kinds of keys whose associated data were found to be ignored."""
        self._bound: set[_Place] = set()
        self._probed: dict[Capability, str] = {}
        self._untried: dict[Capability, str] = {}

    def rows(self, told: tuple[Capability, ...]) -> Rows:
        """Return what is believed of what a driver told."""
        known = self._known
        if known[0] is told:
            return known[1]
        from ._plausible import doubts  # noqa: PLC0415 - `Host.open` loads it while the drivers start

        with self._lock:
            fresh = self._note(doubts(told))
            rows = self._believe(told)
        self._warn(fresh)
        return rows

    def withdraw(self, rows: Iterable[Capability], reason: str) -> None:
        """Believe rows no more."""
        with self._lock:
            fresh = self._note((self._as_told.get(row, row), reason) for row in rows)
            self._believe(self._known[0])
        self._warn(fresh)

    def withdraw_binding(self, row: Capability) -> None:
        """Believe no more that associated data are authenticated for keys of a row's algorithm."""
        with self._lock:
            if row.key_algorithm in self.unbound:
                return
            self.unbound.add(row.key_algorithm)
            self._believe(self._known[0])
        self._log.warning(
            "the driver promises to authenticate associated data for %s keys and ignores it: withdrawn",
            row.key_algorithm or "all",
        )

    def is_bound(self, row: Capability) -> bool:
        """Tell whether a ciphertext of such a row was seen to be refused with other associated data."""
        return (row.key_algorithm, row.mechanism) in self._bound

    def note_bound(self, row: Capability) -> None:
        """Remember that one was."""
        self._bound.add((row.key_algorithm, row.mechanism))

    def note_probed(self, row: Capability, how: str) -> None:
        """Remember that a row did what it promises."""
        with self._lock:
            row = self._as_told.get(row, row)
            self._probed.setdefault(row, how)
            self._untried.pop(row, None)

    def is_probed(self, row: Capability) -> bool:
        """Tell whether a row was seen to do what it promises."""
        return self._as_told.get(row, row) in self._probed

    def note_untried(self, row: Capability, reason: str) -> None:
        """Remember why a row could not be tried."""
        with self._lock:
            row = self._as_told.get(row, row)
            if row not in self._probed:
                self._untried[row] = reason

    def report(self) -> tuple[RowReport, ...]:
        """Return every row that the driver told, as it promised it."""
        with self._lock:
            return tuple(self._report(row) for row in self._known[0])

    def _report(self, row: Capability) -> RowReport:
        if row in self._withdrawn:
            return RowReport(row, RowStatus.WITHDRAWN, self._withdrawn[row])
        if row.key_algorithm in self.unbound and row.associated_data is not AssociatedData.NONE:
            return RowReport(row, RowStatus.WITHDRAWN, "associated data are ignored; the rest is believed")
        if row in self._probed:
            return RowReport(row, RowStatus.PROBED, self._probed[row])
        if row.probed is not None:
            return RowReport(row, RowStatus.PROBED, f"by the driver, {row.probed}")
        return RowReport(row, RowStatus.DECLARED, self._untried.get(row))

    def _note(self, found: Iterable[tuple[Capability, str]]) -> list[tuple[Capability, str]]:
        fresh = [(row, reason) for row, reason in found if row not in self._withdrawn]
        self._withdrawn.update(fresh)
        return fresh

    def _believe(self, told: tuple[Capability, ...]) -> Rows:
        """Work out what is believed by now of what a driver told. While the lock is held."""
        lost = self._withdrawn = {row: self._withdrawn[row] for row in told if row in self._withdrawn}
        believed = {self._narrowed(row): row for row in told if row not in lost}
        self._as_told = {row: promised for row, promised in believed.items() if row is not promised}
        rows = Rows(believed, lost)
        self._known = told, rows
        return rows

    def _narrowed(self, row: Capability) -> Capability:
        if row.key_algorithm not in self.unbound or row.associated_data is AssociatedData.NONE:
            return row
        return row.model_copy(update={"associated_data": AssociatedData.NONE})

    def _warn(self, fresh: Iterable[tuple[Capability, str]]) -> None:
        for row, reason in fresh:
            self._log.warning("the promise of %s is withdrawn: %s", _about(row), reason)


def promises_in_short(told: Sequence[RowReport]) -> str:
    """Return how many rows are believed how far, in a few words."""
    counts = Counter(report.status for report in told)
    probed, declared, lost = (counts[status] for status in RowStatus)
    return f"{probed} promises probed, {declared} declared only, {lost} withdrawn"


def _about(row: Capability) -> str:
    """Return what a row is about, in a few words; what a driver chose is escaped."""
    parts = [row.operation, row.key_algorithm, row.mechanism, row.usage]
    if row.wrap_algorithm is not None:
        parts.append(f"as {untrusted(row.wrap_algorithm, 64)}")
    return " ".join(str(part) for part in parts if part)
