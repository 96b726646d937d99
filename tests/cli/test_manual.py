"""The manual, the help and the completion know every command."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from kmsplug_host.cli import _messages
from kmsplug_host.cli._app import app
from support.cli import SCRIPT, Cli

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
ROOT: Any = typer.main.get_command(app)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every command with its name, as ``key alias set``."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


ALL = dict(commands(ROOT))


def options(command: Any) -> set[str]:
    return {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("-")
    }


def parse(line: str) -> str:
    """Parse a command line without running it; return the command's name."""
    program, *arguments = shlex.split(line)
    assert program == "kmsplug"
    context = ROOT.make_context(program, arguments)
    command, names = ROOT, []
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        names.append(name)
        context = command.make_context(name, rest, parent=context)
    return " ".join(names)


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_an_example_that_parses_and_stands_in_the_manual(name: str) -> None:
    examples = re.findall(r"^ *Example: (.*)$", ALL[name].help, re.MULTILINE)

    assert [parse(example) for example in examples] == [name]
    assert f"$ {examples[0]}\n" in PAGE


@pytest.mark.parametrize("name", ALL)
def test_every_option_of_a_command_stands_beside_it_in_the_manual(name: str) -> None:
    (row,) = [
        line for line in PAGE.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]
    ]

    for option in options(ALL[name]) - {"--keystore", "--help"}:
        assert f"`{option}`" in row


def test_the_manual_names_the_global_options_and_no_option_that_is_not_there() -> None:
    known = set().union(*map(options, [ROOT, *ALL.values()])) | {"--help"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", PAGE))

    assert options(ROOT) <= set(re.findall(r"`(-{1,2}[a-z0-9-]+)", PAGE))
    assert named <= known


def test_every_command_line_of_the_manual_parses() -> None:
    lines = re.findall(r"^\$ (kmsplug [^-].*)$", PAGE, re.MULTILINE)

    assert {parse(line) for line in lines} == set(ALL)


def test_the_limits_in_the_manual_are_those_of_the_code() -> None:
    assert f"{_messages._ALWAYS_FITS:,} bytes" in PAGE
    assert f"{_messages._NEVER_FITS:,} bytes" in PAGE


def test_help_is_shown_with_the_example(cli: Cli) -> None:
    assert b"Example: kmsplug key purge KEY_ID" in cli("key", "purge", "--help").stdout


def test_bash_completes_commands_by_the_script_that_is_printed(cli: Cli) -> None:
    cli.environment["PATH"] = f"{Path(SCRIPT).parent}:/usr/bin:/bin"
    program = """
        set -eu
        script=$(kmsplug --show-completion)
        eval "$script"
        complete -p kmsplug
        COMP_WORDS=(kmsplug key set-) COMP_CWORD=2
        _kmsplug_completion kmsplug
        echo "${COMPREPLY[*]}"
    """
    done = subprocess.run(
        ["bash", "-c", program], env=cli.environment, capture_output=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines()[-1] == "set-state"
    for shell in ("zsh", "fish"):
        cli.environment["_KMSPLUG_COMPLETE"] = f"source_{shell}"
        assert b"kmsplug" in cli().stdout
