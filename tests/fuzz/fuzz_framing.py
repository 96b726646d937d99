"""A target for atheris: however a stream is cut, its frames are the same, each an object or refused."""

import sys

import atheris

with atheris.instrument_imports(include=["kmsplug_protocol.framing"]):
    from kmsplug_protocol import FrameError, FrameReader, Oversize, decode_frame, encode_frame

LIMIT = 64


def check(data: bytes) -> None:
    """Read a stream whole and in pieces; the first byte says how long they are."""
    size, stream = 1 + data[0] % 32 if data else 1, data[1:]
    whole = FrameReader(LIMIT).feed(stream)
    pieces = FrameReader(LIMIT)
    cut = [
        frame for start in range(0, len(stream), size) for frame in pieces.feed(stream[start : start + size])
    ]
    assert [type(frame) for frame in whole] == [type(frame) for frame in cut]
    for frame, other in zip(whole, cut, strict=True):
        if isinstance(frame, Oversize):
            continue
        assert frame == other
        assert len(frame) <= LIMIT
        assert b"\n" not in frame
        try:
            message = decode_frame(frame)
        except FrameError:
            continue
        assert decode_frame(encode_frame(message)) == message


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
