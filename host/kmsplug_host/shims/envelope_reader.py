"""Random access: a file of an envelope's plaintext, of which only the chunks that are read are opened."""

import io
import os
from typing import Any, Final, NoReturn, Protocol

from kmsplug_protocol import cobblestone

from kmsplug_host.errors import InvalidArgument

from . import envelope_format as fmt
from .envelope_open import Request, open_native, unlock
from .envelope_stream import fill, read_exactly, read_header, read_native
from .envelope_types import Unseal

_CHUNK: Final = cobblestone.CHUNK_BYTES
_SEALED_CHUNK: Final = cobblestone.SEALED_CHUNK_BYTES


class SeekableSource(Protocol):
    """A source that can go to any position: a file, `io.BytesIO`."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill *buffer* from the start and return how many bytes came; 0 at the end."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position and return it."""


class EnvelopeReader(io.RawIOBase):
    """The plaintext of an envelope, as a binary file to read and seek in. For one thread at a time.

    Every byte that it returns was verified. The last chunk is verified before the reader tells the size or
    the end; once it refused a chunk, it goes on refusing. Obtained from `Keystore.open_reader`.

    Args:
        source: The envelope, from its beginning to its end.
        request: Who opens it.
    """

    def __init__(self, source: SeekableSource, request: Request) -> None:
        super().__init__()
        self._source = source
        self._position = 0
        self._size: int | None = None
        self._failed = False
        self._chunk: tuple[int, bytes] | None = None  # the one that was opened last
        source.seek(0)
        header = read_header(source)
        if header.fixed.suite == fmt.SUITE_NATIVE:
            opened = open_native(header, read_native(source), request)
            self.facts: Unseal = opened.unseal()
            self._size, self._chunk = len(opened.plaintext), (0, opened.plaintext)
            return
        head = read_exactly(source, cobblestone.HEADER_BYTES)
        unlocked = unlock(header, head, request)
        self.facts = unlocked.unseal()
        """What is known of the envelope."""
        self._opener = unlocked.opener
        self._start = fmt.PREFIX_BYTES + header.length + cobblestone.HEADER_BYTES

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position; from the end, after the end was found to be genuine.

        Raises:
            InvalidCiphertext: The end is not genuine.
        """
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: None}.get(whence, -1)
        target = (self.size() if start is None else start) + offset
        if start == -1 or target < 0:
            raise InvalidArgument("there is no such position")
        self._position = target
        return target

    def size(self) -> int:
        """Return the length of the plaintext.

        Raises:
            InvalidCiphertext: The last chunk is not genuine, so the envelope may have been cut.
        """
        if self._size is None:
            length = self._source.seek(0, os.SEEK_END) - self._start
            last, rest = divmod(max(length, 0), _SEALED_CHUNK)
            if rest < cobblestone.TAG_BYTES:
                self._fail()
            self._size = last * _CHUNK + len(self._open(last))
        return self._size

    def readinto(self, buffer: Any, /) -> int:
        """Fill *buffer* from the position on, and move there; 0 at the end.

        Raises:
            InvalidCiphertext: A chunk is not genuine. Nothing of it was returned.
        """
        with memoryview(buffer).cast("B") as view:
            done = 0
            while done < len(view):
                index, offset = divmod(self._position, _CHUNK)
                piece = self._piece(index)[offset : offset + len(view) - done]
                if not piece:
                    break
                view[done : done + len(piece)] = piece
                done += len(piece)
                self._position += len(piece)
        return done

    def pread(self, offset: int, length: int) -> bytes:
        """Return *length* bytes from *offset* on, fewer only at the end, and leave the position there."""
        self.seek(offset)
        block = bytearray(min(length, max(0, self.size() - offset)))
        self.readinto(block)
        return bytes(block)

    def _piece(self, index: int) -> bytes:
        """Return the plaintext of a chunk; nothing behind the last one."""
        if self._failed:
            raise fmt.refused()
        if self._chunk is not None and self._chunk[0] == index:
            return self._chunk[1]
        # A position behind the end is found to be one before anything is read there.
        if self._size is not None and index * _CHUNK >= self._size:
            return b""
        return self._open(index)

    def _open(self, index: int) -> bytes:
        self._source.seek(self._start + index * _SEALED_CHUNK)
        block = memoryview(bytearray(_SEALED_CHUNK))
        length = fill(self._source, block)
        if length == 0 and index * _CHUNK >= self.size():
            return b""
        try:
            plaintext = self._opener.open_at(index, block[:length])
        except cobblestone.CobblestoneError:
            self._fail()
        self._chunk = (index, plaintext)
        return plaintext

    def _fail(self) -> NoReturn:
        self._failed = True
        self._chunk = None
        raise fmt.refused()
