"""Deterministic CBOR (RFC 8949 section 4.2.1) in the small subset that our formats hash.

Unsigned integers below 2^53, byte strings, UTF-8 text, arrays and maps; no tags, floats, simple
values, negative integers, indefinite lengths or duplicate keys; the keys of one map are all of one
type. Every value has one encoding, and `decode` accepts that one only.
"""

from collections.abc import Mapping
from typing import Any, Final, NoReturn, TypeAlias

import cbor2

from .framing import MAX_INTEGER

Value: TypeAlias = (
    "int | bytes | str | list[Value] | tuple[Value, ...] | Mapping[int, Value] | Mapping[str, Value]"
)

_MAX_DEPTH: Final = 8


class DcborError(ValueError):
    """The value or the bytes are outside the subset. The message never quotes them."""


def _refuse_tag(*_: object) -> NoReturn:
    raise DcborError("a tag is outside the subset")


# Every tag that cbor2 gives a meaning to; unknown ones go to the hook. Refused while reading, because shared
# references (28, 29) make 700 bytes stand for 60^4 items, which takes minutes to walk once they are decoded.
_NO_TAGS: Final = dict.fromkeys(range(300), _refuse_tag)


def encode(value: "Value") -> bytes:
    """Return the one encoding of *value*.

    Raises:
        DcborError: It holds something outside the subset.
    """
    _check(value, _MAX_DEPTH)
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes) -> Any:
    """Read what `encode` wrote, and nothing else.

    Raises:
        DcborError: The bytes are not the deterministic encoding of a value of the subset.
    """
    try:
        value = cbor2.loads(
            data,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            max_depth=_MAX_DEPTH,
            tag_hook=_refuse_tag,
            semantic_decoders=_NO_TAGS,
        )
        _check(value, _MAX_DEPTH)
        again = cbor2.dumps(value, canonical=True)
    except DcborError:
        raise
    except Exception:  # noqa: BLE001 - cbor2 raises many types on hostile bytes, all of which mean the same here
        raise DcborError("not CBOR") from None
    if again != data:  # catches trailing bytes, long integers and unsorted maps in one comparison
        raise DcborError("not the deterministic encoding")
    return value


# Looked at before anything else: most values are these, and the questions below take ten times as long.
_SCALARS: Final = frozenset({bytes, int, str})


def _check(value: object, depth: int) -> None:
    if depth == 0:
        raise DcborError("nested too deeply")
    if type(value) in _SCALARS:
        _check_scalar(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check(item, depth - 1)
    elif isinstance(value, (dict, Mapping)):  # most are a dict, which takes a tenth of the time
        if not (kinds := {type(key) for key in value}) <= {int} and not kinds <= {str}:
            raise DcborError("the keys of a map are not all unsigned integers or all text")
        for child in (*value.keys(), *value.values()):
            _check(child, depth - 1)
    elif not isinstance(value, (bytes, bytearray)):
        raise DcborError("a value is of a type outside the subset")


def _check_scalar(value: object) -> None:
    if type(value) is int:  # not isinstance: True is an int
        if not 0 <= value < MAX_INTEGER:
            raise DcborError("an integer is negative or not below 2^53")
    elif type(value) is str and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise DcborError("a text holds a lone surrogate") from None
