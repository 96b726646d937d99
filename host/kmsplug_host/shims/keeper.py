"""Shims that keep state in the catalog: what they are, and when they stand in.

An operation is theirs only as a group: who cannot undo natively what he did natively does both by the shim.
"""

from dataclasses import dataclass
from typing import Final

from kmsplug_protocol import KeyAlgorithm

from kmsplug_host._rows import Rows


@dataclass(frozen=True, slots=True)
class Keeper:
    """One shim that keeps state.

    Attributes:
        name: As in ``shim:NAME@VERSION`` and in ``shims = [...]`` of a keystore.
        groups: Operations that it does, all of a group or none, by wire name.
        needs: What it is made of beside the catalog: operations.
        guarantees: What holds for its results.
        costs: What it takes, and what it gives up.
        decisive: Operations that decide who does a group that begins alike, in place of its own.
        otherwise: Why it does not do the rest of a group that the provider decides.
        version: Of what it keeps.
    """

    name: str
    groups: tuple[tuple[str, ...], ...]
    needs: tuple[str, ...]
    guarantees: str
    costs: str
    decisive: tuple[tuple[str, ...], ...] = ()
    otherwise: str | None = None
    version: int = 1

    @property
    def label(self) -> str:
        """What ``executed_by`` says."""
        return f"shim:{self.name}@{self.version}"

    def stands_in(self, rows: Rows, wire: str, algorithm: KeyAlgorithm | None) -> bool:
        """Tell whether the provider leaves an operation to it, with keys of an algorithm."""
        for group in self.groups:
            if wire in group:
                deciding = next((each for each in self.decisive if each[0] == group[0]), group)
                return not all(rows.find(each, algorithm) for each in deciding)
        return False

    def lacking(self, rows: Rows, algorithm: KeyAlgorithm | None) -> str | None:
        """Tell why it cannot, with these rows; None: it can."""
        for wire in self.needs:
            if rows.find(wire, algorithm) is None:
                return f"needs {wire} for such keys"
        return None


ALIAS: Final = Keeper(
    name="alias",
    groups=(("key.set_alias", "key.remove_alias"),),
    needs=("key.get",),
    guarantees="an alias stands wherever a key id does; results show the key's own id",
    costs="a lookup in the catalog, once in 5 s for a name; other clients of the provider see no alias",
)

TAGS: Final = Keeper(
    name="tags",
    groups=(("key.tag",),),
    needs=("key.get",),
    guarantees="tags are shown with the key",
    costs="the provider does not see them: nothing that it bills or permits by tags does",
)

VERSIONING: Final = Keeper(
    name="versioning",
    groups=(("key.rotate", "key.list_versions"),),
    decisive=(("key.rotate",),),
    otherwise="the provider makes the versions, and does not tell them",
    needs=("key.get", "key.create"),
    guarantees="a version's number is burnt before its key is made, and pinned by a proof of the key; what "
    "older versions made still opens; encryptions under random IVs are counted up to 2^32",
    costs="each version is a key of its own at the provider; opening without a version tries each",
)

LIFECYCLE: Final = Keeper(
    name="lifecycle",
    groups=(
        ("key.enable", "key.disable"),
        ("key.schedule_deletion", "key.cancel_deletion"),
        ("key.set_state",),
    ),
    # A deletion that was cancelled natively leaves a key that only key.enable makes work again.
    decisive=(("key.schedule_deletion", "key.cancel_deletion", "key.enable"),),
    needs=("key.get",),
    guarantees="hosts with this catalog refuse what the state forbids, within 5 s of the change; "
    "a deletion is destroyed when it is due and somebody asks for it, with all versions, and never before",
    costs="a seat belt, not access control: other clients of the provider are not stopped",
)

KEEPERS: Final = (ALIAS, TAGS, VERSIONING, LIFECYCLE)


def keeper_of(wire: str) -> Keeper | None:
    """Return the shim that keeps state for an operation."""
    for keeper in KEEPERS:
        if any(wire in group for group in keeper.groups):
            return keeper
    return None
