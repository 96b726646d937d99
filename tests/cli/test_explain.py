"""``kmsplug explain``: a person learns what a code means, and what happened in one error."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host.cli import _output
from kmsplug_host.errors import InvalidCiphertext, RateLimitExceeded
from kmsplug_protocol import ERROR_FACTS, ErrorCode, Vendor
from support.cli import Cli

THROTTLED = {
    "code": "RATE_LIMIT_EXCEEDED",
    "message": "throttled",
    "retry": "after",
    "outcome": "unknown",
    "operation": "key.create",
    "plugin": "main",
    "driver": "aws_kms 1.2",
    "key_id": "k-1",
    "retry_after_ms": 250,
    "vendor": {
        "service": "kms", "code": "ThrottlingException", "message": "Rate exceeded",
        "http_status": 400, "request_id": "r-1",
    },
    "attempts": [{"code": "TIMEOUT", "elapsed_s": 0.5}],
    "causes": [{"code": "TIMEOUT", "message": "late", "vendor": {"code": "E9"}}, {"type": "OSError"}],
}  # fmt: skip


def fields(output: bytes) -> dict[str, str]:
    """Return the lines of a pipe by their names."""
    return dict(line.split("\t", 1) for line in output.decode().splitlines())


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)  # without a configuration: none is needed


@pytest.mark.parametrize("code", [ErrorCode.RATE_LIMIT_EXCEEDED, ErrorCode.PLUGIN_CRASHED])
def test_a_code_is_explained_to_a_person(cli: Cli, code: ErrorCode) -> None:
    told = fields(cli("explain", code.value).stdout)

    assert told["code"] == code
    assert told["meaning"] == ERROR_FACTS[code].meaning
    assert told["what to do"] == ERROR_FACTS[code].action


@pytest.mark.parametrize("name", ["rate-limit-exceeded", "RateLimitExceeded", "ErrRateLimitExceeded"])
def test_a_code_is_known_by_its_other_names(cli: Cli, name: str) -> None:
    assert fields(cli("explain", name).stdout)["code"] == "RATE_LIMIT_EXCEEDED"


def test_a_program_gets_one_document(cli: Cli) -> None:
    assert cli.json("explain", "TIMEOUT") == {
        "code": "TIMEOUT",
        "meaning": ERROR_FACTS[ErrorCode.TIMEOUT].meaning,
        "who_failed": "the keystore said no",
        "effect": "the provider may have carried it out: look before you repeat a change",
        "retry": "reconcile: only after a look whether the change was made",
        "exception": "kmsplug_host.errors.Timeout",
        "grpc": "DEADLINE_EXCEEDED",
        "what_to_do": ERROR_FACTS[ErrorCode.TIMEOUT].action,
    }


def test_an_unknown_code_is_wrong_usage_and_similar_ones_are_named(cli: Cli) -> None:
    done = cli("explain", "KEY_NOTFOUNT", code=2)

    assert b"KEY_NOT_FOUND" in done.stderr
    assert done.stdout == b""


def test_where_nothing_is_similar_all_codes_are_named(cli: Cli) -> None:
    shown = re.sub("[^A-Z_]", "", cli("explain", "7", code=2).stderr.decode())  # without the frame

    assert all(code in shown for code in ErrorCode)


def test_one_error_is_told_as_a_story(cli: Cli) -> None:
    (cli.folder / "error.json").write_text(json.dumps(THROTTLED))
    told = fields(cli("explain", "error.json").stdout)

    assert told["what happened"] == "throttled"
    assert told["where"] == "operation key.create, key id k-1, plugin main, driver aws_kms 1.2"
    assert told["vendor"] == (
        "service kms, code ThrottlingException, http status 400, request id r-1, message Rate exceeded"
    )
    assert told["earlier tries"] == "TIMEOUT (elapsed_s 0.5)"
    assert told["behind it"] == "TIMEOUT: late (code E9), OSError"
    assert told["effect"].startswith(
        "the provider may have carried it out"
    )  # as the error says, not its code
    assert told["what to do"] == ERROR_FACTS[ErrorCode.RATE_LIMIT_EXCEEDED].action


def test_an_error_comes_from_stdin_after_other_lines_of_stderr(cli: Cli) -> None:
    done = cli("explain", "-", stdin=b"WARNING something\n" + json.dumps(THROTTLED).encode() + b"\n")

    assert fields(done.stdout)["what happened"] == "throttled"


def test_what_the_command_itself_reports_can_be_explained(tmp_path: Path) -> None:
    cli = Cli.new(tmp_path)
    error = cli("--json", "key", "describe", "no-such-key", code=1).stderr
    told = fields(cli("explain", "-", stdin=error).stdout)

    assert told["code"] == "KEY_NOT_FOUND"
    assert "operation key.get" in told["where"]
    assert "key id no-such-key" in told["where"]
    assert "driver local" in told["where"]


def test_a_withheld_vendor_and_a_crashed_process_are_told(cli: Cli) -> None:
    error = {
        "code": "PLUGIN_CRASHED",
        "message": "ended",
        "vendor": {"service": "p11", "withheld": True},
        "diagnosis": {"exit": "SIGSEGV", "executable": "/bin/driver", "stderr": ["first", "boom"]},
    }
    told = fields(cli("explain", "-", stdin=json.dumps(error).encode()).stdout)

    assert told["vendor"] == "service p11, the rest is withheld"
    assert told["process"] == "SIGSEGV, /bin/driver; it said last: boom"


def test_a_code_of_a_newer_version_is_kept_and_told_as_unclassified(cli: Cli) -> None:
    told = fields(cli("explain", "-", stdin=b'{"code": "FROM_THE_FUTURE", "message": "new"}').stdout)

    assert told["code"] == "FROM_THE_FUTURE"
    assert told["meaning"] == ERROR_FACTS[ErrorCode.UNCLASSIFIED].meaning


@pytest.mark.parametrize("content", ["", "[]", '{"code": 7}', "[" * 100_000])
def test_what_is_no_error_is_wrong_usage(cli: Cli, content: str) -> None:
    done = cli("explain", "-", stdin=content.encode(), code=2)

    assert b"expected an error as JSON" in b" ".join(done.stderr.split())


@pytest.mark.parametrize("member", [
    {"vendor": 1, "attempts": 1, "causes": ["x"], "diagnosis": [], "outcome": "odd"},
    {"attempts": [1], "diagnosis": {"stderr": 5}, "outcome": ["odd"], "message": {"a": 1}},
])  # fmt: skip
def test_members_of_a_wrong_kind_do_no_harm(cli: Cli, member: dict[str, Any]) -> None:
    done = cli("explain", "-", stdin=json.dumps({"code": "TIMEOUT", **member}).encode())

    assert b"DEADLINE_EXCEEDED" in done.stdout


def test_a_hostile_error_cannot_move_the_cursor(cli: Cli) -> None:
    done = cli("explain", "-", stdin=json.dumps({"code": "TIMEOUT", "message": "a\x1b[2Jb\nc"}).encode())

    assert b"\x1b" not in done.stdout
    assert fields(done.stdout)["what happened"] == "a\\u{1b}[2Jb\\u{a}c"


def test_on_a_terminal_it_is_a_table(cli: Cli) -> None:
    shown, status = cli.on_a_terminal("explain", "CONFLICT")

    assert status == 0
    assert b"somebody else changed the same thing" in shown
    assert "│".encode() in shown


def test_a_person_is_told_the_providers_own_words_with_any_error(capsys: pytest.CaptureFixture[str]) -> None:
    vendor = Vendor(service="kms", code="ThrottlingException", message="Rate\x1b exceeded", request_id="r-1")
    _output.report_error(RateLimitExceeded("throttled", vendor=vendor), as_json=False)

    assert capsys.readouterr().err == (
        "kmsplug: RATE_LIMIT_EXCEEDED: throttled\n"
        "  provider: service kms, code ThrottlingException, request id r-1, message Rate\\u{1b} exceeded\n"
    )


def test_where_all_was_withheld_only_that_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    _output.report_error(InvalidCiphertext("no", vendor=Vendor(withheld=True)), as_json=False)

    assert "  provider: the rest is withheld\n" in capsys.readouterr().err
