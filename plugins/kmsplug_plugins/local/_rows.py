"""Rows: a record in its box, beside SQL columns that are only an index to it.

A row opens only in its own store, table and place and at its own revision, and only if its SQL columns
say what the box says. So a row that was swapped, copied or edited is found when it is read.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kmsplug_protocol import Secret, dcbor

from kmsplug_plugins._software.boxes import box, open_box

_BOXED: Final = frozenset({"revision", "box"})  # the columns of a row that are not an index


@dataclass(frozen=True, slots=True)
class Rows:
    """Seals and opens the rows of one table.

    Attributes:
        table: Its name.
        key: The row key of the store.
        store_id: The store's id.
    """

    table: str
    key: Secret
    store_id: bytes

    def seal(self, primary_key: "dcbor.Value", revision: int, columns: Mapping[str, Any]) -> bytes:
        """Return the box of a row."""
        return box(self.key, self._label(primary_key, revision), dcbor.encode(columns))

    def open(self, primary_key: "dcbor.Value", row: sqlite3.Row) -> dict[str, Any]:
        """Return the columns in a row's box.

        Args:
            primary_key: Where the row is said to belong.
            row: Its box and revision, and whatever SQL columns were read with them.

        Raises:
            KeyError, TypeError, ValueError: The row is not as it was written.
        """
        plaintext = open_box(self.key, self._label(primary_key, row["revision"]), row["box"])
        columns: dict[str, Any] = dcbor.decode(plaintext)
        if any(columns[name] != row[name] for name in set(row.keys()) - _BOXED):
            raise ValueError("the index contradicts the box")
        return columns

    def _label(self, primary_key: "dcbor.Value", revision: int) -> list["dcbor.Value"]:
        return ["kmsplug-local/v1/row", self.store_id, self.table, primary_key, revision]
