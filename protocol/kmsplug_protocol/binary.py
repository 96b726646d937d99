"""Bytes on the wire: padded standard base64, decoded strictly; secret bytes never print themselves.

One byte string has one text.
"""

from binascii import Error as _Base64Error
from binascii import a2b_base64, b2a_base64
from typing import final


def encode_base64(data: bytes) -> str:
    """Return the wire form of *data*: RFC 4648 section 4, padded, on one line."""
    return b2a_base64(data, newline=False).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Read the wire form of a byte string.

    Raises:
        ValueError: The text is not the one canonical encoding of any bytes. The message never quotes it.
    """
    try:
        data = a2b_base64(text.encode("ascii"), strict_mode=True)
    except (_Base64Error, UnicodeEncodeError):
        raise ValueError("expected padded standard base64 (RFC 4648 section 4)") from None
    # strict_mode lets non-zero trailing bits of the last quantum pass; two texts would then mean one value.
    if text and b2a_base64(data[(len(data) - 1) // 3 * 3 :], newline=False).decode("ascii") != text[-4:]:
        raise ValueError("expected canonical base64 (unused trailing bits must be zero)")
    return data


@final
class Secret(bytes):
    """Bytes that do not show themselves: ``repr``, ``str`` and formatting give the length only.

    It is ordinary ``bytes`` otherwise, so it goes into any cryptographic call as it is. It hides,
    it does not erase: Python cannot overwrite immutable bytes.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} secret bytes>"

    __str__ = __repr__

    def __format__(self, spec: str, /) -> str:
        return format(repr(self), spec)
