"""What a driver may write: to stdout, where only answers belong, and to stderr, where all else does."""

import base64
import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host.errors import (
    InvalidCiphertext,
    KmsplugError,
    PluginCrashed,
    ProtocolViolation,
    Unclassified,
    UnsupportedOperation,
)
from kmsplug_protocol import INVALID_CIPHERTEXT_MESSAGE, Outcome
from support.host import LONG_S, Bad, bad_driver, begin, logged, wait_until

GOOD = '{"jsonrpc":"2.0","id":$ID,"result":{"key_id":"k","mechanism":"HMAC_SHA_256","mac":"Z29vZA=="}}'
HOSTILE = "\x1b[31mred\x1b[0m \u202egnp.exe\u202c\r\nINFO forged \x9b1m \u200b\U000e0041"
DANGEROUS = "\x1b\r\n\x9b\u202e\u202c\u200b\U000e0041"


def works(bad: Bad) -> bool:
    """Tell whether the session still serves."""
    return len(bad.keystore.random(8)) == 8


def answered(folder: Path, method: str, answer: dict[str, Any]) -> KmsplugError:
    """Return the error that an answer to a method becomes; the session must survive it."""
    line = json.dumps({"jsonrpc": "2.0", "id": "$ID", **answer}).replace('"$ID"', "$ID")
    with bad_driver(folder, "says", method, line) as bad:
        pid = bad.pid
        call: Callable[[], object] = partial(bad.keystore.mac, "k", b"message")
        if method == "key.create":
            call = partial(bad.keystore.create_key, "HMAC_SHA_256")
        with pytest.raises(KmsplugError) as caught:
            call()
        assert works(bad)
        assert bad.pid == pid
    return caught.value


def refused(folder: Path, data: Any, *, method: str = "crypto.mac", number: Any = -32000) -> KmsplugError:
    """Return what an error of the driver becomes."""
    return answered(folder, method, {"error": {"code": number, "message": "no", "data": data}})


def test_what_a_library_prints_does_not_corrupt_the_wire(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "prints") as bad, logged() as log:
        assert bad.keystore.mac("k", b"first").mac == b"first"
        assert bad.keystore.mac("k", b"second").mac == b"second"
        wait_until(lambda: bad.connection.stray_lines == 14, "all lines to be read")

    strays = [message for message in log.messages if message.startswith("not a message: ")]
    assert len(strays) == 14
    assert "not a message: \\u{1b}[31mred\\u{1b}[0m" in strays


def test_half_a_mebibyte_of_stderr_does_not_block_a_driver_and_is_logged_escaped(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "floods_stderr") as bad, logged() as log:
        assert bad.keystore.mac("k", b"message").mac == b"message"
        wait_until(lambda: sum("forged: ok" in m for m in log.messages) == 64, "all lines in the log")

    assert not any(set(DANGEROUS) & set(message) for message in log.messages)
    assert max(map(len, log.messages)) < 4200


def test_json_lines_on_stderr_become_log_records_of_their_level(tmp_path: Path) -> None:
    lines = [json.dumps({"level": level, "message": f"m {level}", "logger": "x", "correlation_id": "c-1"})
             for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "NONSENSE")]  # fmt: skip
    with bad_driver(tmp_path, "logs", *lines, "plain text", "last line") as bad, logged() as log:
        bad.keystore.mac("k", b"message")
        log.wait_for("last line")

    records = {record.getMessage(): record for record in log.records}
    for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        record = records[f"m {level}"]
        assert record.levelname == level
        assert record.name == "kmsplug.plugin.bad"
        assert vars(record)["plugin_fields"]["correlation_id"] == "c-1"
    assert records["m NONSENSE"].levelno == records["plain text"].levelno == logging.INFO


@pytest.mark.parametrize("line", [
    json.dumps({"level": "INFO", "message": HOSTILE, HOSTILE: HOSTILE, "nested": {"x": [HOSTILE]}}),
    json.dumps({"message": 5}), json.dumps({"message": "m", "level": [1]}), "{" * 5000, "[" * 100_000,
    '{"message": "m", "deep": ' + "[" * 50_000 + "]" * 50_000 + "}",
    '{"message": "m", "big": ' + "9" * 5000 + "}",
])  # fmt: skip
def test_no_line_on_stderr_breaks_the_log_or_the_session(tmp_path: Path, line: str) -> None:
    with bad_driver(tmp_path, "logs", line, "last line") as bad, logged() as log:
        bad.keystore.mac("k", b"message")
        log.wait_for("last line")
        assert works(bad)

    for record in log.records:
        fields = vars(record).get("plugin_fields", {})
        assert not any(
            set(DANGEROUS) & set(text) for text in (record.getMessage(), *fields, *fields.values())
        )


def test_a_log_handler_that_raises_does_not_stop_the_plugin(tmp_path: Path) -> None:
    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("a defect of the application")

    logger, broken = logging.getLogger("kmsplug.plugin.bad"), Broken()
    with bad_driver(tmp_path, "floods_stderr") as bad, logged():
        logger.addFilter(broken)
        try:
            assert bad.keystore.mac("k", b"message").mac == b"message"
        finally:
            logger.removeFilter(broken)


def test_a_driver_cannot_say_that_a_shim_of_the_host_did_it(tmp_path: Path) -> None:
    result = {**json.loads(GOOD.replace("$ID", "0"))["result"], "executed_by": "shim:envelope@1"}

    error = answered(tmp_path, "crypto.mac", {"result": result})

    assert type(error) is ProtocolViolation
    assert "did not do crypto.mac itself" in str(error)


@pytest.mark.parametrize("request_id", [
    "99", "-$ID", '"$ID"', "$ID.0", "$ID.5", "true", "null", "[$ID]", '{"$ID": 1}', "9223372036854775807",
    "18446744073709551615", "1" * 400, "1e400", '"' + "x" * 5000 + '"',
])  # fmt: skip
def test_an_answer_under_an_id_that_nobody_asked_by_is_dropped(tmp_path: Path, request_id: str) -> None:
    wrong = GOOD.replace("$ID", request_id).replace("Z29vZA==", "ZXZpbA==")
    with bad_driver(tmp_path, "says", "crypto.mac", wrong, GOOD) as bad:
        assert bad.keystore.mac("k", b"message").mac == b"good"
        assert works(bad)
        assert bad.connection.late_replies + bad.connection.stray_lines == 1


def test_a_second_answer_and_a_request_of_the_driver_are_dropped(tmp_path: Path) -> None:
    asks = '{"jsonrpc":"2.0","id":$ID,"method":"host.give_me_keys","params":{}}'
    tells = '{"jsonrpc":"2.0","method":"host.hear","params":{}}'
    evil = GOOD.replace("Z29vZA==", "ZXZpbA==")
    with bad_driver(tmp_path, "says", "crypto.mac", asks, tells, GOOD, evil) as bad:
        assert [bad.keystore.mac("k", b"message").mac for _ in range(3)] == [b"good"] * 3
        wait_until(lambda: bad.connection.late_replies == 9, "all to be read")
        assert bad.connection.in_flight == 0


@pytest.mark.parametrize(("answer", "part"), [
    ({}, "neither result nor error"),
    ({"result": None}, "malformed at ''"),
    ({"result": []}, "malformed at ''"),
    ({"result": {"key_id": "k", "mechanism": "HMAC_SHA_256"}}, "malformed at 'mac'"),
    ({"result": {"key_id": "k", "mechanism": "HMAC_SHA_256", "mac": "c2VjcmV0-_"}}, "malformed at 'mac'"),
    ({"result": {"key_id": "k", "mechanism": "HMAC_SHA_256", "mac": 5}}, "malformed at 'mac'"),
    ({"result": {"key_id": "k", "mechanism": "secret", "mac": ""}}, "malformed at 'mechanism'"),
    ({"error": None}, "malformed"),
    ({"error": "secret"}, "malformed"),
    ({"error": {"message": "secret"}}, "malformed"),
    ({"error": {"code": "-32000", "message": "secret"}}, "malformed"),
    ({"error": {"code": True, "message": "secret"}}, "malformed"),
    ({"error": {"code": -32000, "message": "why"}}, "error -32000: why"),
    ({"error": {"code": -32000, "message": {}, "data": []}}, "no message"),
    ({"error": {"code": -32700, "message": "why", "data": {"code": 5}}}, "error -32700: why"),
])  # fmt: skip
def test_a_malformed_answer_is_a_violation_of_that_call_alone(
    tmp_path: Path, answer: dict[str, Any], part: str
) -> None:
    error = answered(tmp_path, "crypto.mac", answer)

    assert type(error) is ProtocolViolation
    assert part in str(error)
    assert "secret" not in str(error.to_dict())
    assert error.details["plugin"] == error.details["keystore"] == "bad"
    assert error.details["operation"] == "crypto.mac"
    assert error.attempts == ()


def test_a_malformed_answer_to_a_change_leaves_its_outcome_unknown(tmp_path: Path) -> None:
    assert answered(tmp_path, "key.create", {"result": {}}).outcome is Outcome.UNKNOWN


def test_a_code_of_a_newer_version_is_unclassified_and_kept(tmp_path: Path) -> None:
    error = refused(tmp_path, {"code": "QUANTUM_DECOHERENCE", "vendor": {"code": "Q7", "request_id": "r-1"}})

    assert type(error) is Unclassified
    assert error.details["driver_code"] == "QUANTUM_DECOHERENCE"
    assert error.vendor is not None
    assert (error.vendor.code, error.vendor.request_id) == ("Q7", "r-1")


def test_an_endless_code_is_unclassified_and_cut(tmp_path: Path) -> None:
    error = refused(tmp_path, {"code": "X" * 50_000})

    assert type(error) is Unclassified
    assert len(str(error.to_dict())) < 2000


def test_error_data_with_a_member_of_a_wrong_type_keep_their_code(tmp_path: Path) -> None:
    data = {"code": "KEY_NOT_FOUND", "retry_after_ms": -5, "outcome": "sideways", "vendor": {"code": "E42"}}
    error = refused(tmp_path, data)

    assert error.code == "KEY_NOT_FOUND"
    assert error.vendor is not None
    assert error.vendor.code == "E42"
    assert "retry_after_ms" not in error.details


@pytest.mark.parametrize(
    "code", ["PLUGIN_CRASHED", "PLUGIN_UNAVAILABLE", "CIRCUIT_OPEN", "POLICY_DENIED", "QUORUM_NOT_MET"]
)
def test_a_driver_cannot_speak_for_the_host(tmp_path: Path, code: str) -> None:
    error = refused(tmp_path, {"code": code, "outcome": "not_applied"}, method="key.create")

    assert type(error) is ProtocolViolation
    assert error.outcome is Outcome.UNKNOWN
    assert code in str(error)


def test_a_method_that_a_driver_does_not_know_is_unsupported(tmp_path: Path) -> None:
    assert type(refused(tmp_path, None, number=-32601)) is UnsupportedOperation


def test_an_invalid_ciphertext_has_one_sentence_whatever_the_driver_says(tmp_path: Path) -> None:
    data = {"code": "INVALID_CIPHERTEXT", "hint": "the padding was wrong", "path": "ciphertext.tag"}
    error = refused(tmp_path, data, number=-32602)

    assert type(error) is InvalidCiphertext
    assert str(error) == INVALID_CIPHERTEXT_MESSAGE
    assert "padding" not in str(error.to_dict())
    assert "tag" not in str(error.to_dict())


@pytest.mark.parametrize("number", [-32000, -32603])
def test_every_text_of_a_driver_is_escaped_in_an_error(tmp_path: Path, number: int) -> None:
    vendor = dict.fromkeys(("service", "code", "message", "request_id"), HOSTILE)
    data = {"code": "ACCESS_DENIED" if number == -32000 else HOSTILE, "hint": HOSTILE, "path": HOSTILE,
            "correlation_id": HOSTILE, "vendor": vendor, "retry_after_ms": 5}  # fmt: skip
    error = answered(tmp_path, "crypto.mac", {"error": {"code": number, "message": HOSTILE, "data": data}})

    document = error.to_dict()
    assert not set(DANGEROUS) & set(str(error))
    assert not set(DANGEROUS) & {char for text in texts(document) for char in text}
    assert document["hint"].startswith("driver says: \\u{1b}[31mred")
    assert document["retry_after_ms"] == 5


def texts(value: Any) -> list[str]:
    """Return all strings in a JSON document."""
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in texts(item))]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def test_an_oversize_answer_fails_its_own_call_alone(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "oversize", "head") as bad:
        pid = bad.pid
        with pytest.raises(ProtocolViolation, match="longer than the frame limit"):
            bad.keystore.mac("k", b"message")

        assert works(bad)
        assert bad.pid == pid


def test_an_oversize_answer_that_cannot_be_matched_recycles_the_process(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "oversize", "tail") as bad:
        pid = bad.pid
        with pytest.raises(ProtocolViolation, match="no id can be found") as caught:
            bad.keystore.create_key("HMAC_SHA_256")

        assert caught.value.outcome is Outcome.UNKNOWN
        assert caught.value.diagnosis is not None
        assert works(bad)
        assert bad.pid != pid


def test_an_id_inside_of_an_oversize_answer_is_not_taken_for_its_own(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "oversize", "nested") as bad:
        other = begin(lambda: bad.keystore.mac("k", b"message"))
        bad.journal.wait_for("crypto.mac 3")
        with pytest.raises(ProtocolViolation, match="no id can be found"):
            bad.keystore.create_key("HMAC_SHA_256")

        assert other.result(LONG_S).mac == b"message"


def test_an_oversize_answer_to_a_call_that_nobody_waits_for_is_dropped(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "oversize", "late") as bad:
        pid = bad.pid
        assert bad.keystore.mac("k", b"message").mac == b"message"
        assert (bad.connection.late_replies, bad.pid) == (1, pid)


def test_a_request_over_the_frame_limit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad:
        with pytest.raises(KmsplugError, match="the limit is 1048576") as caught:
            bad.keystore.mac("k", b"x" * 1024 * 1024)
        assert (caught.value.code, caught.value.outcome) == ("INVALID_ARGUMENT", Outcome.NOT_APPLIED)

        assert len(bad.keystore.mac("k", b"x" * 700_000).mac) == 700_000
        assert bad.journal.all("crypto.mac") == ["crypto.mac 4"]


def test_a_driver_that_dies_in_the_middle_of_an_answer_has_crashed(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "dies_mid_reply") as bad:
        with pytest.raises(PluginCrashed, match="exit status 7") as caught:
            bad.keystore.create_key("HMAC_SHA_256")

        assert caught.value.outcome is Outcome.UNKNOWN
        assert works(bad)


@pytest.mark.parametrize("length", [0, 7, 9])
def test_another_number_of_random_bytes_than_asked_for_is_refused(tmp_path: Path, length: int) -> None:
    data = base64.b64encode(b"x" * length).decode()
    line = f'{{"jsonrpc":"2.0","id":$ID,"result":{{"data":"{data}"}}}}'
    with (
        bad_driver(tmp_path, "says", "crypto.random", line) as bad,
        pytest.raises(ProtocolViolation, match="another number of bytes"),
    ):
        bad.keystore.random(8)
