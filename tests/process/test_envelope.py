"""Envelopes through the whole host, with real drivers: who opens what, and what ends a kept data key."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from kmsplug_host import Host, Keystore
from kmsplug_host.aio import AsyncHost
from kmsplug_host.errors import AccessDenied, KeyDisabled, KmsplugError, PluginUnavailable


def settings(folder: Path, *names: str, **keystore: Any) -> dict[str, Any]:
    """Two plugins, each with a store of its own; the keystores are named as wished."""
    return {
        "plugins": {
            store: {"driver": "local", "config": {"path": str(folder / store)}} for store in ("one", "two")
        },
        "keystores": {
            name: {"plugin": store, **keystore} for name, store in zip(names, ("one", "two"), strict=True)
        },
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[Host]:
    with Host.open(settings(folder, "first", "second")) as host:
        yield host


@pytest.fixture(scope="module")
def caching(folder: Path) -> Iterator[Host]:
    folder = folder / "caching"
    folder.mkdir()
    with Host.open(settings(folder, "first", "second", data_key_cache={"decrypt": True})) as host:
        yield host


def new_key(keystore: Keystore) -> str:
    return keystore.create_key("AES_256_GCM").key_id


def test_an_envelope_for_two_providers_moves_from_one_to_the_other(host: Host) -> None:
    first, second = host.keystore("first"), host.keystore("second")
    mine, theirs = new_key(first), new_key(second)
    plaintext = os.urandom(40_000)

    sealed = first.encrypt(mine, plaintext, context={"a": "1"})
    both = host.rewrap(sealed.ciphertext, add=[second.handle(theirs)], context={"a": "1"})
    moved = second.rewrap(both.ciphertext, remove=[first.handle(mine)], context={"a": "1"})

    assert second.decrypt(moved.ciphertext, context={"a": "1"}, min_generation=2).plaintext == plaintext
    with pytest.raises(AccessDenied):
        first.decrypt(moved.ciphertext, context={"a": "1"})
    assert host.decrypt(both.ciphertext, context={"a": "1"}, keys=[theirs]).keystore == "second"


def test_a_recipient_that_is_named_by_an_alias_can_be_removed_by_it(host: Host) -> None:
    first, second = host.keystore("first"), host.keystore("second")
    first.set_alias(new_key(first), "app")
    both = first.encrypt("app", bytes(5000), recipients=[second.handle(new_key(second))]).ciphertext

    moved = host.rewrap(both, remove=[first.handle("app")])

    assert moved.recipients == 1
    with pytest.raises(AccessDenied):
        first.decrypt(moved.ciphertext)


def test_renaming_every_keystore_leaves_every_ciphertext_readable(host: Host, folder: Path) -> None:
    first, second = host.keystore("first"), host.keystore("second")
    key, other = new_key(first), new_key(second)
    written = {
        "native": first.encrypt(key, b"small").ciphertext,
        "one recipient": first.encrypt(key, bytes(5000)).ciphertext,
        "two recipients": first.encrypt(key, b"x", recipients=[second.handle(other)]).ciphertext,
        "tenant": second.encrypt(
            other, b"x", tenant="acme", context={"a": "1"}, store_context=True
        ).ciphertext,
    }

    with Host.open(settings(folder, "uno", "due")) as renamed:
        for name, ciphertext in written.items():
            context = {"a": "1"} if name == "tenant" else None
            opened = renamed.decrypt(ciphertext, context=context)
            assert opened.keystore == ("due" if name == "tenant" else "uno")
            assert opened.plaintext == host.decrypt(ciphertext, context=context).plaintext


def test_what_is_small_is_encrypted_by_the_driver_unless_configured_otherwise(
    host: Host, caching: Host
) -> None:
    for opened, who in ((host, "native"), (caching, "shim:envelope@1")):
        keystore = opened.keystore("first")
        sealed = keystore.encrypt(new_key(keystore), b"small", context={"a": "1"})

        assert sealed.executed_by == who
        assert keystore.decrypt(sealed.ciphertext, context={"a": "1"}).executed_by == who


def test_files_are_read_from_anywhere(host: Host, tmp_path: Path) -> None:
    keystore = host.keystore("first")
    plaintext = os.urandom(100_000)
    path = tmp_path / "sealed"
    with path.open("wb") as sink:
        keystore.encrypt_stream(new_key(keystore), io.BytesIO(plaintext), sink)

    with path.open("rb") as file, keystore.open_reader(file) as reader:
        assert reader.pread(50_000, 100) == plaintext[50_000:50_100]
        reader.seek(-10, os.SEEK_END)
        assert reader.read() == plaintext[-10:]


CHANGES: list[tuple[str, Callable[[Keystore, str], object]]] = [
    ("disable", lambda keystore, key: keystore.disable_key(key)),
    ("deactivate", lambda keystore, key: keystore.set_key_state(key, "DEACTIVATED")),
    ("schedule deletion", lambda keystore, key: keystore.schedule_key_deletion(key)),
    ("rotate", lambda keystore, key: keystore.rotate_key(key)),
    ("move an alias", lambda keystore, key: keystore.set_alias(new_key(keystore), "moving")),
    ("remove an alias", lambda keystore, key: keystore.remove_alias(key, "moving")),
    ("a refusal", lambda keystore, key: keystore.sign("no-such-key", b"x")),
]


@pytest.mark.parametrize(("what", "change"), CHANGES)
def test_a_change_of_a_key_ends_the_kept_data_keys(
    caching: Host, what: str, change: Callable[[Keystore, str], object]
) -> None:
    keystore = caching.keystore("first")
    key = new_key(keystore)
    keystore.set_alias(key, "moving")
    keystore.encrypt("moving", b"x")
    sealed = keystore.encrypt("moving", b"x")
    assert sealed.data_key == "cached"
    assert [keystore.decrypt(sealed.ciphertext).data_key for _ in range(2)] == ["fresh", "cached"]

    try:
        change(keystore, key)
    except KmsplugError:
        assert what == "a refusal"

    try:
        assert keystore.encrypt("moving", b"x").data_key == "fresh"
    except KmsplugError:
        assert what not in ("rotate", "move an alias", "a refusal")
    assert len(keystore.opened_keys) == 0


def test_a_key_that_was_disabled_refuses_what_is_kept_under_another_context_too(caching: Host) -> None:
    keystore = caching.keystore("first")
    key = new_key(keystore)
    for context in ({"a": "1"}, {"a": "2"}):
        keystore.encrypt(key, b"x", context=context)

    keystore.disable_key(key)

    for context in ({"a": "1"}, {"a": "2"}):
        with pytest.raises(KeyDisabled):
            keystore.encrypt(key, b"x", context=context)


def test_a_key_of_a_further_recipient_that_was_disabled_ends_the_data_key(caching: Host) -> None:
    first, second = caching.keystore("first"), caching.keystore("second")
    mine, theirs = new_key(first), new_key(second)
    first.encrypt(mine, b"x", recipients=[second.handle(theirs)])
    assert first.encrypt(mine, b"x", recipients=[second.handle(theirs)]).data_key == "cached"

    second.disable_key(theirs)

    with pytest.raises(KeyDisabled):
        first.encrypt(mine, b"x", recipients=[second.handle(theirs)])


def test_nothing_is_kept_across_a_reload_or_a_close(tmp_path: Path) -> None:
    with Host.open(settings(tmp_path, "first", "second", data_key_cache={})) as host:
        keystore = host.keystore("first")
        key = new_key(keystore)
        keystore.encrypt(key, b"x")

        host.reload()
        assert keystore.encrypt(key, b"x").data_key == "fresh"
        host.reload(settings(tmp_path, "first", "second"))
        assert [keystore.encrypt(key, bytes(5000)).data_key for _ in range(2)] == ["fresh", "fresh"]
        host.reload(settings(tmp_path, "first", "second", data_key_cache={}))
        keystore.encrypt(key, b"x")

    with pytest.raises(PluginUnavailable):
        keystore.encrypt(key, b"x")


def test_the_asynchronous_host_replaces_recipients_too(tmp_path: Path) -> None:
    async def move() -> bytes:
        async with await AsyncHost.open(settings(tmp_path, "first", "second")) as host:
            first, second = host.keystore("first"), host.keystore("second")
            mine, theirs = [await keystore.create_key("AES_256_GCM") for keystore in (first, second)]
            sealed = await first.encrypt(mine.key_id, b"secret", context={"a": "1"})
            moved = await host.rewrap(
                sealed.ciphertext, add=[second.handle(theirs.key_id)], remove=[0], context={"a": "1"}
            )
            return (await second.decrypt(moved.ciphertext, context={"a": "1"})).plaintext

    assert anyio.run(move) == b"secret"
