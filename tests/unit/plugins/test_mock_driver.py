"""What the mock does to calls: each effect, over the real session, and what is left of the keys after it."""

from typing import Any

import pytest
from kmsplug_protocol import CANCEL, ErrorCode, encode_frame, jsonrpc
from kmsplug_protocol.operations import KEYSTORE_API
from support.host import wait_until
from unit.plugins.local_support import Keystore, b64
from unit.plugins.mock_support import calls, mock

SECRET = b64(b"secret")
CHANGES: dict[str, Any] = {"meta": {"idempotency_key": "change-1"}}


def send(keystore: Keystore, request_id: int, method: str, **params: object) -> None:
    """Send a request and wait for nothing."""
    keystore.client.send(encode_frame(jsonrpc.request(method, params, request_id)))


def test_every_operation_of_the_protocol_is_offered() -> None:
    with mock() as keystore:
        for operation in KEYSTORE_API:
            answer = keystore.client.call(operation.wire, {"nonsense": 1})
            assert answer.get("error", {}).get("code") != jsonrpc.METHOD_NOT_FOUND, operation.wire


def test_a_throttled_call_says_so_with_the_hint_and_the_next_one_works() -> None:
    rule = {"effect": "throttle", "operations": ["crypto.*"], "times": 1, "retry_after_ms": 250}

    with mock(rule) as keystore:
        key_id = keystore.create()
        error = keystore.error("crypto.encrypt", key_id=key_id, plaintext=SECRET)["data"]

        assert error["code"] == "RATE_LIMIT_EXCEEDED"
        assert error["retry_after_ms"] == 250
        assert error["outcome"] == "not_applied"
        assert error["vendor"]["http_status"] == 429
        assert keystore.encrypt(key_id, b"secret")


@pytest.mark.parametrize("code", list(ErrorCode))
def test_it_fails_with_any_code_and_in_the_providers_own_words(code: ErrorCode) -> None:
    words = {"vendor_code": "OddException", "http_status": 418, "retry_after_ms": 9, "outcome": "unknown"}
    rule = {"effect": "fail", "code": code, "message": "odd", **words}

    with mock(rule) as keystore:
        error = keystore.error("crypto.random", length_bytes=16)

    assert error["message"] == "odd"
    assert error["data"]["code"] == code
    assert (error["data"]["retry_after_ms"], error["data"]["outcome"]) == (9, "unknown")
    assert error["data"]["vendor"] == {
        "service": "mock", "code": "OddException", "http_status": 418, "request_id": "mock-000001",
    }  # fmt: skip


def test_a_call_that_fails_before_changes_nothing_and_one_that_fails_after_is_done_all_the_same() -> None:
    before = {"effect": "fail", "code": "PROVIDER_INTERNAL", "operations": ["key.create"], "times": 1}

    with mock(before, {**before, "when": "after"}) as keystore:
        for keys in (0, 1):
            assert keystore.code("key.create", algorithm="AES_256_GCM") == "PROVIDER_INTERNAL"
            assert len(keystore.call("key.list")["keys"]) == keys


def reconciled(keystore: Keystore) -> dict[str, Any]:
    """Ask what became of the change."""
    params = {"method": "key.create", "idempotency_key": CHANGES["meta"]["idempotency_key"]}
    result: dict[str, Any] = keystore.client.call("key.reconcile", params)["result"]
    return result


def test_a_lost_reply_never_comes_but_the_key_is_there_and_can_be_asked_about() -> None:
    with mock({"effect": "lose_reply", "operations": ["key.create"]}) as keystore:
        send(keystore, 900, "key.create", algorithm="AES_256_GCM", **CHANGES)
        wait_until(lambda: keystore.call("key.list")["keys"], "the key to be made")

        (key,) = keystore.call("key.list")["keys"]
        became = reconciled(keystore)

    assert became["outcome"] == "applied"
    assert became["key"]["key_id"] == key["key_id"]


def test_a_reply_lost_before_the_effect_leaves_nothing_behind() -> None:
    rule = {"effect": "lose_reply", "when": "before", "operations": ["key.create"], "times": 1}

    with mock(rule) as keystore:
        send(keystore, 900, "key.create", algorithm="AES_256_GCM", **CHANGES)
        wait_until(lambda: "key.create 1" in calls(keystore), "the call to be counted")
        keystore.create(name="only")

        assert [key["name"] for key in keystore.call("key.list")["keys"]] == ["only"]
        assert reconciled(keystore)["outcome"] == "not_applied"


def test_a_reply_comes_twice() -> None:
    with mock({"effect": "answer_twice", "times": 1}) as keystore:
        first = keystore.client.call("crypto.random", {"length_bytes": 16})

        assert keystore.client.receive() == first
        assert keystore.call("crypto.random", length_bytes=16) != first["result"]


def test_a_delayed_call_holds_up_no_other_and_ends_when_its_caller_leaves() -> None:
    with mock({"effect": "delay", "ms": 600_000, "operations": ["crypto.random"]}) as keystore:
        send(keystore, 900, "crypto.random", length_bytes=16)
        keystore.create()
        keystore.client.send(encode_frame({"jsonrpc": "2.0", "method": CANCEL, "params": {"id": 900}}))

        answer = keystore.client.receive()

    assert (answer["id"], answer["error"]["data"]["code"]) == (900, "CANCELLED")


def test_a_new_key_is_not_found_for_some_calls_and_then_it_is() -> None:
    with mock({"effect": "lag", "operations": ["key.create"], "calls": 3}) as keystore:
        key_id = keystore.create()

        assert keystore.call("key.list")["keys"] == []
        assert keystore.code("key.get", key_id=key_id) == "KEY_NOT_FOUND"
        assert keystore.code("crypto.encrypt", key_id=key_id, plaintext=SECRET) == "KEY_NOT_FOUND"
        assert keystore.encrypt(key_id, b"secret")
        assert len(keystore.call("key.list")["keys"]) == 1


def test_a_create_repeated_while_its_key_is_not_seen_makes_no_second_one() -> None:
    with mock({"effect": "lag", "operations": ["key.create"], "calls": 2, "times": 1}) as keystore:
        first = keystore.create(**CHANGES)

        assert keystore.create(**CHANGES) == first
        assert keystore.call("key.list")["keys"] == []
        assert [key["key_id"] for key in keystore.call("key.list")["keys"]] == [first]


def test_after_a_rotation_the_former_version_encrypts_for_some_calls_more() -> None:
    with mock({"effect": "lag", "operations": ["key.rotate"], "calls": 2}) as keystore:
        key_id = keystore.create()
        assert keystore.call("key.rotate", key_id=key_id)["key_version"] == "2"

        used = [
            keystore.call("crypto.encrypt", key_id=key_id, plaintext=SECRET)["key_version"] for _ in range(4)
        ]

    assert used == ["1", "1", "2", "2"]


@pytest.mark.parametrize(
    ("state", "code"),
    [("SUSPENDED", "KEY_DISABLED"), ("DEACTIVATED", "KEY_INVALID_STATE"), ("COMPROMISED", "KEY_COMPROMISED")],
)
def test_a_key_is_disabled_midway(state: str, code: str) -> None:
    rule = {"effect": "set_state", "state": state, "operations": ["crypto.encrypt"], "after": 2, "times": 1}

    with mock(rule) as keystore:
        key_id = keystore.create()
        for _ in range(2):
            keystore.encrypt(key_id, b"secret")

        assert keystore.code("crypto.encrypt", key_id=key_id, plaintext=SECRET) == code
        assert keystore.call("key.get", key_id=key_id)["state"] == state


def test_an_effect_reaches_the_single_calls_of_a_batch() -> None:
    call = {"method": "crypto.random", "params": {"length_bytes": 16}}

    with mock({"effect": "throttle", "operations": ["crypto.random"], "every": 2}) as keystore:
        items = keystore.call("crypto.batch", calls=[call] * 4)["items"]

    assert ["error" in item for item in items] == [True, False, True, False]


def test_calls_are_counted_and_can_be_read_from_a_health_check() -> None:
    with mock({"effect": "throttle", "operations": ["crypto.random"], "times": 1}) as keystore:
        keystore.create()
        for _ in range(2):
            keystore.client.call("crypto.random", {"length_bytes": 16})

        assert calls(keystore) == "crypto.random 2, key.create 1, plugin.health 1"


def test_a_health_check_fails_where_a_rule_names_it_and_only_there() -> None:
    down = {"effect": "fail", "code": "PROVIDER_UNAVAILABLE"}

    with mock(down) as keystore:
        assert keystore.call("plugin.health")["healthy"]
    with mock({**down, "operations": ["plugin.health"]}) as keystore:
        assert keystore.code("plugin.health") == "PROVIDER_UNAVAILABLE"


def test_every_result_carries_a_request_id_of_its_own() -> None:
    with mock() as keystore:
        vendors = [keystore.call("crypto.random", length_bytes=16)["vendor"] for _ in range(3)]

    assert [vendor["request_id"] for vendor in vendors] == ["mock-000001", "mock-000002", "mock-000003"]


def test_keystores_are_provisioned_once_trusted_and_ended() -> None:
    with mock() as keystore:
        identity = keystore.call("keystore.provision", name="tenant-1")["identity"]

        assert keystore.code("keystore.provision", name="tenant-1") == "ALREADY_EXISTS"
        for method in ("keystore.grant_trust", "keystore.remove_trust"):
            for _ in range(2):
                keystore.call(method, identity=identity, subject="role/app")
        keystore.call("keystore.deprovision", identity=identity)
        assert keystore.code("keystore.grant_trust", identity=identity, subject="x") == "KEY_NOT_FOUND"
