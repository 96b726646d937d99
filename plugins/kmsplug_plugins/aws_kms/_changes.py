"""Which change made what: the host's names of changes, kept as tags of the key, in digest.

A create writes its name in one step with the key. A rotate writes first from which material it starts and
afterwards to which it came, so that a lost answer can be told from the key itself.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from kmsplug_protocol import Outcome

from ._keys import OWN_TAGS

CREATED_BY: Final = f"{OWN_TAGS}change"
_ROTATED_BY: Final = f"{OWN_TAGS}rotate:"
_KEPT_S: Final = 24 * 3600  # SPEC.md [4.6-19]
_MOST_KEPT: Final = 8  # a key has 50 tags
_FIELDS: Final = 3


def digest(change: str) -> str:
    """Return a change's name in letters that a tag may have."""
    return hashlib.sha256(change.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a tag tells of a rotate.

    Attributes:
        tag: The tag's name.
        start: The material that was current before.
        end: The material that it came to; empty: not known.
        at: When it began, in seconds of `time.time`.
    """

    tag: str
    start: str
    end: str
    at: int

    @property
    def value(self) -> str:
        """The tag's value."""
        return f"{self.at}/{self.start}/{self.end}"


def rotation(change: str, start: str, end: str = "") -> Rotation:
    """Return what is written about a rotate that begins, or has ended."""
    return Rotation(_ROTATED_BY + digest(change), start, end, int(time.time()))


def rotations(tags: Mapping[str, str]) -> Iterator[Rotation]:
    """Yield what the tags of a key tell of rotates; what was not written here is passed over."""
    for tag, value in tags.items():
        fields = value.split("/")
        if tag.startswith(_ROTATED_BY) and len(fields) == _FIELDS and fields[0].isdigit():
            yield Rotation(tag, fields[1], fields[2], int(fields[0]))


def outlived(tags: Mapping[str, str]) -> list[str]:
    """Return the tags of rotates that nobody asks about any more."""
    found = sorted(rotations(tags), key=lambda one: one.at, reverse=True)
    now = time.time()
    return [one.tag for one in found[_MOST_KEPT:] if now - one.at > _KEPT_S]


def outcome_of_rotate(change: str, tags: Mapping[str, str], materials: list[str]) -> Outcome:
    """Tell what became of a rotate.

    Args:
        change: Its name.
        tags: Of the key.
        materials: The key's materials, oldest first.

    Returns:
        APPLIED where it is known; UNKNOWN where it may still happen, or another rotate may have done it.
    """
    wanted = _ROTATED_BY + digest(change)
    found = {one.tag: one for one in rotations(tags)}
    own = found.get(wanted)
    if own is None:
        return Outcome.UNKNOWN
    if own.end:
        return Outcome.APPLIED
    after = materials[materials.index(own.start) + 1 :] if own.start in materials else []
    rivals = [one for one in found.values() if one.start == own.start and one.tag != wanted]
    return Outcome.APPLIED if after and not rivals else Outcome.UNKNOWN
