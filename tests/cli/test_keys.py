"""``kmsplug key``: what it prints, for people and for programs."""

from collections.abc import Callable

from support.cli import Cli


def test_a_key_is_created_listed_described_rotated_disabled_and_enabled(cli: Cli) -> None:
    key = cli.json("key", "create", "--keystore", "local", "--algorithm", "AES_256_GCM", "--name", "app")
    key_id = key["key_id"]

    assert key["state"] == "ACTIVE"
    assert key["name"] == "app"
    assert [item["key_id"] for item in cli.json("key", "list")["keys"]] == [key_id]
    assert cli.json("key", "rotate", "--keystore", "local", key_id)["key_version"] == "2"
    described = cli.json("key", "describe", key_id)
    assert [(item["key_version"], item["state"]) for item in described["versions"]] == [
        ("1", "DEACTIVATED"),
        ("2", "ACTIVE"),
    ]
    assert cli.json("key", "disable", key_id)["state"] == "SUSPENDED"
    assert cli.json("key", "enable", key_id)["state"] == "ACTIVE"


def test_tags_are_written(cli: Cli) -> None:
    key = cli.json("key", "create", "--algorithm", "ED25519", "--tag", "team=pay", "--tag", "env=test")

    assert key["tags"] == {"team": "pay", "env": "test"}


def test_in_a_pipe_a_list_is_plain_text_with_one_line_a_key(cli: Cli, new_key: Callable[[], str]) -> None:
    key_ids = {new_key(), new_key()}

    lines = cli("key", "list").stdout.decode().splitlines()

    assert lines[0].split("\t")[0] == "KEY"
    assert {line.split("\t")[0] for line in lines[1:]} == key_ids


def test_an_unknown_key_is_one_clear_line(cli: Cli) -> None:
    done = cli("key", "describe", "key-0123456789abcdef0123456789abcdef", code=1)

    assert done.stdout == b""
    assert done.stderr.decode().startswith("kmsplug: KEY_NOT_FOUND: ")
    assert cli.error("key", "describe", "nonsense")["code"] == "KEY_NOT_FOUND"


def test_an_unknown_algorithm_is_an_argument_error(cli: Cli) -> None:
    error = cli.error("key", "create", "--algorithm", "ROT13")

    assert error["code"] == "INVALID_ARGUMENT"
    assert "AES_256_GCM" in error["message"]


def test_an_unknown_keystore_is_a_configuration_error_that_names_the_known_ones(cli: Cli) -> None:
    error = cli.error("key", "list", "--keystore", "nowhere", code=2)

    assert "local" in error["message"]


def test_several_keystores_need_a_name(cli: Cli) -> None:
    (cli.folder / "plugins.toml").write_text(
        '[plugins.a]\ndriver = "local"\nconfig = { path = "a" }\n'
        '[plugins.b]\ndriver = "local"\nconfig = { path = "b" }\n'
    )

    assert "a, b" in cli.error("key", "list", code=2)["message"]
