"""Drivers in other languages, with nothing of ours in them, pass the whole kit and work behind the host."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conformance.drivers import LOGIN, WITHOUT_PROVIDER, failures, skipped, untried
from kmsplug_host import Host
from kmsplug_host.conformance import run

PERL = Path(__file__).resolve().parents[1] / "drivers" / "hmac_driver.pl"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "drivers"


@dataclass(frozen=True)
class Example:
    """A driver that was made ready.

    Attributes:
        command: What starts it.
        config: Makes settings for a keystore in a folder.
    """

    command: list[str]
    config: Callable[[Path], dict[str, Any]]


SECRET = secrets.token_hex(32)
# There is one way of opening something, without RSA, and one of signing; what is bound are bytes.
ONE_WAY = (WITHOUT_PROVIDER - {LOGIN}) | {
    "binding.order",
    "relabelled.swapped",
    "relabelled.withheld",
    "signing.other_mechanism",
}


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Example:
    if shutil.which("go") is None:
        pytest.skip("GO NOT CHECKED: there is no Go compiler")
    program = tmp_path_factory.mktemp("go") / "kmsplug-driver-go"
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    build = ["go", "build", "-trimpath", "-o", str(program), "."]
    done = subprocess.run(
        build, cwd=EXAMPLES / "go", env=environment, capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return Example([str(program)], lambda folder: {"path": str(folder / "keys.json")})


@pytest.fixture(scope="session")
def node() -> Example:
    if shutil.which("node") is None:
        pytest.skip("NODE NOT CHECKED: there is no Node")
    return Example([str(EXAMPLES / "node" / "kmsplug-driver-node")], lambda folder: {"folder": str(folder)})


@pytest.fixture(params=["go", "node"])
def example(request: pytest.FixtureRequest) -> Example:
    found: Example = request.getfixturevalue(request.param)
    return found


def test_an_example_passes_the_whole_kit(example: Example, tmp_path: Path) -> None:
    config = {**example.config(tmp_path), "secret": SECRET}

    report = run(
        example.command, config, wrong_login={**config, "secret": SECRET[::-1]}, timeout_s=60, strict=True
    )

    assert failures(report) == {}
    assert untried(report) == ONE_WAY
    assert len(report.cases) - len(skipped(report)) > 170


def test_a_driver_in_a_language_of_neither_sdk_nor_example_passes_the_kit(tmp_path: Path) -> None:
    """HMAC keys in Perl, written from SPEC.md and the kit's hints."""
    if subprocess.run(
        ["perl", "-MJSON::PP", "-MDigest::SHA", "-e", "1"], capture_output=True, check=False
    ).returncode:
        pytest.skip("PERL NOT CHECKED: there is no Perl with its standard modules")

    report = run([str(PERL)], {"file": str(tmp_path / "keys.json")}, strict=True, timeout_s=60)

    assert failures(report) == {}
    assert untried(report) == WITHOUT_PROVIDER | {
        "session.secret_not_quoted", "process.ping_at_work", "versions.disabled_for_all",
    }  # fmt: skip
    assert len(report.cases) - len(skipped(report)) >= 130


def test_an_example_works_behind_the_host(example: Example, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "keys").mkdir()
    config = {**example.config(tmp_path / "keys"), "secret": {"file": str(tmp_path / "secret")}}
    plugin = {"command": example.command, "isolation": "process", "config": config, "processes": 2}

    with Host.open({"plugins": {"example": plugin}}) as host:
        keystore = host.keystore("example")
        key = keystore.create_key("AES_256_GCM", name="app")
        sealed = keystore.encrypt(key.key_id, b"secret", context={"tenant": "acme"})
        keystore.rotate_key(key.key_id)
        assert host.decrypt(sealed.ciphertext, context={"tenant": "acme"}).plaintext == b"secret"
        assert host.health("example", deep=True).healthy


def test_an_example_can_be_looked_at_by_hand(example: Example, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**example.config(tmp_path), "secret": SECRET}), encoding="utf-8")

    described = subprocess.run([*example.command, "--describe"], capture_output=True, timeout=20, check=True)
    opened = [
        subprocess.run([*example.command, "--check", str(path)], capture_output=True, timeout=20, check=False)
        for path in (config, tmp_path / "no-such-file")
    ]

    assert json.loads(described.stdout)["protocol_version"] == "1"
    assert [json.loads(done.stdout)["healthy"] for done in opened] == [True, False]
    assert [done.returncode for done in opened] == [0, 1]


def test_several_processes_share_what_an_example_keeps(example: Example, tmp_path: Path) -> None:
    """They make and rotate keys at the same time; nothing is lost, and each process sees all of it."""
    (tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "keys").mkdir()
    config = {**example.config(tmp_path / "keys"), "secret": {"file": str(tmp_path / "secret")}}
    plugins = {
        name: {"command": example.command, "isolation": "process", "config": config} for name in ("a", "b")
    }

    with Host.open({"plugins": plugins}) as host, ThreadPoolExecutor(4) as pool:
        stores = [host.keystore(name) for name in plugins]
        created = [pool.submit(store.create_key, "AES_256_GCM") for store in stores * 10]
        made = {one.result().key_id for one in created}
        shared = next(iter(made))
        for rotated in [pool.submit(store.rotate_key, shared) for store in stores * 5]:
            rotated.result()
        for store in stores:
            assert {key.key_id for key in store.list_keys(limit=1000).keys} == made
            assert len(store.list_key_versions(shared).versions) == 11


def test_the_examples_use_nothing_of_ours_and_nothing_of_others() -> None:
    files = [path for path in EXAMPLES.rglob("*") if path.is_file()]

    assert {path.suffix for path in files} <= {".go", ".mod", ".mjs", ".json", ".md", ""}
    assert "require" not in (EXAMPLES / "go" / "go.mod").read_text(encoding="utf-8")
    assert "dependencies" not in (EXAMPLES / "node" / "package.json").read_text(encoding="utf-8")
