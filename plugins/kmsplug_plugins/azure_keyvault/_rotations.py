"""Which change made which version: what tells a rotation that was carried out from one that was not.

Azure's rotate takes nothing that would name it. So the digest of the change is written into the note of the
current version first, as pending; then the version is made; then its own note says what made it. Whatever is
lost on the way, the versions tell: one that no note explains, after the one where the change is pending, is
that change's.
"""

from collections.abc import Sequence
from dataclasses import replace

from kmsplug_protocol import Outcome

from ._records import OF_CHARACTERS, Note, Record


def made_by(versions: Sequence[Record], change: str) -> Record | None:
    """Return the version that a change made, where its note says so."""
    return next((one for one in versions if one.note.made_by == change), None)


def inferred(versions: Sequence[Record], change: str) -> tuple[Outcome, Record | None]:
    """Tell what became of a rotation that no version's note names as its maker, and which version it made.

    Args:
        versions: All of them, oldest first.
        change: The digest of the change.
    """
    unexplained = _unexplained(versions)
    begun_at = next((place for place, one in enumerate(versions) if change in one.note.pending), None)
    if begun_at is None:
        # Pending notes come first, so it was never begun; unless somebody wrote over the note meanwhile, and
        # then there is a version that none explains.
        return Outcome.UNKNOWN if unexplained else Outcome.NOT_APPLIED, None
    after = [place for place in unexplained if place > begun_at]
    if not after:
        return Outcome.NOT_APPLIED, None
    if len(after) > 1 or versions[begun_at].note.pending != (change,):
        return Outcome.UNKNOWN, None
    return Outcome.APPLIED, versions[after[0]]


def begun(versions: Sequence[Record], change: str | None) -> Note:
    """Return the note of the current version, with a rotation begun."""
    current = versions[-1]
    # With the version's id in it, so that a copy, which the new version may get, can be told.
    note = replace(current.note, of=current.version[:OF_CHARACTERS])
    more = () if change is None or change in note.pending else (change,)
    return replace(note, pending=(*note.pending, *more))


def finished(made: Record, before: Sequence[Record], change: str | None) -> Note:
    """Return the note of a version that a rotation made.

    Args:
        made: The version.
        before: Those before it, oldest first.
        change: What made it.
    """
    last, first = before[-1], before[0]
    return Note(
        algorithm=last.note.algorithm,
        generation=max([len(before), *(one.note.generation for one in before)]) + 1,
        created_by=last.note.created_by,
        made_by=change or "",
        born=last.note.born or (first.created if first.note.generation == 1 else 0),
        imported=last.note.imported,
        of=made.version[:OF_CHARACTERS],
    )


def _unexplained(versions: Sequence[Record]) -> list[int]:
    """Return the places of versions of which no note tells what made them."""
    return [place for place, one in enumerate(versions) if place > 0 and not one.note.generation]
