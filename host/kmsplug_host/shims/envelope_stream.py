"""Envelopes of any length, from a source to a sink, in constant memory.

Where the sink is a regular file, one block is written, on a thread of its own, while the next one is read
and sealed or opened. Into anything else the caller's thread writes: a pipe may take its time for ever, and
Ctrl-C has to end that. The sink has taken everything, or raised, when a function here returns.
"""

import io
import itertools
import os
import stat
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from kmsplug_protocol import cobblestone

from kmsplug_host.errors import InvalidArgument

from . import envelope_format as fmt
from .envelope_open import Request, open_native, unlock
from .envelope_types import Progress, Sink, Source, Unseal

# 1 MiB a step: large enough that Python's share is small, small enough for the cache.
_BLOCK_CHUNKS: Final = 64


def seal_stream(
    prefix: bytes, sealer: cobblestone.Sealer, source: Source, sink: Sink, progress: Progress | None
) -> None:
    """Write the envelope of everything in *source*."""
    write_all(sink, memoryview(prefix + sealer.header))
    _write_blocks(_seal_blocks(sealer, source, progress), sink)


def read_header(source: Source) -> fmt.Header:
    """Read an envelope up to its payload.

    Raises:
        InvalidCiphertext: This is no envelope, or it ends too early.
        UnsupportedOperation: It is one of another format.
    """
    length = fmt.header_length(read_exactly(source, fmt.PREFIX_BYTES))
    return fmt.decode_header(read_exactly(source, length))


def open_stream(source: Source, sink: Sink, request: Request, progress: Progress | None) -> Unseal:
    """Open an envelope that is read from *source* and write its plaintext.

    Raises:
        InvalidCiphertext: It was changed or cut; what was written before is genuine but not all.
        KmsplugError: What the keystores refused.
    """
    header = read_header(source)
    if header.fixed.suite == fmt.SUITE_NATIVE:
        opened = open_native(header, read_native(source), request)
        write_all(sink, memoryview(opened.plaintext))
        if progress is not None:
            progress(len(opened.plaintext))
        return opened.unseal()
    unlocked = unlock(header, read_exactly(source, cobblestone.HEADER_BYTES), request)
    _write_blocks(_open_blocks(unlocked.opener, source, progress), sink)
    return unlocked.unseal()


def copy_rest(source: Source, sink: Sink, progress: Progress | None) -> None:
    """Write everything that is left in *source* as it is."""
    buffers = _buffers(_BLOCK_CHUNKS * cobblestone.CHUNK_BYTES)

    def blocks() -> Iterator[memoryview]:
        for block in buffers:
            length = fill(source, block)
            if length:
                yield block[:length]
            if progress is not None:
                progress(length)
            if length < len(block):
                return

    _write_blocks(blocks(), sink)


def read_native(source: Source) -> bytes:
    """Read the rest of an envelope of suite native, which is short.

    Raises:
        InvalidCiphertext: It is empty or too long.
    """
    block = memoryview(bytearray(fmt.MAX_NATIVE_BYTES + 1))
    length = fill(source, block)
    if not 0 < length <= fmt.MAX_NATIVE_BYTES:
        raise fmt.refused()
    return bytes(block[:length])


def _seal_blocks(
    sealer: cobblestone.Sealer, source: Source, progress: Progress | None
) -> Iterator[memoryview]:
    block = memoryview(bytearray(_BLOCK_CHUNKS * cobblestone.CHUNK_BYTES))
    for out in _buffers(_BLOCK_CHUNKS * cobblestone.SEALED_CHUNK_BYTES + cobblestone.TAG_BYTES):
        length = fill(source, block)
        written = sealer.seal_into(block[:length], out, final=length < len(block))
        yield out[:written]
        if progress is not None:
            progress(length)
        if length < len(block):
            return


def _open_blocks(
    opener: cobblestone.Opener, source: Source, progress: Progress | None
) -> Iterator[memoryview]:
    block = memoryview(bytearray(_BLOCK_CHUNKS * cobblestone.SEALED_CHUNK_BYTES))
    for out in _buffers(_BLOCK_CHUNKS * cobblestone.CHUNK_BYTES):
        length = fill(source, block)
        try:
            written = opener.open_into(block[:length], out, final=length < len(block))
        except cobblestone.CobblestoneError:
            raise fmt.refused() from None
        yield out[:written]
        if progress is not None:
            progress(length)
        if length < len(block):
            return


def _buffers(length: int) -> Iterator[memoryview]:
    """Yield two buffers in turn, for ever: one is filled while the other is written."""
    return itertools.cycle([memoryview(bytearray(length)), memoryview(bytearray(length))])


def _write_blocks(blocks: Iterator[memoryview], sink: Sink) -> None:
    if not _is_file(sink):
        for block in blocks:
            write_all(sink, block)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="kmsplug-write") as writer:
        before: Future[None] | None = None
        for block in blocks:  # made while the one before is written
            if before is not None:
                before.result()
            before = writer.submit(write_all, sink, block)
        if before is not None:
            before.result()


def _is_file(sink: Sink) -> bool:
    try:
        return isinstance(sink, io.IOBase) and stat.S_ISREG(os.fstat(sink.fileno()).st_mode)
    except OSError:  # it has no descriptor
        return False


def fill(source: Source, block: memoryview) -> int:
    """Read until *block* is full or the source ends; return how many bytes there are."""
    length = 0
    while length < len(block):
        count = source.readinto(block[length:])
        if count is None:  # "nothing yet" must not be taken for the end: the rest would be lost silently
            raise InvalidArgument("the source is non-blocking: give one that waits for its data")
        if count == 0:
            break
        length += count
    return length


def write_all(sink: Sink, data: memoryview) -> None:
    """Write everything; an unbuffered file may take a part at a time."""
    written = 0
    while written < len(data):
        count = sink.write(data[written:])
        if not count:
            raise InvalidArgument("the sink takes no more data: give one that waits")
        written += count


def read_exactly(source: Source, length: int) -> bytes:
    """Return the next bytes of an envelope.

    Raises:
        InvalidCiphertext: It ends before.
    """
    data = bytearray(length)
    if fill(source, memoryview(data)) < length:
        raise fmt.refused()
    return bytes(data)
