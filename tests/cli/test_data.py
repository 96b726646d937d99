"""``kmsplug encrypt`` and ``decrypt``: files, pipes, refusals, and nothing half done."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import SCRIPT, Cli

NewKey = Callable[[], str]


@pytest.fixture
def plain(cli: Cli) -> Path:
    path = cli.folder / "plain.bin"
    if not path.exists():
        path.write_bytes(os.urandom(300_000))
    return path


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A keystore with one key, a file and the same file encrypted: made once, because it takes seconds."""
    cli = Cli.new(tmp_path_factory.mktemp("example"))
    (cli.folder / "plain.bin").write_bytes(os.urandom(300_000))
    key_id = cli.json("key", "create", "--algorithm", "AES_256_GCM")["key_id"]
    base = ("encrypt", "--keystore", "local", "--key", key_id, "--context", "tenant=acme")
    cli(*base, "--in", "plain.bin", "--out", "plain.sealed")
    return cli.folder


@pytest.fixture
def sealed(cli: Cli, example: Path) -> Path:
    shutil.copytree(example, cli.folder, dirs_exist_ok=True)
    return cli.folder / "plain.sealed"


def test_a_file_comes_back_byte_for_byte_also_after_a_rotation(cli: Cli, plain: Path, sealed: Path) -> None:
    key_id = cli.json("key", "list")["keys"][0]["key_id"]
    cli("key", "rotate", key_id)
    out = cli.folder / "out.bin"

    facts = cli.json("decrypt", "--context", "tenant=acme", "--in", sealed, "--out", out)

    assert out.read_bytes() == plain.read_bytes()
    assert facts["key_id"] == key_id
    assert facts["key_version"] == "1"
    assert facts["executed_by"] == "shim:envelope@1"
    assert facts["sender"] == "key-holder"


def test_pipes_work_both_ways(cli: Cli, new_key: NewKey) -> None:
    sealed = cli("encrypt", "--key", new_key(), stdin=b"through a pipe").stdout

    assert cli("decrypt", stdin=sealed).stdout == b"through a pipe"


def test_an_empty_file_is_a_file(cli: Cli, new_key: NewKey) -> None:
    assert cli("decrypt", stdin=cli("encrypt", "--key", new_key()).stdout).stdout == b""


def test_the_context_may_come_from_a_file(cli: Cli, new_key: NewKey) -> None:
    (cli.folder / "context.json").write_text(json.dumps({"a": "1", "größe": "✓"}))
    sealed = cli("encrypt", "--key", new_key(), "--context-file", "context.json", stdin=b"x").stdout

    done = cli("decrypt", "--context", "größe=✓", "--context", "a=1", stdin=sealed)

    assert done.stdout == b"x"


def test_a_stored_context_is_used_when_asked_for(cli: Cli, new_key: NewKey) -> None:
    sealed = cli("encrypt", "--key", new_key(), "--context", "a=1", "--store-context", stdin=b"x").stdout

    assert cli("decrypt", "--context-from-header", stdin=sealed).stdout == b"x"
    assert cli("decrypt", stdin=sealed, code=1).stdout == b""


def flip(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def test_damaged_files_are_refused_and_leave_nothing_behind(cli: Cli, sealed: Path) -> None:
    good = sealed.read_bytes()
    damaged = {
        "magic": flip(good, 3),
        "last byte": flip(good, -1),
        "in the middle": flip(good, len(good) // 2),
        "header only": good[:100],
        "one byte short": good[:-1],
        "last chunk missing": good[: -(300_000 % 16384) - 16],
        "one byte more": good + b"\x00",
        "empty": b"",
        "something else": b"not an envelope at all",
    }

    for what, content in damaged.items():
        (cli.folder / "bad").write_bytes(content)
        error = cli.error("decrypt", "--context", "tenant=acme", "--in", "bad", "--out", "out.bin")
        assert error["code"] == "INVALID_CIPHERTEXT", what
    (cli.folder / "bad").write_bytes(good[:7] + b"\x09" + good[8:])
    error = cli.error("decrypt", "--context", "tenant=acme", "--in", "bad", "--out", "out.bin")

    assert error["code"] == "UNSUPPORTED_OPERATION"
    assert not (cli.folder / "out.bin").exists()
    assert cli.left_over() == []


def test_another_context_is_refused_and_what_was_there_before_stays(cli: Cli, sealed: Path) -> None:
    out = cli.folder / "out.bin"
    out.write_bytes(b"from before")

    done = cli("decrypt", "--context", "tenant=mallory", "--in", sealed, "--out", out, code=1)

    assert done.stderr.decode().splitlines() == [
        "kmsplug: INVALID_CIPHERTEXT: the ciphertext does not belong to this key and context"
    ]
    assert out.read_bytes() == b"from before"
    assert cli.left_over() == []


def test_a_disabled_key_neither_encrypts_nor_decrypts(cli: Cli, plain: Path, sealed: Path) -> None:
    key_id = cli.json("key", "list")["keys"][0]["key_id"]
    cli("key", "disable", key_id)

    opened = cli.error("decrypt", "--context", "tenant=acme", "--in", sealed, "--out", "o")
    made = cli.error("encrypt", "--key", key_id, "--in", plain, "--out", "o")

    assert (opened["code"], made["code"]) == ("KEY_DISABLED", "KEY_DISABLED")
    assert not (cli.folder / "o").exists()
    cli("key", "enable", key_id)
    cli("decrypt", "--context", "tenant=acme", "--in", sealed, "--out", "o")


def test_a_key_of_another_keystore_is_refused(cli: Cli, sealed: Path) -> None:
    (cli.folder / "plugins.toml").write_text(
        '[plugins.local]\ndriver = "local"\nconfig = { path = "store" }\n'
        '[plugins.other]\ndriver = "local"\nconfig = { path = "other" }\n'
    )

    error = cli.error(
        "decrypt", "--keystore", "other", "--context", "tenant=acme", "--in", sealed, "--out", "o"
    )

    assert error["code"] == "ACCESS_DENIED"
    cli("decrypt", "--context", "tenant=acme", "--in", sealed, "--out", "o")


def test_a_keystore_without_auto_decrypt_opens_only_by_name(cli: Cli, sealed: Path) -> None:
    with (cli.folder / "plugins.toml").open("a") as file:
        file.write('[keystores.main]\nplugin = "local"\nauto_decrypt = false\n')

    assert (
        cli.error("decrypt", "--context", "tenant=acme", "--in", sealed, "--out", "o")["code"]
        == "ACCESS_DENIED"
    )
    cli("decrypt", "--keystore", "main", "--context", "tenant=acme", "--in", sealed, "--out", "o")


def test_only_the_named_key_may_open(cli: Cli, new_key: NewKey, sealed: Path) -> None:
    other = new_key()

    error = cli.error("decrypt", "--key", other, "--context", "tenant=acme", "--in", sealed, "--out", "o")

    assert error["code"] == "ACCESS_DENIED"


@pytest.mark.parametrize("missing", ["--in", "--out"])
def test_files_that_cannot_be_opened_are_one_clear_line(
    cli: Cli, new_key: NewKey, plain: Path, missing: str
) -> None:
    paths = {"--in": str(plain), "--out": "out", missing: "no/such/folder/file"}
    flat = [part for pair in paths.items() for part in pair]

    done = cli("encrypt", "--key", new_key(), *flat, code=1)

    assert done.stderr.decode().splitlines() == [
        "kmsplug: INVALID_ARGUMENT: no/such/folder/file: No such file or directory"
    ]


def test_a_device_is_written_to_and_never_replaced(cli: Cli, new_key: NewKey, plain: Path) -> None:
    pipe = cli.folder / "fifo"
    os.mkfifo(pipe)
    copy = cli.folder / "copy"
    with copy.open("wb") as file:
        reader = subprocess.Popen(["cat", str(pipe)], stdout=file)

    cli("encrypt", "--key", new_key(), "--in", plain, "--out", pipe)

    assert reader.wait(30) == 0
    assert copy.stat().st_size > 300_000
    assert pipe.is_fifo()


def test_what_was_decrypted_is_readable_for_its_owner_only(cli: Cli, sealed: Path) -> None:
    cli("decrypt", "--context", "tenant=acme", "--in", sealed, "--out", "o")

    assert (cli.folder / "o").stat().st_mode & 0o777 == 0o600


def test_a_symbolic_link_goes_on_pointing_to_the_new_file(cli: Cli, sealed: Path, plain: Path) -> None:
    target, link = cli.folder / "target", cli.folder / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)

    cli("decrypt", "--context", "tenant=acme", "--in", sealed, "--out", link)

    assert link.is_symlink()
    assert target.read_bytes() == plain.read_bytes()


def test_an_interrupted_encryption_leaves_nothing_behind(cli: Cli, new_key: NewKey) -> None:
    """The source is a pipe that never ends, so the command is surely in the middle when the signal comes."""
    key_id = new_key()
    command = [SCRIPT, "encrypt", "--key", key_id, "--out", "out.sealed"]
    process = subprocess.Popen(command, cwd=cli.folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(bytes(3 << 20))  # more than a pipe holds: the command has begun to read
    process.stdin.flush()

    process.send_signal(signal.SIGINT)
    process.stdin.close()
    assert process.stderr is not None
    process.stderr.read()
    process.stderr.close()

    assert process.wait(30) != 0
    assert not (cli.folder / "out.sealed").exists()
    assert cli.left_over() == []


def test_bytes_are_not_written_to_a_terminal_and_a_progress_bar_is(
    cli: Cli, new_key: NewKey, plain: Path
) -> None:
    key_id = new_key()
    base = ["encrypt", "--key", key_id, "--in", str(plain)]

    shown, refused = cli.on_a_terminal(*base)
    assert refused == 2
    assert b"name a file" in shown

    shown, status = cli.on_a_terminal(*base, "--out", "out.sealed")
    assert status == 0
    assert b"encrypt" in shown
    assert b"100%" in shown or b"300.0/300.0 kB" in shown or b"293.0/293.0 KiB" in shown
    assert (cli.folder / "out.sealed").exists()


def test_json_and_bytes_do_not_share_stdout(refusal: Callable[..., str]) -> None:
    assert "--out" in refusal("--json", "encrypt", "--key", "any")


def test_a_bad_context_is_refused_before_anything_is_written(
    cli: Cli, new_key: NewKey, refusal: Callable[..., str]
) -> None:
    base = ("encrypt", "--key", new_key(), "--out", "o", "--context")

    assert "KEY=VALUE" in refusal(*base, "novalue")
    for entry in ("kmsplug:x=1", "aws:x=1", "=1"):
        cli(*base, entry, stdin=b"x", code=1)
    assert not (cli.folder / "o").exists()
    assert cli.left_over() == []
