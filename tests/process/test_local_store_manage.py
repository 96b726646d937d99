"""Changing the passphrase and the store key, by the command, while other processes have the store open."""

import json
import os
import select
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kmsplug_plugins.local._hierarchy import Header, new_scrypt_record, stretch
from kmsplug_plugins.local._opening import unlocked
from kmsplug_plugins.local.config import LocalConfig
from kmsplug_plugins.local.driver import LocalDriver
from kmsplug_protocol import decode_base64, encode_base64
from kmsplug_sdk import DriverError
from kmsplug_sdk.testing import run_driver
from process.test_local_store import (
    PATIENCE_S,
    Child,
    answer,
    check_file,
    driver_process,
    keys_in,
    request,
    result,
)

OLD, NEW = "correct horse", "battery st\u00e4ple"
MANAGE = [sys.executable, "-I", "-m", "kmsplug_plugins.local.manage"]


def manage(command: str, config: Path, **passphrases: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command, handing over each passphrase in a pipe of its own."""
    options, descriptors = [], []
    for name, passphrase in passphrases.items():
        reading, writing = os.pipe()
        os.write(writing, passphrase.encode() + b"\n")
        os.close(writing)
        descriptors.append(reading)
        options += [f"--{name.replace('_', '-')}-fd", str(reading)]
    try:
        return subprocess.run(
            [*MANAGE, command, "--config", str(config), *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S,
            pass_fds=descriptors,
            check=False,
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def settings(folder: Path, **more: Any) -> Path:
    path = folder.with_name("settings.json")
    path.write_text(json.dumps({"path": str(folder), **more}))
    return path


def ask(driver: Child, number: int, method: str, **params: Any) -> dict[str, Any]:
    driver.write(request(number, method, **params))
    return result(driver)


def refusal_of(config: dict[str, Any]) -> str:
    with run_driver(LocalDriver) as client:
        host = {"name": "test", "version": "0"}
        client.call("plugin.initialize", {"protocol_versions": ["1"], "host": host})
        code: str = client.call("plugin.configure", {"config": config})["error"]["data"]["code"]
    return code


def test_two_processes_go_on_working_while_the_passphrase_changes(tmp_path: Path) -> None:
    folder = tmp_path / "keystore"
    with (
        driver_process(folder, passphrase=OLD) as one,
        driver_process(folder, passphrase=OLD) as other,
    ):
        key_id = ask(one, 1, "key.create", algorithm="AES_256_GCM")["key_id"]
        ciphertext = ask(one, 2, "crypto.encrypt", key_id=key_id, plaintext=encode_base64(b"data"))[
            "ciphertext"
        ]
        ask(other, 1, "crypto.decrypt", key_id=key_id, ciphertext=ciphertext)
        shutil.copytree(folder, tmp_path / "copy")
        for number in range(100, 160, 2):  # they are at it while the command runs
            for driver in (one, other):
                driver.write(request(number, "key.create", algorithm="HMAC_SHA_256"))
                driver.write(request(number + 1, "key.rotate", key_id=key_id))

        done = manage("change-passphrase", settings(folder), passphrase=OLD, new_passphrase=NEW)

        assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")
        for driver in (one, other):
            for _ in range(60):
                result(driver)
            opened = ask(driver, 200, "crypto.decrypt", key_id=key_id, ciphertext=ciphertext)
            assert decode_base64(opened["plaintext"]) == b"data"
            ask(driver, 201, "key.create", algorithm="AES_256_GCM")
            assert ask(driver, 202, "plugin.health", depth="deep")["healthy"] is True
            assert driver.stop() == b""

    check_file(folder)
    assert refusal_of({"path": str(folder), "passphrase": OLD}) == "AUTHENTICATION_FAILED"
    with run_driver(LocalDriver, {"path": str(folder), "passphrase": NEW}) as client:
        assert len(client.call("key.list", {"limit": 1000})["result"]["keys"]) == 63
        answered = client.call("crypto.decrypt", {"key_id": key_id, "ciphertext": ciphertext})
        assert decode_base64(answered["result"]["plaintext"]) == b"data"
    # A copy from before still opens with the former passphrase: that is documented, not prevented.
    with run_driver(LocalDriver, {"path": str(tmp_path / "copy"), "passphrase": OLD}) as client:
        assert client.call("key.get", {"key_id": key_id})["result"]["key_id"] == key_id


def test_of_two_changes_at_once_the_second_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "keystore"
    with run_driver(LocalDriver, {"path": str(folder), "passphrase": OLD}):
        pass
    config = LocalConfig.model_validate({"path": folder, "passphrase": OLD})
    store, header, store_key = unlocked(config)  # what the command has in hand when it is about to write
    with closing(store):
        changed = manage("change-passphrase", settings(folder), passphrase=OLD, new_passphrase=NEW)
        record = new_scrypt_record()
        late = Header.of(header.store_id, store_key, stretch("too late", record), record)

        with pytest.raises(DriverError, match="meanwhile") as caught:
            store.replace_header(late)

    assert (changed.returncode, caught.value.code) == (0, "CONFLICT")
    assert refusal_of({"path": str(folder), "passphrase": "too late"}) == "AUTHENTICATION_FAILED"
    with run_driver(LocalDriver, {"path": str(folder), "passphrase": NEW}) as client:
        assert client.call("key.list", {})["result"]["keys"] == []


def test_after_a_rekey_open_processes_refuse_until_they_are_restarted(tmp_path: Path) -> None:
    folder = tmp_path / "keystore"
    with driver_process(folder) as driver:
        key_id = ask(driver, 1, "key.create", algorithm="AES_256_GCM", tags={"a": "b"})["key_id"]
        ask(driver, 2, "key.rotate", key_id=key_id)
        ask(driver, 3, "key.set_alias", key_id=key_id, alias="name")
        key = ask(driver, 4, "key.get", key_id=key_id)
        ciphertext = ask(driver, 5, "crypto.encrypt", key_id=key_id, plaintext=encode_base64(b"data"))[
            "ciphertext"
        ]
        backup = ask(driver, 6, "key.backup", key_id=key_id)["backup"]

        done = manage("rekey", settings(folder))

        assert (done.returncode, done.stderr) == (0, b"")
        for number, (method, params) in enumerate(
            [
                ("crypto.encrypt", {"key_id": key_id, "plaintext": ""}),
                ("crypto.decrypt", {"key_id": key_id, "ciphertext": ciphertext}),
                ("key.create", {"algorithm": "AES_256_GCM"}),
                ("key.list", {}),
                ("crypto.encrypt", {"key_id": "alias/name", "plaintext": ""}),
            ],
            10,
        ):
            driver.write(request(number, method, **params))
            error = answer(driver)["error"]
            assert error["data"]["code"] == "PROVIDER_UNAVAILABLE"
            assert (error["data"]["outcome"], error["data"]["hint"]) == ("not_applied", "restart the plugin")
        assert ask(driver, 20, "plugin.health", depth="deep")["healthy"] is False

    with driver_process(folder) as driver:
        assert ask(driver, 1, "key.get", key_id="alias/name") == key
        opened = ask(driver, 2, "crypto.decrypt", key_id=key_id, ciphertext=ciphertext)
        assert decode_base64(opened["plaintext"]) == b"data"
        assert ask(driver, 3, "key.create", algorithm="AES_256_GCM")["state"] == "ACTIVE"
        driver.write(request(4, "key.restore", backup=backup))
        assert answer(driver)["error"]["data"]["code"] == "INVALID_CIPHERTEXT"
    check_file(folder)


def test_a_rekey_leaves_no_box_of_before_in_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "keystore"
    with driver_process(folder) as driver:
        for number in range(20):
            ask(driver, number, "key.create", algorithm="AES_256_GCM")
        driver.stop()
    with closing(sqlite3.connect(folder / "keystore.db")) as connection:
        boxes = [box for (box,) in connection.execute("SELECT box FROM keys UNION SELECT box FROM versions")]

    assert manage("rekey", settings(folder)).returncode == 0

    content = (folder / "keystore.db").read_bytes()
    assert len(boxes) == 40
    assert not any(box[:32] in content or box[-32:] in content for box in boxes)
    with driver_process(folder) as driver:
        assert len(ask(driver, 1, "key.list")["keys"]) == 20


@pytest.mark.parametrize("command", ["change-passphrase", "rekey"])
def test_a_wrong_passphrase_changes_nothing(tmp_path: Path, command: str) -> None:
    folder = tmp_path / "keystore"
    with run_driver(LocalDriver, {"path": str(folder), "passphrase": OLD}):
        pass
    before = (folder / "keystore.db").read_bytes()
    new = {"new_passphrase": NEW} if command == "change-passphrase" else {}

    done = manage(command, settings(folder), passphrase="wrong", **new)

    assert done.returncode == 1
    assert b"does not open this keystore" in done.stderr
    assert (folder / "keystore.db").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "passphrases", "message"),
    [
        ("{}", {"new_passphrase": NEW}, b"there is no keystore"),
        ("not toml", {}, b"neither TOML nor JSON"),
        ('{"unknown": 1}', {}, b"unknown"),
        ('{"passphrase": 1}', {}, b"passphrase"),
        (None, {"passphrase": OLD}, b"on a terminal, or by --new-passphrase-fd"),
        (None, {"passphrase": OLD, "new_passphrase": ""}, b"a passphrase is not empty"),
        (None, {}, b"there is no passphrase to change"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path, text: str | None, passphrases: dict[str, str], message: bytes
) -> None:
    folder = tmp_path / "keystore"
    if text is None:
        folder.mkdir(mode=0o700)
        (folder / "keystore.db").touch(mode=0o600)
    config = settings(folder)
    if text is not None:
        values = {"path": str(folder), **json.loads(text)} if text.startswith("{") else None
        config.write_text(text if values is None else json.dumps(values))

    done = manage("change-passphrase", config, **passphrases)

    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert OLD.encode() not in done.stderr


# Makes the terminal on its stdin the one that a password is asked on, as a login would.
ON_TERMINAL = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
from kmsplug_plugins.local.manage import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("second", "status"), [(NEW, 0), ("other", 1)])
def test_on_a_terminal_the_new_passphrase_is_asked_for_twice_without_echo(
    tmp_path: Path, second: str, status: int
) -> None:
    folder = tmp_path / "keystore"
    with run_driver(LocalDriver, {"path": str(folder), "passphrase": OLD}):
        pass
    config = settings(folder, passphrase=OLD)
    terminal, other_end = os.openpty()
    command = [sys.executable, "-I", "-c", ON_TERMINAL, "change-passphrase", "--config", str(config)]
    process = subprocess.Popen(
        command, stdin=other_end, stdout=other_end, stderr=other_end, start_new_session=True
    )
    shown = b""
    for answer_to, text in ((b"new passphrase: ", NEW), (b"once more: ", second)):
        while not shown.endswith(answer_to):
            assert select.select([terminal], [], [], PATIENCE_S)[0], shown
            shown += os.read(terminal, 4096)
        os.write(terminal, text.encode() + b"\n")
    assert process.wait(PATIENCE_S) == status
    while select.select([terminal], [], [], 0)[0]:
        shown += os.read(terminal, 4096)
    os.close(other_end)
    os.close(terminal)

    assert NEW.encode() not in shown
    assert (b"done" if status == 0 else b"they differ") in shown
    opens = {"path": str(folder), "passphrase": NEW if status == 0 else OLD}
    with run_driver(LocalDriver, opens) as client:
        assert client.call("key.list")["result"]["keys"] == []


def test_a_keystore_with_a_key_file_is_rekeyed_and_its_key_file_stays(tmp_path: Path) -> None:
    folder = tmp_path / "keystore"
    with driver_process(folder) as driver:
        key_id = ask(driver, 1, "key.create", algorithm="ED25519")["key_id"]
        driver.stop()
    line = (folder / "master.key").read_bytes()

    for _ in range(2):
        assert manage("rekey", settings(folder)).returncode == 0

    assert (folder / "master.key").read_bytes() == line
    assert keys_in(folder) == {key_id: ["1"]}
