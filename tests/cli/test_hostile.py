"""What a driver says reaches a terminal escaped, and a program as JSON."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
from support.cli import Cli

from .hostile_driver import ATTACK

DRIVER = Path(__file__).with_name("hostile_driver.py")
ATTACKS = (b"\x1b]0;", b"\x07", b"\x1b[2J", "\u202e".encode())


@pytest.fixture
def hostile(cli: Cli) -> Cli:
    (cli.folder / "plugins.toml").write_text(
        f'[plugins.hostile]\ncommand = ["{sys.executable}", "{DRIVER}"]\nisolation = "process"\n'
    )
    return cli


def test_texts_of_a_driver_are_escaped_in_a_pipe_and_on_a_terminal(hostile: Cli) -> None:
    piped = hostile("key", "describe", "k").stdout
    shown, status = hostile.on_a_terminal("key", "versions", "k")
    refused = hostile("key", "delete", "k", code=1)

    assert status == 0
    assert b"\\u{1b}]0;owned" in piped
    for output in (piped, shown, refused.stdout, refused.stderr):
        assert not [attack for attack in ATTACKS if attack in output]
    assert len(piped.splitlines()) == len({line.split(b"\t")[0] for line in piped.splitlines()})
    assert refused.stderr.startswith(b"kmsplug: ACCESS_DENIED: ")
    assert len(refused.stderr.splitlines()) == 1


def test_a_program_gets_the_texts_as_they_are_in_ascii_only(hostile: Cli) -> None:
    text = hostile("--json", "key", "versions", "k").stdout

    assert text.isascii()
    assert json.loads(text)["versions"][0]["key_version"] == ATTACK


def test_a_message_over_the_driver_s_own_limit_goes_as_a_digest(hostile: Cli) -> None:
    message = b"seventeen bytes.."
    (hostile.folder / "message").write_bytes(message)

    made = hostile.json("sign", "--key", "k", "--in", "message", "--out", "signature")
    shown, _ = hostile.on_a_terminal("sign", "--key", "k", "--in", "message", "--out", "signature")

    assert made["sent"] == "digest"
    assert (hostile.folder / "signature").read_bytes() == hashlib.sha256(message).digest()
    assert b"ECDSA_SHA_256" in shown
    assert not [attack for attack in ATTACKS if attack in shown]
