"""``kmsplug plugin`` and ``kmsplug health``: each plugin on its own, with exit codes that scripts can use."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import CONFIG, Cli
from support.tokens import softhsm

BROKEN = f"""
[plugins.broken]
command = ["{sys.executable}", "-c", "import sys; sys.exit('no licence \\u001b[31mfound')"]
isolation = "process"
"""


def test_a_healthy_plugin_is_listed_described_and_checked(cli: Cli) -> None:
    listed = cli.json("plugin", "list")["plugins"]
    described = cli.json("plugin", "describe", "local")
    checked = cli.json("plugin", "check", "local")["plugins"][0]

    assert [(item["name"], item["state"]) for item in listed] == [("local", "healthy")]
    assert {row["operation"] for row in described["capabilities"]} >= {"crypto.encrypt", "key.rotate"}
    assert described["identity"].startswith("local:")
    assert checked["state"] == "healthy"
    assert checked["checks"]
    assert checked["ping_ms"] > 0


def test_the_document_of_a_health_check_is_the_one_in_the_manual(cli: Cli) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
    shown = json.loads(page.read_text(encoding="utf-8").split("```json\n")[1].split("```")[0])

    found = cli.json("health", "--deep")

    assert found.keys() == shown.keys()
    assert found["plugins"][0].keys() == shown["plugins"][0].keys()
    shown_checks = shown["plugins"][0]["checks"][0].keys()
    assert all(check.keys() <= shown_checks for check in found["plugins"][0]["checks"])


def test_describe_shows_every_operation_of_the_protocol_with_or_without(cli: Cli) -> None:
    text = cli("plugin", "describe", "local").stdout.decode()

    assert "crypto.encrypt\tnative\t" in text
    assert "keystore.provision\tno" in text
    assert "protection=software; key_algorithm=" in text
    assert "\\u{" not in text


def test_one_broken_plugin_does_not_hide_the_others(cli: Cli) -> None:
    (cli.folder / "plugins.toml").write_text(CONFIG + BROKEN)

    done = cli("--json", "health", code=1)

    found = {item["name"]: item for item in json.loads(done.stdout)["plugins"]}
    assert found["local"]["state"] == "healthy"
    assert found["broken"]["state"] == "FAILED"
    assert found["broken"]["error"]["diagnosis"]["exit"] == "exit status 1"
    assert cli.json("plugin", "check", "local")["plugins"][0]["state"] == "healthy"


def test_what_a_broken_driver_says_is_escaped(cli: Cli) -> None:
    (cli.folder / "plugins.toml").write_text(CONFIG + BROKEN)

    done = cli("plugin", "check", "broken", code=1)

    assert b"no licence" in done.stderr
    assert b"\x1b" not in done.stderr + done.stdout


def test_installed_drivers_are_listed_without_being_run(cli: Cli) -> None:
    drivers = {item["name"] for item in cli.json("plugin", "list", "--available")["drivers"]}

    assert "local" in drivers


def test_installed_drivers_are_described_without_a_configuration(cli: Cli) -> None:
    (cli.folder / "plugins.toml").unlink()

    drivers = {item["name"]: item for item in cli.json("plugin", "describe", "--drivers")["drivers"]}

    told = {row["operation"]: row["executed_by"] for row in drivers["local"]["operations"]}
    assert told["crypto.encrypt"] == "native"
    assert told["keystore.provision"] is None
    assert all(row["executed_by"] or row["reason"] for row in drivers["local"]["operations"])
    assert b"--drivers" in cli("plugin", "describe", code=2).stderr


def test_an_unknown_plugin_names_the_known_ones(cli: Cli) -> None:
    assert "local" in cli.error("plugin", "check", "nowhere", code=2)["message"]
    assert "local" in cli.error("plugin", "describe", "nowhere", code=2)["message"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[plugins.local\n", "line 1"),
        ("[plugins.local]\ndriver = \n", "line 2"),
        ('[plugins.local]\ndriver = "local"\ndeadline = 3\n', "plugins.local.deadline: unknown key"),
        (
            '[plugins.local]\ndriver = "local"\ndeadline_s = "soon"\n',
            "plugins.local.deadline_s: expected a number",
        ),
        ('[plugins.local]\ndriver = "nope"\n', "installed are: "),
        ('[plugins.local]\ncommand = ["./nope"]\nisolation = "process"\n', "plugins.local.command"),
        ('[plugins.local]\ndriver = "local"\nconfig = { pat = "x" }\n', "plugins.local.config"),
        ('[plugins.local]\ndriver = "local"\nconfig = { path = 3 }\n', "plugins.local.config.path"),
        ('[plugins.local]\ndriver = "local"\n[keystores.a]\nplugin = "b"\n', "keystores.a.plugin"),
        ("", "plugins"),
    ],
)
def test_a_wrong_configuration_is_exit_2_and_names_file_and_key(cli: Cli, text: str, expected: str) -> None:
    (cli.folder / "plugins.toml").write_text(text)

    error = cli.error("key", "list", code=2)

    assert error["code"] == "CONFIGURATION_ERROR"
    assert "plugins.toml" in error["message"]
    assert expected in error["message"]


def test_the_configuration_is_looked_for_in_three_places(cli: Cli) -> None:
    (cli.folder / "plugins.toml").rename(cli.folder / "elsewhere.toml")

    assert "looked for" in cli.error("key", "list", code=2)["message"]
    cli("--config", "elsewhere.toml", "key", "list")
    cli.environment["KMSPLUG_CONFIG"] = str(cli.folder / "elsewhere.toml")
    cli("key", "list")
    del cli.environment["KMSPLUG_CONFIG"]
    home = cli.folder / "home" / "kmsplug"
    home.mkdir(parents=True)
    (cli.folder / "elsewhere.toml").rename(home / "plugins.toml")
    cli("key", "list")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["key", "nonsense"], ["encrypt"], ["--nonsense"], ["key", "rotate"]]
)
def test_wrong_usage_is_exit_2(refusal: Callable[..., str], arguments: list[str]) -> None:
    assert "Usage: kmsplug" in refusal(*arguments)


def test_the_script_tells_its_version_and_wrong_usage(cli: Cli) -> None:
    assert b"kmsplug" in cli("--version").stdout
    assert b"Usage: kmsplug" in cli("nonsense", code=2).stderr


def test_describe_tells_how_far_each_promise_is_believed_and_tries_it_with_a_key(cli: Cli) -> None:
    key = cli.json("key", "create", "--algorithm", "AES_256_GCM")["key_id"]

    declared = cli.json("plugin", "describe", "local")["promises"]
    tried = cli.json("plugin", "describe", "local", "--probe-key", key)["promises"]
    shown = cli("plugin", "describe", "local", "--probe-key", key).stdout.decode()

    assert {each["status"] for each in declared} == {"declared"}
    probed = {each["row"]["operation"] for each in tried if each["status"] == "probed"}
    assert probed >= {
        "crypto.encrypt",
        "crypto.decrypt",
        "crypto.generate_data_key",
        "crypto.random",
        "key.get",
    }
    assert f"crypto.encrypt AES_256_GCM AES_256_GCM as A256GCM\tprobed\tby the host, with {key}" in shown
    assert cli.error("plugin", "describe", "local", "--probe-key", "nowhere")["code"] == "KEY_NOT_FOUND"


def test_describe_says_of_a_driver_that_nobody_tried_it_on_such_a_token(cli: Cli, tmp_path: Path) -> None:
    tokens = softhsm(tmp_path)
    pin = tmp_path / "pin"
    pin.write_text(tokens.pin)
    pin.chmod(0o600)
    (cli.folder / "plugins.toml").write_text(
        f"""
        [plugins.hsm]
        driver = "pkcs11"
        isolation = "process"
        set_env = {{ SOFTHSM2_CONF = "{tokens.env["SOFTHSM2_CONF"]}" }}
        [plugins.hsm.config]
        module = "{tokens.module}"
        token_label = "kmsplug"
        profile = "utimaco"
        pin = {{ file = "{pin}" }}
        """
    )

    warnings = cli.json("plugin", "describe", "hsm")["warnings"]
    text = cli("plugin", "describe", "hsm").stdout.decode()

    assert "profile utimaco is from documentation" in warnings[0]
    assert f"warnings\t{warnings[0]}" in text
