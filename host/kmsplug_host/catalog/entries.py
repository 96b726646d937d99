"""What is in a catalog, and what can be done with it. No database in here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias

Body: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row.

    Attributes:
        kind: What it tells of: a key, an alias, a part of a key.
        name: Of which: a key's id, an alias.
        owner: The key that it belongs to; the key's own id for a key.
        rev: How often it was changed.
        body: What it tells; None: it was removed.
    """

    kind: str
    name: str
    owner: str
    rev: int
    body: Body | None


@dataclass(frozen=True, slots=True)
class Put:
    """A change of one row.

    Attributes:
        kind: See `Entry`.
        name: See `Entry`.
        owner: See `Entry`.
        rev: What its `Entry.rev` must be; 0: there must be none.
        body: What it tells from now on; None: it is removed.
    """

    kind: str
    name: str
    owner: str
    rev: int
    body: Body | None


class Catalog(Protocol):
    """The rows of all keystores, by the keystore's identity."""

    @property
    def shared(self) -> bool:
        """Whether other hosts see it."""

    def get(self, keystore: str, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Entry]:
        """Return those of these rows, by kind and name, that are there.

        Raises:
            ShimFailed: The database cannot be reached.
            KeystoreCorrupt: A row was changed without the catalog's key.
        """

    def owned(self, keystore: str, owners: Sequence[str]) -> list[Entry]:
        """Return the rows that belong to these keys."""

    def scheduled(self, keystore: str) -> list[Entry]:
        """Return the rows whose body has a ``deletion``: of keys that are to be destroyed some day."""

    def now(self) -> datetime:
        """Return the time by the database's clock, which is this host's where the database is a file here."""

    def put(self, keystore: str, puts: Sequence[Put]) -> bool:
        """Change all these rows, or none and return False: one of them was changed meanwhile."""

    def change(
        self, keystore: str, kind: str, name: str, owner: str, *, to: Callable[[Body | None], Body | None]
    ) -> Body | None:
        """Change a row by what it is now, again and again until nobody came between; return what it is then.

        Args:
            keystore: Identity of the keystore.
            kind: See `Entry`.
            name: See `Entry`.
            owner: See `Entry`.
            to: Given the body, or None, returns the new one. May be called several times; what it raises
                ends the change.

        Raises:
            Conflict: Others came between all the time.
        """

    def close(self) -> None:
        """Let go of the database."""
