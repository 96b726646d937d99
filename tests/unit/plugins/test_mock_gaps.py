"""What a scenario takes away is not promised any more, and refused; the rest works as before."""

import pytest
from kmsplug_protocol import jsonrpc
from kmsplug_protocol.operations import KEYSTORE_API
from unit.plugins.local_support import b64
from unit.plugins.mock_support import mock

SECRET = b64(b"secret")


@pytest.mark.parametrize("operation", [operation.wire for operation in KEYSTORE_API])
def test_an_operation_that_is_missing_is_refused_as_one_that_never_was(operation: str) -> None:
    with mock(gaps=[{"operations": [operation]}]) as keystore:
        error = keystore.error(operation, key_id="key-none")

    assert error["code"] == jsonrpc.METHOD_NOT_FOUND
    assert error["data"]["code"] == "UNSUPPORTED_OPERATION"


def test_an_operation_that_is_missing_is_refused_in_a_batch_too() -> None:
    call = {"method": "crypto.random", "params": {"length_bytes": 16}}

    with mock(gaps=[{"operations": ["crypto.random"]}]) as keystore:
        (item,) = keystore.call("crypto.batch", calls=[call])["items"]

    assert item["error"]["data"]["code"] == "UNSUPPORTED_OPERATION"


def test_a_kind_of_key_is_missing_and_others_are_not() -> None:
    with mock(gaps=[{"operations": ["key.create", "crypto.*"], "key_algorithm": "AES_256_GCM"}]) as keystore:
        assert keystore.code("key.create", algorithm="AES_256_GCM") == "UNSUPPORTED_OPERATION"
        assert keystore.encrypt(keystore.create("AES_128_GCM"), b"secret")


def test_what_uses_a_key_is_missing_on_one_kind_alone() -> None:
    with mock(gaps=[{"operations": ["crypto.encrypt"], "key_algorithm": "AES_256_GCM"}]) as keystore:
        key_id = keystore.create("AES_256_GCM")

        assert keystore.code("crypto.encrypt", key_id=key_id, plaintext=SECRET) == "UNSUPPORTED_OPERATION"
        assert keystore.call("crypto.generate_data_key", key_id=key_id)["plaintext"]
        assert keystore.code("crypto.encrypt", key_id="key-none", plaintext=SECRET) == "KEY_NOT_FOUND"


@pytest.mark.parametrize("operation", ["key.import", "key.get_import_parameters"])
def test_no_key_is_made_that_would_wait_for_material_in_vain(operation: str) -> None:
    with mock(gaps=[{"operations": [operation], "key_algorithm": "AES_256_GCM"}]) as keystore:
        assert (
            keystore.code("key.create", algorithm="AES_256_GCM", origin="imported") == "UNSUPPORTED_OPERATION"
        )
        assert keystore.create("HMAC_SHA_256", origin="imported")
        assert keystore.create("AES_256_GCM")


def test_where_the_default_mechanism_is_missing_the_next_one_is_the_default() -> None:
    gap = {"operations": ["crypto.wrap_key", "crypto.unwrap_key"], "mechanism": "AES_256_KW"}

    with mock(gaps=[gap]) as keystore:
        key_id = keystore.create("AES_256_KW")
        wrapped = keystore.call("crypto.wrap_key", key_id=key_id, key=b64(bytes(32)))

        assert wrapped["mechanism"] == "AES_256_KWP"
        asked = {"key_id": key_id, "key": b64(bytes(32)), "mechanism": "AES_256_KW"}
        assert keystore.code("crypto.wrap_key", **asked) == "UNSUPPORTED_OPERATION"


def test_associated_data_that_nobody_would_authenticate_are_refused() -> None:
    with mock(gaps=[{"operations": ["crypto.*"], "associated_data": "none"}]) as keystore:
        key_id = keystore.create()
        asked = {"key_id": key_id, "plaintext": SECRET, "associated_data": b64(b"bound")}

        assert keystore.code("crypto.encrypt", **asked) == "UNSUPPORTED_OPERATION"
        assert keystore.decrypt(key_id, keystore.encrypt(key_id, b"secret")) == b"secret"


@pytest.mark.parametrize(
    ("operation", "fits", "member"),
    [
        ("crypto.encrypt", {"plaintext": b64(bytes(32))}, "plaintext"),
        ("crypto.generate_data_key", {"length_bytes": 32}, "length_bytes"),
        ("crypto.random", {"length_bytes": 32}, "length_bytes"),
    ],
)
def test_a_smaller_limit_holds_to_the_byte(operation: str, fits: dict[str, object], member: str) -> None:
    with mock(gaps=[{"operations": [operation], "max_input_bytes": 32}]) as keystore:
        key = {} if operation == "crypto.random" else {"key_id": keystore.create()}
        more = {member: b64(bytes(33)) if member == "plaintext" else 33}

        keystore.call(operation, **key, **fits)
        error = keystore.error(operation, **key, **more)

    assert (error["data"]["code"], error["data"]["path"]) == ("INVALID_ARGUMENT", member)
