"""From a driver's refusal to an exception: the root cause survives, secrets and oracles do not."""

import json
from typing import Any

import pytest
from kmsplug_host._redaction import REDACTED, Redactor
from kmsplug_host._refusals import from_wire, refused
from kmsplug_host.errors import AuthenticationFailed, KmsplugError, ProtocolViolation, Unclassified
from kmsplug_protocol import (
    BY_WIRE,
    INVALID_CIPHERTEXT_MESSAGE,
    DecryptParams,
    ErrorData,
    ImportKeyParams,
    Mechanism,
    Model,
    Outcome,
    UnwrapKeyParams,
    Vendor,
    jsonrpc,
)

PIN = "hunter2-hunter2"
PLAIN = Redactor()


def knowing(*secrets: str) -> Redactor:
    redactor = Redactor()
    for secret in secrets:
        redactor.learn(secret)
    return redactor


def answer(
    data: dict[str, Any],
    wire: str = "crypto.decrypt",
    params: Model | None = None,
    message: str = "no",
    redactor: Redactor = PLAIN,
) -> KmsplugError:
    """Return what becomes of a driver's error response."""
    params = params or DecryptParams(key_id="k", ciphertext=b"c")
    error = {"code": jsonrpc.KEYSTORE_ERROR, "message": message, "data": data}
    return refused(error, BY_WIRE[wire], params, redactor)


def test_a_code_that_only_a_newer_driver_knows_is_unclassified_and_kept() -> None:
    error = from_wire("x", ErrorData(code="NEW\x1b"), PLAIN, may_have_acted=True)

    assert type(error) is Unclassified
    assert error.details == {"driver_code": "NEW\\u{1b}"}
    assert error.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(("said", "changes", "outcome"), [
    (None, True, Outcome.UNKNOWN), (None, False, Outcome.NOT_APPLIED),
    (Outcome.APPLIED, True, Outcome.APPLIED), (Outcome.NOT_APPLIED, True, Outcome.NOT_APPLIED),
])  # fmt: skip
def test_what_a_driver_knows_of_the_effect_counts(
    said: Outcome | None, *, changes: bool, outcome: Outcome
) -> None:
    data = ErrorData(code="PROVIDER_INTERNAL", outcome=said)

    assert from_wire("x", data, PLAIN, may_have_acted=changes).outcome is outcome


def test_the_root_cause_survives() -> None:
    vendor = Vendor(
        service="kms", code="ThrottlingException", message="slow\x1b", request_id="r-1", http_status=400
    )
    data = ErrorData(code="RATE_LIMIT_EXCEEDED", vendor=vendor, retry_after_ms=250, hint="wait", path="a.b",
                     causes=("x.Y",), correlation_id="c-1")  # fmt: skip
    error = from_wire("throttled", data, PLAIN, may_have_acted=False)

    assert error.vendor == vendor.model_copy(update={"message": "slow\\u{1b}"})
    assert error.hint == "driver says: wait"
    assert error.causes == ("x.Y",)
    assert error.details == {"retry_after_ms": 250, "path": "a.b", "correlation_id": "c-1"}


def test_a_secret_is_taken_out_of_every_text_of_an_error() -> None:
    text = f"said {PIN} twice: {PIN}"
    data = {
        "code": "UNCLASSIFIED",
        "hint": text,
        "path": text,
        "correlation_id": text,
        "causes": [text],
        "vendor": {"service": text, "code": text, "message": text, "request_id": text},
    }
    error = answer(data, message=text, redactor=knowing(PIN))
    document = json.dumps(error.to_dict())

    assert PIN not in document
    assert document.count(f"said {REDACTED} twice: {REDACTED}") == 9


def test_the_free_text_of_a_refused_login_is_withheld_and_its_code_is_not() -> None:
    vendor = {"service": "p11", "code": "CKR_PIN_LOCKED", "message": "tried 1234", "request_id": "r"}
    data = {"code": "AUTHENTICATION_FAILED", "hint": "1234 is wrong", "vendor": vendor, "path": "pin"}
    error = answer(data, message="PIN 1234 refused")
    document = json.dumps(error.to_dict())

    assert type(error) is AuthenticationFailed
    assert "1234" not in document
    assert error.vendor == Vendor(service="p11", code="CKR_PIN_LOCKED", request_id="r", withheld=True)
    assert error.details["path"] == "pin"
    assert error.hint


PADDING = (
    Mechanism.RSA_OAEP_SHA_1,
    Mechanism.RSA_OAEP_SHA_256,
    Mechanism.AES_256_KW,
    Mechanism.AES_256_KWP,
)
PADDED = [
    *(("crypto.decrypt", DecryptParams(key_id="k", ciphertext=b"c", mechanism=one)) for one in PADDING),
    *(("crypto.unwrap_key", UnwrapKeyParams(key_id="k", wrapped_key=b"c", mechanism=one)) for one in PADDING),
    ("crypto.unwrap_key", UnwrapKeyParams(key_id="k", wrapped_key=b"c")),
    ("key.import", ImportKeyParams(key_id="k", wrapped_key=b"c", wrapping_algorithm="X", import_token=b"t")),
]
REFUSAL = {
    "code": "INVALID_CIPHERTEXT",
    "hint": "block 2",
    "path": "padding",
    "causes": ["ValueError"],
    "vendor": {
        "service": "s",
        "code": "CKR_DATA_LEN",
        "message": "block 2",
        "http_status": 418,
        "request_id": "r",
    },
}


@pytest.mark.parametrize(("wire", "params"), PADDED, ids=str)
def test_what_could_be_a_padding_oracle_is_withheld_and_marked(wire: str, params: Model) -> None:
    error = answer(REFUSAL, wire, params, message="padding is wrong")

    assert error.message == INVALID_CIPHERTEXT_MESSAGE
    assert error.vendor == Vendor(service="s", request_id="r", withheld=True)
    assert (error.hint, error.causes, error.details) == (None, (), {})


def test_of_an_aead_the_vendor_stays_and_the_step_does_not() -> None:
    params = DecryptParams(key_id="k", ciphertext=b"c", mechanism=Mechanism.AES_256_GCM)
    error = answer(REFUSAL, params=params, message="tag is wrong")

    assert error.message == INVALID_CIPHERTEXT_MESSAGE
    assert error.vendor is not None
    assert (error.vendor.code, error.vendor.withheld) == ("CKR_DATA_LEN", False)
    assert (error.hint, error.causes, error.details) == (None, (), {})


def test_what_a_driver_withholds_itself_stays_withheld() -> None:
    error = answer({"code": "INVALID_CIPHERTEXT", "vendor": {"withheld": True}})

    assert error.to_dict()["vendor"] == {"withheld": True}


def test_a_secret_in_an_answer_that_is_no_error_of_the_protocol_is_taken_out() -> None:
    error = refused(
        {"code": -1, "message": PIN},
        BY_WIRE["key.get"],
        DecryptParams(key_id="k", ciphertext=b""),
        knowing(PIN),
    )

    assert type(error) is ProtocolViolation
    assert PIN not in str(error)
    assert REDACTED in str(error)
