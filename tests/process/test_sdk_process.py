"""The SDK as a child process: what only descriptors, signals and a real end can show."""

import json
import signal
import sys
from typing import Any

import pytest
from kmsplug_protocol import decode_base64
from unit.sdk.child import WAIT_S, child, trick
from unit.sdk.drivers import CANARY
from unit.sdk.wire import INITIALIZE, code, line


def records(log: list[str]) -> list[dict[str, Any]]:
    return [json.loads(text) for text in log]


# The wire


def test_a_print_in_a_driver_does_not_corrupt_the_wire() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()

        driver.trick("print")

        assert "result" in driver.call("plugin.ping")
        log = driver.end()
    for text in (
        '{"jsonrpc":"2.0","id":1,"result":{}}',
        "printed by a handler",
        "written by a handler",
        "written by a library",
        "written by a child",
    ):
        assert f"{text}\n" in log


def test_a_print_while_the_driver_is_imported_does_not_corrupt_the_wire() -> None:
    with child("noisy:Noisy") as driver:
        first = driver.call("plugin.initialize", INITIALIZE)

        assert first["result"]["driver"]["name"] == "echo"
        log = driver.end()
    assert {"printed at import\n", "written by a child at import\n"} <= set(log)


def test_a_stray_print_is_in_the_log_when_it_happens_and_not_at_the_end() -> None:
    with child("noisy:Noisy") as driver:
        driver.wait_for_log("printed at import")

        driver.process.kill()
        driver.process.wait(WAIT_S)


def test_a_driver_and_its_children_read_the_end_of_a_file_and_never_the_wire() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()

        assert driver.trick("stdin") == repr(("", b"", b""))
        assert "result" in driver.call("plugin.ping")
        driver.end()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_of_a_driver_inherits_no_end_of_the_wire() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()

        assert driver.trick("descriptors") == ""
        driver.end()


def test_a_mebibyte_of_log_does_not_stop_a_driver_whose_log_is_read() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()

        driver.trick("flood")

        assert "result" in driver.call("plugin.ping")
        log = driver.end()
    assert sum(len(text) for text in log if text.startswith("xxx")) == 1024 * 1024


def test_lines_that_are_no_requests_are_refused_and_the_process_goes_on() -> None:
    with child("drivers:Echo") as driver:
        driver.configure()
        driver.send(b"\xff\xfe\n" + b"[" * 100_000 + b"\n" + b"x" * 3_000_000 + b"\n[]\n{}\n\n")

        assert [driver.receive()["error"]["code"] for _ in range(5)] == [
            -32700,
            -32700,
            -32600,
            -32700,
            -32600,
        ]
        assert "result" in driver.call("crypto.random", {"length_bytes": 32})
        driver.end()


def test_a_busy_pool_still_answers_ping_in_a_real_process() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()
        for number in range(3):
            driver.send(line("crypto.encrypt", f"w{number}", trick("wait")))
        driver.wait_for_log("waiting")

        assert driver.call("plugin.ping")["result"] == {}
        driver.send(line("key.get_region", "release", {"key_id": "k"}))

        assert {driver.receive()["id"] for _ in range(4)} == {"w0", "w1", "w2", "release"}
        driver.end()


def test_the_text_of_an_uncaught_exception_reaches_neither_the_wire_nor_the_log() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()

        answer = driver.call("key.get", {"key_id": CANARY, "meta": {"correlation_id": "the-hosts"}})

        assert code(answer) == (-32603, "INTERNAL_ERROR")
        assert CANARY not in json.dumps(answer)
        log = driver.end()
    (record,) = (
        found for found in records(log) if answer["error"]["data"]["correlation_id"] in found["message"]
    )
    assert record["level"] == "ERROR"
    assert record["exception"] == "ValueError"
    assert record["correlation_id"] == "the-hosts"
    assert record["trace"][-1].endswith(" get_key")
    assert CANARY not in "".join(log)


@pytest.mark.parametrize("name", ["thread", "garbage"])
def test_an_exception_that_nobody_can_catch_is_one_line_of_the_log_without_its_text(name: str) -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()

        driver.trick(name)

        log = driver.end()
    assert [found["exception"] for found in records(log) if "exception" in found] == ["ValueError"]
    assert CANARY not in "".join(log)


def test_a_library_that_exits_does_not_take_the_process_with_it() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()

        assert code(driver.call("crypto.encrypt", trick("exit"))) == (-32603, "INTERNAL_ERROR")
        assert "result" in driver.call("plugin.ping")
        driver.end()


def test_every_record_is_one_json_object_on_one_line() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()
        driver.trick("log")
        log = driver.end()

    messages = [record["message"] for record in records(log)]
    assert "two\nlines and \u2028 a third\r\n{}" in messages
    assert "lone surrogate \\ud800, é, 鍵" in messages
    assert any("cannot be formatted" in message for message in messages)
    assert any("a\nwarning" in message for message in messages)
    assert "x" * 4096 in messages
    assert "not shown" not in messages
    assert CANARY not in "".join(log)


def test_a_process_that_holds_keys_cannot_be_dumped() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()

        assert driver.trick("dumps") == "0 (0, 0)"
        driver.end()


# The end


def test_the_end_of_stdin_ends_the_process_with_status_0_and_closes_the_driver_once() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()

        log = driver.end()

    assert [record["message"] for record in records(log)].count("closed") == 1


def test_the_end_of_stdin_before_the_first_request_is_an_end_too() -> None:
    with child("drivers:Tricks") as driver:
        log = driver.end()

    assert [record["message"] for record in records(log)].count("closed") == 1


def test_shutdown_answers_after_the_running_requests_and_ends_the_process() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()
        driver.send(line("crypto.encrypt", "w", trick("wait")))
        driver.wait_for_log("waiting")
        driver.send(line("key.get_region", "release", {"key_id": "k"}))
        driver.send(line("plugin.shutdown", "end") + line("plugin.ping", "late"))

        answers = [driver.receive()["id"] for _ in range(3)]
        assert answers[-1] == "end"
        assert set(answers) == {"w", "release", "end"}
        assert driver.wait() == 0
        assert driver.rest() == b""
        assert [record["message"] for record in records(driver.log)].count("closed") == 1


def test_at_the_end_of_stdin_a_running_request_learns_of_it() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()
        driver.send(line("crypto.encrypt", "p", trick("patient")))
        driver.wait_for_log("waiting")
        driver.stdin.close()

        assert driver.wait() == 0
        assert decode_base64(driver.receive()["result"]["ciphertext"]) == b"cancelled"


def test_a_request_that_never_ends_does_not_keep_the_process() -> None:
    with child("drivers:Impatient") as driver:
        driver.configure()
        driver.send(line("crypto.encrypt", "h", trick("hang")))
        driver.wait_for_log("waiting")
        driver.stdin.close()

        assert driver.wait() == 0
        messages = [record["message"] for record in records(driver.log)]
    assert any("abandoned" in message for message in messages)
    assert "closed" not in messages


def test_a_host_that_stops_reading_ends_the_process() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()
        assert driver.process.stdout
        driver.process.stdout.close()
        driver.send(line("plugin.ping", 1))

        assert driver.wait() == 0
        assert [record["message"] for record in records(driver.log)].count("closed") == 1


@pytest.mark.parametrize("busy", [False, True])
def test_sigterm_ends_the_process_whatever_it_is_doing(busy: bool) -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()
        if busy:
            driver.send(line("crypto.encrypt", "h", trick("hang")))
            driver.wait_for_log("waiting")
        driver.process.send_signal(signal.SIGTERM)

        assert driver.wait() == -signal.SIGTERM


def test_the_terminals_interrupt_is_the_applications_business() -> None:
    with child("drivers:Tricks") as driver:
        driver.configure()
        driver.process.send_signal(signal.SIGINT)

        assert "result" in driver.call("plugin.ping")
        driver.end()


def test_a_driver_that_fails_to_close_ends_like_any_other() -> None:
    with child("drivers:ClosesBadly") as driver:
        driver.configure()
        log = driver.end()

    assert [record["message"] for record in records(log)] == ["defect in close"]
    assert CANARY not in "".join(log)


def test_a_driver_that_cannot_be_made_ends_the_process_without_its_exceptions_text() -> None:
    with child("drivers:FailsToStart") as driver:
        assert driver.wait() == 1
        assert driver.rest() == b""
        (record,) = records(driver.log)

    assert record["level"] == "CRITICAL"
    assert record["exception"] == "ValueError"
    assert CANARY not in json.dumps(record)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("broken:Anything", "a_vendor_library_that_nobody_has"),
        ("no_such_module:Anything", "no_such_module"),
        ("drivers:NoSuchClass", "NoSuchClass"),
        ("drivers:not_a_driver", "is not a subclass"),
        ("drivers:CANARY", "is not a subclass"),
        ("drivers", "unit.sdk.drivers"),
    ],
)
def test_a_driver_that_cannot_be_imported_says_what_is_missing(target: str, says: str) -> None:
    with child(target) as driver:
        assert driver.wait() == 1
        assert driver.rest() == b""
        (record,) = records(driver.log)

    assert record["level"] == "CRITICAL"
    assert says in record["message"]
