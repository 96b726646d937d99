"""What the tests of Cobblestone seal, and a reader that opens it as a stream."""

from collections.abc import Iterator

from kmsplug_protocol.cobblestone import HEADER_BYTES, SEALED_CHUNK_BYTES, Opener

KEY = bytes(range(32))
SALT = bytes(range(100, 124))
CONTEXT = b"kmsplug test"


def plain(length: int) -> bytes:
    return (bytes(range(251)) * (length // 251 + 1))[:length]


def stream(key: bytes, context: bytes, message: bytes, steps: list[int] | None = None) -> Iterator[bytes]:
    """Open as a reader of a file does: some chunks at a time, and yield what is released."""
    opener = Opener(key, context, message[:HEADER_BYTES])
    chunks = memoryview(message)[HEADER_BYTES:]
    steps = list(steps or [])
    while True:
        size = (steps.pop(0) if steps else 1) * SEALED_CHUNK_BYTES
        piece, chunks = chunks[:size], chunks[size:]
        final = len(piece) < size
        out = memoryview(bytearray(len(piece)))
        yield bytes(out[: opener.open_into(piece, out, final=final)])
        if final:
            return
