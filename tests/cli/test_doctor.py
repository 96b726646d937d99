"""``kmsplug doctor``: each fault of an installation is found beside all others, with what to do."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import _clock_state
from support.cli import CONFIG, Cli

DRIVER = f"""#!{sys.executable}
import sys
sys.exit("no licence found")
"""


def command(path: Path, *lines: str) -> str:
    return "\n".join(["\n[plugins.acme]", f'command = ["{path}"]', 'isolation = "process"', *lines, ""])


@pytest.fixture
def driver(cli: Cli) -> Path:
    path = cli.folder / "driver"
    path.write_text(DRIVER)
    path.chmod(0o755)
    return path


def examined(cli: Cli, code: int, *arguments: str) -> list[dict[str, Any]]:
    document = json.loads(cli("--json", "doctor", *arguments, code=code).stdout)
    found: list[dict[str, Any]] = document["findings"]
    return found


def of(found: list[dict[str, Any]], check: str, subject: str | None = None) -> list[dict[str, Any]]:
    return [item for item in found if item["check"] == check and subject in (None, item["subject"])]


def test_a_good_installation_has_used_a_key_for_real(cli: Cli) -> None:
    key_id = cli.json("key", "create", "--algorithm", "AES_256_GCM")["key_id"]

    found = examined(cli, 0)

    (access,) = of(found, "key access")
    assert access["verdict"] == "well"
    assert key_id in access["text"]
    assert {item["check"] for item in found} == {
        "versions", "clock", "config", "executable", "isolation", "start", "reach", "key access",
        "promises", "operations", "policies",
    }  # fmt: skip
    assert all(item["advice"] for item in found if item["verdict"] != "well")


def test_a_keystore_without_a_key_says_how_to_make_one(cli: Cli) -> None:
    (access,) = of(examined(cli, 0), "key access")

    assert access["verdict"] == "advice"
    assert access["advice"] == "kmsplug key create --keystore local --algorithm AES_256_GCM"


def test_one_plugin_that_does_not_start_hides_no_other(cli: Cli, driver: Path) -> None:
    (cli.folder / "plugins.toml").write_text(CONFIG + command(driver))

    found = examined(cli, 1)

    (start,) = of(found, "start", "acme")
    assert start["verdict"] == "wrong"
    assert "no licence found" in start["text"]
    assert of(found, "reach", "local")


def test_a_command_without_a_pin_is_told_its_pin(cli: Cli, driver: Path) -> None:
    (cli.folder / "plugins.toml").write_text(command(driver))
    digest = hashlib.sha256(driver.read_bytes()).hexdigest()

    (unpinned,) = of(examined(cli, 1), "executable")
    (cli.folder / "plugins.toml").write_text(command(driver, f'sha256 = "{digest}"'))
    (pinned,) = of(examined(cli, 1), "executable")

    assert (unpinned["verdict"], pinned["verdict"]) == ("advice", "well")
    assert digest in unpinned["advice"]


def test_an_executable_that_was_changed_is_wrong(cli: Cli, driver: Path) -> None:
    (cli.folder / "plugins.toml").write_text(command(driver, f'sha256 = "{"0" * 64}"'))

    (executable,) = of(examined(cli, 1), "executable")

    assert executable["verdict"] == "wrong"
    assert "not the pinned one" in executable["text"]


@pytest.mark.parametrize("name", ["driver", "plugins.toml"])
def test_what_others_can_write_is_wrong(cli: Cli, driver: Path, name: str) -> None:
    (cli.folder / "plugins.toml").write_text(command(driver))
    (cli.folder / name).chmod(0o757)

    found = examined(cli, 1)

    wrong = [item["text"] for item in found if item["verdict"] == "wrong"]
    assert any(f"{name}: chmod go-w" in text for text in wrong)


def test_a_provider_that_refuses_is_named_with_its_code_and_what_to_do(cli: Cli) -> None:
    rule = 'effect = "fail", code = "ACCESS_DENIED", vendor_code = "AccessDeniedException"'
    (cli.folder / "plugins.toml").write_text(
        '[plugins.mock]\ndriver = "mock"\n'
        f'config = {{ scenario = {{ rule = [{{ {rule}, operations = ["plugin.health", "key.list"] }}] }} }}\n'
    )

    found = examined(cli, 1)

    for check in ("reach", "key access"):
        (finding,) = of(found, check)
        assert finding["verdict"] == "wrong"
        assert "ACCESS_DENIED" in finding["text"]
        assert "AccessDeniedException" in finding["text"]
        assert "permission" in finding["advice"]


def test_a_configuration_that_cannot_be_read_is_a_finding(cli: Cli) -> None:
    (cli.folder / "plugins.toml").write_text("[plugins.local\n")

    (config,) = of(examined(cli, 1), "config")

    assert config["verdict"] == "wrong"
    assert "line 1" in config["text"]


def test_it_says_what_the_configuration_trades(cli: Cli) -> None:
    more = '[keystores.local]\nplugin = "local"\naccept_public_key_wrap = true\nauto_destroy = true\n'
    (cli.folder / "plugins.toml").write_text(
        CONFIG + more + "data_key_cache = { max_age_s = 60, decrypt = true }\n[catalog]\n"
    )

    policies = of(examined(cli, 0), "policies")

    assert "for 60 s at most" in policies[0]["text"]
    assert [policy["verdict"] for policy in policies] == ["well", "advice", "advice", "advice"]
    assert "accept_public_key_wrap" in policies[2]["advice"]
    assert "auto_destroy" in policies[3]["advice"]


def test_quiet_shows_only_what_needs_doing(cli: Cli) -> None:
    assert all(item["verdict"] != "well" for item in examined(cli, 0, "--quiet"))
    lines = cli("doctor", "--quiet").stdout.decode().splitlines()
    assert lines[0] == "\tCHECK\tOF\tFOUND\tWHAT TO DO"


def test_a_clock_that_shows_the_past_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert "before this version was released" in (_clock_state.clock_problem() or "")


@pytest.mark.parametrize(("status", "told"), [(0x40, True), (0x2001, False), (0x41, True)])
def test_the_kernel_is_asked_about_the_clock(
    monkeypatch: pytest.MonkeyPatch, status: int, told: bool
) -> None:
    monkeypatch.setattr(_clock_state, "_kernel_status", lambda: status)

    assert (_clock_state.clock_problem() is not None) is told


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_asking_the_kernel_needs_no_privilege_and_changes_nothing() -> None:
    assert 0 <= _clock_state._kernel_status() < 0x10000
    assert os.geteuid() >= 0
