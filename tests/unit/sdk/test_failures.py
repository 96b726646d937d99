import json
from typing import Any

import pytest
from kmsplug_protocol import (
    DEFAULT_FRAME_BYTES,
    EncryptParams,
    EncryptResult,
    ErrorCode,
    ErrorData,
    Outcome,
    RandomParams,
    RandomResult,
    Vendor,
)
from kmsplug_sdk import Driver, DriverError, provides
from kmsplug_sdk.testing import run_driver
from unit.sdk.drivers import CANARY, Echo
from unit.sdk.wire import ENCRYPT, code

VENDOR = Vendor(service="kms", code="ThrottlingException", message="slow", http_status=400, request_id="r-1")


def failing(error: BaseException, *, inline: bool) -> type[Driver[Any]]:
    class Failing(Echo):
        @provides(inline=inline)
        def random(self, request: RandomParams) -> RandomResult:
            raise error

    return Failing


class UntidyError(Exception):
    """As some libraries have them: it cannot even be printed."""

    def __str__(self) -> str:
        raise ValueError(CANARY)

    __repr__ = __str__


class LibraryError(Exception):
    """As a vendor's SDK has them."""


class UnfinishedError(DriverError):
    """A subclass that forgot its base."""

    def __init__(self) -> None: ...


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        ValueError(CANARY),
        KeyError(CANARY),
        OSError(5, CANARY),
        UntidyError(),
        SystemExit(CANARY),
        KeyboardInterrupt(CANARY),
        GeneratorExit(CANARY),
        BaseException(CANARY),
        StopIteration(CANARY),
        ExceptionGroup(CANARY, [ValueError(CANARY)]),
        UnfinishedError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_text_of_an_uncaught_exception_reaches_neither_the_wire_nor_the_log_but_an_id_does(
    error: BaseException, inline: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with run_driver(failing(error, inline=inline), {}) as client:
        response = client.call("crypto.random", {"length_bytes": 1})
        assert "result" in client.call("plugin.ping")

    assert code(response) == (-32603, "INTERNAL_ERROR")
    correlation_id = response["error"]["data"]["correlation_id"]
    assert CANARY not in json.dumps(response)
    (record,) = (record for record in caplog.records if correlation_id in record.getMessage())
    assert "crypto.random" in record.getMessage()
    assert CANARY not in record.getMessage()
    assert record.exc_info


def test_an_error_of_the_library_beneath_is_not_taken_for_a_wrong_param(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Careless(Echo):
        @provides()
        def encrypt(self, request: EncryptParams) -> EncryptResult:
            return EncryptResult.model_validate({"ciphertext": CANARY})

    with run_driver(Careless, {}) as client:
        assert code(client.call("crypto.encrypt", ENCRYPT)) == (-32603, "INTERNAL_ERROR")


@pytest.mark.parametrize(
    "wrong", [None, {}, "text", RandomParams(length_bytes=1), EncryptParams(key_id="k", plaintext=b"")]
)
def test_what_is_no_result_of_its_operation_is_a_defect_that_the_log_names(
    wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Confused(Echo):
        @provides()
        def random(self, request: RandomParams) -> Any:
            return wrong

    with run_driver(Confused, {}) as client:
        assert code(client.call("crypto.random", {"length_bytes": 1})) == (-32603, "INTERNAL_ERROR")

    assert f"random returned {type(wrong).__name__}, not RandomResult" in caplog.text


def test_a_result_that_was_never_validated_is_not_quoted_in_a_warning(
    recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    unchecked: dict[str, Any] = {"key_id": CANARY.encode(), "mechanism": CANARY, "ciphertext": b""}

    class Careless(Echo):
        @provides()
        def encrypt(self, request: EncryptParams) -> EncryptResult:
            return EncryptResult.model_construct(**unchecked)

    with run_driver(Careless, {}) as client:
        client.call("crypto.encrypt", ENCRYPT)

    assert not recwarn.list
    assert CANARY not in caplog.text


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("message", ["lone \ud800 surrogate", ValueError(CANARY), b"bytes", 2**70])
def test_an_answer_that_json_cannot_say_is_a_defect_and_still_one_answer(message: Any, inline: bool) -> None:
    error = DriverError(ErrorCode.CONFLICT, message)

    with run_driver(failing(error, inline=inline), {}) as client:
        response = client.call("crypto.random", {"length_bytes": 1})
        assert "result" in client.call("plugin.ping")

    assert code(response) == (-32603, "INTERNAL_ERROR")
    assert CANARY not in json.dumps(response)


def test_a_driver_error_crosses_the_wire_with_all_its_members() -> None:
    error = DriverError(
        ErrorCode.RATE_LIMIT_EXCEEDED,
        "slow down",
        outcome=Outcome.NOT_APPLIED,
        retry_after_ms=1500,
        hint="ask for a higher quota",
        path="login.role",
        vendor=VENDOR,
    )
    with run_driver(failing(error, inline=True), {}) as client:
        answer = client.call("crypto.random", {"length_bytes": 1})["error"]

    assert (answer["code"], answer["message"]) == (-32000, "slow down")
    assert ErrorData.model_validate(answer["data"]) == error.data
    assert answer["data"]["vendor"]["request_id"] == "r-1"


def test_members_that_a_driver_did_not_give_are_left_out() -> None:
    with run_driver(failing(DriverError(ErrorCode.CONFLICT, "no"), inline=True), {}) as client:
        assert client.call("crypto.random", {"length_bytes": 1})["error"]["data"] == {"code": "CONFLICT"}


def test_a_message_that_is_too_long_for_a_line_is_still_one_answer() -> None:
    error = DriverError(ErrorCode.CONFLICT, "x" * (DEFAULT_FRAME_BYTES + 1))

    with run_driver(failing(error, inline=False), {}) as client:
        assert code(client.call("crypto.random", {"length_bytes": 1})) == (-32000, "LIMIT_EXCEEDED")


def behind(*types: type[BaseException], code: ErrorCode = ErrorCode.CONFLICT) -> DriverError:
    """Return a refusal that was raised from a chain of exceptions."""
    error: BaseException
    error = first = DriverError(code, "no")
    for kind in types:
        error.__cause__ = kind(CANARY)
        error = error.__cause__
    return first


def causes(error: DriverError) -> Any:
    with run_driver(failing(error, inline=True), {}) as client:
        response = client.call("crypto.random", {"length_bytes": 1})
    assert CANARY not in json.dumps(response)
    return response["error"]["data"].get("causes")


def test_a_refusal_names_the_types_behind_it_and_not_their_texts() -> None:
    assert causes(behind(ValueError, LibraryError)) == [
        "builtins.ValueError",
        f"{__name__}.LibraryError",
    ]
    assert causes(behind()) is None


def test_a_refused_ciphertext_does_not_tell_the_step_by_its_causes() -> None:
    assert causes(behind(ValueError, code=ErrorCode.INVALID_CIPHERTEXT)) is None


def test_causes_without_end_are_cut() -> None:
    error = behind(*[ValueError] * 20)
    assert causes(error) == ["builtins.ValueError"] * 8
    error.__cause__ = error
    assert len(causes(error)) == 8
