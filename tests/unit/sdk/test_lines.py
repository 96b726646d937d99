import json
from typing import Any

import pytest
from kmsplug_protocol import (
    DEFAULT_FRAME_BYTES,
    HANDSHAKE_FRAME_BYTES,
    encode_frame,
)
from kmsplug_sdk.testing import run_driver
from pydantic import BaseModel, Field
from unit.sdk.drivers import Echo
from unit.sdk.wire import ENCRYPT, INITIALIZE, code, line


def padded(request_id: int, length: int) -> bytes:
    """A ping whose line is *length* bytes long, newline excluded."""
    empty = line("plugin.ping", request_id, {"pad": ""})
    return line("plugin.ping", request_id, {"pad": "x" * (length - len(empty) + 1)})


def test_a_line_over_the_limit_is_answered_once_and_the_session_goes_on() -> None:
    with run_driver(Echo) as client:
        client.send(padded(1, HANDSHAKE_FRAME_BYTES) + padded(2, HANDSHAKE_FRAME_BYTES + 1))
        client.send(b'{"jsonrpc":"2.0","id":3,' * 10_000 + b"\n" + line("plugin.ping", 4))

        answers = [client.receive() for _ in range(4)]

    assert [answer["id"] for answer in answers] == [1, None, None, 4]
    for refused in answers[1:3]:
        assert code(refused) == (-32600, "INVALID_ARGUMENT")
        assert str(HANDSHAKE_FRAME_BYTES) in refused["error"]["message"]


def test_after_the_handshake_the_negotiated_limit_holds() -> None:
    with run_driver(Echo) as client:
        client.call("plugin.initialize", {**INITIALIZE, "max_frame_bytes": 100_000})
        client.send(padded(1, 100_000) + padded(2, 100_001) + line("plugin.ping", 3))

        assert [client.receive()["id"] for _ in range(3)] == [1, None, 3]


def test_an_answer_over_the_limit_becomes_a_typed_error_under_its_id() -> None:
    with run_driver(Echo) as client:
        client.call("plugin.initialize", {**INITIALIZE, "max_frame_bytes": 65536})
        client.call("plugin.configure", {"config": {}})
        client.send(line("crypto.random", "large", {"length_bytes": 65536}))
        answer = client.receive()

        assert answer["id"] == "large"
        assert code(answer) == (-32000, "LIMIT_EXCEEDED")
        assert answer["error"]["data"]["outcome"] == "unknown"
        assert "result" in client.call("crypto.random", {"length_bytes": 30_000})


def test_the_answer_to_initialize_itself_is_still_under_the_first_limit() -> None:
    class Wordy(Echo):
        class Config(BaseModel):
            member: str = Field(default="", description="x" * 70_000)

    with run_driver(Wordy) as client:
        answer = client.call("plugin.initialize", {**INITIALIZE, "max_frame_bytes": DEFAULT_FRAME_BYTES})

    assert code(answer) == (-32000, "LIMIT_EXCEEDED")


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (b"canary", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"plugin.ping"', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"plugin.ping","params":{"canary":NaN}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"plugin.ping","params":{"canary":"\xff"}}', -32700),
        (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"plugin.ping"}', -32700),
        (b"\x00", -32700),
        (b"\x0c", -32700),
        (b"7", -32700),
        (b"null", -32700),
        (b"[]", -32700),
        (b'[{"jsonrpc":"2.0","id":1,"method":"plugin.shutdown"}]', -32700),
        (b"{}", -32600),
        (b'{"jsonrpc":"2.0"}', -32600),
        (b'{"jsonrpc":"2.0","params":{}}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"plugin.ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"plugin.ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.0,"method":"plugin.ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":[1],"method":"plugin.ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":{"a":1},"method":"plugin.ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":9007199254740992,"method":"plugin.ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":99999999999999999999999999,"method":"plugin.ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":"' + b"x" * 129 + b'","method":"plugin.ping"}', -32600),
        (b'{"jsonrpc":"2.0","method":"x","params":[]}', -32600),
        (b'{"jsonrpc":"1.0","method":"x"}', -32600),
    ],
    ids=lambda value: str(value[:50]) if isinstance(value, bytes) else "",
)
def test_what_is_no_request_is_refused_under_null_once_and_the_session_goes_on(
    data: bytes, number: int
) -> None:
    with run_driver(Echo) as client:
        client.send(data + b"\n" + line("plugin.ping", "next"))
        refused, answer = client.receive(), client.receive()

    assert refused["id"] is None
    assert code(refused) == (number, "INVALID_ARGUMENT")
    assert "canary" not in json.dumps(refused)
    assert answer == {"jsonrpc": "2.0", "id": "next", "result": {}}


@pytest.mark.parametrize(
    "members",
    [
        {"jsonrpc": "1.0", "method": "plugin.ping"},
        {"jsonrpc": 2.0, "method": "plugin.ping"},
        {"method": "plugin.ping"},
        {"jsonrpc": "2.0", "method": None},
        {"jsonrpc": "2.0", "method": ["plugin.ping"]},
        {"jsonrpc": "2.0", "method": "plugin.ping", "params": []},
        {"jsonrpc": "2.0", "method": "plugin.ping", "params": None},
        {"jsonrpc": "2.0", "method": "plugin.ping", "params": "canary"},
    ],
    ids=str,
)
def test_a_malformed_request_is_refused_under_its_id(members: dict[str, Any]) -> None:
    with run_driver(Echo) as client:
        client.send(encode_frame({"id": "mine", **members}))
        refused = client.receive()

    assert refused["id"] == "mine"
    assert code(refused) == (-32600, "INVALID_ARGUMENT")
    assert "canary" not in json.dumps(refused)


@pytest.mark.parametrize(
    "silent",
    [
        b"",
        b" \t\r",
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}',
        b'{"id":[]}',
        b'{"jsonrpc":"2.0","method":"grease.7f","params":{"a":1}}',
        b'{"jsonrpc":"2.0","method":"plugin.ping"}',
        b'{"jsonrpc":"2.0","method":"plugin.shutdown","params":{}}',
        b'{"jsonrpc":"2.0","method":"crypto.random","params":{"length_bytes":"canary"}}',
        b'{"jsonrpc":"2.0","method":"plugin.cancel"}',
        b'{"jsonrpc":"2.0","method":"plugin.cancel","params":{"id":99}}',
        b'{"jsonrpc":"2.0","method":"plugin.cancel","params":{"id":null}}',
        b'{"jsonrpc":"2.0","method":"plugin.cancel","params":{"id":[1]}}',
    ],
    ids=lambda data: str(data)[:60],
)
def test_blank_lines_notifications_and_responses_are_never_answered(silent: bytes) -> None:
    with run_driver(Echo, {}) as client:
        client.send(silent + b"\n" + line("plugin.ping", "next"))

        assert client.receive()["id"] == "next"


@pytest.mark.parametrize("request_id", [0, -1, 2**53 - 1, -(2**53) + 1, "", "7", "x" * 128, "鍵\n"])
def test_an_answer_has_the_id_of_its_request_in_value_and_type(request_id: Any) -> None:
    with run_driver(Echo, {}) as client:
        for method, params in (
            ("plugin.ping", {}),
            ("crypto.random", {"length_bytes": 1}),
            ("crypto.encrypt", ENCRYPT),
        ):
            client.send(line(method, request_id, params))
            answer = client.receive()
            assert answer["id"] == request_id
            assert type(answer["id"]) is type(request_id)


def test_a_request_without_params_has_none() -> None:
    with run_driver(Echo) as client:
        client.send(b'{"jsonrpc":"2.0","id":1,"method":"plugin.ping"}\n')

        assert client.receive()["result"] == {}


def test_a_request_may_come_byte_by_byte_and_many_in_one_write() -> None:
    with run_driver(Echo, {}) as client:
        for byte in line("plugin.ping", 1):
            client.send(bytes([byte]))
        client.send(b"".join(line("crypto.random", number, {"length_bytes": 1}) for number in range(2, 500)))

        assert [client.receive()["id"] for _ in range(1, 500)] == list(range(1, 500))
