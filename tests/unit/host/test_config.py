"""plugins.toml: every mistake is named by file, key and what was expected; no value is ever repeated."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import Host
from kmsplug_host.config import load
from kmsplug_host.errors import ConfigurationError

CANARY = "c4n4ry-s3cr3t"
PLUGINS = '[plugins.main]\ncommand = ["/bin/true"]\nisolation = "process"\n'
KEYSTORES = PLUGINS + "[keystores.k]\nplugin = 'main'\n"


def refused(folder: Path, text: str | bytes) -> str:
    """Return why a file is refused, without its path."""
    path = folder / "plugins.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    error = caught.value
    assert error.outcome == "not_applied"
    assert CANARY not in f"{error.to_dict()}{error!r}{error.__context__!r}{error.__cause__!r}"
    lines = str(error).split("\n")
    assert all(line.startswith(f"{path}: ") for line in lines)
    return "\n".join(line.removeprefix(f"{path}: ") for line in lines)


def test_a_file_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file") as caught:
        Host.open(tmp_path / "plugins.toml")

    assert str(tmp_path / "plugins.toml") in str(caught.value)
    assert caught.value.hint is not None


@pytest.mark.parametrize("source", [str, Path, os.fspath])
def test_a_file_may_be_given_as_text_or_path(tmp_path: Path, source: Any) -> None:
    (tmp_path / "plugins.toml").write_text(PLUGINS)
    found = load(source(tmp_path / "plugins.toml"))

    assert (found.name, found.folder) == (str(tmp_path / "plugins.toml"), tmp_path)
    assert found.settings.plugins["main"].command == ["/bin/true"]


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Is a directory"):
        load(tmp_path)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not a path"):
        load("plugins\0.toml")


@pytest.mark.parametrize(("text", "expected"), [
    ("[plugins.main]\ncommand = \n", "(at line 2,"),
    ("[plugins.main\n", "(at line 1,"),
    (f"[plugins.main]\ncommand = ['x']\npin = '{CANARY}\n'\n", "(at line 3,"),
    (f"[plugins.main]\nname = '{CANARY}\xff'\n".encode("latin-1"), "not UTF-8"),
    ("", "plugins: missing"),
    ("plugins = 5", "plugins: expected a table"),
    ("[plugins]", "plugins: expected a table of length >= 1"),
    (PLUGINS + "[keystore.main]\nplugin = 'main'\n", "keystore: unknown key"),
    (PLUGINS + f"comand = '{CANARY}'\n", "plugins.main.comand: unknown key"),
    (PLUGINS + "driver = 'local'\n", "plugins.main: expected either driver"),
    ("[plugins.main]\n", "plugins.main: expected either driver"),
    ("[plugins.main]\ncommand = '/bin/true'\n", "plugins.main.command: expected a list"),
    ("[plugins.main]\ncommand = []\n", "plugins.main.command: expected a list of length >= 1"),
    ("[plugins.main]\ncommand = [5]\n", "plugins.main.command.0: expected text"),
    ('[plugins.main]\ncommand = ["a\\u0000b"]\n', "plugins.main.command.0: expected text matching"),
    ("[plugins.main]\ndriver = 5\n", "plugins.main.driver: expected text"),
    ("[plugins.main]\ndriver = '../evil'\n", "plugins.main.driver: expected text matching"),
    (PLUGINS + f"config = '{CANARY}'\n", "plugins.main.config: expected a table"),
    (PLUGINS + "env = 'HOME'\n", "plugins.main.env: expected a list"),
    (PLUGINS + f"env = ['A={CANARY}']\n", "plugins.main.env.0: expected text matching"),
    (PLUGINS + "set_env = { A = 5 }\n", "plugins.main.set_env.A: expected text"),
    (PLUGINS + "set_env = { 'A B' = '5' }\n", "plugins.main.set_env.A B: expected text matching"),
    (PLUGINS + f"deadline_s = '{CANARY}'\n", "plugins.main.deadline_s: expected a number"),
    (PLUGINS + "deadline_s = '5'\n", "plugins.main.deadline_s: expected a number"),
    (PLUGINS + "deadline_s = true\n", "plugins.main.deadline_s: expected a number"),
    (PLUGINS + "deadline_s = 0\n", "plugins.main.deadline_s: expected a number > 0"),
    (PLUGINS + "deadline_s = inf\n", "plugins.main.deadline_s: expected a number <= 3600"),
    (PLUGINS + "deadline_s = nan\n", "plugins.main.deadline_s: expected a number > 0"),
    (PLUGINS + "processes = 0\n", "plugins.main.processes: expected an integer >= 1"),
    (PLUGINS + "processes = 65\n", "plugins.main.processes: expected an integer <= 64"),
    (PLUGINS + "processes = 1.5\n", "plugins.main.processes: expected an integer"),
    (PLUGINS + "processes = true\n", "plugins.main.processes: expected an integer"),
    (PLUGINS + "spares = -1\n", "plugins.main.spares: expected an integer >= 0"),
    (PLUGINS + "max_crashes = -1\n", "plugins.main.max_crashes: expected an integer >= 0"),
    (PLUGINS + "crash_window_s = 0\n", "plugins.main.crash_window_s: expected a number > 0"),
    (PLUGINS + "grace_s = 61\n", "plugins.main.grace_s: expected a number <= 60"),
    (PLUGINS + "overdue_s = nan\n", "plugins.main.overdue_s: expected"),
    (PLUGINS + "deep_check_s = 0\n", "plugins.main.deep_check_s: expected a number >= 1"),
    (PLUGINS + "recycle = { rss = 5 }\n", "plugins.main.recycle.rss: unknown key"),
    (PLUGINS + "recycle = { calls = 0 }\n", "plugins.main.recycle.calls: expected an integer >="),
    (PLUGINS + "recycle = { age_s = 0 }\n", "plugins.main.recycle.age_s: expected a number > 0"),
    ("[plugins.'a b']\ndriver = 'local'\n", "plugins.a b: expected text matching"),
    ("[plugins.'a\\nb']\ndriver = 'local'\n", "expected text matching"),
    (PLUGINS + "[keystores.k]\nplugin = 'mein'\n", "k.plugin: no such plugin, expected one of: main"),
    (PLUGINS + "[keystores.k]\n", "keystores.k.plugin: missing"),
    (KEYSTORES + "allow_raw = 'yes'\n", "keystores.k.allow_raw: expected true or false"),
    (KEYSTORES + "identity = ''\n", "keystores.k.identity: expected text of length >= 1"),
    (KEYSTORES + "context = { a = 1 }\n", "keystores.k.context.a: expected text"),
])  # fmt: skip
def test_each_mistake_is_named_by_its_key(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert expected in refused(tmp_path, text)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = PLUGINS + "processes = 0\ncolour = 'red'\n"

    assert refused(tmp_path, text).split("\n") == [
        "plugins.main.processes: expected an integer >= 1",
        "plugins.main.colour: unknown key",
    ]


def test_a_mapping_may_stand_for_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = load({"plugins": {"main": {"driver": "local", "deadline_s": 5}}})

    assert (found.name, found.folder) == ("settings", tmp_path)
    assert found.settings.plugins["main"].deadline_s == 5.0
    with pytest.raises(ConfigurationError, match=r"^settings: plugins\.main\.x: unknown key$"):
        load({"plugins": {"main": {"driver": "local", "x": CANARY}}})


def test_a_mapping_is_taken_as_it_was_when_it_was_given() -> None:
    document: dict[str, Any] = {"plugins": {"main": {"driver": "local"}}}
    found = load(document)
    document["plugins"]["main"]["driver"] = "other"

    assert found.settings.plugins["main"].driver == "local"


def keystores(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the keystores and their plugins."""
    return [(name, found.plugin) for name, found in load(document).settings.all_keystores().items()]


def test_a_plugin_that_no_keystore_names_is_one_of_its_own_name() -> None:
    plugins = {"one": {"driver": "local"}, "two": {"driver": "local"}}

    assert keystores({"plugins": plugins}) == [("one", "one"), ("two", "two")]
    assert keystores({"plugins": plugins, "keystores": {"main": {"plugin": "two"}}}) == [
        ("one", "one"),
        ("main", "two"),
    ]


def test_a_keystore_may_take_the_name_of_another_plugin() -> None:
    plugins = {"one": {"driver": "local"}, "two": {"driver": "local"}}

    assert keystores({"plugins": plugins, "keystores": {"one": {"plugin": "two"}}}) == [("one", "two")]


def test_the_defaults_are_the_documented_ones() -> None:
    settings = load({"plugins": {"main": {"driver": "local"}}}).settings
    plugin, keystore = settings.plugins["main"], settings.all_keystores()["main"]

    assert (plugin.deadline_s, plugin.processes, plugin.env, plugin.config) == (10.0, 1, [], {})
    assert (keystore.auto_decrypt, keystore.accept_public_key_wrap, keystore.allow_raw) == (
        True,
        False,
        False,
    )


def test_every_kind_of_value_is_read_without_harm_to_the_memory_of_the_process() -> None:
    settings = {
        "plugins": {"p": {"driver": "x", "env": ["A"], "config": {"a": [1]}, "limits": {"open_files": 64}}},
        "keystores": {"k": {"plugin": "p", "shims": ["aad"], "require": ["crypto.sign"], "identity": "i"}},
        "catalog": {"url": {"env": "DATABASE"}},
    }
    wrong = {"plugins": {"p": {"driver": "x"}}, "catalog": {"url": {"other": 5}}}
    program = (
        "import sys, json, contextlib\n"
        "from kmsplug_host.config import load\n"
        "from kmsplug_host.errors import ConfigurationError\n"
        "right, wrong = map(json.loads, sys.argv[1:])\n"
        "for _ in range(50):\n"
        "    load(right)\n"
        "    with contextlib.suppress(ConfigurationError):\n"
        "        load(wrong)\n"
        "print('whole')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(settings), json.dumps(wrong)],
        env={"PYTHONMALLOC": "debug"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.stdout == "whole\n"
