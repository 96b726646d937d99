"""Envelopes as streams: the same format, nothing lost, nothing unverified released."""

import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import InvalidArgument, InvalidCiphertext
from kmsplug_host.shims import envelope, envelope_stream
from kmsplug_protocol import cobblestone
from support.envelopes import MemoryKeystore, opening, seal, sealing, unseal

CHUNK = cobblestone.CHUNK_BYTES


def seal_stream(keystore: MemoryKeystore, source: Any, sink: Any, progress: Any = None) -> None:
    envelope.encrypt_stream(sealing(keystore), source, sink, progress, Deadline.after(5))


def sink(path: Path, in_a_file: bool) -> Any:
    return path.open("w+b", buffering=0) if in_a_file else io.BytesIO()


def content(stream: Any) -> bytes:
    stream.seek(0)
    data: bytes = stream.read()
    return data


@pytest.mark.parametrize(
    "length", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 64 * CHUNK, 64 * CHUNK + 1, 130 * CHUNK]
)
@pytest.mark.parametrize("in_a_file", [False, True])
def test_streams_and_bytes_are_the_same_format(length: int, in_a_file: bool, tmp_path: Path) -> None:
    keystore = MemoryKeystore()
    plaintext = os.urandom(length)
    steps: list[int] = []

    with sink(tmp_path / "sealed", in_a_file) as sealed, sink(tmp_path / "opened", in_a_file) as opened:
        seal_stream(keystore, io.BytesIO(plaintext), sealed, steps.append)
        assert unseal([keystore], content(sealed))[0] == plaintext
        sealed.seek(0)
        envelope_stream.open_stream(sealed, opened, opening([keystore]), None)

        assert content(opened) == plaintext
    assert sum(steps) == length


class Trickle(io.RawIOBase):
    """A source that gives a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def readinto(self, buffer: Any, /) -> int:
        count = min(len(buffer), len(self._data), 1000)
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


class Sip(io.RawIOBase):
    """A sink that takes a part at a time, as an unbuffered file may."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: Any, /) -> int:
        self.data += data[:777]
        return min(len(data), 777)


def test_short_reads_and_short_writes_lose_nothing() -> None:
    keystore = MemoryKeystore()
    plaintext = os.urandom(3 * CHUNK + 5)
    sink = Sip()

    seal_stream(keystore, Trickle(plaintext), sink, None)

    assert unseal([keystore], bytes(sink.data))[0] == plaintext


class NotYet(io.RawIOBase):
    """A non-blocking source without data."""

    def readinto(self, buffer: Any, /) -> None:
        return None


def test_nothing_yet_is_not_taken_for_the_end() -> None:
    keystore = MemoryKeystore()

    with pytest.raises(InvalidArgument, match="non-blocking"):
        seal_stream(keystore, NotYet(), io.BytesIO())


def test_a_cut_stream_releases_only_genuine_bytes_and_then_fails() -> None:
    keystore = MemoryKeystore()
    plaintext = os.urandom(100 * CHUNK)
    ciphertext = seal(keystore, plaintext)
    source, sink = io.BytesIO(ciphertext[: -2 * CHUNK]), io.BytesIO()

    with pytest.raises(InvalidCiphertext):
        envelope_stream.open_stream(source, sink, opening([keystore]), None)

    assert plaintext.startswith(sink.getvalue())


class Full(io.FileIO):
    """A file on a disk that is full after two blocks."""

    blocks = 0

    def write(self, data: Any, /) -> int:
        self.blocks += 1
        if self.blocks > 2:
            raise OSError(28, "no space left on device")
        return super().write(data)


def test_a_disk_that_is_full_ends_the_stream_with_its_error(tmp_path: Path) -> None:
    keystore = MemoryKeystore()
    threads = threading.active_count()

    with Full(tmp_path / "sealed", "w") as full, pytest.raises(OSError, match="no space"):
        seal_stream(keystore, io.BytesIO(bytes(500 * CHUNK)), full, None)

    assert full.blocks <= 4
    assert threading.active_count() == threads
