"""Which change made which version: what tells a rotation that was carried out from one that was not.

Azure's rotate takes nothing that would name it. So the digest of the change is written into the note of the
current version first, as pending; then the version is made; then its own note says what made it. Whatever is
lost on the way, the versions tell: one that no note explains, after the one where the change is pending, is
that change's.
"""

from collections.abc import Sequence
from dataclasses import replace

from kmsplug_protocol import Outcome

from ._records import Note, Record


def made_by(versions: Sequence[Record], change: str) -> Record | None:
    """Return the version that a change made, where its note says so."""
    return next(
        (one for one, explained in _explained(versions) if explained and one.note.made_by == change), None
    )


def outcome(versions: Sequence[Record], change: str) -> Outcome:
    """Tell what became of a rotation that no version's note names as its maker.

    Args:
        versions: All of them, oldest first.
        change: The digest of the change.
    """
    unexplained = [place for place, (_, explained) in enumerate(_explained(versions)) if not explained]
    begun = next((place for place, one in enumerate(versions) if change in one.note.pending), None)
    if begun is None:
        # Pending notes come first, so it was never begun; unless somebody wrote over the note meanwhile, and
        # then there is a version that none explains.
        return Outcome.UNKNOWN if unexplained else Outcome.NOT_APPLIED
    after = [place for place in unexplained if place > begun]
    if not after:
        return Outcome.NOT_APPLIED
    alone = len(after) == 1 and versions[begun].note.pending == (change,)
    return Outcome.APPLIED if alone else Outcome.UNKNOWN


def begun(versions: Sequence[Record], change: str | None) -> Note:
    """Return the note of the current version, with a rotation begun."""
    note = versions[-1].note
    # Those that were copied from the version before are done with.
    before = versions[-2].note.pending if len(versions) > 1 else ()
    open_ = tuple(one for one in note.pending if one not in before)
    return note if change is None or change in open_ else replace(note, pending=(*open_, change))


def finished(versions: Sequence[Record], change: str | None) -> Note:
    """Return the note of the version that a rotation made.

    Args:
        versions: Those before it, oldest first.
        change: What made it.
    """
    last = versions[-1]
    first = versions[0]
    return Note(
        algorithm=last.note.algorithm,
        generation=max([len(versions), *(one.note.generation for one in versions)]) + 1,
        created_by=last.note.created_by,
        made_by=change or "",
        born=last.note.born or (first.created if first.note.generation == 1 else 0),
        imported=last.note.imported,
    )


def _explained(versions: Sequence[Record]) -> list[tuple[Record, bool]]:
    """Return the versions, each with whether a note tells what made it; a copied note tells nothing."""
    seen: set[int] = set()
    found = []
    for place, one in enumerate(versions):
        generation = one.note.generation
        found.append((one, place == 0 or (generation > 0 and generation not in seen)))
        seen.add(generation)
    return found
