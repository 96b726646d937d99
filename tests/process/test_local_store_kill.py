"""Changes of a local store that are killed at each of their SQL statements in turn."""

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from process.test_local_store import PATIENCE_S, check_file, child, keys_in

# Carries out a change in a fork that kills itself at its n-th statement, for each n until it comes through,
# and says after each what the store holds then. No process but the fork has the store open meanwhile.
KILLER = """
import json, os, signal, sys
from pathlib import Path
from kmsplug_plugins.local import manage
from kmsplug_plugins.local._opening import open_store
from kmsplug_plugins.local._store import Store
from kmsplug_plugins.local.config import LocalConfig
from kmsplug_plugins.local.driver import LocalDriver
from kmsplug_protocol import (
    AliasParams, CreateKeyParams, DecryptParams, EncryptParams, KeyAlgorithm, KeyParams,
    ScheduleDeletionParams,
)
from kmsplug_sdk import DriverError

config = LocalConfig(path=Path(sys.argv[1]))

def opened():
    driver = LocalDriver()
    driver.configure(config, dry_run=False)
    return driver

def tracing(connection, at):
    left = at
    def count(_statement):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    connection.set_trace_callback(count)

def change(name, at):
    if name == "rekey":
        unlocked = manage.unlocked
        def traced(config):
            found = unlocked(config)
            tracing(found[0]._database._connection, at)
            return found
        manage.unlocked = traced
        manage.rekey(config)
        return
    driver = opened()
    tracing(driver._store._database._connection, at)
    match name:
        case "rotate":
            driver.rotate_key(KeyParams(key_id=key_id))
        case "alias":
            driver.set_alias(AliasParams(key_id=other if at % 2 else key_id, alias="name"))
        case "purge":
            try:
                driver.purge_key(KeyParams(key_id=doomed))
            except DriverError as error:  # it was destroyed by the one that was killed before this one
                assert error.code == "KEY_DESTROYED"

def state():
    driver = opened()
    try:
        plaintext = driver.decrypt(DecryptParams(key_id=key_id, ciphertext=ciphertext)).plaintext
        return {
            "versions": len(driver._store.key(key_id).versions),
            "state": driver.get_key(KeyParams(key_id=doomed)).state.value,
            "alias": driver.get_key(KeyParams(key_id="alias/name")).key_id == key_id,
            "epoch": driver._store.check(),
            "plaintext": bytes(plaintext).decode(),
        }
    finally:
        driver.close()

driver = opened()
key_id, other, doomed = (
    driver.create_key(CreateKeyParams(algorithm=KeyAlgorithm.AES_256_GCM)).key_id for _ in range(3)
)
ciphertext = driver.encrypt(EncryptParams(key_id=key_id, plaintext=b"data")).ciphertext
driver.set_alias(AliasParams(key_id=key_id, alias="name"))
driver.schedule_key_deletion(ScheduleDeletionParams(key_id=doomed))
driver.close()
print(json.dumps({"killed": None, **state()}), flush=True)
for at in range(1, 1000):
    pid = os.fork()
    if pid == 0:
        change(sys.argv[2], at)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, status
    print(json.dumps({"killed": killed, **state()}), flush=True)
    if not killed:
        break
"""


def killed_at_each_statement(folder: Path, change: str) -> list[dict[str, Any]]:
    """Return what the store held at the beginning, after each kill, and after the change came through."""
    found: list[dict[str, Any]] = []
    with child([sys.executable, "-I", "-c", KILLER, str(folder), change]) as killer:
        while not found or found[-1]["killed"] is not False:
            found.append(json.loads(killer.read_line()))
        assert killer.stop() == b""
        killer.process.wait(PATIENCE_S)
    check_file(folder)
    assert {each["plaintext"] for each in found} == {"data"}
    return found


def steps(found: list[dict[str, Any]], member: str) -> list[int]:
    return [after[member] - before[member] for before, after in pairwise(found)]


def test_a_rotation_killed_at_any_statement_happened_or_did_not(tmp_path: Path) -> None:
    found = killed_at_each_statement(tmp_path / "keystore", "rotate")

    assert len(found) > 10
    assert set(steps(found, "versions")) == {0, 1}
    assert steps(found, "versions") == steps(found, "epoch")
    assert steps(found, "versions")[-1] == 1
    assert steps(found, "versions")[:-1].count(1) == 0  # until the commit has been made there is nothing
    assert len(keys_in(tmp_path / "keystore")) == 3


@pytest.mark.parametrize("change", ["rekey", "alias", "purge"])
def test_other_changes_killed_at_any_statement_happened_or_did_not(tmp_path: Path, change: str) -> None:
    found = killed_at_each_statement(tmp_path / "keystore", change)

    assert len(found) > 10
    assert set(steps(found, "epoch")) <= {0, 1}
    if change == "purge":
        assert [each["state"] for each in found].count("DESTROYED") == sum(
            each["epoch"] > found[0]["epoch"] for each in found
        )
        assert found[-1]["state"] == "DESTROYED"
    else:
        assert {each["state"] for each in found} == {"DESTROY_SCHEDULED"}
    assert len(keys_in(tmp_path / "keystore")) == 3
