import os
import threading
from collections.abc import Iterator

import pytest
from kmsplug_sdk._stdio import Wire


@pytest.fixture
def ends() -> Iterator[tuple[Wire, Wire]]:
    there, back = os.pipe(), os.pipe()
    wires = Wire(back[0], there[1]), Wire(there[0], back[1])
    yield wires
    for wire in wires:
        wire.close()


def read_all(wire: Wire, length: int) -> bytes:
    data = b""
    while len(data) < length:
        assert wire.wait(9)
        data += wire.read()
    return data


def test_a_frame_that_is_longer_than_a_pipe_holds_is_written_whole(ends: tuple[Wire, Wire]) -> None:
    frame = os.urandom(3_000_000)
    writer = threading.Thread(target=ends[0].write, args=(frame,))
    writer.start()

    assert read_all(ends[1], len(frame)) == frame
    writer.join(9)
    assert not writer.is_alive()


def test_a_write_that_is_interrupted_is_continued(
    ends: tuple[Wire, Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:7]))

    ends[0].write(b"0123456789" * 5 + b"\n")

    assert read_all(ends[1], 51) == b"0123456789" * 5 + b"\n"


def test_frames_of_several_threads_never_mix(ends: tuple[Wire, Wire]) -> None:
    frames = [bytes([letter]) * 300_000 + b"\n" for letter in b"abcdefgh"]
    writers = [threading.Thread(target=ends[0].write, args=(frame,)) for frame in frames]
    for writer in writers:
        writer.start()

    lines = read_all(ends[1], 8 * 300_001).splitlines(keepends=True)
    for writer in writers:
        writer.join(9)

    assert sorted(lines) == frames


def test_a_write_to_a_host_that_has_gone_is_an_error_and_no_signal() -> None:
    there, back = os.pipe(), os.pipe()
    wire = Wire(back[0], there[1])
    os.close(there[0])
    os.close(back[1])

    with pytest.raises(BrokenPipeError):
        wire.write(b"{}\n")
    assert wire.wait(9)
    assert wire.read() == b""
    wire.close()


def test_waiting_ends_when_the_time_is_over(ends: tuple[Wire, Wire]) -> None:
    assert not ends[1].wait(0.01)
    ends[0].write(b"x")
    assert ends[1].wait(9)
