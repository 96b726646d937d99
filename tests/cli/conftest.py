"""The command line in a folder of its own."""

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from kmsplug_host import Host
from kmsplug_host.cli import main
from support.cli import Cli

# Every kind of key that a test needs. "to import": without material.
_STOCK = {
    "aes": ("AES_256_GCM", None, "generated"),
    "rsa": ("RSA_2048", "SIGN_VERIFY", "generated"),
    "ec": ("EC_P256", None, "generated"),
    "ed25519": ("ED25519", None, "generated"),
    "hmac": ("HMAC_SHA_256", None, "generated"),
    "aes to import": ("AES_256_GCM", None, "imported"),
    "rsa to import": ("RSA_2048", "SIGN_VERIFY", "imported"),
    "ec to import": ("EC_P256", None, "imported"),
    "hmac to import": ("HMAC_SHA_256", None, "imported"),
}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli.new(tmp_path)


@pytest.fixture
def new_key(cli: Cli) -> Callable[[], str]:
    return lambda: str(cli.json("key", "create", "--algorithm", "AES_256_GCM", "--name", "app")["key_id"])


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A keystore with a key of every kind, made once: a command for each would take long."""
    folder = Cli.new(tmp_path_factory.mktemp("stocked")).folder
    with Host.open(folder / "plugins.toml") as host:
        store = host.keystore("local")
        made = {
            name: store.create_key(algorithm, usage=usage, origin=origin)
            for name, (algorithm, usage, origin) in _STOCK.items()
        }
    return folder / "store", {name: key.key_id for name, key in made.items()}


@pytest.fixture
def keys(cli: Cli, stocked: tuple[Path, dict[str, str]]) -> Mapping[str, str]:
    """Key ids by kind, in a keystore of the test's own."""
    shutil.copytree(stocked[0], cli.folder / "store")
    return stocked[1]


@pytest.fixture
def refusal(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run what is wrong usage and ends before a driver starts; return what stderr says.

    It runs in this process: a new interpreter for each would take half a second.
    """

    def run(*arguments: str) -> str:
        monkeypatch.chdir(cli.folder)
        monkeypatch.setattr(sys, "argv", ["kmsplug", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert (ended.value.code, shown.out) == (2, "")
        return shown.err

    return run
