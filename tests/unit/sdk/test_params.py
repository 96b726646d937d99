import json
from typing import Any

import pytest
from kmsplug_protocol import (
    encode_frame,
    jsonrpc,
)
from kmsplug_sdk.testing import run_driver
from unit.sdk.drivers import Echo
from unit.sdk.wire import ENCRYPT, INITIALIZE, code, line


@pytest.mark.parametrize(
    ("method", "params", "path"),
    [
        ("crypto.encrypt", {"plaintext": "", "context": {"a": "canary"}}, "key_id"),
        ("crypto.encrypt", {**ENCRYPT, "context": {"a": "b", "c": ["canary"]}}, "context.c"),
        (
            "crypto.encrypt",
            {**ENCRYPT, "context": {"n" * 10_000: ["canary"]}},
            f"context.{'n' * 64}... 9936 characters more",
        ),
        ("crypto.encrypt", {**ENCRYPT, "plaintext": "canary!"}, "plaintext"),
        ("crypto.encrypt", {**ENCRYPT, "plaintext": "-_-_"}, "plaintext"),
        ("crypto.encrypt", {**ENCRYPT, "mechanism": "canary"}, "mechanism"),
        ("crypto.encrypt", {**ENCRYPT, "meta": {"deadline_ms": -1}}, "meta.deadline_ms"),
        ("crypto.encrypt", {**ENCRYPT, "meta": "canary"}, "meta"),
        ("crypto.random", {}, "length_bytes"),
        ("crypto.random", {"length_bytes": 0}, "length_bytes"),
        ("crypto.random", {"length_bytes": "32"}, "length_bytes"),
        ("crypto.random", {"length_bytes": True}, "length_bytes"),
        ("crypto.random", {"length_bytes": 32.0}, "length_bytes"),
        ("crypto.random", {"length_bytes": None}, "length_bytes"),
        ("plugin.health", {"depth": "canary"}, "depth"),
        ("plugin.configure", {"config": {}, "dry_run": "no"}, "dry_run"),
        ("plugin.configure", {"config": []}, "config"),
        ("plugin.initialize", {**INITIALIZE, "protocol_versions": "1"}, "protocol_versions"),
        ("plugin.initialize", {**INITIALIZE, "protocol_versions": [1]}, "protocol_versions.0"),
        ("plugin.initialize", {**INITIALIZE, "max_frame_bytes": 65535}, "max_frame_bytes"),
        ("plugin.ping", {"meta": 7}, "meta"),
        ("plugin.shutdown", {"meta": 7}, "meta"),
    ],
)
def test_params_that_do_not_fit_are_refused_by_path_without_their_value(
    method: str, params: dict[str, Any], path: str
) -> None:
    with run_driver(Echo, {}) as client:
        response = client.call(method, params)

        assert code(response) == (-32602, "INVALID_ARGUMENT")
        assert response["error"]["data"]["path"] == path
        assert path in response["error"]["message"]
        assert "canary" not in json.dumps(response)
        assert "result" in client.call("plugin.ping")


def test_unknown_members_are_ignored_at_every_level() -> None:
    grease = {"grease": {"a": [None, 1.5]}}
    with run_driver(Echo, {}) as client:
        client.send(
            encode_frame(
                {**jsonrpc.request("crypto.encrypt", {**ENCRYPT, **grease, "meta": grease}, 7), **grease}
            )
        )

        assert client.receive()["result"]["ciphertext"] == ENCRYPT["plaintext"]


def test_null_stands_for_an_optional_member_that_is_absent() -> None:
    with run_driver(Echo, {}) as client:
        params = {**ENCRYPT, "meta": None, "context": None, "key_version": None}

        assert "result" in client.call("crypto.encrypt", params)


@pytest.mark.parametrize("depth", [60, 190, 240, 300, 900, 5000])
@pytest.mark.parametrize("member", ["meta", "grease", "context"])
def test_params_that_are_nested_deeply_are_read_or_refused_and_the_session_goes_on(
    depth: int, member: str
) -> None:
    nested = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    data = b'{"jsonrpc":"2.0","id":1,"method":"plugin.ping","params":{"%s":%s}}\n' % (member.encode(), nested)
    with run_driver(Echo) as client:
        client.send(data + line("plugin.ping", "next"))
        answer = client.receive()

        if "error" in answer:
            assert answer["error"]["code"] in {-32600, -32700}
            assert answer["error"]["data"]["code"] == "INVALID_ARGUMENT"
        else:
            assert depth < 200
        assert client.receive()["id"] == "next"
