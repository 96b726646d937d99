"""C2SP chunked-encryption, Cobblestone-256: streaming authenticated encryption that commits to its key.

Source: https://c2sp.org/chunked-encryption (v1) with AEAD_AES_256_GCM and SHA-512. A message is
``salt(24) || commitment(32) || chunks``, every chunk 16 KiB of plaintext and a 16-byte tag, the last
one shorter (perhaps empty), so that a cut at any place is noticed. Host and drivers use this one module:
`seal` and `open_sealed` for small values, `Sealer` and `Opener` for streams.
"""

import hmac
import os
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

    def _nonce(self) -> bytes:
        if self._index >= MAX_CHUNKS:
            raise CobblestoneError
        nonce = (self._base_nonce ^ self._index).to_bytes(12)
        self._index += 1
        return nonce


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
        if not final and len(plaintext) % CHUNK_BYTES:
            raise ValueError("only the end of a message may be shorter than a chunk")
        # Looked at first: a chunk that does not fit would leave a gap in the numbers of the chunks.
        if len(out) < sealed_length(len(plaintext)) - (0 if final else TAG_BYTES):
            raise ValueError("the output buffer is too short")
        position = 0
        for start in range(0, len(plaintext) - len(plaintext) % CHUNK_BYTES, CHUNK_BYTES):
            end = position + SEALED_CHUNK_BYTES
            self._aead.encrypt_into(
                self._nonce(), plaintext[start : start + CHUNK_BYTES], None, out[position:end]
            )
            position = end
        if final:
            rest = plaintext[len(plaintext) - len(plaintext) % CHUNK_BYTES :]
            end = position + len(rest) + TAG_BYTES
            self._aead.encrypt_into(self._nonce(), rest, None, out[position:end])
            position = end
            self._ended = True
        return position


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
        position = 0
        for start in range(0, whole, SEALED_CHUNK_BYTES):
            position = self._open_chunk(sealed[start : start + SEALED_CHUNK_BYTES], out, position)
        if final:
            position = self._open_chunk(rest, out, position)
            self._ended = True
        return position

    def _open_chunk(self, chunk: memoryview, out: memoryview, position: int) -> int:
        end = position + len(chunk) - TAG_BYTES
        try:
            self._aead.decrypt_into(self._nonce(), chunk, None, out[position:end])
        except InvalidTag:
            # OpenSSL decrypts into the buffer before it looks at the tag; nobody may see that.
            out[position:end] = bytes(end - position)
            self._ended = True
            raise CobblestoneError from None
        return end


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
    sealer = Sealer(key, context, salt=salt)
    out = bytearray(HEADER_BYTES + sealed_length(len(plaintext)))
    out[:HEADER_BYTES] = sealer.header
    sealer.seal_into(memoryview(plaintext), memoryview(out)[HEADER_BYTES:], final=True)
    return bytes(out)


def open_sealed(key: bytes, context: bytes, message: bytes) -> bytes:
    """Open a whole message that is in memory.

    Raises:
        CobblestoneError: It does not belong to this key and context.
    """
    opener = Opener(key, context, message[:HEADER_BYTES])
    chunks = memoryview(message)[HEADER_BYTES:]
    out = bytearray(opened_length(len(chunks)))
    opener.open_into(chunks, memoryview(out), final=True)
    return bytes(out)
