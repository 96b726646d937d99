"""Protocol versions: an enumerated set, negotiated once, never compared by size."""

from collections.abc import Sequence
from typing import Final

PROTOCOL_VERSION: Final = "1"
KNOWN_VERSIONS: Final[tuple[str, ...]] = (PROTOCOL_VERSION,)
"""Every version this build can speak, in order of preference."""


def negotiate(offered: Sequence[str], known: Sequence[str] = KNOWN_VERSIONS) -> str | None:
    """Choose the version both sides speak.

    Args:
        offered: What the host offers, its favourite first.
        known: What this side speaks.

    Returns:
        The first offered version that is known, or None when there is none.
    """
    return next((version for version in offered if version in known), None)
