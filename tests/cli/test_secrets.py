"""``kmsplug random`` and ``kmsplug data-key``: what is secret goes into private files and pipes only."""

import base64
from collections.abc import Callable, Mapping

from kmsplug_host import Host
from support.cli import Cli

Keys = Mapping[str, str]


def mode(cli: Cli, name: str) -> int:
    return (cli.folder / name).stat().st_mode & 0o777


def test_random_bytes_come_as_they_are_in_hexadecimal_or_in_base64(cli: Cli) -> None:
    assert len(cli("random", "33").stdout) == 33
    assert len(bytes.fromhex(cli("random", "16", "--hex").stdout.decode())) == 16
    assert len(base64.b64decode(cli("random", "16", "--base64").stdout, validate=False)) == 16
    told = cli.json("random", "65536", "--out", "seed")
    assert (cli.folder / "seed").stat().st_size == 65536
    assert mode(cli, "seed") == 0o600
    assert (told["bytes"], told["out"]) == (65536, "seed")
    assert "data" not in told


def test_random_bytes_reach_neither_a_terminal_nor_json(cli: Cli, refusal: Callable[..., str]) -> None:
    shown, status = cli.on_a_terminal("random", "16")

    assert status == 2
    assert b"name a file" in shown
    assert "name a file" in refusal("--json", "random", "16", "--hex")
    assert "at most" in refusal("random", "16", "--hex", "--base64")
    assert "equal to 1" in refusal("random", "0")


def opened(cli: Cli, key_id: str, ciphertext: bytes) -> bytes:
    """Open a data key as an application would."""
    settings = {
        "plugins": {"local": {"driver": "local", "config": {"path": str(cli.folder / "store")}}},
        "keystores": {"raw": {"plugin": "local", "allow_raw": True}},
    }
    with Host.open(settings) as host:
        return bytes(host.keystore("raw").decrypt(ciphertext, key_id=key_id, format="raw").plaintext)


def test_a_data_key_goes_into_a_private_file_and_its_ciphertext_opens_to_it(cli: Cli, keys: Keys) -> None:
    base = ("data-key", "--key", keys["aes"])

    told = cli.json(*base, "--out", "key", "--ciphertext-out", "wrapped")
    shown = cli.json(*base, "--out", "key16", "--length", "16")
    piped = cli(*base, "--plaintext", "--ciphertext-out", "piped.wrapped").stdout
    cli(*base, "--ciphertext-out", "only.wrapped")

    clear = (cli.folder / "key").read_bytes()
    assert len(clear) == 32
    assert (mode(cli, "key"), mode(cli, "key16")) == (0o600, 0o600)
    assert not {"plaintext", "ciphertext"} & told.keys()
    assert "plaintext" not in shown
    assert opened(cli, keys["aes"], (cli.folder / "wrapped").read_bytes()) == clear
    assert opened(cli, keys["aes"], (cli.folder / "piped.wrapped").read_bytes()) == piped
    assert (
        opened(cli, keys["aes"], base64.b64decode(shown["ciphertext"])) == (cli.folder / "key16").read_bytes()
    )
    assert len(opened(cli, keys["aes"], (cli.folder / "only.wrapped").read_bytes())) == 32
    assert cli.left_over() == []


def test_a_data_key_in_clear_is_never_alone_and_never_on_a_terminal(
    cli: Cli, keys: Keys, refusal: Callable[..., str]
) -> None:
    base = ("data-key", "--key", keys["aes"])
    before = sorted(path.name for path in cli.folder.iterdir())

    cli(*base, "--out", "key", "--ciphertext-out", "no/such/folder/wrapped", code=1)
    shown, status = cli.on_a_terminal(*base, "--plaintext", "--ciphertext-out", "wrapped")

    assert status == 2
    assert b"terminal" in shown
    assert "--out" in refusal(*base)
    assert "--ciphertext-out" in refusal(*base, "--plaintext")
    assert "--plaintext" in refusal("--json", *base, "--plaintext", "--ciphertext-out", "wrapped")
    assert "same file" in refusal(*base, "--out", "same", "--ciphertext-out", "same")
    assert "is a file" in refusal(*base, "--out", "-")
    assert sorted(path.name for path in cli.folder.iterdir()) == before
