"""C2SP chunked-encryption, Cobblestone-256: streaming authenticated encryption that commits to its key.

Source: https://c2sp.org/chunked-encryption (v1) with AEAD_AES_256_GCM and SHA-512. A message is
``salt(24) || commitment(32) || chunks``, every chunk 16 KiB of plaintext and a 16-byte tag, the last
one shorter (perhaps empty), so that a cut at any place is noticed. Host and drivers use this one module:
`seal` and `open_sealed` for small values, `Sealer` and `Opener` for streams.
"""

import hmac
import io
import os
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

KEY_BYTES: Final = 32
SALT_BYTES: Final = 24
HEADER_BYTES: Final = 56  # salt || commitment
CHUNK_BYTES: Final = 16 * 1024
TAG_BYTES: Final = 16
SEALED_CHUNK_BYTES: Final = CHUNK_BYTES + TAG_BYTES
MAX_CHUNKS: Final = 2**38

_INFO: Final = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"


class CobblestoneError(ValueError):
    """The bytes do not belong to this key and context. One fixed text, whatever the reason."""

    def __init__(self) -> None:
        super().__init__("the message does not belong to this key and context")


def expand(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand with SHA-512 (RFC 5869 section 2.3); *key* must be uniformly random."""
    return HKDFExpand(hashes.SHA512(), length, info).derive(key)


class _Chunks:
    """The derived key of one message and the position in it."""

    def __init__(self, key: bytes, salt: bytes, context: bytes) -> None:
        if len(key) != KEY_BYTES or len(salt) != SALT_BYTES:
            raise CobblestoneError
        material = expand(key, _INFO + salt + context, 76)
        self._aead = AESGCM(material[:32])
        self._base_nonce = int.from_bytes(material[32:44])
        self.commitment = material[44:]
        self._index = 0
        self._ended = False

    def _take(self, count: int) -> int:
        """Return the number of the next chunk, and count *count* of them as used, come what may."""
        first = self._index
        if first + count > MAX_CHUNKS:
            raise CobblestoneError
        self._index = first + count
        return first

    def _nonce(self, index: int) -> bytes:
        return (self._base_nonce ^ index).to_bytes(12)


class Sealer(_Chunks):
    """Seals one message, chunk by chunk.

    Args:
        key: 32 uniformly random bytes.
        context: Any bytes; the opener needs the same.
        salt: For test vectors only. Never give one otherwise: a salt must not repeat under one key.
    """

    def __init__(self, key: bytes, context: bytes, *, salt: bytes | None = None) -> None:
        salt = os.urandom(SALT_BYTES) if salt is None else salt
        super().__init__(key, salt, context)
        self.header = salt + self.commitment
        """The message's first 56 bytes, to be written before any chunk."""

    def seal_into(self, plaintext: memoryview, out: memoryview, *, final: bool) -> int:
        """Seal the next chunks of the message into *out*.

        Args:
            plaintext: Whole chunks; with *final*, whole chunks and the last, shorter one.
            out: Room for `sealed_length` of the plaintext; it must not overlap it.
            final: Whether the message ends here.

        Returns:
            How many bytes of *out* were written.

        Raises:
            ValueError: The message has ended already, *out* is too short, or a chunk that is not the last is.
        """
        if self._ended:
            raise ValueError("the message has ended")
        whole = len(plaintext) - len(plaintext) % CHUNK_BYTES
        if not final and whole < len(plaintext):
            raise ValueError("only the end of a message may be shorter than a chunk")
        if len(out) < sealed_length(len(plaintext)) - (0 if final else TAG_BYTES):
            raise ValueError("the output buffer is too short")
        seal_chunk, base, position = self._aead.encrypt_into, self._base_nonce, 0
        # Counted first: a nonce is never used twice, not even after an error that nobody foresaw.
        index = self._take(whole // CHUNK_BYTES + final)
        for start in range(0, whole, CHUNK_BYTES):
            end = position + SEALED_CHUNK_BYTES
            nonce = (base ^ index).to_bytes(12)
            seal_chunk(nonce, plaintext[start : start + CHUNK_BYTES], None, out[position:end])
            position = end
            index += 1
        if final:
            end = position + len(plaintext) - whole + TAG_BYTES
            seal_chunk(self._nonce(index), plaintext[whole:], None, out[position:end])
            position = end
            self._ended = True
        return position

    def seal_whole(self, prefix: bytes, plaintext: bytes | bytearray | memoryview) -> bytes:
        """Seal a whole message that is in memory, and return it behind *prefix* and its header.

        Raises:
            ValueError: A part of the message was sealed already.
        """
        if self._ended or self._index:
            raise ValueError("the message has begun")
        head = prefix + self.header
        if len(plaintext) < CHUNK_BYTES:
            self._ended = True
            return head + self._aead.encrypt(self._nonce(self._take(1)), plaintext, None)

        def fill(out: memoryview) -> None:
            out[: len(head)] = head
            with memoryview(plaintext).cast("B") as source:
                self.seal_into(source, out[len(head) :], final=True)

        return _filled(len(head) + sealed_length(len(plaintext)), fill)


class Opener(_Chunks):
    """Opens one message, chunk by chunk; no plaintext of a chunk whose tag is wrong is left behind.

    Once it refused it goes on refusing, and after its end a message has no more chunks.

    Raises:
        CobblestoneError: The commitment is not that of this key and context.
    """

    def __init__(self, key: bytes, context: bytes, header: bytes) -> None:
        if len(header) != HEADER_BYTES:
            raise CobblestoneError
        super().__init__(key, header[:SALT_BYTES], context)
        if not hmac.compare_digest(self.commitment, header[SALT_BYTES:]):
            raise CobblestoneError

    def open_into(self, sealed: memoryview, out: memoryview, *, final: bool) -> int:
        """Open the next chunks of the message into *out*.

        Args:
            sealed: Whole sealed chunks; with *final*, also the last one, which must be there and shorter.
            out: At least as long as the plaintext; it must not overlap *sealed*. Of a refused chunk it
                holds zeros.
            final: Whether the stream ends here.

        Returns:
            How many bytes of *out* are verified plaintext.

        Raises:
            CobblestoneError: A chunk is not what was sealed at this place of this message.
            ValueError: *out* is too short. Nothing was opened.
        """
        whole = len(sealed) - len(sealed) % SEALED_CHUNK_BYTES
        rest = sealed[whole:]
        if self._ended or (final and len(rest) < TAG_BYTES) or (not final and len(rest)):
            self._ended = True
            raise CobblestoneError
        # Looked at first: a chunk that does not fit would leave a gap in the numbers of the chunks.
        if len(out) < opened_length(len(sealed) + (0 if final else TAG_BYTES)):
            raise ValueError("the output buffer is too short")
        open_chunk, base, position, end = self._aead.decrypt_into, self._base_nonce, 0, 0
        index = self._take(whole // SEALED_CHUNK_BYTES + final)
        try:
            for start in range(0, whole, SEALED_CHUNK_BYTES):
                end = position + CHUNK_BYTES
                nonce = (base ^ index).to_bytes(12)
                open_chunk(nonce, sealed[start : start + SEALED_CHUNK_BYTES], None, out[position:end])
                position = end
                index += 1
            if final:
                end = position + len(rest) - TAG_BYTES
                open_chunk(self._nonce(index), rest, None, out[position:end])
                position = end
                self._ended = True
        except InvalidTag:
            # OpenSSL decrypts into the buffer before it looks at the tag; nobody may see that.
            out[position:end] = bytes(end - position)
            self._ended = True
            raise CobblestoneError from None
        return position

    def open_whole(self, sealed: memoryview) -> bytes:
        """Open all chunks of a message that is in memory, and return its plaintext.

        Raises:
            CobblestoneError: They are not what was sealed.
        """
        length = opened_length(len(sealed))
        if len(sealed) < SEALED_CHUNK_BYTES and not self._ended and not self._index:
            return self.open_at(self._take(1), sealed)
        return _filled(length, lambda out: self.open_into(sealed, out, final=True))

    def open_at(self, index: int, chunk: bytes | memoryview) -> bytes:
        """Open one chunk, wherever it stands, without moving on: for random access.

        It is as genuine as the others. Whether the message ends with it shows in its length: all but the last
        have `SEALED_CHUNK_BYTES`, and the last has fewer.

        Raises:
            CobblestoneError: It is not what was sealed at this place of this message.
        """
        if not 0 <= index < MAX_CHUNKS or not TAG_BYTES <= len(chunk) <= SEALED_CHUNK_BYTES:
            raise CobblestoneError
        try:
            return self._aead.decrypt(self._nonce(index), chunk, None)
        except InvalidTag:
            self._ended = True
            raise CobblestoneError from None


def _filled(length: int, fill: Callable[[memoryview], object]) -> bytes:
    """Return bytes that *fill* writes in place: a copy would cost more than sealing or opening them."""
    if length == 0:
        fill(memoryview(bytearray()))
        return b""
    buffer = io.BytesIO()  # the one writable thing that hands out its memory as bytes
    buffer.seek(length - 1)
    buffer.write(b"\x00")
    with buffer.getbuffer() as view:
        fill(view)
    return buffer.getvalue()


def sealed_length(length: int) -> int:
    """Return how many bytes of chunks *length* bytes of plaintext become, without the 56 of the header."""
    return length + TAG_BYTES * (length // CHUNK_BYTES + 1)


def opened_length(length: int) -> int:
    """Return how many bytes of plaintext *length* bytes of chunks hold.

    Raises:
        CobblestoneError: No message has chunks of this length in all.
    """
    whole, rest = divmod(length, SEALED_CHUNK_BYTES)
    if rest < TAG_BYTES:
        raise CobblestoneError
    return whole * CHUNK_BYTES + rest - TAG_BYTES


def seal(key: bytes, context: bytes, plaintext: bytes, *, salt: bytes | None = None) -> bytes:
    """Seal a whole message that is in memory: 56 bytes of header and its chunks."""
    return Sealer(key, context, salt=salt).seal_whole(b"", plaintext)


def open_sealed(key: bytes, context: bytes, message: bytes) -> bytes:
    """Open a whole message that is in memory.

    Raises:
        CobblestoneError: It does not belong to this key and context.
    """
    opener = Opener(key, context, message[:HEADER_BYTES])
    return opener.open_whole(memoryview(message)[HEADER_BYTES:])
