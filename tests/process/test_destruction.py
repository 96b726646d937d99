"""A deletion that the host keeps is finished by whoever asks for it when it is due: all of it, or later."""

import functools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import Destruction, Host, KeyState, Keystore
from kmsplug_host.errors import (
    KeyDestroyed,
    KeyInvalidState,
    KeyNotFound,
    KeyPendingDeletion,
    UnsupportedOperation,
)
from kmsplug_host.shims import lifecycle, records, versioning
from support.postgres import database
from support.tokens import Faults, softhsm
from support.zoo import SOAK

HOST = Path(__file__).parents[1] / "drivers" / "destroying_host.py"
LOST = [
    "key.enable", "key.disable", "key.set_state", "key.schedule_deletion", "key.cancel_deletion",
    "key.rotate", "key.list_versions", "key.set_alias", "key.remove_alias",
]  # fmt: skip
ROUNDS = 100 if SOAK else 8
# What is left to the long run repeats on other tokens and databases what the short one does on these.
WHERE = ["softhsm-postgresql", *(["mock-sqlite", "mock-postgresql", "softhsm-sqlite"] if SOAK else [])]


@contextmanager
def catalog(kind: str, request: pytest.FixtureRequest) -> Iterator[str | None]:
    if kind == "sqlite":
        yield None
        return
    with database(request.getfixturevalue("postgresql")) as url:
        yield url


def settings(folder: Path, plugin: dict[str, Any], url: str | None = None, **keystore: Any) -> dict[str, Any]:
    kept = {"url": url or f"sqlite:///{folder}/catalog.db", "key_file": str(folder / "catalog.key")}
    main = {"plugin": "main", "allow_raw": True, **keystore}
    return {"plugins": {"main": plugin}, "keystores": {"main": main}, "catalog": kept}


def mock(folder: Path) -> dict[str, Any]:
    scenario = {"gap": [{"operations": LOST}]}
    return {"driver": "mock", "config": {"scenario": scenario, "state_file": str(folder / "mock.jsonl")}}


@contextmanager
def opened(configuration: dict[str, Any]) -> Iterator[Keystore]:
    with Host.open(configuration) as host:
        yield host.keystore("main")


def left(keystore: Keystore) -> set[str]:
    """Return the keys that the provider still has."""
    page = keystore._native.ask("key.list", keystore.deadline(None))
    return {key.key_id for key in page.keys if key.state is not KeyState.DESTROYED}


def rotated(keystore: Keystore, algorithm: str = "AES_256_GCM", times: int = 2) -> tuple[str, set[str]]:
    """Make a key with several versions; return it, and the provider's keys of them."""
    before = left(keystore)
    key = keystore.create_key(algorithm, name="app").key_id
    for _ in range(times):
        keystore.rotate_key(key)
    return key, left(keystore) - before


def test_a_key_is_destroyed_with_all_its_versions_when_its_deletion_is_due(tmp_path: Path) -> None:
    plugin = softhsm(tmp_path).plugin(tmp_path)
    plugin["config"]["algorithms"] = ["AES_256_GCM", "EC_P256"]
    with opened(settings(tmp_path, plugin)) as keystore:
        other, its = rotated(keystore)
        for algorithm in ("AES_256_GCM", "EC_P256"):
            key, parts = rotated(keystore, algorithm)
            assert len(parts) == 3
            keystore.set_alias(key, "alias/app")
            for ask in (keystore.destroy_key, keystore.purge_key):
                with pytest.raises(KeyInvalidState, match="not scheduled"):
                    ask(key)
            due = keystore.schedule_key_deletion(key, window_days=7).deletion_at
            for ask in (keystore.destroy_key, keystore.purge_key):
                with pytest.raises(KeyInvalidState, match=f"not due before {due}"):
                    ask(key)
            with pytest.raises(KeyInvalidState):
                keystore.destroy_key(key, dry_run=True)
            assert left(keystore) == its | parts
            keystore.cancel_key_deletion(key)
            keystore.schedule_key_deletion(key, window_days=0)

            planned = keystore.destroy_key("alias/app", dry_run=True)

            assert (planned.key_id, planned.done, list(planned.versions)) == (key, False, ["1", "2", "3"])
            assert set(planned.versions.values()) == parts
            assert left(keystore) == its | parts
            done = keystore.destroy_key(key)
            assert done == Destruction(key, planned.versions, planned.deletion_at, done=True)
            assert left(keystore) == its
            for named in (key, "alias/app"):  # again, and nothing happens
                assert keystore.destroy_key(named).done
                for refused in (keystore.purge_key, keystore.cancel_key_deletion, keystore.get_key):
                    with pytest.raises(KeyDestroyed):
                        refused(named)
        assert keystore.encrypt(other, b"", format="raw").key_version == "3"


@pytest.mark.parametrize("where", WHERE)
def test_whatever_interrupts_a_destruction_the_same_call_finishes_it(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """SIGKILL before each thing that it does; once it has begun, nobody brings the key back."""
    token, _, kind = where.partition("-")
    plugin = softhsm(tmp_path).plugin(tmp_path) if token == "softhsm" else mock(tmp_path)
    if token == "softhsm":
        plugin["config"]["algorithms"] = ["AES_256_GCM"]
    with catalog(kind, request) as url:
        configuration = settings(tmp_path, plugin, url)
        (tmp_path / "settings.json").write_text(json.dumps(configuration), encoding="utf-8")
        with opened(configuration) as keystore:
            survived, begun = False, 0
            for step in range(1, 12):
                key, parts = rotated(keystore, times=1)
                keystore.schedule_key_deletion(key, window_days=0)
                command = [sys.executable, str(HOST), str(tmp_path / "settings.json"), key, str(step)]
                ended = subprocess.run(command, capture_output=True, timeout=100, check=False)
                survived = ended.returncode == 0
                if survived:
                    assert ended.stdout == b"done\n"
                    assert not left(keystore) & parts
                    break
                assert ended.returncode == -signal.SIGKILL, ended.stderr
                keystore._resolver.forget()
                begun += _require_finished(keystore, key, parts)
                assert not left(keystore) & parts
            assert survived
            assert begun == step - 2 == 3  # all but the first step: two keys and the catalog


def _require_finished(keystore: Keystore, key: str, parts: set[str]) -> bool:
    """Finish what was interrupted; return whether it had begun."""
    begun = True
    if left(keystore) >= parts:
        try:
            keystore.cancel_key_deletion(key)
        except KeyPendingDeletion:
            with pytest.raises(KeyPendingDeletion):
                keystore.encrypt(key, b"", format="raw")
        else:  # it had not
            begun = False
            keystore.enable_key(key)
            keystore.encrypt(key, b"", format="raw")
            keystore.schedule_key_deletion(key, window_days=0)
    else:
        with pytest.raises((KeyPendingDeletion, KeyDestroyed)):
            keystore.cancel_key_deletion(key)
    assert keystore.destroy_key(key).done
    with pytest.raises(KeyDestroyed):
        keystore.cancel_key_deletion(key)
    return begun


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_of_one_who_cancels_and_two_who_destroy_one_wins(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with catalog(kind, request) as url:
        configuration = settings(tmp_path, mock(tmp_path), url)
        with opened(configuration) as one, opened(configuration) as two, opened(configuration) as three:
            for _ in range(ROUNDS):
                key, parts = rotated(one, times=1)
                one.schedule_key_deletion(key, window_days=0)
                calls: list[Callable[[str], object]] = [
                    one.cancel_key_deletion,
                    two.destroy_key,
                    three.destroy_key,
                ]
                cancelled, *destroyed = at_once([functools.partial(call, key) for call in calls])

                for keystore in (one, two, three):
                    keystore._resolver.forget()
                if cancelled is None:
                    assert all(isinstance(error, KeyInvalidState) for error in destroyed)
                    assert left(one) >= parts
                    two.enable_key(key)
                    two.encrypt(key, b"", format="raw")
                else:
                    assert isinstance(cancelled, KeyPendingDeletion | KeyDestroyed)
                    assert destroyed == [None, None]
                    assert not left(one) & parts


def at_once(calls: list[Callable[[], object]]) -> list[BaseException | None]:
    """Make calls by a thread each, and return what each raised."""
    raised: list[BaseException | None] = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def make(place: int) -> None:
        barrier.wait()
        try:
            calls[place]()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at
            raised[place] = error

    threads = [threading.Thread(target=make, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return raised


def test_a_destruction_that_the_provider_refuses_leaves_the_deletion_as_it_was(tmp_path: Path) -> None:
    faults = Faults(softhsm(tmp_path), tmp_path)
    plugin = faults.tokens.plugin(tmp_path)
    plugin["config"]["algorithms"] = ["AES_256_GCM", "EC_P256"]
    with opened(settings(tmp_path, plugin)) as keystore:
        key, parts = rotated(keystore, times=1)
        keystore.schedule_key_deletion(key, window_days=0)
        faults.tell("C_DestroyObject 0x1b")

        with pytest.raises(UnsupportedOperation):
            keystore.destroy_key(key)

        keystore.cancel_key_deletion(key)
        keystore.enable_key(key)
        assert keystore.encrypt(key, b"", format="raw").key_version == "2"
        keystore.schedule_key_deletion(key, window_days=0)
        faults.tell("C_DestroyObject 0x1b every 2")  # after the newer version is gone there is no way back
        with pytest.raises(UnsupportedOperation):
            keystore.destroy_key(key)
        assert left(keystore) == {key}
        with pytest.raises(KeyPendingDeletion, match="has begun"):
            keystore.cancel_key_deletion(key)
        faults.tell()
        assert keystore.destroy_key(key).done
        assert not left(keystore) & parts


def test_a_module_that_dies_between_the_halves_of_a_pair_costs_nothing(tmp_path: Path) -> None:
    faults = Faults(softhsm(tmp_path), tmp_path)
    plugin = faults.tokens.plugin(tmp_path)
    plugin["config"]["algorithms"] = ["AES_256_GCM", "ED25519"]
    with opened(settings(tmp_path, plugin)) as keystore:
        first, key = (keystore.create_key(each).key_id for each in ("AES_256_GCM", "ED25519"))
        for each in (first, key):
            keystore.schedule_key_deletion(each, window_days=0)
        # Of each process's calls: the next process tries one out, and has one half left to destroy.
        faults.tell("C_DestroyObject segv every 3")
        assert keystore.destroy_key(first).done

        assert keystore.destroy_key(key, timeout=30).done

        found = keystore._native.ask(
            "key.reconcile", keystore.deadline(None), method="key.purge", idempotency_key="x", key_id=key
        )
        assert found.outcome == "applied"  # the public half is gone, too


def test_a_version_that_is_made_while_its_key_is_destroyed_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_AGE_S", 0)
    configuration = settings(tmp_path, mock(tmp_path))
    with opened(configuration) as one, opened(configuration) as other:
        key = one.create_key("AES_256_GCM", name="app").key_id
        prove = versioning.prove

        def destroying(provider: Any, made: Any, deadline: Any) -> Any:
            proof = prove(provider, made, deadline)
            if made.key_id != key:  # the version is made, and not yet in the catalog
                other.schedule_key_deletion(key, window_days=0)
                assert other.destroy_key(key).done
            return proof

        monkeypatch.setattr(versioning, "prove", destroying)
        with pytest.raises(KeyDestroyed):
            one.rotate_key(key)

        assert left(one) == set()


def test_a_driver_that_destroys_at_once_does_not_where_the_shim_that_keeps_the_window_is_forbidden(
    tmp_path: Path,
) -> None:
    configuration = settings(tmp_path, mock(tmp_path), shims=["alias"])
    with opened(configuration) as keystore:
        key = keystore.create_key("AES_256_GCM").key_id

        for ask in (keystore.purge_key, keystore.destroy_key):
            with pytest.raises((UnsupportedOperation, KeyInvalidState)):
                ask(key)
        assert left(keystore) == {key}


def test_where_nobody_destroys_a_dry_run_says_so_and_the_deletion_can_be_cancelled(tmp_path: Path) -> None:
    plugin = mock(tmp_path)
    plugin["config"]["scenario"]["gap"][0]["operations"] = [*LOST, "key.purge"]
    with opened(settings(tmp_path, plugin)) as keystore:
        key = keystore.create_key("AES_256_GCM").key_id
        keystore.schedule_key_deletion(key, window_days=0)

        for dry_run in (True, False):
            with pytest.raises(UnsupportedOperation, match="nobody destroys"):
                keystore.destroy_key(key, dry_run=dry_run)
        with pytest.raises(UnsupportedOperation):
            keystore.purge_key(key)
        assert keystore.cancel_key_deletion(key).state is KeyState.SUSPENDED


def test_where_the_provider_keeps_the_window_only_what_is_due_is_destroyed(tmp_path: Path) -> None:
    plugin = {"driver": "local", "config": {"path": str(tmp_path / "store"), "min_deletion_days": 0}}
    with opened(settings(tmp_path, plugin)) as keystore:
        key, other = (keystore.create_key("AES_256_GCM").key_id for _ in range(2))
        keystore.schedule_key_deletion(other, window_days=7)
        for early in (key, other):
            with pytest.raises(KeyInvalidState, match="not"):
                keystore.destroy_key(early)
        keystore.schedule_key_deletion(key, window_days=0)

        assert not keystore.destroy_key(key, dry_run=True).done
        assert keystore.get_key(key).state is KeyState.DESTROY_SCHEDULED
        assert keystore.destroy_key(key).done
        assert keystore.destroy_key(key).done
        assert keystore.get_key(key).state is KeyState.DESTROYED
        with pytest.raises(KeyNotFound):
            keystore.destroy_key("key-" + "0" * 32)


def test_who_was_alone_and_refused_gives_the_key_back_and_nobody_else() -> None:
    now = datetime.now(UTC)
    due = lifecycle.scheduled({}, 7, now)
    later = now + timedelta(days=7, seconds=1)

    one = lifecycle.destroying(due, later)
    two = lifecycle.destroying(one, later)

    assert lifecycle.spared(one) == due
    assert lifecycle.spared(two) == two
    for begun in (one, two):
        with pytest.raises(KeyPendingDeletion):
            lifecycle.cancelled(begun)
    gone = lifecycle.destroyed(two, later)
    assert lifecycle.state_of(gone, None) is KeyState.DESTROYED
    for change in (lifecycle.cancelled, lambda body: lifecycle.destroying(body, later)):
        with pytest.raises(KeyDestroyed):
            change(gone)
    with pytest.raises(KeyInvalidState):
        lifecycle.destroying(due, now)
