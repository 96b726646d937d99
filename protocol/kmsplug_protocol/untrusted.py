"""Driver strings are hostile: one function makes them safe for any log, table, terminal or page."""

import re
from bisect import bisect_right
from typing import Final

DEFAULT_LIMIT: Final = 4096

# C0 except tab, DEL, C1, soft hyphen, line and paragraph separators, bidi controls, zero-width characters,
# letters that show nothing, surrogates, annotation marks, and the tags and selectors in which a text can hide
# another one.
_DANGEROUS: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e01ef]"
)


def untrusted(text: str, limit: int = DEFAULT_LIMIT) -> str:
    r"""Escape every character that could move a cursor, reorder text or break a line.

    Args:
        text: Whatever a driver sent.
        limit: Longest result before the note about the rest, in characters.

    Returns:
        Printable text; a dangerous character reads ``\u{1b}``, and a cut says how much is missing.
    """
    kept = text[:limit]
    safe = _escape(kept)
    if len(safe) > limit:  # an escape is longer than what it stands for, and is left out rather than cut
        fits = bisect_right(range(len(kept) + 1), limit, key=lambda count: len(_escape(kept[:count])))
        kept = kept[: fits - 1]
        safe = _escape(kept)
    rest = len(text) - len(kept)
    return f"{safe}... {rest} characters more" if rest else safe


def _escape(text: str) -> str:
    return _DANGEROUS.sub(lambda match: f"\\u{{{ord(match.group()):x}}}", text)
