"""What is in the files: a scenario that changes meanwhile, keys and counts that several sessions share."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest
from kmsplug_plugins.mock.driver import MockDriver
from kmsplug_sdk.testing import run_driver
from unit.plugins.mock_support import calls, codes, mock

FOREIGN = [
    b"somebody's notes without an end",
    b"not a journal\n",
    b"[]\n",
    b'{"key": {}}\n',
    b'{"store": 7}\n',
    b'{"store": {"id": "AA==", "backups": "AA==", "imports": "AA=="}}\n{"call": 7}\n',
    b'{"store": {"id": "AA==", "backups": "AA==", "imports": "AA=="}}\n[]\n',
]

THROTTLE = """
[[rule]]
effect = "throttle"
operations = ["crypto.random"]
"""


def write(path: Path, text: str) -> None:
    """Replace a file, as an editor does."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_the_scenario_is_taken_anew_when_its_file_changes_and_counts_anew(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"

    with mock(config={"scenario_file": str(file)}) as keystore:
        assert codes(keystore, 2) == ".."
        write(file, THROTTLE + "times = 1\n")
        assert codes(keystore, 3) == "R.."
        write(file, json.dumps({"rule": [{"effect": "throttle", "after": 1, "times": 1}]}))
        assert codes(keystore, 3) == ".R."
        file.unlink()
        assert codes(keystore, 2) == ".."


def test_a_scenario_file_that_became_wrong_is_named_with_its_member(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"

    with mock(config={"scenario_file": str(file)}) as keystore:
        for text, part in ((THROTTLE + "every = 0", "rule.0.throttle.every"), ("[[rule", "scenario.toml")):
            write(file, text)
            error = keystore.error("crypto.random", length_bytes=16)
            assert error["data"]["code"] == "CONFIGURATION_ERROR"
            assert part in error["message"]


def test_keys_and_counts_survive_the_session(tmp_path: Path) -> None:
    state = {"state_file": str(tmp_path / "state"), "scenario_file": str(tmp_path / "scenario.toml")}
    write(tmp_path / "scenario.toml", THROTTLE + "after = 2\ntimes = 2\n")

    with mock(config=state) as keystore:
        key_id = keystore.create()
        sealed = keystore.encrypt(key_id, b"secret")
        keystore.call("key.set_alias", key_id=key_id, alias="app")
        keystore.call("key.rotate", key_id=key_id)
        assert codes(keystore, 3) == "..R"
    with mock(config=state) as keystore:
        assert keystore.decrypt("app", sealed) == b"secret"
        assert keystore.states(key_id) == ["DEACTIVATED", "ACTIVE"]
        assert codes(keystore, 3) == "R.."
        assert "crypto.random 6, " in calls(keystore)


def test_sessions_that_share_a_state_file_are_one_provider(tmp_path: Path) -> None:
    rules = {"rule": [{"effect": "throttle", "operations": ["crypto.random"], "every": 3}]}
    settings = {"scenario": rules, "state_file": str(tmp_path / "state")}

    with mock(config=settings) as one, mock(config=settings) as other:
        course = "".join(codes(keystore, 1) for keystore in (one, other, one, one, other, other))
        key_id = one.create()
        other.call("key.set_alias", key_id=key_id, alias="app")

        assert course == "R..R.."
        assert one.decrypt("app", other.encrypt(key_id, b"secret")) == b"secret"


def test_an_alias_moves_from_key_to_key_and_both_know_it(tmp_path: Path) -> None:
    with mock(config={"state_file": str(tmp_path / "state")}) as keystore:
        first, second = keystore.create(), keystore.create()
        for key_id in (first, second):
            keystore.call("key.set_alias", key_id=key_id, alias="app")

        assert keystore.call("key.get", key_id="alias/app")["key_id"] == second
        assert keystore.call("key.get", key_id=first)["aliases"] == []


def test_a_line_that_was_torn_by_a_kill_is_as_if_it_had_never_been_begun(tmp_path: Path) -> None:
    file = tmp_path / "state"
    with mock(config={"state_file": str(file)}) as keystore:
        key_id = keystore.create()
        whole = file.read_bytes()
        keystore.call("key.rotate", key_id=key_id)
    written = file.read_bytes()
    for cut in range(len(whole), len(written), 97):
        file.write_bytes(written[:cut])

        with mock(config={"state_file": str(file)}) as keystore:
            assert keystore.states(key_id) == ["ACTIVE"]
            assert keystore.create()


def test_a_disk_that_is_full_fails_the_call_and_the_next_one_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "state"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with mock(config={"state_file": str(file)}) as keystore:
        keystore.create()
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 20, hard))
        try:
            assert keystore.code("crypto.random", length_bytes=16) == "PROVIDER_UNAVAILABLE"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        assert keystore.call("crypto.random", length_bytes=16)
        assert calls(keystore) == "crypto.random 1, key.create 1, plugin.health 1"


def test_the_state_file_is_its_owners_alone(tmp_path: Path) -> None:
    with mock(config={"state_file": str(tmp_path / "state")}) as keystore:
        keystore.create()

    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_that_is_none_of_this_driver_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "state"
    file.write_bytes(content)

    error = _refused({"state_file": str(file)})

    assert (error["data"]["code"], error["data"]["path"]) == ("CONFIGURATION_ERROR", "state_file")
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"state_file": "/dev/null/state"}, "state_file"),
        ({"state_file": "state"}, "state_file"),
        ({"scenario_file": "scenario.toml"}, "scenario_file"),
        ({"scenario": {}, "scenario_file": "/nowhere"}, ""),
    ],
)
def test_settings_that_cannot_be_kept_are_refused_by_name(config: dict[str, Any], path: str) -> None:
    error = _refused(config)

    assert error["data"]["code"] == "CONFIGURATION_ERROR"
    assert error["data"]["path"] == path


def test_in_memory_each_start_is_another_keystore_and_with_a_state_file_the_same(tmp_path: Path) -> None:
    kept = {"state_file": str(tmp_path / "state")}

    assert _identity({}) != _identity({})
    assert _identity(kept) == _identity(kept)


def test_a_dry_run_makes_no_file(tmp_path: Path) -> None:
    with run_driver(MockDriver) as client:
        client.call("plugin.initialize", {"protocol_versions": ["1"], "host": {"name": "t", "version": "0"}})
        answer = client.call(
            "plugin.configure", {"config": {"state_file": str(tmp_path / "state")}, "dry_run": True}
        )

    assert answer["result"]["identity"] == "mock:new"
    assert list(tmp_path.iterdir()) == []


def test_a_scenario_that_crashes_without_a_state_file_is_warned_about() -> None:
    config = {"scenario": {"rule": [{"effect": "crash", "times": 1}]}}

    with run_driver(MockDriver) as client:
        client.call("plugin.initialize", {"protocol_versions": ["1"], "host": {"name": "t", "version": "0"}})
        (warning,) = client.call("plugin.configure", {"config": config})["result"]["warnings"]

    assert "state_file" in warning


def _identity(config: dict[str, Any]) -> str:
    with run_driver(MockDriver) as client:
        client.call("plugin.initialize", {"protocol_versions": ["1"], "host": {"name": "t", "version": "0"}})
        identity: str = client.call("plugin.configure", {"config": config})["result"]["identity"]
    return identity


def _refused(config: dict[str, Any]) -> dict[str, Any]:
    with run_driver(MockDriver) as client:
        client.call("plugin.initialize", {"protocol_versions": ["1"], "host": {"name": "t", "version": "0"}})
        error: dict[str, Any] = client.call("plugin.configure", {"config": config})["error"]
    return error
