"""Frames: one JSON object a line, in a strict profile. No I/O happens here.

`FrameReader` turns bytes into frames in bounded memory whatever the peer sends: a line over the
limit is discarded up to its newline and reported with its first bytes, and the stream goes on.
"""

from dataclasses import dataclass
from typing import Any, Final

import orjson

HANDSHAKE_FRAME_BYTES: Final = 64 * 1024
"""Limit of a frame, newline excluded, until `plugin.initialize` has been answered."""

DEFAULT_FRAME_BYTES: Final = 1024 * 1024
"""What a host offers as the limit of a frame after the handshake."""

MAX_INTEGER: Final = 2**53
"""Integers stay below this, so that every JSON library reads them alike."""

_BLANK: Final = b" \t\r\n"  # JSON's white space; a form feed is none, and a line of it is not skipped
_OVERSIZE_HEAD: Final = 4096  # enough to find the id of a reply that was too large


class FrameError(ValueError):
    """A frame is not one JSON object of the strict profile. The message never quotes the frame."""


@dataclass(frozen=True, slots=True)
class Oversize:
    """A line longer than the limit, already discarded.

    Attributes:
        head: Its first 4 KiB, in which the id of a message may still be found.
    """

    head: bytes


def encode_frame(message: dict[str, Any]) -> bytes:
    """Return *message* as one line of UTF-8 JSON, newline included."""
    return orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE)


def decode_frame(frame: bytes) -> dict[str, Any]:
    """Read one line.

    Raises:
        FrameError: It is not UTF-8, not JSON, or not an object (batches are not part of the profile).
    """
    try:
        message = orjson.loads(frame)
    except orjson.JSONDecodeError:
        raise FrameError("the line is not JSON in UTF-8") from None
    if type(message) is not dict:
        raise FrameError("the line is not one JSON object")
    return message


class FrameReader:
    """Cuts a byte stream into lines.

    Memory stays below the limit plus one fed chunk. Blank lines are skipped; a final line without
    a newline is never returned, because it may be incomplete.
    """

    def __init__(self, max_bytes: int = HANDSHAKE_FRAME_BYTES) -> None:
        self.max_bytes = max_bytes
        self._partial = bytearray()
        self._discarding = False

    @property
    def discarding(self) -> bool:
        """Whether the line that is being read is over the limit, and thrown away."""
        return self._discarding

    def is_one(self, data: bytes) -> bool:
        """Tell whether *data*, which comes next in the stream, is one whole line. Changes nothing."""
        return not (self._partial or self._discarding) and data.find(b"\n") == len(data) - 1 < self.max_bytes

    def feed(self, data: bytes) -> list[bytes | Oversize]:
        """Take the next bytes of the stream and return the frames that they complete, in order."""
        if not (self._partial or self._discarding) and data.endswith(b"\n") and len(data) <= self.max_bytes:
            return [line for line in data[:-1].split(b"\n") if line.strip(_BLANK)]  # the usual case
        frames: list[bytes | Oversize] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._take(data[start:end], frames)
            if self._discarding:
                self._discarding = False
            elif self._partial:
                frame = bytes(self._partial)
                self._partial.clear()
                if frame.strip(_BLANK):
                    frames.append(frame)
            start = end + 1
        self._take(data[start:], frames)
        return frames

    def _take(self, piece: bytes, frames: list[bytes | Oversize]) -> None:
        """Add a piece of a line; a line that grows over the limit is reported once and thrown away."""
        if self._discarding:
            return
        if len(self._partial) + len(piece) <= self.max_bytes:
            self._partial += piece
            return
        room = max(0, _OVERSIZE_HEAD - len(self._partial))
        frames.append(Oversize(bytes(self._partial[:_OVERSIZE_HEAD]) + piece[:room]))
        self._partial.clear()
        self._discarding = True
