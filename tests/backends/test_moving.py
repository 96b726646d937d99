"""A tenant moves from AWS to Azure by one line, and what was encrypted before still opens."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backends.aws import SECRET
from backends.azure_entra import CLIENT, TENANT
from backends.azure_fake import AzureFake, azure_fake
from backends.azure_vault import HSM_HOST
from kmsplug_host import Host
from kmsplug_host.errors import AccessDenied
from support.azure import SECRET_LOGIN, led_to

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "embed_in_app"
BEFORE, AFTER = "aws", "azure"
LINES = ["after the rotation: the secret of tenant-3", "another tenant is refused: INVALID_CIPHERTEXT"]
CONTEXT = {"tenant": "tenant-3"}


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[AzureFake]:
    with azure_fake(tmp_path) as running, led_to(running):
        yield running


@pytest.fixture
def configuration(
    azure: AzureFake, aws_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Copy the example, with plugins for both providers in its ``plugins.toml``."""
    monkeypatch.setenv("KMSPLUG_TEST_AWS", SECRET)
    monkeypatch.setenv("KMSPLUG_TEST_AZURE", SECRET_LOGIN["client_secret"])
    folder = tmp_path / "embed_in_app"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    target = folder / "plugins.toml"
    target.write_text(f"""
[plugins.azure]
driver = "azure"

[plugins.azure.config]
vault_url = "https://{HSM_HOST}"
kind = "managed_hsm"

[plugins.azure.config.login]
method = "client_secret"
tenant_id = "{TENANT}"
client_id = "{CLIENT}"
client_secret = {{ env = "KMSPLUG_TEST_AZURE" }}

[plugins.aws]
driver = "aws"

[plugins.aws.config]
region = "{aws_settings["region"]}"
account = "{aws_settings["account"]}"
endpoint = "{aws_settings["endpoint"]}"

[plugins.aws.config.login]
method = "static"
access_key_id = "AKIAIOSFODNN7EXAMPLE"
secret_access_key = {{ env = "KMSPLUG_TEST_AWS" }}

[keystores.main]
plugin = "{BEFORE}"
context = {{ application = "records" }}

[keystores.old]
plugin = "aws"
context = {{ application = "records" }}
""")
    return target


def _move(configuration: Path) -> None:
    text = configuration.read_text()
    line = f'[keystores.main]\nplugin = "{BEFORE}"'
    assert text.count(line) == 1
    configuration.write_text(text.replace(line, f'[keystores.main]\nplugin = "{AFTER}"'))


def _run(configuration: Path) -> list[str]:
    command = [sys.executable, str(configuration.with_name("app.py"))]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def _sealed(host: Host, plaintext: bytes) -> bytes:
    keystore = host.keystore("main")
    key_id = keystore.create_key("AES_256_GCM").key_id
    return keystore.encrypt(key_id, plaintext, context=CONTEXT).ciphertext


def test_the_application_moves_from_aws_to_azure_by_one_line_and_its_old_ciphertexts_still_open(
    configuration: Path, azure: AzureFake
) -> None:
    assert _run(configuration) == LINES
    assert not azure.seen("^POST /keys/")
    with Host.open(configuration) as host:
        before = _sealed(host, b"old")

    _move(configuration)

    assert _run(configuration) == LINES
    assert azure.seen("^POST /keys/records/.*/encrypt 200")
    with Host.open(configuration) as host:
        after = _sealed(host, b"new")
        opened = [host.decrypt(one, context=CONTEXT) for one in (before, after)]
        assert [bytes(one.plaintext) for one in opened] == [b"old", b"new"]
        assert [one.keystore for one in opened] == ["old", "main"]

    text = configuration.read_text()
    without = (
        text[: text.index("[plugins.aws]")]
        + text[text.index("[keystores.main]") : text.index("[keystores.old]")]
    )
    configuration.write_text(without)
    with Host.open(configuration) as host, pytest.raises(AccessDenied):
        host.decrypt(before, context=CONTEXT)
