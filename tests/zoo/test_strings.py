"""A driver that says an attack wherever it may say anything changes nothing but a text that is escaped.

Each command runs against two drivers that differ in the one text they say. Apart from this text, what is
shown must be the same to the letter.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host.cli import main
from kmsplug_protocol import untrusted
from support.cli import Cli
from support.host import DRIVERS, Records, logged

WORD = "harmless"
ATTACK = "\x1b]0;\x07\x9b1m\u202e\u200b[red]\r\n\tok:x:"
"""Short, because a name is cut at 64 characters, escaped."""

ESCAPED = untrusted(ATTACK)
DANGEROUS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)

COMMANDS = (
    "plugin list", "plugin describe bad", "plugin check bad", "health --deep", "key list", "key describe k",
    "key versions k", "key create --algorithm AES_256_GCM", "key rotate k", "key enable k", "key disable k",
    "key set-state k DEACTIVATED", "key delete k", "key cancel-deletion k", "key purge k --confirm k",
    "key destroy k --confirm k",
    "key public-key k", "key backup k --out made", "key restore --in message", "key alias set k a",
    "key alias remove k a", "key tag k --set a=b", "key import-parameters k --out-key made --out-token made2",
    "encrypt --key k --in message --out made", "sign --key k --in message --out made",
    "verify --key k --in message --signature message", "mac --key k --in message --out made",
    "verify-mac --key k --in message --mac message", "random 8 --out made",
    "data-key --key k --out made --ciphertext-out made2",
)  # fmt: skip

Run = Callable[[str, str, str], "tuple[str, str]"]


def settle(folder: Path, mode: str, text: str) -> None:
    """Make a configuration in which the driver says this text."""
    said = folder / "said"
    said.write_text(json.dumps(text), encoding="ascii")
    command = json.dumps([sys.executable, str(DRIVERS / "mouthpiece.py"), mode, str(said)])
    (folder / "plugins.toml").write_text(f'[plugins.bad]\nisolation = "process"\ncommand = {command}\n')
    (folder / "message").write_bytes(bytes(32))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, against a driver that says a text; return what it showed."""

    def run(mode: str, text: str, command: str) -> tuple[str, str]:
        settle(tmp_path, mode, text)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["kmsplug", *command.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return f"{shown.out}\nstatus {ended.value.code or 0}", shown.err

    return run


def unified(shown: str) -> str:
    """Put one word in the place of either text, and of what is different each time."""
    for text in (ESCAPED, ESCAPED.replace("\t", " "), WORD):
        shown = shown.replace(text, "@")
    return re.sub(r"\b\d+ us\b", "# us", shown)


RUNS = [
    *(("answers", command) for command in COMMANDS),
    *(
        ("refuses", command)
        for command in ("key list", "key rotate k", "plugin check bad", "random 8 --out made")
    ),
]


@pytest.mark.parametrize(("mode", "command"), RUNS)
def test_an_attack_is_shown_as_any_other_text(run: Run, mode: str, command: str) -> None:
    with logged() as log:
        attacked = run(mode, ATTACK, command)
        plain = run(mode, WORD, command)

    assert [unified(shown) for shown in attacked] == [unified(shown) for shown in plain]
    assert not any(DANGEROUS.search(shown) for shown in attacked)
    assert any(ESCAPED in text for text in logged_texts(log))
    assert not any(DANGEROUS.search(text) for text in logged_texts(log))


@pytest.mark.parametrize(
    ("mode", "command", "column"), [("answers", "key describe k", 0), ("refuses", "key rotate k", 1)]
)
def test_an_attack_is_shown_at_all(run: Run, mode: str, command: str, column: int) -> None:
    assert ESCAPED in run(mode, ATTACK, command)[column].replace(" ok", "\tok")


def logged_texts(log: Records) -> list[str]:
    """Return everything that a log handler could write."""
    fields: list[dict[str, str]] = [vars(record).get("plugin_fields", {}) for record in log.records]
    return [*log.messages, *(text for field in fields for pair in field.items() for text in pair)]


@pytest.mark.parametrize("mode", ["answers", "refuses"])
def test_json_is_ascii_whatever_a_driver_says(run: Run, mode: str) -> None:
    for command in ("key describe k", "plugin describe bad", "plugin check bad", "key list"):
        for shown in run(mode, ATTACK, f"--json {command}"):
            document = shown.partition("\nstatus")[0]
            assert document.isascii()
            assert not DANGEROUS.search(document)
            if document:
                parsed: Any = json.loads(document)
                assert isinstance(parsed, dict)


@pytest.mark.parametrize(
    "command", ["plugin describe bad", "key describe k", "-v plugin check bad", "key list"]
)
def test_a_terminal_is_as_safe_as_a_pipe(tmp_path: Path, command: str) -> None:
    cli = Cli(tmp_path)
    for mode in ("answers", "refuses"):
        settle(tmp_path, mode, ATTACK)
        shown, _ = cli.on_a_terminal(*command.split())
        ours = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())  # the colours of the tables
        assert not DANGEROUS.search(ours.replace("\r\n", "\n")), mode
