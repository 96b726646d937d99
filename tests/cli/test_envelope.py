"""``kmsplug envelope``: what anybody can see of a ciphertext, and replacing who can open it."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from support.cli import SCRIPT, Cli

CONFIG = """\
[plugins.one]
driver = "local"
config = { path = "one" }

[plugins.two]
driver = "local"
config = { path = "two" }
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Two keystores with a key each, and a file for the first: made once, because it takes seconds."""
    cli = Cli.new(tmp_path_factory.mktemp("example"), CONFIG)
    (cli.folder / "plain").write_bytes(os.urandom(100_000))
    one, two = [
        str(cli.json("key", "create", "--keystore", store, "--algorithm", "AES_256_GCM")["key_id"])
        for store in ("one", "two")
    ]
    base = ("encrypt", "--keystore", "one", "--key", one, "--context", "tenant=acme")
    cli(*base, "--in", "plain", "--out", "sealed")
    return cli.folder, one, two


@pytest.fixture
def keys(example: tuple[Path, str, str], cli: Cli) -> tuple[str, str]:
    shutil.copytree(example[0], cli.folder, dirs_exist_ok=True)
    return example[1:]


def opens(cli: Cli, keystore: str, code: int = 0) -> None:
    base = ("decrypt", "--keystore", keystore, "--context", "tenant=acme", "--in", "sealed", "--out", "out")
    cli(*base, code=code)
    if code == 0:
        assert (cli.folder / "out").read_bytes() == (cli.folder / "plain").read_bytes()


def test_a_file_moves_to_another_provider_and_its_payload_stays(cli: Cli, keys: tuple[str, str]) -> None:
    one, two = keys
    sealed = cli.folder / "sealed"
    sealed.chmod(0o640)
    before = sealed.read_bytes()
    old = cli.folder / "old"
    shutil.copy(sealed, old)

    both = cli.json("envelope", "rewrap", sealed, "--to", f"two/{two}", "--context", "tenant=acme")
    moved = cli.json(
        "envelope", "rewrap", sealed, "--remove", f"one/{one}", "--context", "tenant=acme",
        "--expect-generation", "1",
    )  # fmt: skip

    assert (both["generation"], both["recipients"], "note" in both) == (1, 2, False)
    assert (moved["generation"], moved["recipients"]) == (2, 1)
    assert "not revocation" in moved["note"]
    assert sealed.read_bytes()[-100_000:] == before[-100_000:]
    assert stat.S_IMODE(sealed.stat().st_mode) == 0o640
    opens(cli, "two")
    opens(cli, "one", code=1)
    cli("decrypt", "--context", "tenant=acme", "--in", old, "--out", "from-old")
    assert cli.left_over() == []


def test_the_warning_is_told_to_people_too(cli: Cli, keys: tuple[str, str]) -> None:
    _, two = keys
    base = ("envelope", "rewrap", "sealed", "--context", "tenant=acme")

    added = cli(*base, "--to", f"two/{two}")
    removed = cli(*base, "--remove", "0")

    assert added.stderr == b""
    assert b"not revocation" in removed.stderr


def test_several_recipients_can_be_named_at_once(cli: Cli, keys: tuple[str, str]) -> None:
    one, two = keys
    base = ("encrypt", "--keystore", "one", "--key", one, "--recipient", f"two/{two}")

    facts = cli.json(*base, "--context", "tenant=acme", "--in", "plain", "--out", "sealed")

    assert facts["suite"] == "cobblestone-256"
    opens(cli, "one")
    opens(cli, "two")


def test_inspecting_needs_no_keystore_and_no_configuration(cli: Cli, keys: tuple[str, str]) -> None:
    (cli.folder / "plugins.toml").unlink()

    found = cli.json("envelope", "inspect", "sealed")

    assert found["verified"] is False
    assert (found["format"], found["suite"], found["generation"]) == (1, "cobblestone-256", 0)
    assert [each["key_id"] for each in found["recipients"]] == [keys[0]]
    assert found["recipients"][0]["algorithm"] == "A256GCM"
    assert len(found["envelope_id"]) == 32
    assert "context" not in found
    assert keys[0].encode() in cli("envelope", "inspect", "sealed").stdout
    piped = cli("envelope", "inspect", "-", stdin=(cli.folder / "sealed").read_bytes())
    assert keys[0].encode() in piped.stdout


def test_inspecting_something_else_is_refused(cli: Cli) -> None:
    for content in (b"", b"not an envelope at all", os.urandom(1000)):
        (cli.folder / "bad").write_bytes(content)

        assert cli.error("envelope", "inspect", "bad")["code"] == "INVALID_CIPHERTEXT"


def test_a_hostile_header_does_not_reach_the_terminal(cli: Cli, keys: tuple[str, str]) -> None:
    content = (cli.folder / "sealed").read_bytes()
    key = keys[0].encode()
    (cli.folder / "sealed").write_bytes(content.replace(key, b"\x1b[2J" + key[4:], 1))

    shown, status = cli.on_a_terminal("envelope", "inspect", "sealed")

    assert status == 0
    assert b"\x1b[2J" not in shown
    assert b"\\u{1b}" in shown


def test_what_is_refused_changes_nothing(cli: Cli, keys: tuple[str, str]) -> None:
    _, two = keys
    sealed = cli.folder / "sealed"
    before = sealed.read_bytes()
    base = ("envelope", "rewrap", "sealed")
    good = ("--to", f"two/{two}")
    context = ("--context", "tenant=acme")

    assert cli.error(*base, *good, "--context", "tenant=other")["code"] == "INVALID_CIPHERTEXT"
    assert cli.error(*base, *good, *context, "--expect-generation", "4")["code"] == "CONFLICT"
    assert cli.error(*base, "--to", "two/no-such-key", *context)["code"] == "KEY_NOT_FOUND"
    assert cli.error(*base, "--remove", "0", *context)["code"] == "INVALID_ARGUMENT"
    assert cli.error(*base, "--remove", "no-such-key", *context)["code"] == "INVALID_ARGUMENT"
    assert cli.error("envelope", "rewrap", "none", *good)["code"] == "INVALID_ARGUMENT"
    assert cli.error(*base, "--to", "three/key", *context, code=2)["code"] == "CONFIGURATION_ERROR"
    cli(*base, "--to", "no-slash", *context, code=2)

    assert sealed.read_bytes() == before
    assert cli.left_over() == []


def test_two_commands_that_change_one_file_at_once_lose_neither_change(
    cli: Cli, keys: tuple[str, str]
) -> None:
    _, two = keys
    second = cli.json("key", "create", "--keystore", "two", "--algorithm", "AES_256_GCM")["key_id"]
    running = [
        subprocess.Popen(
            [SCRIPT, "envelope", "rewrap", "sealed", "--to", f"two/{key}", "--context", "tenant=acme"],
            cwd=cli.folder,
            stdout=subprocess.DEVNULL,
        )
        for key in (two, second)
    ]

    assert [process.wait(60) for process in running] == [0, 0]

    found = cli.json("envelope", "inspect", "sealed")
    assert found["generation"] == 2
    assert {each["key_id"] for each in found["recipients"]} == {*keys, second}


def test_an_older_header_is_refused_by_who_remembers(cli: Cli, keys: tuple[str, str]) -> None:
    del keys
    base = ("decrypt", "--context", "tenant=acme", "--in", "sealed", "--out", "out")

    assert cli.error(*base, "--min-generation", "1")["code"] == "POLICY_DENIED"
    assert not (cli.folder / "out").exists()
