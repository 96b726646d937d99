"""Shims that keep state: over real drivers, with several hosts, killed in the middle, in both databases."""

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import Host, KeyAlgorithm, KeyState, Keystore
from kmsplug_host.errors import (
    AlreadyExists,
    ConfigurationError,
    InvalidCiphertext,
    KeyCompromised,
    KeyDestroyed,
    KeyDisabled,
    KeyInvalidState,
    KeyNotFound,
    KeyPendingDeletion,
    KeystoreCorrupt,
    LimitExceeded,
    PolicyDenied,
    UnsupportedOperation,
)
from kmsplug_host.shims import records, versioning
from support.portable import check
from support.zoo import SOAK

DRIVERS = Path(__file__).parents[1] / "drivers"

STATES = ("key.enable", "key.disable", "key.set_state", "key.schedule_deletion", "key.cancel_deletion")
LABELS = ("key.set_alias", "key.remove_alias", "key.tag")
VERSIONS = ("key.rotate", "key.list_versions")
EVERYTHING = (*STATES, *LABELS, *VERSIONS)

FEW = {
    KeyAlgorithm.AES_256_GCM, KeyAlgorithm.AES_256_KW, KeyAlgorithm.EC_P256, KeyAlgorithm.HMAC_SHA_256,
    KeyAlgorithm.ML_KEM_768,
}  # fmt: skip


def configuration(
    folder: Path, *lost: str, url: str | None = None, catalog: bool = True, **keystore: Any
) -> dict[str, Any]:
    """Return a configuration whose provider lacks something. Hosts with the same folder share all."""
    gaps = [{"operations": list(lost)}] if lost else []
    config = {"scenario": {"gap": gaps}, "state_file": str(folder / "mock.jsonl")}
    settings: dict[str, Any] = {
        "plugins": {"mock": {"driver": "mock", "config": config}},
        "keystores": {"main": {"plugin": "mock", "allow_raw": True, **keystore}},
    }
    if catalog:
        settings["catalog"] = {
            "url": url or f"sqlite:///{folder}/catalog.db", "key_file": str(folder / "catalog.key")
        }  # fmt: skip
    return settings


@contextmanager
def opened(folder: Path, *lost: str, **settings: Any) -> Iterator[Keystore]:
    with Host.open(configuration(folder, *lost, **settings)) as host:
        yield host.keystore("main")


def test_without_a_catalog_it_is_refused_with_the_reason(tmp_path: Path) -> None:
    with opened(tmp_path, *EVERYTHING, catalog=False) as keystore:
        seen = check(keystore, algorithms={KeyAlgorithm.AES_256_GCM}, rotations=1)

        assert "[catalog]" in str(keystore.can_do("key.rotate").reason)
    assert all(seen[wire] == {"refused"} for wire in EVERYTHING)


def test_all_of_it_together_in_either_database(tmp_path: Path, url: str) -> None:
    with opened(tmp_path, *EVERYTHING, url=url) as keystore:
        seen = check(keystore, algorithms=FEW)

    assert all(seen[wire] <= {"shim:lifecycle@1", "shim:versioning@1", "shim:alias@1", "shim:tags@1"}
               for wire in EVERYTHING)  # fmt: skip


def test_a_forbidden_shim_keeps_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, *EVERYTHING, shims="forbid") as keystore:
        key = keystore.create_key("AES_256_GCM")
        with pytest.raises((UnsupportedOperation, PolicyDenied)):
            keystore.rotate_key(key.key_id)
        with pytest.raises((UnsupportedOperation, PolicyDenied)):
            keystore.disable_key(key.key_id)
    assert not (tmp_path / "catalog.db").exists()

    with (
        pytest.raises(ConfigurationError, match=r"key\.rotate"),
        opened(tmp_path, "key.rotate", require=["key.rotate"], shims="forbid"),
    ):
        pass
    with opened(tmp_path, "key.rotate", require=["key.rotate"]) as keystore:
        assert keystore.can_do("key.rotate").how == "shim:versioning@1"


def test_what_one_host_changes_every_other_obeys(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_AGE_S", 0)
    with opened(tmp_path, *EVERYTHING, url=url) as one, opened(tmp_path, *EVERYTHING, url=url) as other:
        key = one.create_key("AES_256_GCM", tags={"a": "1"}).key_id
        old = one.encrypt(key, b"old", format="raw").ciphertext
        assert other.get_key(key).tags == {"a": "1"}

        one.set_alias(key, "alias/app")
        assert other.rotate_key("alias/app").key_version == "2"
        new = one.encrypt("alias/app", b"new", format="raw")
        assert (new.key_id, new.key_version) == (key, "2")
        assert other.decrypt(old, key_id=key, format="raw").plaintext == b"old"
        assert [listed.key_id for listed in other.list_keys().keys] == [key]

        one.disable_key(key)
        found = other.get_key("alias/app")
        assert (found.state, found.enforced_by) == (KeyState.SUSPENDED, "host")
        assert found.enforced_in == (
            "this host" if url.startswith("sqlite") else "hosts with the same catalog"
        )
        for refused in (
            lambda: other.encrypt(key, b""),
            lambda: other.decrypt(old, key_id=key, format="raw"),
        ):
            with pytest.raises(KeyDisabled):
                refused()
        other.enable_key(key)
        one.set_key_state(key, KeyState.COMPROMISED, key_version="1")
        with pytest.raises(KeyCompromised):
            other.decrypt(old, key_id=key, key_version="1", format="raw")
        with pytest.raises(InvalidCiphertext):  # the version that made it is not tried
            other.decrypt(old, key_id=key, format="raw")
        assert other.decrypt(new.ciphertext, key_id=key, format="raw").plaintext == b"new"


def test_what_another_host_made_a_moment_ago_opens_at_once(tmp_path: Path) -> None:
    """A host may be 5 seconds behind, and reads again before it says that something does not open."""
    with opened(tmp_path, *EVERYTHING) as one, opened(tmp_path, *EVERYTHING) as other:
        key = one.create_key("AES_256_GCM").key_id
        signing = one.create_key("EC_P256").key_id
        for keystore in (one, other):  # both know them, with one version
            made = keystore.encrypt(key, b"old", format="raw")
            assert keystore.verify(signing, b"m", keystore.sign(signing, b"m").signature).valid

        one.rotate_key(key)
        one.rotate_key(signing)
        new, signature = one.encrypt(key, b"new", format="raw"), one.sign(signing, b"m")

        assert (new.key_version, signature.key_version) == ("2", "2")
        assert other.decrypt(new.ciphertext, key_id=key, format="raw").plaintext == b"new"
        assert other.verify(signing, b"m", signature.signature).valid
        one.rotate_key(key)
        newer = one.encrypt(key, b"newer")
        assert other.decrypt(newer.ciphertext).plaintext == b"newer"
        moved = other.reencrypt(new.ciphertext, key, key)
        assert (moved.source_key_version, moved.key_version) == ("2", "3")
        one.disable_key(key)
        with pytest.raises(KeyDisabled):
            one.decrypt(made.ciphertext, key_id=key, format="raw")
        one.enable_key(key)
        assert other.decrypt(made.ciphertext, key_id=key, format="raw").plaintext == b"old"


def test_a_kept_data_key_is_not_used_for_a_key_that_is_disabled_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kmsplug_host.shims import data_keys

    monkeypatch.setattr(records, "MAX_AGE_S", 0)
    monkeypatch.setattr(data_keys, "CHECK_S", 0)
    with opened(tmp_path, *STATES, data_key_cache={}, suite="cobblestone-256") as one:
        key = one.create_key("AES_256_GCM").key_id
        one.encrypt(key, b"message")
        assert one.encrypt(key, b"message").data_key == "cached"
        with opened(tmp_path, *STATES) as other:
            other.disable_key(key)

        with pytest.raises(KeyDisabled):
            one.encrypt(key, b"message")


def test_a_deletion_that_is_due_waits_for_an_operator(tmp_path: Path) -> None:
    with opened(tmp_path, *STATES) as keystore:
        key = keystore.create_key("AES_256_GCM").key_id
        made = keystore.encrypt(key, b"data")
        with pytest.raises(KeyInvalidState):
            keystore.purge_key(key)  # without a window nothing is destroyed

        due = keystore.schedule_key_deletion(key, window_days=0)

        assert due.state is KeyState.DESTROY_SCHEDULED
        assert due.deletion_at is not None
        with pytest.raises(KeyPendingDeletion):
            keystore.decrypt(made.ciphertext)
        keystore.cancel_key_deletion(key)
        with pytest.raises(KeyDisabled):
            keystore.decrypt(made.ciphertext)
        keystore.enable_key(key)
        assert keystore.decrypt(made.ciphertext).plaintext == b"data"
        keystore.schedule_key_deletion(key)
        with pytest.raises(KeyInvalidState, match="not due before"):
            keystore.purge_key(key)
        keystore.cancel_key_deletion(key)
        keystore.schedule_key_deletion(key, window_days=0)
        keystore.purge_key(key)
        with pytest.raises((KeyNotFound, KeyDestroyed)):
            keystore.decrypt(made.ciphertext)


def test_a_driver_that_destroys_at_once_needs_somebody_who_keeps_the_window(tmp_path: Path) -> None:
    with opened(tmp_path, *STATES, catalog=False) as keystore:
        key = keystore.create_key("AES_256_GCM").key_id

        with pytest.raises(UnsupportedOperation, match="window"):
            keystore.purge_key(key)
        assert keystore.encrypt(key, b"still there").key_id == key


def test_a_version_is_named_by_its_key_and_not_by_itself(tmp_path: Path) -> None:
    with opened(tmp_path, *EVERYTHING) as keystore:
        key = keystore.create_key("AES_256_GCM", name="app").key_id
        keystore.rotate_key(key)
        managed = keystore._resolver.managed
        assert managed is not None
        body = managed._records.find(key, keystore.deadline(None)).body
        assert body is not None
        part = body["versions"]["2"]["key"]

        with pytest.raises(KeyNotFound, match="version 2"):
            keystore.encrypt(part, b"x", format="raw")
        with pytest.raises(KeyNotFound):
            keystore.encrypt(key, b"x", format="raw", key_version="3")
        with pytest.raises(KeyInvalidState):
            keystore.encrypt(key, b"x", format="raw", key_version="1")  # DEACTIVATED by the rotation
        with pytest.raises(AlreadyExists):
            keystore.set_alias(key, key)
        with pytest.raises(UnsupportedOperation, match="batch"):
            keystore.batch([("crypto.encrypt", {"key_id": key, "plaintext": "eA=="})])


def test_a_version_that_was_replaced_at_the_provider_is_not_used(tmp_path: Path) -> None:
    with opened(tmp_path, *EVERYTHING) as keystore:
        native, deadline = keystore._native, keystore.deadline(None)
        for algorithm in ("AES_256_GCM", "AES_256_KW", "HMAC_SHA_256", "EC_P256"):
            one, other = (native.describe(keystore.create_key(algorithm).key_id, deadline) for _ in range(2))
            proof = versioning.prove(native, one, deadline)

            versioning.check(native, one, proof, deadline)
            with pytest.raises(KeystoreCorrupt):
                versioning.check(native, other, proof, deadline)


def test_encryptions_under_random_ivs_are_counted_to_their_end(tmp_path: Path) -> None:
    with opened(tmp_path, *EVERYTHING) as keystore:
        key = keystore.create_key("AES_256_GCM").key_id
        managed = keystore._resolver.managed
        assert managed is not None
        managed._records.change(key, lambda body: {**body, "uses": {"*": 2**32 - 1024}})

        made = keystore.encrypt(key, b"one of the last", format="raw")

    with opened(tmp_path, *EVERYTHING) as keystore:
        with pytest.raises(LimitExceeded, match="2\\^32"):
            keystore.encrypt(key, b"one too many", format="raw")
        keystore.rotate_key(key)
        assert keystore.encrypt(key, b"new version", format="raw").key_version == "2"
        assert keystore.decrypt(made.ciphertext, key_id=key, format="raw").plaintext == b"one of the last"


def test_hosts_that_share_a_catalog_lose_no_version_of_each_other(tmp_path: Path, url: str) -> None:
    settings = configuration(tmp_path, *EVERYTHING, url=url)
    with Host.open(settings) as host:
        keystore = host.keystore("main")
        key = keystore.create_key("AES_256_GCM").key_id
        running = [start(tmp_path, settings, key, 8) for _ in range(2)]
        found = [json.loads(process.communicate(timeout=100)[0]) for process in running]

        told = [version for each in found for version in each["versions"]]
        listed = keystore.list_key_versions(key, limit=1000).versions
        assert len(listed) == 1 + 16
        assert len({version.key_version for version in listed}) == 1 + 16
        assert {version.key_version for version in listed} >= set(told)
        assert [version.current for version in listed] == [False] * 16 + [True]
        for data, ciphertext in [pair for each in found for pair in each["sealed"]]:
            opened = keystore.decrypt(base64.b64decode(ciphertext), key_id=key, format="raw")
            assert opened.plaintext == data.encode()


@pytest.mark.parametrize("url", ["postgresql", *(["sqlite"] if SOAK else [])], indirect=True)
def test_a_host_that_is_killed_at_any_step_of_a_rotation_leaves_a_usable_key(
    tmp_path: Path, url: str
) -> None:
    settings = configuration(tmp_path, *EVERYTHING, url=url)
    with Host.open(settings) as host:
        keystore = host.keystore("main")
        key = keystore.create_key("AES_256_GCM").key_id
        made = [keystore.encrypt(key, b"0", format="raw").ciphertext]
        survived = False
        for step in range(1, 20):
            process = start(tmp_path, settings, key, 1, step)
            process.communicate(timeout=60)
            survived = process.returncode == 0
            if survived:  # there was no such step
                break
            assert process.returncode == -signal.SIGKILL

            keystore._resolver.forget()
            for number, ciphertext in enumerate(made):
                assert keystore.decrypt(ciphertext, key_id=key, format="raw").plaintext == b"%d" % number
            made.append(keystore.encrypt(key, b"%d" % step, format="raw").ciphertext)
        assert survived
        assert step > 4
        rotated = keystore.rotate_key(key)
        assert keystore.encrypt(key, b"", format="raw").key_version == rotated.key_version


def start(folder: Path, settings: dict[str, Any], key: str, *arguments: int) -> "subprocess.Popen[bytes]":
    """Start a host of its own that rotates a key."""
    path = folder / "plugins.toml"
    mock, catalog = settings["plugins"]["mock"]["config"], settings["catalog"]
    gaps = json.dumps(mock["scenario"]["gap"][0]["operations"])
    path.write_text(
        f'[plugins.mock]\ndriver = "mock"\n[plugins.mock.config]\nstate_file = "{mock["state_file"]}"\n'
        f"[[plugins.mock.config.scenario.gap]]\noperations = {gaps}\n"
        f'[keystores.main]\nplugin = "mock"\nallow_raw = true\n'
        f'[catalog]\nurl = "{catalog["url"]}"\nkey_file = "{catalog["key_file"]}"\n'
    )
    command = [sys.executable, str(DRIVERS / "rotating_host.py"), str(path), key, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)


def test_the_database_is_loaded_by_what_needs_it_only(tmp_path: Path) -> None:
    """Neither by the library, nor by a keystore whose provider does all of it itself."""
    settings = configuration(tmp_path)
    program = (
        "import json, sys\n"
        "from kmsplug_host import Host\n"
        "with Host.open(json.loads(sys.argv[1])) as host:\n"
        "    keystore = host.keystore('main')\n"
        "    keystore.disable_key(keystore.create_key('AES_256_GCM').key_id)\n"
        "print(sorted({'sqlalchemy', 'alembic', 'psycopg'} & sys.modules.keys()))\n"
    )
    command = [sys.executable, "-c", program, json.dumps(settings)]
    assert subprocess.run(command, capture_output=True, check=True, timeout=60).stdout == b"[]\n"
