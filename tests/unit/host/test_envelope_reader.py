"""Random access: the same bytes as a whole decrypt, and none that was not verified."""

import io
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kmsplug_host.errors import AccessDenied, InvalidArgument, InvalidCiphertext
from kmsplug_host.shims.envelope_reader import EnvelopeReader
from kmsplug_protocol import cobblestone
from support.envelopes import MemoryKeystore, opening, seal

CHUNK = cobblestone.CHUNK_BYTES
SEALED = cobblestone.SEALED_CHUNK_BYTES

KEYSTORE = MemoryKeystore()
PLAINTEXT = os.urandom(3 * CHUNK + 100)
CIPHERTEXT = seal(KEYSTORE, PLAINTEXT)
PAYLOAD = len(CIPHERTEXT) - 56 - cobblestone.sealed_length(len(PLAINTEXT))


class Counted(io.BytesIO):
    """A source that counts what is read from it."""

    taken = 0

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self.taken += count
        return count


def reader(ciphertext: bytes = CIPHERTEXT) -> EnvelopeReader:
    return EnvelopeReader(io.BytesIO(ciphertext), opening([KEYSTORE]))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(PLAINTEXT) + 50), st.integers(0, 2 * CHUNK)), max_size=6))
def test_any_range_holds_the_same_bytes(ranges: list[tuple[int, int]]) -> None:
    opened = reader()

    for offset, length in ranges:
        assert opened.pread(offset, length) == PLAINTEXT[offset : offset + length]


def test_it_is_a_file() -> None:
    opened = reader()

    assert opened.readable()
    assert opened.seekable()
    assert not opened.writable()
    assert opened.read(10) == PLAINTEXT[:10]
    assert opened.tell() == 10
    assert opened.seek(5, os.SEEK_CUR) == 15
    assert opened.seek(-100, os.SEEK_END) == len(PLAINTEXT) - 100
    assert opened.read() == PLAINTEXT[-100:]
    assert opened.read(1) == b""
    assert opened.seek(len(PLAINTEXT) + 10) == len(PLAINTEXT) + 10
    assert opened.read(1) == b""
    opened.seek(0)
    assert io.BufferedReader(opened).read() == PLAINTEXT
    assert reader().readall() == PLAINTEXT
    assert opened.facts.suite == "cobblestone-256"


@pytest.mark.parametrize("whence", [3, -1])
def test_a_position_that_is_none_is_refused(whence: int) -> None:
    with pytest.raises(InvalidArgument):
        reader().seek(0, whence)
    with pytest.raises(InvalidArgument):
        reader().seek(-1)


def test_a_range_costs_its_chunks_and_the_last_one() -> None:
    source = Counted(CIPHERTEXT)
    opened = EnvelopeReader(source, opening([KEYSTORE]))
    source.taken = 0

    assert opened.pread(CHUNK + 5, 10) == PLAINTEXT[CHUNK + 5 : CHUNK + 15]

    assert source.taken == SEALED + 100 + 16


@pytest.mark.parametrize("length", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_sizes_at_the_edges_of_chunks(length: int) -> None:
    plaintext = os.urandom(length)
    opened = reader(seal(KEYSTORE, plaintext))

    assert opened.size() == length
    assert opened.read() == plaintext
    assert reader(seal(KEYSTORE, plaintext)).pread(max(0, length - 3), 10) == plaintext[-3:][:10]


def test_a_cut_is_noticed_when_the_end_or_the_size_is_asked_for() -> None:
    for cut in (
        CIPHERTEXT[:-1],
        CIPHERTEXT[: PAYLOAD + 56 + SEALED],
        CIPHERTEXT[: PAYLOAD + 56 + SEALED + 40],
    ):
        opened = reader(cut)
        assert opened.read(100) == PLAINTEXT[:100]
        with pytest.raises(InvalidCiphertext):
            opened.size()
        with pytest.raises(InvalidCiphertext):
            opened.read(1)
        with pytest.raises(InvalidCiphertext):
            reader(cut).seek(0, os.SEEK_END)
        with pytest.raises(InvalidCiphertext):
            reader(cut).readall()


def test_bytes_after_the_end_are_noticed() -> None:
    for more in (b"x", bytes(SEALED), bytes(SEALED - 116), bytes(SEALED - 100)):
        with pytest.raises(InvalidCiphertext):
            reader(CIPHERTEXT + more).size()


def test_a_changed_chunk_is_refused_and_the_reader_stays_refused() -> None:
    changed = bytearray(CIPHERTEXT)
    changed[PAYLOAD + 56 + SEALED + 3] ^= 1
    opened = reader(bytes(changed))

    assert opened.pread(2 * CHUNK, 10) == PLAINTEXT[2 * CHUNK : 2 * CHUNK + 10]
    with pytest.raises(InvalidCiphertext):
        opened.pread(CHUNK, 1)
    with pytest.raises(InvalidCiphertext):
        opened.pread(2 * CHUNK, 10)


def test_chunks_that_changed_places_are_refused() -> None:
    first, second = PAYLOAD + 56, PAYLOAD + 56 + SEALED
    swapped = (
        CIPHERTEXT[:first]
        + CIPHERTEXT[second : second + SEALED]
        + CIPHERTEXT[first:second]
        + CIPHERTEXT[second + SEALED :]
    )

    for chunk in (0, 1):
        with pytest.raises(InvalidCiphertext):
            reader(swapped).pread(chunk * CHUNK, 1)


def test_what_may_not_be_opened_has_no_reader() -> None:
    with pytest.raises(AccessDenied):
        EnvelopeReader(io.BytesIO(CIPHERTEXT), opening([MemoryKeystore(identity="ks:2")]))
    with pytest.raises(InvalidCiphertext):
        reader(CIPHERTEXT[: PAYLOAD + 20])


def test_a_native_message_is_a_file_too() -> None:
    keystore = MemoryKeystore()
    keystore.wants_commitment = False

    opened = EnvelopeReader(io.BytesIO(seal(keystore, b"secret")), opening([keystore]))

    assert (opened.size(), opened.pread(2, 3), opened.facts.suite) == (6, b"cre", "native")
    assert opened.pread(6, 1) == b""
