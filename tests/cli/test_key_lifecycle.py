"""``kmsplug key``: states, deletion, backup, labels and public halves."""

import shutil
from collections.abc import Callable, Mapping

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key
from kmsplug_host import Host
from support.cli import Cli

Keys = Mapping[str, str]


def test_a_version_is_moved_and_the_others_stay(cli: Cli, keys: Keys) -> None:
    cli("key", "rotate", keys["aes"])

    moved = cli.json("key", "set-state", keys["aes"], "compromised", "--version", "1")

    listed = cli("key", "versions", keys["aes"]).stdout.decode().splitlines()
    assert moved["state"] == "ACTIVE"
    assert [line.split("\t")[:3] for line in listed] == [
        ["VERSION", "STATE", "CURRENT"],
        ["1", "COMPROMISED", ""],
        ["2", "ACTIVE", "yes"],
    ]
    assert cli.error("key", "set-state", keys["aes"], "ACTIVE", "--version", "1")["code"] == "KEY_COMPROMISED"


def test_a_deletion_is_scheduled_and_cancelled(cli: Cli, keys: Keys) -> None:
    scheduled = cli.json("key", "delete", keys["aes"], "--window-days", "7")
    cancelled = cli.json("key", "cancel-deletion", keys["aes"])

    assert scheduled["state"] == "DESTROY_SCHEDULED"
    assert scheduled["deletion_at"] > scheduled["created_at"]
    assert cancelled["state"] == "SUSPENDED"
    assert "deletion_at" not in cancelled


def test_a_key_is_purged_only_by_somebody_who_names_it_twice(
    cli: Cli, keys: Keys, refusal: Callable[..., str]
) -> None:
    key_id = keys["aes"]
    cli("key", "delete", key_id, "--window-days", "7")

    assert "there is nobody to ask" in refusal("key", "purge", key_id)
    assert "another key" in refusal("key", "purge", key_id, "--confirm", keys["ec"])
    shown, status = cli.on_a_terminal("key", "purge", key_id, typed=b"yes\n")
    assert status == 1
    assert b"nothing was destroyed" in shown
    assert cli.json("key", "describe", key_id)["state"] == "DESTROY_SCHEDULED"

    shown, status = cli.on_a_terminal("key", "purge", key_id, typed=f"{key_id}\n".encode())
    assert status == 0, shown
    assert cli.json("key", "describe", key_id)["state"] == "DESTROYED"
    error = cli.error("key", "purge", keys["ec"], "--confirm", keys["ec"])
    assert error["code"] == "KEY_INVALID_STATE"


KEPT_BY_THE_HOST = """
[plugins.main]
driver = "mock"
[plugins.main.config]
state_file = "mock.jsonl"
[[plugins.main.config.scenario.gap]]
operations = ["key.schedule_deletion", "key.cancel_deletion", "key.enable", "key.rotate", "key.list_versions"]
[keystores.main]
plugin = "main"
[catalog]
"""


def test_a_deletion_that_is_due_is_shown_and_finished_by_who_names_the_key_twice(
    cli: Cli, refusal: Callable[..., str]
) -> None:
    (cli.folder / "plugins.toml").write_text(KEPT_BY_THE_HOST)
    with Host.open(cli.folder / "plugins.toml") as host:
        keystore = host.keystore("main")
        key_id = keystore.create_key("AES_256_GCM", name="app").key_id
        keystore.rotate_key(key_id)
        keystore.schedule_key_deletion(key_id, window_days=7)

        assert "due" not in cli.json("key", "list")["keys"][0]
        assert cli.error("key", "destroy", key_id, "--confirm", key_id)["code"] == "KEY_INVALID_STATE"
        keystore.cancel_key_deletion(key_id)
        keystore.schedule_key_deletion(key_id, window_days=0)

    assert cli.json("key", "describe", key_id)["due"] is True
    assert b"\tDUE\t" in cli("key", "list").stdout
    assert "there is nobody to ask" in refusal("key", "destroy", key_id)
    assert "another key" in refusal("key", "destroy", key_id, "--confirm", "other")
    planned = cli.json("key", "destroy", key_id, "--dry-run")
    assert (planned["done"], list(planned["versions"])) == (False, ["1", "2"])
    shown, status = cli.on_a_terminal("key", "destroy", key_id, typed=b"yes\n")
    assert (status, b"nothing was destroyed" in shown) == (1, True)
    done = cli("key", "destroy", key_id, "--confirm", key_id).stdout.decode().splitlines()
    assert [line.split("\t")[1] for line in done] == ["VERSION", "1", "2"]
    again = cli.json("key", "destroy", key_id, "--confirm", key_id)
    assert (again["done"], again["versions"]) == (True, planned["versions"])


def test_a_key_comes_back_from_its_backup(cli: Cli, keys: Keys) -> None:
    shutil.copytree(cli.folder / "store", cli.folder / "before")
    key = cli.json("key", "create", "--algorithm", "AES_256_GCM", "--tag", "a=b", "--protection", "software")

    told = cli.json("key", "backup", key["key_id"], "--out", "backup")
    shutil.rmtree(cli.folder / "store")
    (cli.folder / "before").rename(cli.folder / "store")
    restored = cli.json("key", "restore", "--in", "backup")

    backup = cli.folder / "backup"
    assert told["bytes"] == backup.stat().st_size
    assert backup.stat().st_mode & 0o777 == 0o600
    assert restored == key
    backup.write_bytes(b"something else")
    assert len(cli("key", "restore", "--in", "backup", code=1).stderr.splitlines()) == 1
    assert cli.left_over() == []


def test_aliases_and_tags_are_set_and_removed(cli: Cli, keys: Keys) -> None:
    key_id = keys["aes"]

    told = cli.json("key", "alias", "set", key_id, "billing")
    tagged = cli.json("key", "tag", "billing", "--set", "team=pay", "--set", "env=a=b")
    untagged = cli.json("key", "tag", key_id, "--remove", "team")
    cli("key", "alias", "remove", key_id, "billing")

    assert (told["key_id"], told["alias"]) == (key_id, "billing")
    assert tagged["key_id"] == key_id
    assert tagged["aliases"] == ["billing"]
    assert tagged["tags"] == {"team": "pay", "env": "a=b"}
    assert untagged["tags"] == {"env": "a=b"}
    assert cli.error("key", "describe", "billing")["code"] == "KEY_NOT_FOUND"


def test_a_public_key_is_written_as_pem_der_or_json(cli: Cli, keys: Keys) -> None:
    pem = cli("key", "public-key", keys["ec"]).stdout
    told = cli.json("key", "public-key", keys["ec"], "--format", "der", "--out", "key.der")
    shown, _ = cli.on_a_terminal("key", "public-key", keys["ec"])

    assert load_pem_public_key(pem) == load_der_public_key((cli.folder / "key.der").read_bytes())
    assert (told["algorithm"], told["key_version"], told["out"]) == ("EC_P256", "1", "key.der")
    assert told["public_key"].encode() in pem.replace(b"\n", b"")
    assert b"BEGIN PUBLIC KEY" in shown
    assert b"name a file" in cli.on_a_terminal("key", "public-key", keys["ec"], "--format", "der")[0]
    assert cli.error("key", "public-key", keys["aes"])["code"] in (
        "KEY_USAGE_MISMATCH",
        "UNSUPPORTED_OPERATION",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["set-state", "key", "DESTROYED"],
        ["delete", "key", "--window-days", "soon"],
        ["tag", "key"],
        ["tag", "key", "--set", "novalue"],
        ["create", "--algorithm", "AES_256_GCM", "--origin", "stolen"],
        ["restore"],
    ],
)
def test_wrong_usage_is_exit_2_before_any_driver_starts(
    cli: Cli, refusal: Callable[..., str], arguments: list[str]
) -> None:
    (cli.folder / "plugins.toml").unlink()

    assert "Usage: kmsplug key" in refusal("key", *arguments)


def test_what_cannot_be_met_is_refused_with_its_code(cli: Cli, keys: Keys) -> None:
    create = ("key", "create", "--algorithm", "AES_256_GCM", "--protection", "hsm")

    assert cli.error(*create)["code"] == "UNSUPPORTED_OPERATION"
    assert cli.error("key", "delete", "key-" + "0" * 32)["code"] == "KEY_NOT_FOUND"
