"""Cases about lines, JSON, ids, limits and envelopes (SPEC.md section 2)."""

from typing import Any, Final

from kmsplug_protocol import (
    HANDSHAKE_FRAME_BYTES,
    decode_base64,
    encode_frame,
    jsonrpc,
)

from .bench import Bench
from .case import Cases, Need, offers
from .session import Session
from .verdict import Failed, check

FRAMING: Final = Cases("framing")

_PING: Final = b'{"jsonrpc":"2.0","id":"p","method":"plugin.ping","params":{}}'
_REFUSED: Final = (jsonrpc.INVALID_REQUEST, jsonrpc.PARSE_ERROR)
_MORE_THAN_A_FRAME: Final = 50_000  # in base64 longer than the smallest limit
_NESTED: Final = 20_000  # deeper than any stack, shorter than the shortest limit

_RANDOM_OVER_A_FRAME: Final = Need(
    "needs crypto.random of at least 50,000 bytes",
    lambda found: any(
        (row.max_input_bytes or 2**16) >= _MORE_THAN_A_FRAME for row in found.of("crypto.random")
    ),
)


def _padded(length: int, request_id: str = "p") -> bytes:
    """Return a ping of exactly *length* bytes, newline not counted."""
    empty = encode_frame(jsonrpc.request("plugin.ping", {"padding": ""}, request_id))
    return encode_frame(
        jsonrpc.request("plugin.ping", {"padding": "x" * (length + 1 - len(empty))}, request_id)
    )


def _parse_error(session: Session, line: bytes) -> None:
    session.exchange(line + b"\n").refused(number=jsonrpc.PARSE_ERROR).under(None)
    session.settle()


@FRAMING.case("bad_json", "2.2-1", hint="answer -32700 under id null and read on")
def bad_json(bench: Bench) -> None:
    """A line that is not JSON is answered with -32700 under id null, and the session goes on."""
    for line in (
        b"{",
        b"hello",
        b'{"a":}',
        b'"',
        _PING[:-1],
        _PING + b"}",
        _PING + _PING,
        b"\x00",
        b"{'a':1}",
    ):
        _parse_error(bench.session, line)


@FRAMING.case("not_utf8", "2.2-1 2.1-1", hint="decode strictly before parsing")
def not_utf8(bench: Bench) -> None:
    """A line that is not UTF-8 is answered with -32700 under id null, and the session goes on."""
    for foreign in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"caf\xe9"):
        _parse_error(bench.session, _PING.replace(b"{}", b'{"x":"' + foreign + b'"}'))
    _parse_error(bench.session, _PING.decode().encode("utf-16"))


@FRAMING.case("not_a_number", "2.2-2", hint="many JSON libraries read NaN unless told not to")
def not_a_number(bench: Bench) -> None:
    """NaN and the infinities are refused as what they are: not JSON."""
    for value in (b"NaN", b"Infinity", b"-Infinity"):
        _parse_error(bench.session, _PING.replace(b"{}", b'{"x":' + value + b"}"))


@FRAMING.case("not_an_object", "2.2-3", hint="look at the type of what the parser returns")
def not_an_object(bench: Bench) -> None:
    """A line that is JSON but no object is refused once, under id null."""
    for line in (b"42", b'"plugin.ping"', b"null", b"true"):
        bench.session.exchange(line + b"\n").refused(number=_REFUSED).under(None)
        bench.session.settle()


@FRAMING.case("batch", "2.2-3", hint="an array is refused as a whole, with one error object, not an array")
def batch(bench: Bench) -> None:
    """A JSON-RPC batch is refused as a whole, with one error under id null."""
    for line in (
        b"[]",
        b"[" + _PING + b"]",
        b"[" + _PING + b"," + _PING.replace(b'"p"', b'"q"') + b"]",
        b"[1]",
    ):
        bench.session.exchange(line + b"\n").refused(number=_REFUSED).under(None)
        bench.session.settle()


@FRAMING.case("blank_lines", "2.1-3", hint="skip them before parsing")
def blank_lines(bench: Bench) -> None:
    """Blank lines are skipped without an answer."""
    bench.session.exchange(b"\n\n  \n\t\r\n\r\n" + _PING + b"\n\n").under("p").granted()


@FRAMING.case("json_is_json", "2.1-1 2.5-1", hint="do not match requests as text")
def json_is_json(bench: Bench) -> None:
    """Spaces, escapes, a carriage return before the newline and any order of members make no difference."""
    for line in (
        b'  { "params" : { } , "method" : "plugin.ping" ,\t"id" : "p" , "jsonrpc" : "2.0" }  \n',
        b'{"jsonrpc":"2.0","id":"\\u0070","method":"plugin\\u002eping","params":{}}\n',
        _PING + b"\r\n",
    ):
        bench.session.exchange(line).under("p").granted()


@FRAMING.case(
    "duplicate_members", "2.2-5", hint="most parsers do this; do not scan the text for members yourself"
)
def duplicate_members(bench: Bench) -> None:
    """Of members with the same name, the last counts."""
    line = b'{"jsonrpc":"2.0","id":1,"method":"no.such","params":{},"method":"plugin.ping","id":2}\n'
    bench.session.exchange(line).under(2).granted()


@FRAMING.case("depth", "2.2-6", hint="catch the stack overflow of your JSON parser, or limit its depth")
def depth(bench: Bench) -> None:
    """A value nested very deeply is skipped or refused; the driver survives it."""
    nested = b"[" * _NESTED + b"]" * _NESTED
    _skipped_or_refused(bench.session, _PING.replace(b"{}", b'{"x":' + nested + b"}"))
    _skipped_or_refused(bench.session, nested)


@FRAMING.case(
    "lone_surrogate", "2.2-6", hint="writing it back as UTF-8 may fail: do not echo what you were sent"
)
def lone_surrogate(bench: Bench) -> None:
    """A lone surrogate escape is skipped or refused; the driver survives it."""
    for escape in (b"\\ud800", b"\\udfff\\ud800", b"a\\ud83d"):
        _skipped_or_refused(bench.session, _PING.replace(b"{}", b'{"x":"' + escape + b'"}'))


def _skipped_or_refused(session: Session, line: bytes) -> None:
    answer = session.exchange(line + b"\n", "a strange line")
    check(answer.id in (None, "p"), "a strange line was answered under another id")
    if answer.result is None:
        answer.refused(number=_REFUSED)
    session.settle()


@FRAMING.case("ids_echoed", "2.3-1 2.3-2", hint="keep the id as the JSON value that it was")
def ids_echoed(bench: Bench) -> None:
    """A response carries the id of its request, same value and same type."""
    ids: tuple[Any, ...] = (
        0,
        7,
        "7",
        -1,
        2**53 - 1,
        1 - 2**53,
        "",
        "x" * 128,
        'q"\\/',
        "\u00e9\u4f60\U0001f511",
        "a\nb",
    )
    for request_id in ids:
        bench.session.request("plugin.ping", {}, request_id)
        bench.session.next(f"the request {request_id!r}").under(request_id).granted()


@FRAMING.case(
    "ids_refused", "2.3-1", hint="in some languages true is an integer, and 1.5 is cut to 1: test the type"
)
def ids_refused(bench: Bench) -> None:
    """An id that is neither a short string nor an integer below 2^53 is refused with -32600 under id null."""
    for text in (
        "null",
        "true",
        "false",
        "1.5",
        "[]",
        "{}",
        "[1]",
        str(2**53),
        str(-(2**53)),
        '"' + "x" * 129 + '"',
    ):
        line = _PING.replace(b'"p"', text.encode())
        answer = bench.session.exchange(line + b"\n", f"a request with id {text[:20]}")
        answer.refused(number=jsonrpc.INVALID_REQUEST).under(None)
        bench.session.settle()


@FRAMING.case("same_id_twice", "2.3-3 2.3-4", hint="keep a table of the requests in progress")
def same_id_twice(bench: Bench) -> None:
    """Two requests with one id get two answers: two results, or one of them refused with -32600."""
    session = bench.session
    line = session.frame("plugin.health", {"depth": "shallow"}, "twin")
    session.send(line + line)
    answers = [session.next("one of two requests with the same id").under("twin") for _ in range(2)]
    session.settle()
    refused = [answer for answer in answers if answer.result is None]
    check(len(refused) < 2, f"both requests were refused: {refused[0] if refused else ''}")  # noqa: PLR2004
    for answer in refused:
        answer.refused(number=jsonrpc.INVALID_REQUEST)


@FRAMING.case("envelope", "2.5-2", hint="check the envelope before the method")
def envelope(bench: Bench) -> None:
    """A request whose version, method or params are no such thing is refused with -32600 under its id."""
    good: dict[str, Any] = {"jsonrpc": "2.0", "id": 5, "method": "plugin.ping", "params": {}}
    broken = [{**good, "jsonrpc": value} for value in ("1.0", 2.0, None)]
    broken += [{**good, "method": value} for value in (7, None, ["plugin.ping"])]
    broken += [{**good, "params": value} for value in ([], ["x"], "x", 1, None, True)]
    broken += [{name: value for name, value in good.items() if name != "jsonrpc"}]
    for message in broken:
        bench.session.exchange(encode_frame(message)).refused(number=jsonrpc.INVALID_REQUEST).under(5)
    for nameless in ({}, {"jsonrpc": "2.0"}, {"jsonrpc": "2.0", "method": 7}):
        bench.session.exchange(encode_frame(nameless)).refused(number=jsonrpc.INVALID_REQUEST).under(None)
    bench.session.settle()


@FRAMING.case("params_absent", "2.5-1", hint="take {} as the default")
def params_absent(bench: Bench) -> None:
    """A request without params is one with empty params."""
    line = encode_frame({"jsonrpc": "2.0", "id": 5, "method": "plugin.ping"})
    bench.session.exchange(line).under(5).granted()


@FRAMING.case("notifications", "2.5-3 2.5-4 9-3", hint="no id, no answer; no method, no answer either")
def notifications(bench: Bench) -> None:
    """Notifications, known or not, and responses are never answered."""
    for method in ("plugin.grease-7c1f", "plugin.ping", "no.such", "", "crypto.random"):
        bench.session.notify(method, {"unknown": [1, {"a": None}]})
    bench.session.send(b'{"jsonrpc":"2.0","method":"plugin.log"}\n')
    bench.session.send(b'{"jsonrpc":"2.0","id":9,"result":{}}\n')
    bench.session.send(b'{"jsonrpc":"2.0","id":9,"error":{"code":-32000,"message":"no"}}\n')
    bench.session.settle()


@FRAMING.case("split_and_joined", "2.1-1 2.3-3", hint="a read is not a line: buffer until the newline")
def split_and_joined(bench: Bench) -> None:
    """Requests are read from a stream: one may come in pieces, and many at once; each is answered once."""
    for piece in (_PING[:1], _PING[1:20], _PING[20:], b"\n"):
        bench.session.send(piece)
    bench.session.next().under("p").granted()
    wanted = [f"j{number}" for number in range(300)]
    bench.session.send(b"".join(bench.session.frame("plugin.ping", {}, name) for name in wanted))
    seen = [bench.session.next(f"one of {len(wanted)} requests").id for _ in wanted]
    check(sorted(seen) == sorted(wanted), "not every request of one write was answered exactly once")


@FRAMING.case(
    "base64",
    "2.6-2 2.6-3",
    offers("key.create", "crypto.encrypt"),
    hint="decode strictly, then encode again and compare",
)
def base64(bench: Bench) -> None:
    """Text that is not the padded standard base64 of some bytes is refused with -32602, and not quoted."""
    target = bench.capabilities.targets("crypto.encrypt")[0]
    key_id = bench.key(target)
    canary = "Q2FuYXJ5Q2FuYXJ5"
    foreign = (
        "AA",
        "AAA",
        "A===",
        "AA=A",
        "AA==AA==",
        "AA==\n",
        " AAAA",
        "AA AA",
        "-__-",
        "AB==",
        "AAB=",
        "\u00e9\u00e9\u00e9=",
    )
    for text in (*foreign, canary + "!", canary + "="):
        answer = bench.session.call("crypto.encrypt", {"key_id": key_id, "plaintext": text})
        answer.refused("INVALID_ARGUMENT", number=jsonrpc.INVALID_PARAMS)
        check(canary not in answer.message + str(answer.data), "the refusal quotes the text")


@FRAMING.case(
    "limit_before_handshake", "2.4-1 2.4-3 2.4-4 11-3", hint="limit what you read, not what you got"
)
def limit_before_handshake(bench: Bench) -> None:
    """Before the handshake a line of 65,536 bytes is taken; a longer one is refused once, and skipped."""
    with bench.fresh() as session:
        _limits(session, HANDSHAKE_FRAME_BYTES)
        session.initialize()


@FRAMING.case("limit_after_handshake", "2.4-2 2.4-3 2.4-4 11-3", hint="the new limit holds after the answer")
def limit_after_handshake(bench: Bench) -> None:
    """After it the negotiated limit holds in the same way; a line of many megabytes ends nothing."""
    with bench.ready() as session:
        _limits(session, session.max_frame_bytes)
    with bench.initialized(max_frame_bytes=HANDSHAKE_FRAME_BYTES) as session:
        _limits(session, HANDSHAKE_FRAME_BYTES)


def _limits(session: Session, limit: int) -> None:
    session.exchange(_padded(limit), f"a line of {limit} bytes").under("p").granted()
    for length in (limit + 1, limit + 4097, 3 * 1024 * 1024 + limit):
        answer = session.exchange(_padded(length), f"a line of {length} bytes")
        answer.refused(number=jsonrpc.INVALID_REQUEST).under(None)
        session.settle()
    session.exchange(b" " * limit + b"  " + _PING + b"\n", "a long line").refused(
        number=jsonrpc.INVALID_REQUEST
    )
    session.settle()


@FRAMING.case("limit_of_answers", "2.4-5", _RANDOM_OVER_A_FRAME, hint="measure a response before writing it")
def limit_of_answers(bench: Bench) -> None:
    """An answer that would be longer than the limit is replaced by LIMIT_EXCEEDED."""
    with bench.ready(max_frame_bytes=HANDSHAKE_FRAME_BYTES) as session:
        session.call("crypto.random", {"length_bytes": _MORE_THAN_A_FRAME}).refused("LIMIT_EXCEEDED")
        fits = session.call("crypto.random", {"length_bytes": 40_000}).granted()
        check(len(decode_base64(fits["data"])) == 40_000, "an answer that fits was cut")  # noqa: PLR2004


@FRAMING.case("response", "2.5-5", hint="result or error, never both, never neither")
def response(bench: Bench) -> None:
    """A response has jsonrpc 2.0, its id, and a result or an error with number, message and data.code."""
    session = bench.session
    session.exchange(session.frame("plugin.ping", {}, "result")).under("result").granted()
    answer = session.exchange(session.frame("no.such", {}, "error")).under("error")
    check(answer.result is not None or bool(answer.message), "the message of an error is empty")


@FRAMING.case("utf8", "2.1-1 2.2-1", hint="collect bytes until the newline, and decode then")
def utf8(bench: Bench) -> None:
    """A character that comes in two pieces is one character."""
    text = "\u00e9\u4f60\U0001f511"
    line = f'{{"jsonrpc":"2.0","id":"{text}","method":"plugin.ping","params":{{}}}}\n'.encode()
    for place in range(line.index(text.encode()), line.index(text.encode()) + len(text.encode())):
        bench.session.send(line[:place])
        bench.session.send(line[place:])
        bench.session.next("a line in two pieces").under(text).granted()


@FRAMING.case("many_bad_lines", "2.2-1 11-3", hint="nothing about a bad line is kept")
def many_bad_lines(bench: Bench) -> None:
    """Hundreds of bad lines among good ones are answered one by one, and disturb none of the good ones."""
    bad, good = b"{\n", _PING + b"\n"
    bench.session.send((bad + good) * 300)
    seen = [bench.session.next("one of 600 lines") for _ in range(600)]
    check(sum(answer.id == "p" for answer in seen) == 300, "not every good line was answered")  # noqa: PLR2004
    for answer in seen:
        if answer.id != "p":
            answer.refused(number=jsonrpc.PARSE_ERROR).under(None)


@FRAMING.case(
    "integers", "2.2-4 2.2-6", offers("crypto.random"), hint="a number that does not fit is no length"
)
def integers(bench: Bench) -> None:
    """Numbers beyond 2^53, and beyond what a double holds, are refused or skipped; the session goes on."""
    for number in (b"9007199254740993", b"1" + b"0" * 400, b"-1e400", b"1e400", b"0.1e-999"):
        params = b'{"length_bytes":' + number + b"}"
        line = b'{"jsonrpc":"2.0","id":"n","method":"crypto.random","params":' + params + b"}\n"
        answer = bench.session.exchange(line, "a request with a number that is too large")
        check(answer.result is None, f"{number[:20].decode()} random bytes were granted")
        check(answer.id in (None, "n"), "it was answered under another id")
        answer.refused("INVALID_ARGUMENT", number=(*_REFUSED, jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR))
        bench.session.settle()


@FRAMING.case(
    "whole_lines", "2.1-5 2.3-3", offers("crypto.random"), hint="one lock around the write of a whole line"
)
def whole_lines(bench: Bench) -> None:
    """The lines of many long answers do not mix."""
    limit = max(row.max_input_bytes or 2**16 for row in bench.capabilities.of("crypto.random"))
    length = min(limit, 2**16, (bench.session.max_frame_bytes - 4096) * 3 // 4)
    session = bench.session
    lines = [session.frame("crypto.random", {"length_bytes": length}, number) for number in range(64)]
    session.send(b"".join(lines))
    seen = [session.next("one of 64 requests for random bytes") for _ in lines]
    check(sorted(answer.id for answer in seen) == list(range(64)), "not every request was answered once")
    lengths = {len(decode_base64(answer.granted()["data"])) for answer in seen}
    check(len(lengths) == 1, f"{length} bytes were asked for each time, {sorted(lengths)} came")


@FRAMING.case("unfinished_line", "2.1-4 3.7-2", hint="at the end of stdin, drop what has no newline")
def unfinished_line(bench: Bench) -> None:
    """A last line without its newline is not acted on."""
    with bench.fresh() as session:
        session.exchange(_PING + b"\n").granted()
        session.send(_PING)
        session.wire.end_stdin()
        session.ended()


CLEAN_STDOUT: Final = Cases("framing")


@CLEAN_STDOUT.case(
    "clean_stdout",
    "2.1-2 2.5-6 3.1-2 8-1",
    hint="move stdout away first thing: a print of any library lands on the wire",
)
def clean_stdout(bench: Bench) -> None:
    """In the whole run nothing but responses came over stdout."""
    if strays := bench.budget.strays:
        raise Failed(f"{len(strays)} lines on stdout were no responses, the first: {strays[0]!r}")
