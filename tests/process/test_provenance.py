"""An error says where it happened, to which key, in whose words; higher layers add and never replace."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kmsplug_host import Host
from kmsplug_host.errors import KeyNotFound, KmsplugError, ProviderUnavailable
from kmsplug_protocol import ErrorData, Outcome, Vendor, error_response
from support.host import bad_driver


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    config = {"path": str(tmp_path / "store")}
    with Host.open({
        "plugins": {"local": {"driver": "local", "config": config}},
        "keystores": {"main": {"plugin": "local", "allow_raw": True}},
    }) as opened:  # fmt: skip
        yield opened


def test_an_error_names_operation_plugin_driver_keystore_key_and_version(host: Host) -> None:
    keystore = host.keystore("main")
    key_id = keystore.create_key("HMAC_SHA_256").key_id
    with pytest.raises(KeyNotFound) as caught:
        keystore.mac(key_id, b"message", key_version="9")
    error = caught.value

    assert error.details.pop("correlation_id")
    assert error.details.pop("driver").startswith("local ")
    assert error.details == {
        "operation": "crypto.mac",
        "plugin": "local",
        "keystore": "main",
        "key_id": key_id,
        "key_version": "9",
    }
    assert error.outcome is Outcome.NOT_APPLIED


def test_the_vendors_words_come_through_whole(tmp_path: Path) -> None:
    vendor = Vendor(service="kms", code="E7", message="m", http_status=503, request_id="r")
    data = ErrorData(
        code="PROVIDER_UNAVAILABLE",
        outcome=Outcome.UNKNOWN,
        retry_after_ms=5,
        hint="wait",
        causes=("x.Refused",),
        vendor=vendor,
    )
    line = json.dumps(error_response("$ID", "down", data)).replace('"$ID"', "$ID")
    with bad_driver(tmp_path, "says", "key.create", line) as bad, pytest.raises(KmsplugError) as caught:
        bad.keystore.create_key("AES_256_GCM")
    error = caught.value

    assert type(error) is ProviderUnavailable
    assert error.vendor == vendor
    assert (error.hint, error.causes, error.outcome) == ("driver says: wait", ("x.Refused",), Outcome.UNKNOWN)
    assert error.details["retry_after_ms"] == 5
