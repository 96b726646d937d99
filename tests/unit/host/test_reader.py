"""The host's reader, on any stream: each call gets the first answer under its id, or a typed error."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from kmsplug_host.errors import PluginCrashed, ProtocolViolation
from kmsplug_protocol import encode_frame
from support.fake_process import Answer, converse

LIMIT = 200
CALLS = 3
LONG = b"x" * (LIMIT + 1)

bounded = settings(derandomize=True, deadline=None, max_examples=150)


@dataclass(frozen=True)
class Line:
    """A line, and what it means: whom it answers, whom it fails, whether it ends the session."""

    text: bytes
    answers: int = 0
    fails: int = 0
    ends: bool = False


def answer(number: int, tag: int) -> Line:
    return Line(encode_frame({"jsonrpc": "2.0", "id": number, "result": {"tag": tag}})[:-1], answers=number)


ids = st.integers(1, CALLS)
lines = st.one_of(
    st.builds(answer, ids, st.integers(0, 9)),
    st.builds(lambda number: Line(b'{"id":%d,"result":"' % number + LONG + b'"}', fails=number), ids),
    st.builds(lambda number: Line(b'{"id":%d,"method":"host.give","params":{}}' % number), ids),
    st.builds(lambda number: Line(b'{"id":%d.0,"result":{}}' % number), ids),
    st.builds(lambda number: Line(b'{"id":"%d","result":{}}' % number), ids),
    st.builds(lambda number: Line(b'{"id":%d,"result":' % number), ids),
    st.sampled_from(
        [b"", b" \t\r", b"noise", b"\xff\xfe", b"[]", b"null", b'{"id":true}', b'{"id":99}', b"{}"]
    ).map(Line),
    st.just(Line(b'{"id":99,"result":"' + LONG + b'"}')),
    st.just(Line(LONG, ends=True)),
)


def expected(said: list[Line]) -> dict[int, Line | None]:
    """Return what each call gets: the line that answers or fails it, None where there is none."""
    got: dict[int, Line | None] = {}
    for line in said:
        if number := line.answers or line.fails:
            got.setdefault(number, line)
    return got


def fits(number: int, given: Answer, line: Line | None, *, violated: bool) -> bool:
    if violated and isinstance(
        given, ProtocolViolation
    ):  # what had not been read by then is not read any more
        return True
    if line is None:
        return isinstance(given, PluginCrashed) and not violated
    if line.fails:
        return isinstance(given, ProtocolViolation)
    return isinstance(given, dict) and given["id"] == number and encode_frame(given)[:-1] == line.text


@bounded
@given(said=st.lists(lines, max_size=12), rest=st.binary(max_size=20), data=st.data())
def test_each_call_gets_the_first_answer_under_its_id(
    said: list[Line], rest: bytes, data: st.DataObject
) -> None:
    stream = b"".join(line.text + b"\n" for line in said) + rest.replace(b"\n", b"")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b]

    got = converse(chunks, CALLS, LIMIT)

    wanted, violated = expected(said), any(line.ends for line in said)
    for number, given_ in enumerate(got, 1):
        assert fits(number, given_, wanted.get(number), violated=violated), (number, given_)


@bounded
@given(st.lists(st.binary(min_size=1, max_size=400), max_size=8))
def test_no_bytes_at_all_leave_a_call_without_an_end(chunks: list[bytes]) -> None:
    for given_ in converse(chunks, CALLS, LIMIT):
        assert isinstance(given_, (dict, PluginCrashed, ProtocolViolation))
