import hashlib
import hmac
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from kmsplug_protocol import cobblestone
from kmsplug_protocol.cobblestone import (
    CHUNK_BYTES,
    HEADER_BYTES,
    SALT_BYTES,
    SEALED_CHUNK_BYTES,
    TAG_BYTES,
    CobblestoneError,
    Opener,
    Sealer,
    open_sealed,
    opened_length,
    seal,
    sealed_length,
)
from unit.protocol.sealed import CONTEXT, KEY, SALT, plain, stream

bounded = settings(derandomize=True, deadline=None, max_examples=40)

# Around every place where a chunk begins or ends.
LENGTHS = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 7]


def reference(key: bytes, salt: bytes, context: bytes, plaintext: bytes) -> bytes:
    """The specification once more, slowly, with none of our code."""
    info = b"c2sp.org/chunked-encryption@v1+" + b"AEAD_AES_256_GCM" + b"\x00" + salt + context
    first = hmac.new(key, info + b"\x01", hashlib.sha512).digest()
    material = first + hmac.new(key, first + info + b"\x02", hashlib.sha512).digest()
    nonce = int.from_bytes(material[32:44], "big")
    chunks = [plaintext[start : start + 16384] for start in range(0, len(plaintext), 16384)]
    if not chunks or len(chunks[-1]) == 16384:
        chunks.append(b"")
    sealed = [
        AESGCM(material[:32]).encrypt((nonce ^ number).to_bytes(12, "big"), chunk, None)
        for number, chunk in enumerate(chunks)
    ]
    return salt + material[44:76] + b"".join(sealed)


@bounded
@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=24, max_size=24),
    st.binary(max_size=80),
    st.sampled_from(LENGTHS),
)
def test_messages_are_those_of_the_specification(
    key: bytes, salt: bytes, context: bytes, length: int
) -> None:
    assert seal(key, context, plain(length), salt=salt) == reference(key, salt, context, plain(length))


@bounded
@given(length=st.integers(0, 5 * CHUNK_BYTES), steps=st.lists(st.integers(1, 3), max_size=6))
def test_any_split_into_chunks_seals_and_opens_alike(length: int, steps: list[int]) -> None:
    plaintext = plain(length)
    sealer = Sealer(KEY, CONTEXT, salt=SALT)
    message, rest = bytearray(sealer.header), memoryview(plaintext)
    for step in steps:
        if len(rest) < step * CHUNK_BYTES:
            break
        out = bytearray(step * SEALED_CHUNK_BYTES)
        assert sealer.seal_into(rest[: step * CHUNK_BYTES], memoryview(out), final=False) == len(out)
        message += out
        rest = rest[step * CHUNK_BYTES :]
    out = bytearray(sealed_length(len(rest)))
    assert sealer.seal_into(rest, memoryview(out), final=True) == len(out)
    message += out

    assert message == seal(KEY, CONTEXT, plaintext, salt=SALT)
    assert b"".join(stream(KEY, CONTEXT, bytes(message), steps)) == plaintext


@pytest.mark.parametrize("length", LENGTHS)
def test_lengths_are_known_before(length: int) -> None:
    message = seal(KEY, CONTEXT, plain(length))

    assert len(message) == HEADER_BYTES + sealed_length(length)
    assert opened_length(len(message) - HEADER_BYTES) == length


def test_no_message_has_a_length_that_only_a_cut_one_can_have() -> None:
    possible = {sealed_length(length) for length in range(3 * CHUNK_BYTES)}

    for length in (
        *range(20),
        *range(SEALED_CHUNK_BYTES - 2, SEALED_CHUNK_BYTES + 20),
        2 * SEALED_CHUNK_BYTES,
    ):
        if length in possible:
            assert sealed_length(opened_length(length)) == length
        else:
            with pytest.raises(CobblestoneError):
                opened_length(length)


def test_a_salt_is_fresh_for_every_message() -> None:
    salts = {seal(KEY, CONTEXT, b"")[:SALT_BYTES] for _ in range(100)}

    assert len(salts) == 100


@pytest.mark.parametrize("length", [0, 5])
def test_a_message_with_any_flipped_bit_is_refused(length: int) -> None:
    message = seal(KEY, CONTEXT, plain(length))

    for at in range(len(message) * 8):
        flipped = bytearray(message)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(CobblestoneError):
            open_sealed(KEY, CONTEXT, bytes(flipped))


@bounded
@given(at=st.integers(0, HEADER_BYTES + sealed_length(2 * CHUNK_BYTES + 7) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_long_message_releases_only_the_chunks_before_it(at: int, bit: int) -> None:
    message = bytearray(seal(KEY, CONTEXT, plain(2 * CHUNK_BYTES + 7), salt=SALT))
    message[at] ^= 1 << bit

    released = b""
    with pytest.raises(CobblestoneError):  # noqa: PT012 - what came before the refusal counts
        for piece in stream(KEY, CONTEXT, bytes(message)):
            released += piece

    whole_chunks = max(0, at - HEADER_BYTES) // SEALED_CHUNK_BYTES
    assert released == plain(whole_chunks * CHUNK_BYTES)


def test_a_message_cut_at_any_place_is_refused() -> None:
    for length in (0, 5):
        message = seal(KEY, CONTEXT, plain(length))
        for cut in range(len(message)):
            with pytest.raises(CobblestoneError):
                open_sealed(KEY, CONTEXT, message[:cut])


@pytest.mark.parametrize("length", [CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 7])
def test_a_long_message_cut_at_any_boundary_is_refused_and_never_ends_early(length: int) -> None:
    message = seal(KEY, CONTEXT, plain(length), salt=SALT)
    boundaries = range(HEADER_BYTES, len(message) + 1, SEALED_CHUNK_BYTES)
    cuts = {boundary + off for boundary in boundaries for off in (-17, -16, -15, -1, 0, 1, 15, 16, 17)}
    cuts |= {len(message) - off for off in (1, 15, 16, 17)}

    for cut in sorted(cut for cut in cuts if HEADER_BYTES <= cut < len(message)):
        released = b""
        with pytest.raises(CobblestoneError):
            open_sealed(KEY, CONTEXT, message[:cut])
        with pytest.raises(CobblestoneError):  # noqa: PT012 - what came before the refusal counts
            for piece in stream(KEY, CONTEXT, message[:cut]):
                released += piece
        assert plain(length).startswith(released)
        assert len(released) % CHUNK_BYTES == 0


@pytest.mark.parametrize(
    "rebuild",
    [
        lambda header, chunks: [header, chunks[1], chunks[0], chunks[2]],
        lambda header, chunks: [header, chunks[0], chunks[0], chunks[2]],
        lambda header, chunks: [header, chunks[0], chunks[2]],
        lambda header, chunks: [header, chunks[2]],
        lambda header, chunks: [header, chunks[0], chunks[1]],
        lambda header, chunks: [header, *chunks, chunks[2]],
        lambda header, chunks: [header, *chunks, b"\x00"],
        lambda header, chunks: [header, *chunks, b"\x00" * 16],
    ],
    ids=["swapped", "repeated", "left out", "end only", "no end", "end twice", "rest", "empty end"],
)
def test_chunks_have_one_order_and_one_end(rebuild: Any) -> None:
    message = seal(KEY, CONTEXT, plain(2 * CHUNK_BYTES + 7))
    header, body = message[:HEADER_BYTES], message[HEADER_BYTES:]
    chunks = [body[start : start + SEALED_CHUNK_BYTES] for start in range(0, len(body), SEALED_CHUNK_BYTES)]

    with pytest.raises(CobblestoneError):
        open_sealed(KEY, CONTEXT, b"".join(rebuild(header, chunks)))


@pytest.mark.parametrize("key", [b"", KEY[:31], KEY + b"\x00", bytes(32)])
def test_another_key_is_refused(key: bytes) -> None:
    with pytest.raises(CobblestoneError):
        open_sealed(key, CONTEXT, seal(KEY, CONTEXT, b"plaintext"))


@pytest.mark.parametrize("context", [b"", b"kmsplug test\x00", b"kmsplug tes", b"Kmsplug test"])
def test_another_context_is_refused(context: bytes) -> None:
    with pytest.raises(CobblestoneError):
        open_sealed(KEY, context, seal(KEY, CONTEXT, b"plaintext"))


def test_salt_and_context_cannot_trade_bytes() -> None:
    message = seal(KEY, b"b" + CONTEXT, b"plaintext", salt=b"a" * 24)

    with pytest.raises(CobblestoneError):
        open_sealed(KEY, CONTEXT, b"a" * 23 + b"b" + message[24:])


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_seals_nothing(length: int) -> None:
    with pytest.raises(CobblestoneError):
        Sealer(bytes(length), CONTEXT)


def test_every_refusal_has_the_same_words() -> None:
    message = seal(KEY, CONTEXT, b"plaintext")
    words = set()

    for key, context, data in (
        (KEY[::-1], CONTEXT, message),
        (KEY, b"", message),
        (KEY, CONTEXT, message[:-1] + bytes([message[-1] ^ 1])),
        (KEY, CONTEXT, message[:60]),
        (KEY, CONTEXT, b""),
        (b"", CONTEXT, message),
    ):
        with pytest.raises(CobblestoneError) as caught:
            open_sealed(key, context, data)
        words.add(str(caught.value))

    assert len(words) == 1


def opener_and_chunks(length: int) -> tuple[Opener, bytearray]:
    message = seal(KEY, CONTEXT, plain(length))
    return Opener(KEY, CONTEXT, message[:HEADER_BYTES]), bytearray(message[HEADER_BYTES:])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_opener_that_refused_once_goes_on_refusing_also_what_would_come_next(number: int) -> None:
    opener, chunks = opener_and_chunks(2 * CHUNK_BYTES + 7)
    good = memoryview(bytes(chunks))[number * SEALED_CHUNK_BYTES :][:SEALED_CHUNK_BYTES]
    chunks[3] ^= 1
    out = memoryview(bytearray(CHUNK_BYTES))

    with pytest.raises(CobblestoneError):
        opener.open_into(memoryview(chunks)[:SEALED_CHUNK_BYTES], out, final=False)

    for _ in range(3):
        with pytest.raises(CobblestoneError):
            opener.open_into(good, out, final=number == 2)


@pytest.mark.parametrize(
    ("size", "final"), [(7, False), (SEALED_CHUNK_BYTES + 1, False), (15, True), (0, True)]
)
def test_pieces_that_are_no_chunks_are_refused_for_good(size: int, final: bool) -> None:
    opener, chunks = opener_and_chunks(2 * CHUNK_BYTES + 7)
    out = memoryview(bytearray(3 * CHUNK_BYTES))

    with pytest.raises(CobblestoneError):
        opener.open_into(memoryview(chunks)[:size], out, final=final)
    with pytest.raises(CobblestoneError):
        opener.open_into(memoryview(chunks), out, final=True)


def test_after_its_end_a_message_has_no_more_chunks() -> None:
    sealer = Sealer(KEY, CONTEXT)
    first, second = (memoryview(bytearray(21)) for _ in range(2))
    sealer.seal_into(memoryview(b"first"), first, final=True)
    with pytest.raises(ValueError, match="ended"):
        sealer.seal_into(memoryview(b"again"), second, final=True)

    # What a faulty sealer would have made: a chunk that is right in itself, after the end.
    material = cobblestone.expand(
        KEY, b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00" + sealer.header[:24] + CONTEXT, 76
    )
    nonce = (int.from_bytes(material[32:44]) ^ 1).to_bytes(12)
    extra = AESGCM(material[:32]).encrypt(nonce, b"again", None)
    opener, out = Opener(KEY, CONTEXT, sealer.header), memoryview(bytearray(5))
    opener.open_into(first, out, final=True)

    with pytest.raises(CobblestoneError):
        opener.open_into(memoryview(extra), out, final=True)


def test_nothing_of_a_refused_chunk_is_left_in_the_buffer() -> None:
    opener, chunks = opener_and_chunks(2 * CHUNK_BYTES + 7)
    chunks[SEALED_CHUNK_BYTES + 3] ^= 1  # in the second chunk: the rest of it would decrypt to plaintext
    out = bytearray(b"\xee" * (2 * CHUNK_BYTES + 7))

    with pytest.raises(CobblestoneError):
        opener.open_into(memoryview(chunks), memoryview(out), final=True)

    assert out[:CHUNK_BYTES] == plain(CHUNK_BYTES)
    assert out[CHUNK_BYTES : 2 * CHUNK_BYTES] == bytes(CHUNK_BYTES)
    assert out[2 * CHUNK_BYTES :] == b"\xee" * 7


@pytest.mark.parametrize("missing", [1, CHUNK_BYTES])
def test_a_buffer_that_is_too_short_for_the_plaintext_changes_nothing(missing: int) -> None:
    opener, chunks = opener_and_chunks(2 * CHUNK_BYTES + 7)
    out = bytearray(2 * CHUNK_BYTES + 7)

    with pytest.raises(ValueError, match="too short"):
        opener.open_into(memoryview(chunks), memoryview(out)[missing:], final=True)

    assert out == bytes(len(out))
    assert opener.open_into(memoryview(chunks), memoryview(out), final=True) == len(out)
    assert out == plain(len(out))


@pytest.mark.parametrize("missing", [1, TAG_BYTES, SEALED_CHUNK_BYTES])
def test_a_buffer_that_is_too_short_for_the_chunks_changes_nothing(missing: int) -> None:
    plaintext = plain(2 * CHUNK_BYTES + 7)
    sealer = Sealer(KEY, CONTEXT, salt=SALT)
    out = bytearray(sealed_length(len(plaintext)))

    with pytest.raises(ValueError, match="too short"):
        sealer.seal_into(memoryview(plaintext), memoryview(out)[missing:], final=True)

    assert out == bytes(len(out))
    sealer.seal_into(memoryview(plaintext), memoryview(out), final=True)
    assert sealer.header + out == seal(KEY, CONTEXT, plaintext, salt=SALT)


def test_whole_chunks_need_no_room_for_an_end() -> None:
    sealer = Sealer(KEY, CONTEXT, salt=SALT)
    sealed, opened = bytearray(SEALED_CHUNK_BYTES), bytearray(CHUNK_BYTES)

    written = sealer.seal_into(memoryview(plain(CHUNK_BYTES)), memoryview(sealed), final=False)
    read = Opener(KEY, CONTEXT, sealer.header).open_into(memoryview(sealed), memoryview(opened), final=False)

    assert (written, read) == (SEALED_CHUNK_BYTES, CHUNK_BYTES)
    assert opened == plain(CHUNK_BYTES)


def test_a_larger_buffer_is_left_alone_behind_the_result() -> None:
    opener, chunks = opener_and_chunks(5)
    out = bytearray(b"\xee" * 100)

    assert opener.open_into(memoryview(chunks), memoryview(out), final=True) == 5
    assert out == plain(5) + b"\xee" * 95


def test_only_the_end_may_be_shorter_than_a_chunk() -> None:
    sealer = Sealer(KEY, CONTEXT)

    for length in (1, CHUNK_BYTES - 1, CHUNK_BYTES + 1):
        with pytest.raises(ValueError, match="shorter than a chunk"):
            sealer.seal_into(memoryview(plain(length)), memoryview(bytearray(3 * CHUNK_BYTES)), final=False)


def test_a_message_has_at_most_2_to_the_38_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cobblestone.MAX_CHUNKS == 2**38
    monkeypatch.setattr(cobblestone, "MAX_CHUNKS", 2)

    assert len(open_sealed(KEY, CONTEXT, seal(KEY, CONTEXT, plain(CHUNK_BYTES + 1)))) == CHUNK_BYTES + 1
    with pytest.raises(CobblestoneError):
        seal(KEY, CONTEXT, plain(2 * CHUNK_BYTES))
    with pytest.raises(CobblestoneError):
        open_sealed(KEY, CONTEXT, reference(KEY, SALT, CONTEXT, plain(2 * CHUNK_BYTES)))
