"""What is stored of a key: immutable records, and their columns as they stand inside a box.

`columns` and `from_columns` are each other's inverse. Every member counts as security-relevant, so each is
written into the box; the few that are SQL columns too are compared with it (see `rows`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Self, TypeVar, cast

from kmsplug_protocol import ErrorCode, KeyAlgorithm, KeyState, KeyUsage, Origin, Secret
from kmsplug_sdk import DriverError

ALIAS_PREFIX: Final = "alias/"
"""May stand before an alias wherever a key id is asked for."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class StoredVersion:
    """One generation of a key's material.

    Attributes:
        number: 1 for the first; the versions of a key have no gap.
        state: Its state.
        created_at: When it was made, in UTC.
        material: The secret, in the form that its algorithm writes; empty before import and once destroyed.
        former: While it is SUSPENDED, the state that enabling gives back; while it is DESTROY_SCHEDULED,
            the same, or PRE_ACTIVE or COMPROMISED, which cancelling gives back.
        leased: How many encryptions under a random IV were ever handed out.
        made_by: Idempotency key of the create or rotate that made it.
        filled_by: Idempotency key of the import that brought the material.
        revision: The epoch in which its row was written.
    """

    number: int
    state: KeyState
    created_at: str
    material: Secret = field(repr=False)
    former: KeyState | None = None
    leased: int = 0
    made_by: str | None = None
    filled_by: str | None = None
    revision: int = 0
    _loaded: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Its name on the wire."""
        return str(self.number)

    def load(self, loader: Callable[[bytes], _T]) -> _T:
        """Return what *loader* makes of the material, made once for as long as this record is kept.

        A key has one usage, hence one loader.
        """
        if self._loaded is None:
            # Two threads may both get here: either object will do.
            object.__setattr__(self, "_loaded", loader(self.material))
        return cast("_T", self._loaded)

    def columns(self) -> dict[str, Any]:
        """Return the content of its box."""
        columns: dict[str, Any] = {
            "number": self.number,
            "state": self.state.value,
            "created_at": self.created_at,
            "material": bytes(self.material),
            "leased": self.leased,
        }
        if self.former is not None:
            columns["former"] = self.former.value
        columns |= {
            name: value
            for name, value in (("made_by", self.made_by), ("filled_by", self.filled_by))
            if value is not None
        }
        return columns

    @classmethod
    def from_columns(cls, columns: dict[str, Any], revision: int) -> Self:
        """Read the content of a box.

        Raises:
            KeyError, TypeError, ValueError: It is not that of a version.
            DriverError: UNSUPPORTED_OPERATION: a newer version of this driver wrote it.
        """
        _refuse_newer(columns, cls)
        former = columns.pop("former", None)
        return cls(
            state=KeyState(columns.pop("state")),
            material=Secret(columns.pop("material")),
            former=None if former is None else KeyState(former),
            revision=revision,
            **columns,
        )


@dataclass(frozen=True)
class StoredKey:
    """A key with all its versions.

    Attributes:
        key_id: Its id.
        position: Its place in the order of creation, from 1; 0 until it is stored.
        algorithm: What it is.
        usage: Its one purpose.
        created_at: When it was made, in UTC.
        versions: Oldest first; the last one is current.
        name: Display name.
        tags: Tags.
        origin: Where the material came from.
        exportable: Whether material may leave.
        deletion_at: While it is DESTROY_SCHEDULED, from when on it is due.
        aliases: Names that point to it, each in a row of its own.
        revision: The epoch in which its row was written.
    """

    key_id: str
    algorithm: KeyAlgorithm
    usage: KeyUsage
    created_at: str
    versions: tuple[StoredVersion, ...]
    name: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    origin: Origin = Origin.GENERATED
    exportable: bool = False
    deletion_at: str | None = None
    aliases: tuple[str, ...] = ()
    position: int = 0
    revision: int = 0

    @property
    def current(self) -> StoredVersion:
        """The version that encrypts and signs."""
        return self.versions[-1]

    def version(self, number: int) -> StoredVersion:
        """Return the version of this number, which must be there."""
        return self.versions[number - 1]

    def with_version(self, version: StoredVersion) -> Self:
        """Return the key with one version replaced by another of the same number."""
        versions = (*self.versions[: version.number - 1], version, *self.versions[version.number :])
        return replace(self, versions=versions)

    def columns(self) -> dict[str, Any]:
        """Return the content of its box. The number of versions is in it, so none can be cut off."""
        columns: dict[str, Any] = {
            "key_id": self.key_id,
            "position": self.position,
            "algorithm": self.algorithm.value,
            "usage": self.usage.value,
            "created_at": self.created_at,
            "current": len(self.versions),
            "tags": self.tags,
            "origin": self.origin.value,
            "exportable": int(self.exportable),
        }
        if self.name is not None:
            columns["name"] = self.name
        if self.deletion_at is not None:
            columns["deletion_at"] = self.deletion_at
        return columns

    @classmethod
    def from_columns(
        cls,
        columns: dict[str, Any],
        versions: tuple[StoredVersion, ...],
        aliases: tuple[str, ...],
        revision: int,
    ) -> Self:
        """Read the content of a box.

        Raises:
            KeyError, TypeError, ValueError: It is not that of a key with these versions.
            DriverError: UNSUPPORTED_OPERATION: a newer version of this driver wrote it.
        """
        _refuse_newer(columns.keys() - {"current"}, cls)
        if [version.number for version in versions] != list(range(1, columns.pop("current") + 1)):
            raise ValueError("versions are missing")
        return cls(
            algorithm=KeyAlgorithm(columns.pop("algorithm")),
            usage=KeyUsage(columns.pop("usage")),
            origin=Origin(columns.pop("origin")),
            exportable=bool(columns.pop("exportable")),
            versions=versions,
            aliases=aliases,
            revision=revision,
            **columns,
        )


def _refuse_newer(names: Iterable[str], record: type[StoredVersion | StoredKey]) -> None:
    """Raise where a box holds more than this version knows of: to pass over it might allow too much."""
    unknown = set(names) - {each.name for each in fields(record)}
    if unknown:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"a newer version of this driver wrote the key: it holds {min(unknown)!r}",
            hint="upgrade kmsplug",
        )
