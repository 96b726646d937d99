from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kmsplug_plugins.local.driver import LocalDriver
from kmsplug_sdk.testing import run_driver
from unit.plugins.local_support import Keystore, keystore, opened, read, refused_configuration

STATES = (
    "PRE_ACTIVE", "ACTIVE", "SUSPENDED", "DEACTIVATED", "COMPROMISED", "DESTROY_SCHEDULED", "DESTROYED",
)  # fmt: skip

# What a key in each state answers to making, opening, rotating (SPEC.md 6.2); None: it works.
ALLOWED: dict[str, tuple[str | None, str | None, str | None]] = {
    "PRE_ACTIVE": ("KEY_INVALID_STATE", "KEY_INVALID_STATE", "KEY_INVALID_STATE"),
    "ACTIVE": (None, None, None),
    "SUSPENDED": ("KEY_DISABLED", "KEY_DISABLED", "KEY_DISABLED"),
    "DEACTIVATED": ("KEY_INVALID_STATE", None, None),
    "COMPROMISED": ("KEY_COMPROMISED", "KEY_COMPROMISED", None),
    "DESTROY_SCHEDULED": ("KEY_PENDING_DELETION",) * 3,
    "DESTROYED": ("KEY_DESTROYED",) * 3,
}

BY_STATE = {
    "PRE_ACTIVE": "KEY_INVALID_STATE",
    "COMPROMISED": "KEY_COMPROMISED",
    "DESTROY_SCHEDULED": "KEY_PENDING_DELETION",
    "DESTROYED": "KEY_DESTROYED",
}

# Each operation: the state of the key before it, and either the state after it or the code of the refusal.
MOVES: dict[str, dict[str, str]] = {
    "disable": {
        "PRE_ACTIVE": "KEY_INVALID_STATE", "ACTIVE": "SUSPENDED", "SUSPENDED": "SUSPENDED",
        "DEACTIVATED": "SUSPENDED", "COMPROMISED": "COMPROMISED",
        "DESTROY_SCHEDULED": "DESTROY_SCHEDULED", "DESTROYED": "KEY_DESTROYED",
    },
    "enable": {
        **BY_STATE, "ACTIVE": "ACTIVE", "SUSPENDED": "ACTIVE", "DEACTIVATED": "DEACTIVATED",
    },
    "ACTIVE": {**BY_STATE, "ACTIVE": "ACTIVE", "SUSPENDED": "ACTIVE", "DEACTIVATED": "ACTIVE"},
    "SUSPENDED": {**BY_STATE, "ACTIVE": "SUSPENDED", "SUSPENDED": "SUSPENDED", "DEACTIVATED": "SUSPENDED"},
    "DEACTIVATED": {
        **BY_STATE, "ACTIVE": "DEACTIVATED", "SUSPENDED": "DEACTIVATED", "DEACTIVATED": "DEACTIVATED",
    },
    "COMPROMISED": {**dict.fromkeys(STATES, "COMPROMISED"), "DESTROYED": "KEY_DESTROYED"},
    "PRE_ACTIVE": dict.fromkeys(STATES, "INVALID_ARGUMENT"),
    "DESTROY_SCHEDULED": dict.fromkeys(STATES, "INVALID_ARGUMENT"),
    "DESTROYED": dict.fromkeys(STATES, "INVALID_ARGUMENT"),
    "schedule_deletion": {
        **dict.fromkeys(STATES, "DESTROY_SCHEDULED"), "DESTROY_SCHEDULED": "KEY_PENDING_DELETION",
        "DESTROYED": "KEY_DESTROYED",
    },
    "cancel_deletion": {
        **{state: state for state in STATES}, "DESTROY_SCHEDULED": "SUSPENDED", "DESTROYED": "KEY_DESTROYED",
    },
    "purge": {
        **dict.fromkeys(STATES, "KEY_INVALID_STATE"), "DESTROY_SCHEDULED": "DESTROYED",
        "DESTROYED": "KEY_DESTROYED",
    },
}  # fmt: skip


def in_state(session: Keystore, state: str) -> tuple[str, str]:
    """Return a key in a state, and a ciphertext that it made before."""
    if state == "PRE_ACTIVE":
        return session.create(origin="imported"), ""
    key_id = session.create()
    ciphertext = session.encrypt(key_id, b"data")
    if state in ("SUSPENDED", "DEACTIVATED", "COMPROMISED"):
        session.call("key.set_state", key_id=key_id, state=state)
    if state.startswith("DESTROY"):
        session.call("key.schedule_deletion", key_id=key_id)
    if state == "DESTROYED":
        session.call("key.purge", key_id=key_id)
    assert session.call("key.get", key_id=key_id)["state"] == state
    return key_id, ciphertext


def outcome(session: Keystore, method: str, **params: Any) -> str | None:
    response = session.client.call(method, params)
    code: str | None = response["error"]["data"]["code"] if "error" in response else None
    return code


@pytest.mark.parametrize("state", STATES)
def test_each_state_allows_what_the_table_says(shared: Keystore, state: str) -> None:
    key_id, ciphertext = in_state(shared, state)
    make, opens, rotate = ALLOWED[state]

    for version in ({}, {"key_version": "1"}):
        asked: dict[str, Any] = {"key_id": key_id, **version}
        assert outcome(shared, "crypto.encrypt", plaintext="", **asked) == make
        assert outcome(shared, "crypto.generate_data_key", **asked) == make
        assert outcome(shared, "crypto.decrypt", ciphertext=ciphertext, **asked) == opens
    assert shared.call("key.get", key_id=key_id)["state"] == state
    assert shared.states(key_id) == [state]
    assert outcome(shared, "key.rotate", key_id=key_id) == rotate
    if rotate is None:
        former = "DEACTIVATED" if state == "ACTIVE" else state
        assert shared.states(key_id) == [former, "ACTIVE"]
        assert outcome(shared, "crypto.encrypt", key_id=key_id, plaintext="") is None


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("move", MOVES)
def test_each_move_leads_where_the_table_says_or_is_refused(shared: Keystore, state: str, move: str) -> None:
    key_id, _ = in_state(shared, state)
    method, more = ("key.set_state", {"state": move}) if move in STATES else (f"key.{move}", {})
    wanted = MOVES[move][state]

    code = outcome(shared, method, key_id=key_id, **more)

    found = shared.call("key.get", key_id=key_id)["state"]
    assert (code, found) == ((None, wanted) if wanted in STATES else (wanted, state))
    if wanted in STATES and method == "key.set_state":  # and once more: nothing changes
        assert shared.call(method, key_id=key_id, **more)["state"] == wanted


@pytest.mark.parametrize("state", STATES[:-1])
def test_tags_aliases_and_backups_work_in_every_state_but_the_last(shared: Keystore, state: str) -> None:
    key_id, _ = in_state(shared, state)

    assert shared.call("key.tag", key_id=key_id, set={"a": "b"})["tags"] == {"a": "b"}
    shared.call("key.set_alias", key_id=key_id, alias=f"in-{state}")
    assert shared.call("key.backup", key_id=key_id)["backup"]


def test_of_a_destroyed_key_a_tombstone_is_left_and_nothing_else(local: Keystore) -> None:
    key_id = local.create(name="invoices")
    local.call("key.set_alias", key_id=key_id, alias="name")
    local.call("key.schedule_deletion", key_id=key_id)
    local.call("key.purge", key_id=key_id)

    tombstone = local.call("key.get", key_id=key_id)

    assert (tombstone["state"], tombstone["name"]) == ("DESTROYED", "invoices")
    assert "deletion_at" not in tombstone
    assert tombstone["aliases"] == []
    assert local.code("key.get", key_id="alias/name") == "KEY_NOT_FOUND"
    asked: dict[str, dict[str, Any]] = {
        "key.tag": {"set": {"a": "b"}},
        "key.set_alias": {"alias": "name"},
        "key.backup": {},
        "key.enable": {},
    }
    for method, params in asked.items():
        assert local.code(method, key_id=key_id, **params) == "KEY_DESTROYED"


def test_one_version_can_be_moved_alone(local: Keystore) -> None:
    key_id = local.create()
    old = local.encrypt(key_id, b"old")
    local.call("key.rotate", key_id=key_id)
    new = local.encrypt(key_id, b"new")

    local.call("key.set_state", key_id=key_id, key_version="1", state="COMPROMISED")

    assert local.states(key_id) == ["COMPROMISED", "ACTIVE"]
    assert local.decrypt(key_id, new) == b"new"
    assert local.code("crypto.decrypt", key_id=key_id, ciphertext=old) == "INVALID_CIPHERTEXT"
    asked: dict[str, Any] = {"key_id": key_id, "key_version": "1"}
    assert local.code("crypto.decrypt", ciphertext=old, **asked) == "KEY_COMPROMISED"
    assert local.code("key.set_state", state="ACTIVE", **asked) == "KEY_COMPROMISED"
    assert local.code("key.set_state", key_id=key_id, key_version="9", state="ACTIVE") == "KEY_NOT_FOUND"


def test_an_old_version_may_be_active_again_and_make_things(local: Keystore) -> None:
    key_id = local.create("HMAC_SHA_256")
    local.call("key.rotate", key_id=key_id)
    local.call("key.set_state", key_id=key_id, key_version="1", state="ACTIVE")

    assert local.call("crypto.mac", key_id=key_id, key_version="1", message="")["key_version"] == "1"
    assert local.call("crypto.mac", key_id=key_id, message="")["key_version"] == "2"


def test_neither_enabling_nor_disabling_moves_a_compromised_version(local: Keystore) -> None:
    key_id = local.create()
    local.call("key.rotate", key_id=key_id)
    local.call("key.set_state", key_id=key_id, key_version="1", state="COMPROMISED")

    local.call("key.disable", key_id=key_id)
    assert local.states(key_id) == ["COMPROMISED", "SUSPENDED"]
    local.call("key.enable", key_id=key_id)
    assert local.states(key_id) == ["COMPROMISED", "ACTIVE"]


def test_a_cancelled_deletion_gives_each_version_back_what_it_was(local: Keystore) -> None:
    key_id = local.create()
    for _ in range(3):
        local.call("key.rotate", key_id=key_id)
    local.call("key.set_state", key_id=key_id, key_version="1", state="COMPROMISED")
    local.call("key.set_state", key_id=key_id, key_version="2", state="SUSPENDED")
    ciphertext = local.encrypt(key_id, b"data")
    local.call("key.schedule_deletion", key_id=key_id)
    assert local.states(key_id) == ["DESTROY_SCHEDULED"] * 4

    local.call("key.cancel_deletion", key_id=key_id)

    assert local.states(key_id) == ["COMPROMISED", "SUSPENDED", "SUSPENDED", "SUSPENDED"]
    assert local.code("crypto.decrypt", key_id=key_id, ciphertext=ciphertext) == "KEY_DISABLED"
    local.call("key.enable", key_id=key_id)
    assert local.states(key_id) == ["COMPROMISED", "DEACTIVATED", "DEACTIVATED", "ACTIVE"]
    assert local.decrypt(key_id, ciphertext) == b"data"


def test_a_key_without_material_is_so_again_after_a_cancelled_deletion(local: Keystore) -> None:
    key_id = local.create(origin="imported")
    local.call("key.schedule_deletion", key_id=key_id)

    assert local.call("key.cancel_deletion", key_id=key_id)["state"] == "PRE_ACTIVE"


def days_left(key: dict[str, Any]) -> float:
    at = datetime.strptime(key["deletion_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return (at - datetime.now(UTC)) / timedelta(days=1)


@pytest.mark.parametrize(("asked", "days"), [({}, 30), ({"window_days": 7}, 7), ({"window_days": 30}, 30)])
def test_the_date_of_deletion_is_shown_until_it_is_cancelled(
    local: Keystore, asked: dict[str, int], days: int
) -> None:
    key_id = local.create()

    key = local.call("key.schedule_deletion", key_id=key_id, **asked)

    assert days_left(key) == pytest.approx(days, abs=0.01)
    assert local.call("key.get", key_id=key_id) == key
    assert "deletion_at" not in local.call("key.cancel_deletion", key_id=key_id)


@pytest.mark.parametrize("days", [0, 6, 31, 3650])
def test_a_window_out_of_bounds_is_refused_and_changes_nothing(local: Keystore, days: int) -> None:
    key_id = local.create()

    assert local.code("key.schedule_deletion", key_id=key_id, window_days=days) == "INVALID_ARGUMENT"
    assert local.states(key_id) == ["ACTIVE"]


def window(result: dict[str, Any]) -> list[int]:
    (row,) = (row for row in result["capabilities"] if row["operation"] == "key.schedule_deletion")
    found: list[int] = row["deletion_window_days"]
    return found


def test_the_shortest_window_is_a_setting_and_the_promise_says_it(folder: Path) -> None:
    with run_driver(LocalDriver) as client:
        host = {"name": "test", "version": "0"}
        answer = client.call("plugin.initialize", {"protocol_versions": ["1"], "host": host})
        assert window(answer["result"]) == [7, 30]
        config = {"path": str(folder), "min_deletion_days": 0}
        assert window(client.call("plugin.configure", {"config": config})["result"]) == [0, 30]
        session = Keystore(client)
        key = session.call("key.schedule_deletion", key_id=session.create(), window_days=0)
        assert days_left(key) == pytest.approx(0, abs=0.01)
    for wrong in (-1, 31):
        error = refused_configuration({"path": str(folder), "min_deletion_days": wrong})
        assert error["data"] == {"code": "CONFIGURATION_ERROR", "path": "min_deletion_days"}


def test_a_key_whose_date_has_passed_waits_for_a_purge_and_can_be_recovered(folder: Path) -> None:
    with keystore(folder, min_deletion_days=0) as session:
        key_id, other = session.create(), session.create()
        ciphertext = session.encrypt(key_id, b"data")
        for each in (key_id, other):
            session.call("key.schedule_deletion", key_id=each, window_days=0)

    with keystore(folder) as session:
        assert session.states(key_id) == ["DESTROY_SCHEDULED"]
        session.call("key.cancel_deletion", key_id=key_id)
        session.call("key.enable", key_id=key_id)
        assert session.decrypt(key_id, ciphertext) == b"data"
        session.call("key.purge", key_id=other)
        assert session.states(other) == ["DESTROYED"]


def test_the_box_of_purged_material_is_in_no_file_any_more(local: Keystore, folder: Path) -> None:
    key_id = local.create()
    local.call("key.rotate", key_id=key_id)
    local.call("key.schedule_deletion", key_id=key_id)
    with opened(folder) as store:
        secrets = [bytes(version.material) for version in store.key(key_id).versions]
    boxes = [box for (box,) in read(folder, "SELECT box FROM versions")]

    local.call("key.purge", key_id=key_id)

    copies = {path.name: path for path in folder.iterdir()}
    # Only these two are read: closing a descriptor of the database itself would end SQLite's locks on it.
    journal = copies["keystore.db-wal"].read_bytes()
    assert journal == b""
    with keystore(folder) as other:
        assert other.states(key_id) == ["DESTROYED"] * 2
    assert not any(secret in journal for secret in secrets)
    remaining = [box for (box,) in read(folder, "SELECT box FROM versions")]
    assert not set(boxes) & set(remaining)
    with opened(folder) as store:
        assert [version.material for version in store.key(key_id).versions] == [b"", b""]


def test_material_that_was_purged_is_gone_from_the_closed_file(folder: Path) -> None:
    with keystore(folder) as session:
        key_id = session.create()
        session.call("key.schedule_deletion", key_id=key_id)
        ((box,),) = read(folder, "SELECT box FROM versions")
        session.call("key.purge", key_id=key_id)

    content = (folder / "keystore.db").read_bytes()

    assert box[:48] not in content
    assert box[-48:] not in content


def test_two_processes_agree_on_every_state(folder: Path) -> None:
    moves: list[Callable[[Keystore, str], object]] = [
        lambda session, key_id: session.call("key.set_state", key_id=key_id, state="DEACTIVATED"),
        lambda session, key_id: session.call("key.schedule_deletion", key_id=key_id),
        lambda session, key_id: session.call("key.cancel_deletion", key_id=key_id),
        lambda session, key_id: session.call("key.set_state", key_id=key_id, state="COMPROMISED"),
    ]
    with keystore(folder) as one, keystore(folder) as other:
        key_id = one.create()
        for number, move in enumerate(moves):
            mover, watcher = (one, other) if number % 2 else (other, one)
            move(mover, key_id)
            assert watcher.call("key.get", key_id=key_id) == mover.call("key.get", key_id=key_id)
