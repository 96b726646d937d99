import re

import pytest
from kmsplug_protocol import (
    ERROR_FACTS,
    INVALID_CIPHERTEXT_MESSAGE,
    ErrorCode,
    ErrorData,
    Outcome,
    RetryClass,
    Vendor,
    error_response,
    jsonrpc,
)
from pydantic import ValidationError

# Wire strings are stable for ever: a code is added here, and never changed or taken away. After what is in
# doubt nobody can know, without looking, whether the provider did what was asked.
TABLE = """
RATE_LIMIT_EXCEEDED      after      not-done  keystore
LIMIT_EXCEEDED           never      not-done  keystore
KEY_NOT_FOUND            never      not-done  keystore
KEY_DISABLED             never      not-done  keystore
KEY_PENDING_DELETION     never      not-done  keystore
KEY_DESTROYED            never      not-done  keystore
KEY_INVALID_STATE        never      not-done  keystore
KEY_USAGE_MISMATCH       never      not-done  keystore
KEY_COMPROMISED          never      not-done  keystore
ACCESS_DENIED            never      not-done  keystore
AUTHENTICATION_FAILED    reauth     not-done  keystore
INVALID_ARGUMENT         never      not-done  keystore
INVALID_CIPHERTEXT       never      not-done  keystore
INTEGRITY_ERROR          backoff    in-doubt  keystore
UNSUPPORTED_OPERATION    never      not-done  keystore
ALREADY_EXISTS           never      not-done  keystore
CONFLICT                 backoff    not-done  keystore
PROVIDER_UNAVAILABLE     backoff    in-doubt  keystore
TIMEOUT                  reconcile  in-doubt  keystore
PROVIDER_INTERNAL        backoff    in-doubt  keystore
CONFIGURATION_ERROR      never      not-done  keystore
KEYSTORE_CORRUPT         never      not-done  keystore
UNCLASSIFIED             never      in-doubt  keystore
PLUGIN_CRASHED           reconnect  in-doubt  plugin
PLUGIN_UNAVAILABLE       reconnect  not-done  plugin
PROTOCOL_VIOLATION       reconnect  in-doubt  plugin
CIRCUIT_OPEN             after      not-done  plugin
OVERLOADED               backoff    not-done  plugin
CANCELLED                never      in-doubt  plugin
SHIM_FAILED              never      not-done  plugin
INTERNAL_ERROR           never      in-doubt  plugin
POLICY_DENIED            never      not-done  keystore
TENANT_MISMATCH          never      not-done  keystore
QUORUM_NOT_MET           never      not-done  keystore
OFFLINE_LIMIT_EXCEEDED   never      not-done  keystore
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]


def test_the_set_of_codes_is_closed() -> None:
    assert [code.value for code in ErrorCode] == [row[0] for row in ROWS]


@pytest.mark.parametrize("code", ErrorCode)
def test_a_code_is_its_own_wire_string(code: ErrorCode) -> None:
    assert code.value == code.name == str(code)
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", code)


def test_every_code_has_one_fact_and_every_fact_a_code() -> None:
    assert list(ERROR_FACTS) == list(ErrorCode)


def test_facts_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ERROR_FACTS[ErrorCode.TIMEOUT].retry = RetryClass.BACKOFF  # type: ignore[misc]


@pytest.mark.parametrize(("code", "retry", "effect", "branch"), ROWS)
def test_the_facts_of_a_code(code: str, retry: str, effect: str, branch: str) -> None:
    fact = ERROR_FACTS[ErrorCode(code)]

    assert fact.retry is RetryClass(retry)
    assert fact.may_have_acted is (effect == "in-doubt")
    assert fact.from_plugin is (branch == "plugin")


@pytest.mark.parametrize("code", ErrorCode)
def test_a_meaning_is_one_clause_of_its_own(code: ErrorCode) -> None:
    meaning = ERROR_FACTS[code].meaning

    assert meaning[0].islower()
    assert not meaning.endswith(".")
    assert "\n" not in meaning
    assert [fact.meaning for fact in ERROR_FACTS.values()].count(meaning) == 1


GRPC = {
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}  # fmt: skip


@pytest.mark.parametrize("code", ErrorCode)
def test_an_operator_is_told_what_to_do_in_sentences_about_this_code(code: ErrorCode) -> None:
    fact = ERROR_FACTS[code]

    assert fact.action[0].isupper()
    assert fact.action.endswith(".")
    assert fact.grpc in GRPC
    if not fact.meaning.startswith("reserved"):
        assert [other.action for other in ERROR_FACTS.values()].count(fact.action) == 1


def test_what_may_have_been_done_is_never_said_to_be_safe_to_send_again_at_once() -> None:
    for code, fact in ERROR_FACTS.items():
        if fact.may_have_acted:
            assert fact.retry is not RetryClass.AFTER, code


def test_the_words_of_the_other_sets_are_stable() -> None:
    assert [retry.value for retry in RetryClass] == [
        "never",
        "after",
        "backoff",
        "reauth",
        "reconnect",
        "reconcile",
    ]
    assert [outcome.value for outcome in Outcome] == ["applied", "not_applied", "unknown"]


def test_one_sentence_stands_for_every_ciphertext_that_is_refused() -> None:
    assert INVALID_CIPHERTEXT_MESSAGE == "the ciphertext does not belong to this key and context"


def test_an_error_carries_all_its_members_over_the_wire() -> None:
    data = ErrorData(
        code=ErrorCode.RATE_LIMIT_EXCEEDED,
        outcome=Outcome.NOT_APPLIED,
        retry_after_ms=1500,
        hint="ask for a higher quota",
        path="login.role",
        vendor=Vendor(service="kms", code="ThrottlingException", http_status=400, request_id="r-1"),
        causes=("botocore.errorfactory.ThrottlingException", "builtins.OSError"),
        correlation_id="c-1",
    )

    response = error_response("id", "slow down", data)

    assert response["error"]["code"] == jsonrpc.KEYSTORE_ERROR
    assert response["error"]["message"] == "slow down"
    assert response["error"]["data"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert ErrorData.model_validate(response["error"]["data"]) == data


def test_members_without_a_value_are_left_out() -> None:
    data = error_response(None, "no", ErrorData(code=ErrorCode.CONFLICT))["error"]["data"]

    assert data == {"code": "CONFLICT"}


def test_a_code_of_a_newer_driver_and_members_that_are_unknown_can_be_read() -> None:
    data = ErrorData.model_validate({"code": "FROM_THE_FUTURE", "grease": [1], "vendor": {"grease": 1}})

    assert data.code == "FROM_THE_FUTURE"
    assert "grease" not in data.model_dump()


@pytest.mark.parametrize(
    "change",
    [
        {"code": None},
        {"code": 7},
        {"outcome": "perhaps"},
        {"retry_after_ms": -1},
        {"vendor": "aws"},
        {"causes": ["x"] * 9},
    ],
    ids=str,
)
def test_malformed_error_data_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ErrorData.model_validate({"code": "CONFLICT", **change})
