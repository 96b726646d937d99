"""``kmsplug conformance``: what it prints, writes and exits with."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from support.cli import Cli

PLAIN = str(Path(__file__).resolve().parents[1] / "drivers" / "plain_driver.py")
DRIVER = ("--", sys.executable, PLAIN)


def broken(cli: Cli) -> tuple[str, ...]:
    text = Path(PLAIN).read_text(encoding="utf-8").replace("os.urandom(12)", "bytes(12)")
    (cli.folder / "driver.py").write_text(text, encoding="utf-8")
    return ("--", sys.executable, "driver.py")


def test_a_driver_that_conforms_is_told_in_words_and_by_the_exit_status(cli: Cli) -> None:
    done = cli("conformance", "--only", "crypto.random", "--only", "binding", *DRIVER)

    assert (
        done.stdout.decode().splitlines()[-1].strip().startswith("plain 1.0: 5 passed, 0 failed, 1 skipped")
    )


def test_a_failed_case_is_told_with_what_was_seen_its_clause_and_a_hint(cli: Cli) -> None:
    done = cli("conformance", "--only", "crypto.never_the_same", *broken(cli), code=1)

    text = done.stdout.decode()
    assert "FAIL  crypto.never_the_same: The same plaintext never has the same ciphertext" in text
    assert "saw: crypto.encrypt on AES_256_GCM: two of 16 ciphertexts are the same" in text
    assert "SPEC.md 4.7-2, 4.4-1, 11-7" in text
    assert "hint: draw a fresh random IV for each call" in text


def test_json_junit_and_the_page_to_publish_say_the_same(cli: Cli) -> None:
    only = ("--only", "crypto.never_the_same", "--only", "crypto.batch")
    files = ("--junit", "junit.xml", "--report", "report.md")
    done = cli("--json", "conformance", *only, *files, *broken(cli), code=1)

    document = json.loads(done.stdout)
    outcomes = {case["id"]: case["outcome"] for case in document["cases"]}
    assert outcomes == {
        "session.handshake": "passed",
        "crypto.never_the_same": "failed",
        "crypto.batch": "skipped",
    }
    assert {row["operation"] for row in document["capabilities"]} >= {"crypto.encrypt", "key.get"}
    suites = ET.parse(cli.folder / "junit.xml").getroot()  # noqa: S314 - it was written here
    assert [case.get("name") for case in suites.iter("testcase")] == list(outcomes)
    assert len(list(suites.iter("failure"))) == len(list(suites.iter("skipped"))) == 1
    assert "| `crypto.never_the_same` |" in (cli.folder / "report.md").read_text(encoding="utf-8")


def test_on_a_terminal_there_is_a_progress_bar(cli: Cli) -> None:
    shown, status = cli.on_a_terminal("conformance", "--only", "crypto.random", *DRIVER)

    assert status == 0
    assert b"cases" in shown
    assert "\u2501".encode() in shown
    assert b"\x1b[32mok" in shown


def test_a_case_that_does_not_exist_is_wrong_usage(cli: Cli) -> None:
    done = cli("conformance", "--only", "crypto.nonsense", *DRIVER, code=2)

    assert b"no case or group crypto.nonsense" in done.stderr


def test_the_kit_plays_a_sick_provider_and_rejects_a_login_where_settings_say_how(cli: Cli) -> None:
    everything = str(Path(__file__).resolve().parents[1] / "conformance" / "everything_driver.py")
    (cli.folder / "sick.toml").write_text('url = "http://{address}/"')
    (cli.folder / "wrong.json").write_text('{"pin": "wrong"}')
    options = ("--only", "provider", "--provider", "sick.toml", "--wrong-login", "wrong.json")

    document = cli.json("conformance", *options, "--", sys.executable, everything)

    assert document["summary"] == {"passed": 6, "failed": 0, "skipped": 0, "total": 6}
