"""Reads and writes that keep the interpreter to themselves."""

import contextlib
import ctypes
import os
from collections.abc import Iterator

import pytest
from kmsplug_host._pipe import read_now, write_now


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    yield reads, writes
    for descriptor in (reads, writes):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_what_is_written_is_read_in_pieces_of_the_buffer(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    buffer = ctypes.create_string_buffer(4)

    assert write_now(writes, b"a\0bcde") == 6
    assert [read_now(reads, buffer), read_now(reads, buffer)] == [b"a\0bc", b"de"]


def test_nothing_of_what_was_read_stays_in_the_buffer(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    buffer = ctypes.create_string_buffer(64)
    write_now(writes, b"a plaintext")

    assert read_now(reads, buffer) == b"a plaintext"
    assert buffer.raw == bytes(64)


def test_the_end_of_a_pipe_is_no_bytes(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    os.close(writes)

    assert read_now(reads, ctypes.create_string_buffer(64)) == b""


def test_a_full_pipe_takes_nothing_and_says_so(pipe: tuple[int, int]) -> None:
    _, writes = pipe

    def fill() -> None:
        for _ in range(1000):
            write_now(writes, bytes(4096))

    with pytest.raises(BlockingIOError):
        fill()


def test_a_descriptor_that_is_none_is_an_error_of_the_system(pipe: tuple[int, int]) -> None:
    for descriptor in pipe:
        os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        read_now(pipe[0], ctypes.create_string_buffer(64))
    with pytest.raises(OSError, match="Bad file descriptor"):
        write_now(pipe[1], b"x")
