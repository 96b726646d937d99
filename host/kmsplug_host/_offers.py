"""Who does an operation, as rows and configuration have it: the provider, a named shim, or nobody, and why.

Nothing is called for this; `_resolver` carries out what is said here.
"""

from dataclasses import dataclass
from typing import Final

from kmsplug_protocol import Capability, KeyAlgorithm, KeyUsage
from kmsplug_protocol.kinds import USED_AS, usages_of

from ._rows import Rows
from .config import KeystoreSettings
from .shims import registry
from .shims.keeper import KEEPERS, LIFECYCLE, Keeper, keeper_of
from .shims.lifecycle import NO_WINDOW

NATIVE: Final = "native"
NO: Final = "no"

_PURGE: Final = "key.purge"


@dataclass(frozen=True, slots=True)
class Offer:
    """Who does an operation.

    Attributes:
        operation: Its wire name.
        how: ``native``, the label of a shim as ``shim:datakey@1``, or ``no``.
        reason: Why not, or why not natively.
        rows: The provider's rows of it, with their limits.
        algorithms: Of the keys with which the shim does it; empty: no key is involved, or any.
    """

    operation: str
    how: str
    reason: str | None = None
    rows: tuple[Capability, ...] = ()
    algorithms: tuple[KeyAlgorithm, ...] = ()

    def __bool__(self) -> bool:
        return self.how != NO


def offer(
    rows: Rows,
    settings: KeystoreSettings,
    wire: str,
    algorithm: KeyAlgorithm | None = None,
    usage: KeyUsage | None = None,
    *,
    catalog: bool,
) -> Offer:
    """Tell who does an operation, with these rows and settings.

    Args:
        rows: What the provider does.
        settings: What the keystore's configuration allows.
        wire: The operation.
        algorithm: Of the key; default: any.
        usage: What the key is for; default: whatever the operation needs.
        catalog: Whether there is one.
    """
    kept = catalog and is_allowed(settings, LIFECYCLE.name)
    if wire == _PURGE and not kept and rows.of(wire) and not rows.of("key.schedule_deletion"):
        return Offer(wire, NO, NO_WINDOW)
    keeper = keeper_of(wire)
    if keeper is not None:
        return _kept(rows, settings, wire, algorithm, keeper=keeper, catalog=catalog)
    shims = registry.shims_of(wire)
    if algorithm is not None or not any(shim.algorithms for shim in shims):
        return _offer(rows, settings, wire, algorithm, usage)
    offers = {each: _offer(rows, settings, wire, each) for each in sorted(rows.algorithms())}
    by_shim = {each: found for each, found in offers.items() if found.how not in (NATIVE, NO)}
    if own := rows.of(wire):
        labels = sorted({found.how for found in by_shim.values()})
        also = f"{', '.join(labels)} with {', '.join(by_shim)}" if by_shim else None
        return Offer(wire, NATIVE, also, own, tuple(by_shim))
    if by_shim:
        first = next(iter(by_shim.values()))
        return Offer(wire, first.how, first.reason, algorithms=tuple(by_shim))
    served = (each for each in offers if any(each in (shim.algorithms or ()) for shim in shims))
    return next((offers[each] for each in served), Offer(wire, NO, registry.reason(wire)))


def _kept(
    rows: Rows,
    settings: KeystoreSettings,
    wire: str,
    algorithm: KeyAlgorithm | None,
    *,
    keeper: Keeper,
    catalog: bool,
) -> Offer:
    """Tell who does an operation that a shim with a catalog could do."""
    own = tuple(row for row in rows.of(wire) if algorithm is None or row.key_algorithm in (None, algorithm))
    if algorithm is not None or not own:
        if catalog and keeper_for(rows, settings, wire, algorithm) is keeper:
            return Offer(wire, keeper.label, f"made of {', '.join(keeper.needs)} and the catalog")
        lacking = keeper.lacking(rows, algorithm) or keeper.otherwise
        if not is_allowed(settings, keeper.name):
            lacking = "forbidden by the configuration of this keystore"
        elif not catalog:
            lacking = "needs a catalog, and the configuration has no [catalog]"
        return Offer(wire, NATIVE, rows=own) if own else Offer(wire, NO, f"{keeper.label}: {lacking}")
    others = [each for each in sorted(rows.algorithms()) if keeper_for(rows, settings, wire, each) is keeper]
    if not catalog or not others:
        return Offer(wire, NATIVE, rows=own)
    if len(others) == len(rows.algorithms()):
        return Offer(wire, keeper.label, "not offered natively with all that belongs to it")
    return Offer(wire, NATIVE, f"{keeper.label} with {', '.join(others)}", own, tuple(others))


def keeper_for(
    rows: Rows, settings: KeystoreSettings, wire: str, algorithm: KeyAlgorithm | None
) -> Keeper | None:
    """Return the shim with a catalog to which the provider leaves an operation, if it can and may do it."""
    keeper = keeper_of(wire)
    if keeper is None or not is_allowed(settings, keeper.name) or keeper.lacking(rows, algorithm):
        return None
    return keeper if keeper.stands_in(rows, wire, algorithm) else None


def leaves_any(rows: Rows, settings: KeystoreSettings) -> bool:
    """Tell whether the provider leaves anything to a shim with a catalog."""
    algorithms = (None, *rows.algorithms())
    return any(
        keeper_for(rows, settings, wire, algorithm)
        for keeper in KEEPERS
        for group in keeper.groups
        for wire in group
        for algorithm in algorithms
    )


def _offer(
    rows: Rows,
    settings: KeystoreSettings,
    wire: str,
    algorithm: KeyAlgorithm | None,
    usage: KeyUsage | None = None,
) -> Offer:
    reason = registry.reason(wire)
    if may_be_native(wire, algorithm, usage):
        own = tuple(
            row for row in rows.of(wire) if algorithm is None or row.key_algorithm in (None, algorithm)
        )
        if own:
            return Offer(wire, NATIVE, _by_form(rows, wire, algorithm), own)
    else:
        reason = f"the key is for {usage}"
    for shim in registry.shims_of(wire):
        if shim.algorithms is not None and algorithm not in shim.algorithms:
            continue
        if not serves(usage, shim.usage):
            continue
        lacking = shim.lacking(rows, algorithm, None)
        if shim.algorithms is not None and not rows.of("key.get"):
            lacking = "needs key.get"
        if lacking is None and is_allowed(settings, shim.name):
            return Offer(wire, shim.label, _with_loss(rows, wire, algorithm, f"made of {shim.needs}"))
        reason = f"{shim.label}: {lacking or 'forbidden by the configuration of this keystore'}"
    return Offer(wire, NO, _with_loss(rows, wire, algorithm, reason))


def serves(usage: KeyUsage | None, needed: KeyUsage | None) -> bool:
    """Tell whether a key for a usage serves where one is needed; None: not known, or of no matter."""
    return usage is None or needed is None or usage is needed


def may_be_native(wire: str, algorithm: KeyAlgorithm | None, usage: KeyUsage | None) -> bool:
    """Tell whether rows of an operation can be meant for such a key.

    A row for a kind of key that cannot be for the operation's usage is for whatever usage such keys have.
    """
    needed = USED_AS.get(wire)
    return serves(usage, needed) or (algorithm is not None and needed not in usages_of(algorithm))


def _by_form(rows: Rows, wire: str, algorithm: KeyAlgorithm | None) -> str | None:
    """Say where a signing operation takes one form only."""
    row = rows.find(wire, algorithm)
    return None if row is None or row.signs is None else f"takes a {row.signs} only: see the shim digest"


def _with_loss(rows: Rows, wire: str, algorithm: KeyAlgorithm | None, reason: str) -> str:
    lost = rows.lost(wire, algorithm)
    return reason if lost is None else f"{reason}; the driver's own promise was withdrawn: {lost}"


def is_allowed(settings: KeystoreSettings, shim: str) -> bool:
    """Tell whether a keystore's configuration lets a shim stand in."""
    return settings.shims == "allow" or shim in settings.shims


def unmet(rows: Rows, settings: KeystoreSettings, *, catalog: bool) -> list[str]:
    """Return what a keystore requires and will not get, a sentence each."""
    found = []
    for demand in settings.require:
        wire, _, algorithm = demand.partition(":")
        answer = offer(rows, settings, wire, KeyAlgorithm(algorithm) if algorithm else None, catalog=catalog)
        if not answer:
            found.append(f"{demand} is not offered: {answer.reason}")
    return found
