import json
import traceback
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kmsplug_protocol import (
    DEFAULT_FRAME_BYTES,
    HANDSHAKE_FRAME_BYTES,
    FrameError,
    FrameReader,
    Oversize,
    decode_frame,
    encode_frame,
)

bounded = settings(derandomize=True, deadline=None, max_examples=200)

# Few bytes, so that newlines, blanks and short lines are all frequent.
streams = st.lists(st.sampled_from([b"\n", b"\r", b" ", b"\t", b"\x0c", b"\x00", b"a", b"{}", b"\xff"])).map(
    b"".join
)


def expected(stream: bytes, limit: int) -> list[bytes | Oversize]:
    *lines, rest = stream.split(b"\n")
    found: list[bytes | Oversize] = []
    for line in lines:
        if len(line) > limit:
            found.append(Oversize(line))
        elif line.strip(b" \t\r"):
            found.append(line)
    return [*found, Oversize(rest)] if len(rest) > limit else found


def same(frame: bytes | Oversize, line: bytes | Oversize) -> bool:
    if isinstance(frame, Oversize) and isinstance(line, Oversize):
        return line.head.startswith(frame.head)
    return frame == line


@bounded
@given(stream=streams, limit=st.integers(1, 12), data=st.data())
def test_any_chunking_of_any_stream_yields_the_same_frames(
    stream: bytes, limit: int, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader(limit)

    frames = [
        frame
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for frame in reader.feed(stream[start:end])
    ]

    lines = expected(stream, limit)
    assert len(frames) == len(lines)
    assert all(same(frame, line) for frame, line in zip(frames, lines, strict=True))


@bounded
@given(stream=streams, limit=st.integers(1, 12))
def test_byte_by_byte_is_as_good_as_all_at_once(stream: bytes, limit: int) -> None:
    slow = FrameReader(limit)

    frames = [frame for byte in stream for frame in slow.feed(bytes([byte]))]

    lines = expected(stream, limit)
    assert len(frames) == len(lines)
    assert all(same(frame, line) for frame, line in zip(frames, lines, strict=True))


def test_a_line_that_never_ends_is_reported_once_and_held_in_bounded_memory() -> None:
    reader = FrameReader(HANDSHAKE_FRAME_BYTES)
    chunk = b"x" * 16_384
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        frames = [frame for _ in range(1000) for frame in reader.feed(chunk)]  # 16 MiB of it
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert frames == [Oversize(b"x" * 4096)]
    assert peak - before < 2 * (HANDSHAKE_FRAME_BYTES + len(chunk))


def test_the_stream_goes_on_after_a_line_that_was_too_long() -> None:
    reader = FrameReader(8)

    frames = reader.feed(b"123456789 and more")
    assert [type(frame) for frame in frames] == [Oversize]
    assert reader.feed(b" and more\n{}") == []
    assert reader.feed(b"\n") == [b"{}"]


def test_two_long_lines_are_two_reports() -> None:
    frames = FrameReader(3).feed(b"aaaa\nbbbb\n{}\ncccc")

    assert frames == [Oversize(b"aaaa"), Oversize(b"bbbb"), b"{}", Oversize(b"cccc")]


@pytest.mark.parametrize("chunk", [1, 3, 1000, 5000, 100_000])
def test_the_report_of_a_long_line_holds_its_first_4_kib(chunk: int) -> None:
    line = b'{"jsonrpc":"2.0","id":77,' + bytes(range(32, 127)) * 1000
    reader = FrameReader(HANDSHAKE_FRAME_BYTES)

    frames = [
        frame for start in range(0, len(line), chunk) for frame in reader.feed(line[start : start + chunk])
    ]

    assert frames == [Oversize(line[:4096])]


@pytest.mark.parametrize("limit", [1, 2, 4096, HANDSHAKE_FRAME_BYTES, DEFAULT_FRAME_BYTES])
@pytest.mark.parametrize("split", [False, True])
def test_a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not(limit: int, split: bool) -> None:
    def read(line: bytes) -> list[bytes | Oversize]:
        reader = FrameReader(limit)
        if split:  # the way without the short cut for one whole line
            return reader.feed(line[:1]) + reader.feed(line[1:] + b"\n")
        return reader.feed(line + b"\n")

    assert read(b"x" * (limit - 1)) == ([b"x" * (limit - 1)] if limit > 1 else [])
    assert read(b"x" * limit) == [b"x" * limit]
    assert [type(frame) for frame in read(b"x" * (limit + 1))] == [Oversize]


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b" \n", b"\t \r\n", b"\n\n\n", b" \n\t\n"])
def test_blank_lines_are_skipped(blank: bytes) -> None:
    reader = FrameReader()

    assert reader.feed(blank) == []
    assert reader.feed(b"{}\n" + blank + b"{}\n") == [b"{}", b"{}"]


@pytest.mark.parametrize("line", [b"\x0c", b"\x0b", b"\x00", b"\xc2\xa0", b"\xef\xbb\xbf"])
def test_a_line_of_other_white_space_is_no_blank_line(line: bytes) -> None:
    frames = FrameReader().feed(line + b"\n")

    assert frames == [line]
    with pytest.raises(FrameError):
        decode_frame(line)


def test_a_last_line_without_a_newline_is_never_returned() -> None:
    reader = FrameReader()

    assert reader.feed(b'{"complete":true}\n{"complete":') == [b'{"complete":true}']
    assert reader.feed(b"") == []
    assert reader.feed(b"true}") == []


def test_a_limit_that_is_raised_in_the_middle_of_a_line_holds_for_it() -> None:
    reader = FrameReader(4)

    assert reader.feed(b"1234") == []
    reader.max_bytes = 8
    assert reader.feed(b"5678\n") == [b"12345678"]


def test_a_limit_that_is_lowered_in_the_middle_of_a_line_holds_for_it() -> None:
    reader = FrameReader(8)

    assert reader.feed(b"1234") == []
    reader.max_bytes = 2
    assert reader.feed(b"\n12\n") == [Oversize(b"1234"), b"12"]


def test_a_long_line_under_a_limit_that_is_raised_meanwhile_stays_lost() -> None:
    reader = FrameReader(2)

    assert reader.feed(b"1234") == [Oversize(b"1234")]
    reader.max_bytes = 100
    assert reader.feed(b"56\n78\n") == [b"78"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@bounded
@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), json_values, max_size=6)
)
def test_every_message_is_one_line_and_reads_back_as_itself(message: dict[str, Any]) -> None:
    frame = encode_frame(message)

    assert frame.endswith(b"\n")
    assert frame.count(b"\n") == 1
    assert FrameReader(DEFAULT_FRAME_BYTES).feed(frame) == [frame[:-1]]
    assert decode_frame(frame) == message == json.loads(frame)


@bounded
@given(st.binary(max_size=64))
def test_hostile_bytes_are_a_frame_error_or_an_object_and_nothing_else(data: bytes) -> None:
    try:
        message = decode_frame(data)
    except FrameError:
        return
    assert type(message) is dict


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"true",
        b"7",
        b'"canary"',
        b"[]",
        b'[{"jsonrpc":"2.0","id":1,"method":"plugin.ping"}]',
        b"{}{}",
        b"{} {}",
        b"{} canary",
        b'{"canary":NaN}',
        b'{"canary":Infinity}',
        b'{"canary":-Infinity}',
        b'{"canary":1e999}',
        b"{'canary':1}",
        b'{"canary":1,}',
        b'{"canary":01}',
        b'{"canary":"\xff"}',
        b'{"canary":"\xed\xa0\x80"}',
        b'{"canary":"\\ud800"}',
        b'{"canary":"\x00"}',
        b'{"canary":1}\x00',
        b'\xef\xbb\xbf{"canary":1}',
        b"// canary\n{}",
        '{"canary":1}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"canary":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda line: repr(line[:24]),
)
def test_what_is_not_one_json_object_is_refused_without_being_quoted(line: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        decode_frame(line)

    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_of_members_with_one_name_the_last_counts() -> None:
    assert decode_frame(b'{"id":1,"id":2,"a":{"b":1,"b":3}}') == {"id": 2, "a": {"b": 3}}


@pytest.mark.parametrize("value", ["\ud800", b"bytes", 2**64, object()])
def test_what_json_cannot_say_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError):
        encode_frame({"value": value})
