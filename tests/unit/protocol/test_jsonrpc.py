import json
from typing import Any

import pytest
from kmsplug_protocol import KNOWN_VERSIONS, PROTOCOL_VERSION, encode_frame, jsonrpc, negotiate


@pytest.mark.parametrize("value", [0, 1, -1, 2**53 - 1, -(2**53) + 1, "", "a", "x" * 128, "鍵" * 128, "7"])
def test_short_strings_and_integers_within_2_to_the_53_are_ids(value: Any) -> None:
    assert jsonrpc.is_id(value)


@pytest.mark.parametrize(
    "value",
    [None, True, False, 1.0, 0.5, 2**53, -(2**53), 2**64, 1e29, "x" * 129, [], [1], {}, {"a": 1}, b"a"],
)
def test_nothing_else_is_an_id(value: Any) -> None:
    assert not jsonrpc.is_id(value)


def test_the_numbers_are_those_of_json_rpc() -> None:
    assert (
        jsonrpc.PARSE_ERROR,
        jsonrpc.INVALID_REQUEST,
        jsonrpc.METHOD_NOT_FOUND,
        jsonrpc.INVALID_PARAMS,
        jsonrpc.INTERNAL_ERROR,
        jsonrpc.KEYSTORE_ERROR,
    ) == (-32700, -32600, -32601, -32602, -32603, -32000)


def test_messages_have_the_members_of_json_rpc_and_no_others() -> None:
    assert jsonrpc.request("key.get", {"key_id": "k"}, 7) == {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "key.get",
        "params": {"key_id": "k"},
    }
    assert jsonrpc.notification("plugin.cancel", {"id": 7}) == {
        "jsonrpc": "2.0",
        "method": "plugin.cancel",
        "params": {"id": 7},
    }
    assert jsonrpc.failure(None, -32700, "no") == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32700, "message": "no"},
    }
    assert jsonrpc.failure("a", -32000, "no", {"code": "CONFLICT"})["error"] == {
        "code": -32000,
        "message": "no",
        "data": {"code": "CONFLICT"},
    }


def test_the_id_of_a_message_stands_within_its_first_bytes() -> None:
    # Of a line that is too long only the beginning is kept, and the id is to be found in it.
    frame = encode_frame(jsonrpc.failure(77, -32000, "x" * 10_000))

    assert b'"id":77' in frame[:64]
    assert json.loads(frame)["id"] == 77


@pytest.mark.parametrize(
    ("offered", "known", "chosen"),
    [
        (["1"], ["1"], "1"),
        (["2", "1"], ["1"], "1"),
        (["2", "1"], ["1", "2"], "2"),  # the host's favourite
        (["1", "2"], ["2", "1"], "1"),
        (["1.0", "01", " 1", "1 ", ""], ["1"], None),  # names, not numbers
        (["2"], ["1"], None),
        ([], ["1"], None),
        (["1"], [], None),
        (["1", "1"], ["1"], "1"),
    ],
)
def test_the_first_offered_version_that_is_known_is_chosen(
    offered: list[str], known: list[str], chosen: str | None
) -> None:
    assert negotiate(offered, known) == chosen


def test_this_build_speaks_its_own_version() -> None:
    assert PROTOCOL_VERSION in KNOWN_VERSIONS
    assert negotiate(["grease", PROTOCOL_VERSION]) == PROTOCOL_VERSION
    assert negotiate(["grease"]) is None
