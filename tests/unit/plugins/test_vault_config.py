"""Settings of the Vault driver: what it takes, and which member it blames for what it does not take."""

import subprocess
import sys
from typing import Any

import pytest
from kmsplug_plugins.vault_transit.driver import VaultTransitDriver
from kmsplug_sdk.testing import run_driver

GOOD: dict[str, Any] = {"address": "https://vault.example:8200", "login": {"method": "token", "token": "s.x"}}


def refused(config: dict[str, Any]) -> tuple[str, str]:
    """Return the code and the blamed member."""
    with run_driver(VaultTransitDriver) as client:
        host = {"name": "test", "version": "0"}
        client.call("plugin.initialize", {"protocol_versions": ["1"], "host": host})
        error = client.call("plugin.configure", {"config": config})["error"]
    assert "canary" not in str(error)
    return error["data"]["code"], error["data"].get("path", "")


@pytest.mark.parametrize(
    "address",
    [
        "vault.example",
        "ftp://vault.example",
        "http://vault.example:8200",
        "http://10.0.0.1",
        "https://",
        "https://user:canary@vault.example",
        "https://vault.example/v1",
        "https://vault.example?x=1",
        "https://vault.example:99999",
        "https://[::1",
        "http://127.0.0.1.example",
        "",
    ],
)
def test_an_address_is_a_server_over_tls_and_nothing_else(address: str) -> None:
    assert refused({**GOOD, "address": address}) == ("CONFIGURATION_ERROR", "address")


@pytest.mark.parametrize(
    "path", ["", "/transit", "transit/", "a//b", "../sys", "a/../b", "a?b", "a b", "é", "x" * 129]
)
@pytest.mark.parametrize("member", ["mount", "namespace"])
def test_a_mount_leads_nowhere_else(member: str, path: str) -> None:
    assert refused({**GOOD, member: path}) == ("CONFIGURATION_ERROR", member)


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"login": GOOD["login"]}, "address"),
        ({"address": GOOD["address"]}, "login"),
        ({**GOOD, "login": {"method": "userpass", "password": "canary"}}, "login"),
        ({**GOOD, "login": {"method": "token"}}, "login.token.token"),
        (
            {**GOOD, "login": {"method": "kubernetes", "role": "r", "jwt_file": "token"}},
            "login.kubernetes.jwt_file",
        ),
        ({**GOOD, "login": {"method": "token", "token": "s.x", "colour": "canary"}}, "login.token.colour"),
        ({**GOOD, "ca_file": "ca.pem"}, "ca_file"),
        ({**GOOD, "proxy": "http://user:canary@proxy:3128"}, "proxy"),
        ({**GOOD, "auto_rotate_hours": -1}, "auto_rotate_hours"),
        ({**GOOD, "usages": {"k": "EVERYTHING"}}, "usages.k"),
        ({**GOOD, "tls_skip_verify": True}, "tls_skip_verify"),
    ],
)
def test_the_member_that_is_wrong_is_named(config: dict[str, Any], path: str) -> None:
    assert refused(config) == ("CONFIGURATION_ERROR", path)


def test_secrets_and_paths_are_marked_in_the_schema() -> None:
    schema = VaultTransitDriver.Config.model_json_schema()
    members = {
        name: form for model in schema["$defs"].values() for name, form in model.get("properties", {}).items()
    }

    assert {name for name, form in members.items() if form.get("writeOnly")} == {"token", "secret_id"}
    paths = {name for name, form in members.items() if form.get("format") == "path"}
    assert paths == {"jwt_file", "certificate_file", "private_key_file"}


def test_without_the_sdk_it_says_what_to_install() -> None:
    target = "kmsplug_plugins.vault_transit.driver:VaultTransitDriver"
    script = "import sys; sys.modules['hvac'] = None; "
    script += f"from kmsplug_sdk import serve; serve('{target}', ['--describe'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "pip install 'kmsplug[vault]'" in done.stderr
