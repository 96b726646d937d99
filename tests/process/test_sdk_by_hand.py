"""What a driver says to a person at a terminal: --describe, --check, and what it is."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from unit.sdk.child import ENVIRONMENT, WAIT_S, command, run
from unit.sdk.drivers import CANARY


def test_describe_prints_what_the_driver_promises_as_one_json_object() -> None:
    described = run("--describe")

    document = json.loads(described.stdout)
    assert described.returncode == 0
    assert document["driver"] == {"name": "checked", "version": "1"}
    assert document["config_schema"]["properties"]["mode"]
    assert document["config_schema"]["$defs"]["Login"]["properties"]["pin"]["writeOnly"] is True
    assert document["capabilities"] == []


def test_describe_is_not_corrupted_by_a_print_at_import() -> None:
    described = run("--describe", target="noisy:Noisy")

    assert json.loads(described.stdout)["driver"]["name"] == "echo"
    assert described.returncode == 0
    assert "printed at import" in described.stderr


def test_what_others_install_for_pydantic_sees_nothing_of_a_driver(tmp_path: Path) -> None:
    package = tmp_path / "peep-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: peep\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[pydantic]\npeep = peep:plugin\n")
    (tmp_path / "peep.py").write_text(f"open({str(tmp_path / 'seen')!r}, 'w').close()\nplugin = None\n")
    path = os.pathsep.join((str(tmp_path), ENVIRONMENT["PYTHONPATH"]))

    described = subprocess.run(
        command("drivers:Checked", "--describe"),
        env={**ENVIRONMENT, "PYTHONPATH": path},
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )

    assert described.returncode == 0
    assert not (tmp_path / "seen").exists()


@pytest.mark.parametrize("form", ["toml", "json", "-", "- json"])
def test_check_takes_a_file_or_its_input_in_both_forms(form: str, tmp_path: Path) -> None:
    text = '{"mode": "well"}' if form.endswith("json") else 'mode = "well"\n'
    file = tmp_path / "config"
    file.write_text(text, encoding="utf-8")

    checked = run("--check", "-", stdin=text) if form.startswith("-") else run("--check", str(file))

    assert checked.returncode == 0
    assert json.loads(checked.stdout) == {
        "identity": "checked:1",
        "healthy": True,
        "checks": [{"name": "deep round trip", "healthy": True}, {"name": "clock", "healthy": True}],
    }
    assert checked.stderr.splitlines() == ["printed by configure", "written by configure", "closed"]


def test_check_of_a_keystore_that_is_not_well_reports_it_and_fails() -> None:
    checked = run("--check", "-", stdin='mode = "ill"')

    report = json.loads(checked.stdout)
    assert checked.returncode == 1
    assert report["healthy"] is False
    assert [check["healthy"] for check in report["checks"]] == [False, True]


def test_check_reports_a_refusal_with_its_code() -> None:
    checked = run("--check", "-", stdin='mode = "refuse"')

    assert checked.returncode == 1
    assert json.loads(checked.stdout) == {
        "healthy": False,
        "error": {
            "code": "AUTHENTICATION_FAILED",
            "message": "the login was refused",
            "hint": "ask for a new PIN",
        },
    }
    assert "closed" in checked.stderr


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ('mode = "no such"', "mode"),
        ("", "mode"),
        ('mode = "well"\n[login]\nrole = "r"', "login.pin"),
        ('{"mode": "well", "login": {"role": 7, "pin": "canary-8d1f02"}}', "login.role"),
    ],
)
def test_check_of_settings_that_do_not_fit_names_the_member_and_not_its_value(config: str, path: str) -> None:
    checked = run("--check", "-", stdin=config)

    report = json.loads(checked.stdout)
    assert checked.returncode == 1
    assert report["healthy"] is False
    assert report["error"]["code"] == "CONFIGURATION_ERROR"
    assert report["error"]["path"] == path
    assert CANARY not in checked.stdout + checked.stderr


def test_check_takes_secrets_by_reference_as_a_host_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "mode"
    secret.write_text("well\n")
    secret.chmod(0o600)
    monkeypatch.setitem(ENVIRONMENT, "CHECKED_MODE", "well")

    for reference in (f'{{ file = "{secret}" }}', '{ env = "CHECKED_MODE" }'):
        assert run("--check", "-", stdin=f"mode = {reference}").returncode == 0


@pytest.mark.parametrize(
    ("mode", "content", "told"),
    [(0o644, b"well", "can be read by others"), (0o600, b"", "expected 1 to"), (0o600, b"\xff", "not UTF-8")],
)
def test_check_refuses_a_secret_that_others_can_read_or_that_is_none(
    tmp_path: Path, mode: int, content: bytes, told: str
) -> None:
    secret = tmp_path / "mode"
    secret.write_bytes(content)
    secret.chmod(mode)

    checked = run("--check", "-", stdin=f'mode = {{ file = "{secret}" }}')

    assert checked.returncode == 1
    assert told in json.loads(checked.stdout)["error"]["message"]


@pytest.mark.parametrize("config", ["{", "mode = ", "mode", '{"mode": "well"} x', "\x00"])
def test_check_of_a_file_that_is_neither_toml_nor_json_is_a_report_too(config: str) -> None:
    checked = run("--check", "-", stdin=config)

    assert checked.returncode == 1
    assert json.loads(checked.stdout)["error"]["code"] == "CONFIGURATION_ERROR"


def test_check_of_a_file_that_is_not_there_is_a_report_too(tmp_path: Path) -> None:
    checked = run("--check", str(tmp_path / "missing.toml"))

    assert checked.returncode == 1
    assert "missing.toml" in json.loads(checked.stdout)["error"]["message"]


@pytest.mark.parametrize("mode", ["fail", "exit", "fail in health"])
def test_check_of_a_driver_with_a_defect_is_a_report_without_its_exceptions_text(mode: str) -> None:
    checked = run("--check", "-", stdin=f'mode = "{mode}"')

    report = json.loads(checked.stdout)
    assert checked.returncode == 1
    assert report["error"]["code"] == "INTERNAL_ERROR"
    assert report["error"]["correlation_id"] in checked.stderr
    assert CANARY not in checked.stdout + checked.stderr


def test_check_of_a_driver_that_fails_to_close_still_says_how_the_keystore_is() -> None:
    checked = run("--check", "-", stdin='mode = "fail in close"')

    assert checked.returncode == 0
    assert json.loads(checked.stdout)["healthy"] is True
    assert "defect in close" in checked.stderr
    assert CANARY not in checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "arguments", [["--no-such"], ["--check"], ["--describe", "--check", "x"], ["a positional argument"]]
)
def test_wrong_usage_is_status_2_and_says_what_is_right(arguments: list[str]) -> None:
    used = run(*arguments)

    assert used.returncode == 2
    assert "--describe" in used.stderr
    assert used.stdout == ""


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--describe"]])
def test_without_a_driver_the_module_says_how_it_is_used(arguments: list[str]) -> None:
    used = subprocess.run(
        [sys.executable, "-m", "kmsplug_sdk", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=WAIT_S,
    )

    assert used.returncode == 2
    assert "package.module:Class" in used.stderr


def test_on_a_terminal_a_driver_says_what_it_is_and_what_to_type_instead() -> None:
    ours, theirs = pty.openpty()
    try:
        typed = command("drivers:Echo")
        found = subprocess.run(
            typed, check=False, stdin=theirs, capture_output=True, text=True, env=ENVIRONMENT, timeout=WAIT_S
        )
    finally:
        os.close(ours)
        os.close(theirs)

    assert found.returncode == 2
    assert found.stdout == ""
    assert "This is a kmsplug driver" in found.stderr
    instead = next(text for text in found.stderr.splitlines() if "--describe" in text)
    suggested = [*instead.split("--describe")[0].split(), "--describe"]
    assert suggested == [*typed, "--describe"]
    assert (
        subprocess.run(
            suggested, check=False, capture_output=True, env=ENVIRONMENT, timeout=WAIT_S
        ).returncode
        == 0
    )
