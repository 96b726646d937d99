"""A tenant moves to another provider by one line, and what was encrypted before still opens."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from backends.aws import SECRET
from kmsplug_host import Host
from kmsplug_host.errors import AccessDenied

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "embed_in_app"
BEFORE, AFTER = "aws", "local"
LINES = ["after the rotation: the secret of tenant-3", "another tenant is refused: INVALID_CIPHERTEXT"]


@pytest.fixture
def configuration(aws_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the example, with plugins for both providers in its ``plugins.toml``."""
    monkeypatch.setenv("KMSPLUG_TEST_SECRET", SECRET)
    folder = tmp_path / "embed_in_app"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    target = folder / "plugins.toml"
    target.write_text(f"""
[plugins.local]
driver = "local"
config = {{ path = "store" }}

[plugins.aws]
driver = "aws"

[plugins.aws.config]
region = "{aws_settings["region"]}"
account = "{aws_settings["account"]}"
endpoint = "{aws_settings["endpoint"]}"

[plugins.aws.config.login]
method = "static"
access_key_id = "AKIAIOSFODNN7EXAMPLE"
secret_access_key = {{ env = "KMSPLUG_TEST_SECRET" }}

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


def test_the_application_runs_unchanged_on_either_provider(configuration: Path) -> None:
    def run() -> list[str]:
        command = [sys.executable, str(configuration.with_name("app.py"))]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False, env=os.environ)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().splitlines()

    assert run() == LINES
    _move(configuration)
    assert run() == LINES


def test_what_was_encrypted_before_opens_as_long_as_its_plugin_is_there(configuration: Path) -> None:
    context = {"tenant": "tenant-3"}
    with Host.open(configuration) as host:
        keystore = host.keystore("main")
        before = keystore.encrypt(
            keystore.create_key("AES_256_GCM").key_id, b"old", context=context
        ).ciphertext

    _move(configuration)
    with Host.open(configuration) as host:
        keystore = host.keystore("main")
        after = keystore.encrypt(
            keystore.create_key("AES_256_GCM").key_id, b"new", context=context
        ).ciphertext
        opened = [host.decrypt(one, context=context) for one in (before, after)]

        assert [bytes(one.plaintext) for one in opened] == [b"old", b"new"]
        assert [one.keystore for one in opened] == ["old", "main"]

    text = configuration.read_text()
    without = (
        text[: text.index("[plugins.aws]")]
        + text[text.index("[keystores.main]") : text.index("[keystores.old]")]
    )
    configuration.write_text(without)
    with Host.open(configuration) as host, pytest.raises(AccessDenied):
        host.decrypt(before, context=context)
