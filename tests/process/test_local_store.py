"""The local driver as real processes: sharing one store, making it together, being killed."""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kmsplug_plugins.local.driver import LocalDriver
from kmsplug_protocol import decode_base64, encode_base64
from kmsplug_sdk.testing import run_driver

PATIENCE_S = 20.0
COMMAND = [sys.executable, "-I", "-m", "kmsplug_plugins.local"]


class Child:
    """A process that answers lines with lines. Every wait is bounded."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        assert self.process.stdout is not None
        self._stdout = self.process.stdout.fileno()
        self._buffer = b""

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def read_line(self) -> bytes:
        deadline = time.monotonic() + PATIENCE_S
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._stdout], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the process did not answer in time"
            data = os.read(self._stdout, 65536)
            assert data, "the process has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def has_answered(self) -> bool:
        return bool(select.select([self._stdout], [], [], 0)[0])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def stop(self) -> bytes:
        """Close its input, wait for its end and return what it wrote to stderr."""
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return bytes(errors)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


@contextlib.contextmanager
def child(command: list[str] = COMMAND) -> Iterator[Child]:
    with closing(Child(command)) as process:
        yield process


def request(number: int, method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


def start(driver: Child, folder: Path, **config: Any) -> None:
    """Send the two requests that open the keystore, without waiting for their answers."""
    host = {"name": "test", "version": "0"}
    driver.write(request(-2, "plugin.initialize", protocol_versions=["1"], host=host))
    driver.write(request(-1, "plugin.configure", config={"path": str(folder), **config}))


def answer(driver: Child) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(driver.read_line())
    return message


def result(driver: Child) -> dict[str, Any]:
    message = answer(driver)
    assert "error" not in message, message["error"]
    found: dict[str, Any] = message["result"]
    return found


@contextlib.contextmanager
def driver_process(folder: Path, **config: Any) -> Iterator[Child]:
    with child() as driver:
        start(driver, folder, **config)
        result(driver)
        result(driver)
        yield driver


def keys_in(folder: Path) -> dict[str, list[str]]:
    """Open the keystore anew and return every key's versions. All rows are opened on the way."""
    with run_driver(LocalDriver, {"path": str(folder)}) as client:
        keys = client.call("key.list", {"limit": 1000})["result"]["keys"]
        versions = {}
        for key in keys:
            page = client.call("key.list_versions", {"key_id": key["key_id"], "limit": 1000})["result"]
            versions[key["key_id"]] = [each["key_version"] for each in page["versions"]]
    return versions


def check_file(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "keystore.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_driver_serves_its_operations_as_a_process(tmp_path: Path) -> None:
    with driver_process(tmp_path / "keystore") as driver:
        driver.write(request(1, "key.create", algorithm="AES_256_GCM"))
        key_id = result(driver)["key_id"]
        driver.write(request(2, "crypto.encrypt", key_id=key_id, plaintext=encode_base64(b"data")))
        ciphertext = result(driver)["ciphertext"]
        driver.write(request(3, "crypto.decrypt", key_id=key_id, ciphertext=ciphertext))
        assert decode_base64(result(driver)["plaintext"]) == b"data"

        errors = driver.stop()

    assert driver.process.returncode == 0
    assert errors == b""
    assert sorted(path.name for path in (tmp_path / "keystore").iterdir()) == ["keystore.db", "master.key"]


# Makes the key file that a line names, or, with an argument, reads it the moment that it is there; answers
# with the digest of the key.
KEY_FILE_MAKER = """
import hashlib, sys, time
from pathlib import Path
from kmsplug_plugins.local._keyfile import create_key_file, read_key_file
print("ready", flush=True)
for line in sys.stdin:
    path = Path(line.rstrip())
    deadline = time.monotonic() + 10
    while len(sys.argv) > 1 and not path.exists() and time.monotonic() < deadline:
        pass
    if not path.exists():
        create_key_file(path)
    print(hashlib.sha256(read_key_file(path)).hexdigest(), flush=True)
"""


def test_processes_that_make_one_key_file_at_once_get_the_same_key(tmp_path: Path) -> None:
    maker = [sys.executable, "-I", "-c", KEY_FILE_MAKER]
    digests = set()
    with child(maker) as one, child(maker) as other, child([*maker, "reader"]) as reader:
        assert one.read_line() == other.read_line() == reader.read_line() == b"ready"
        for number in range(200):
            line = str(tmp_path / f"{number}.key").encode() + b"\n"
            reader.write(line)
            one.write(line)
            other.write(line)

            first, second, third = one.read_line(), other.read_line(), reader.read_line()

            assert first == second == third
            digests.add(first)

    assert len(digests) == 200
    assert len(list(tmp_path.iterdir())) == 200  # nothing temporary is left


def test_processes_that_make_one_keystore_at_once_agree_on_it(tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / str(number)
        with child() as one, child() as other:
            for driver in (one, other):  # both import while the other does
                driver.write(
                    request(
                        1, "plugin.initialize", protocol_versions=["1"], host={"name": "t", "version": "0"}
                    )
                )
            for driver in (one, other):
                result(driver)
            for driver in (one, other):
                driver.write(request(2, "plugin.configure", config={"path": str(folder)}))
            first, second = result(one), result(other)
            assert first == second
            one.write(request(3, "key.create", algorithm="AES_256_GCM"))
            key_id = result(one)["key_id"]
            other.write(request(3, "key.get", key_id=key_id))
            assert result(other)["key_id"] == key_id
            one.stop()
            other.stop()

        assert sorted(path.name for path in folder.iterdir()) == ["keystore.db", "master.key"]


def test_nothing_is_lost_when_processes_create_and_rotate_in_one_store(tmp_path: Path) -> None:
    folder, rounds = tmp_path / "keystore", 40
    with driver_process(folder) as one, driver_process(folder) as other:
        one.write(request(0, "key.create", algorithm="AES_256_GCM"))
        common = result(one)["key_id"]

        for driver in (one, other):
            for number in range(rounds):
                driver.write(request(2 * number + 1, "key.create", algorithm="HMAC_SHA_256"))
                driver.write(request(2 * number + 2, "key.rotate", key_id=common))
        answers = [[result(driver) for _ in range(2 * rounds)] for driver in (one, other)]

        for driver in (one, other):
            assert driver.stop() == b""

    created = [key["key_id"] for each in answers for key in each if key["key_id"] != common]
    rotations = [key["key_version"] for each in answers for key in each if key["key_id"] == common]
    assert sorted(map(int, rotations)) == list(range(2, 2 * rounds + 2))
    stored = keys_in(folder)
    assert set(stored) == {common, *created}
    assert len(created) == len(set(created)) == 2 * rounds
    assert stored[common] == [str(number) for number in range(1, 2 * rounds + 2)]
    check_file(folder)


def test_each_of_two_processes_sees_what_the_other_did(tmp_path: Path) -> None:
    folder = tmp_path / "keystore"
    with driver_process(folder) as one, driver_process(folder) as other:
        one.write(request(1, "key.create", algorithm="AES_256_GCM"))
        key_id = result(one)["key_id"]
        for number in range(10, 50, 2):
            one.write(request(number, "crypto.encrypt", key_id=key_id, plaintext=""))  # from memory
            result(one)
            other.write(request(number, "key.disable", key_id=key_id))
            result(other)
            one.write(request(number + 1, "crypto.encrypt", key_id=key_id, plaintext=""))
            assert answer(one)["error"]["data"]["code"] == "KEY_DISABLED"
            other.write(request(number + 1, "key.enable", key_id=key_id))
            result(other)


@pytest.mark.parametrize("answers", [0, 1, 2, 3, 7, 12, 25, 59])
def test_what_was_acknowledged_survives_sigkill_and_the_store_is_whole(tmp_path: Path, answers: int) -> None:
    folder = tmp_path / "keystore"
    with driver_process(folder) as driver:
        driver.write(request(0, "key.create", algorithm="AES_256_GCM"))
        common = result(driver)["key_id"]
        for number in range(1, 31):
            driver.write(request(2 * number, "key.create", algorithm="AES_256_GCM"))
            driver.write(request(2 * number + 1, "key.rotate", key_id=common))
        acknowledged = [result(driver) for _ in range(answers)]
        driver.kill()

    stored = keys_in(folder)
    check_file(folder)

    assert {key["key_id"] for key in acknowledged} <= set(stored)
    rotations = [int(key["key_version"]) for key in acknowledged if key["key_id"] == common]
    assert len(stored[common]) >= max(rotations, default=1)
    assert stored[common] == [str(number + 1) for number in range(len(stored[common]))]


@pytest.mark.parametrize("files", [0, 1, 2, 3, 4])
def test_a_keystore_whose_making_was_killed_is_made_by_the_next(tmp_path: Path, files: int) -> None:
    folder = tmp_path / "keystore"
    with child() as driver:
        start(driver, folder)
        result(driver)  # of initialize: from here on it makes the keystore
        deadline = time.monotonic() + PATIENCE_S
        while len(list(folder.glob("*"))) < files and not driver.has_answered():
            assert time.monotonic() < deadline
        driver.kill()
    left = {path.name: path.read_bytes() for path in folder.glob("master.key")} if folder.exists() else {}

    assert keys_in(folder) == {}

    check_file(folder)
    for name, content in left.items():
        assert (folder / name).read_bytes() == content


def test_a_copy_taken_between_two_runs_is_a_whole_keystore(tmp_path: Path) -> None:
    with driver_process(tmp_path / "keystore") as driver:
        driver.write(request(1, "key.create", algorithm="AES_256_GCM"))
        key_id = result(driver)["key_id"]
        driver.stop()

    shutil.copytree(tmp_path / "keystore", tmp_path / "copy")

    assert keys_in(tmp_path / "copy") == {key_id: ["1"]}


def test_no_secret_reaches_the_log_or_an_error(tmp_path: Path) -> None:
    canary = encode_base64(b"canary plaintext")
    with driver_process(tmp_path / "keystore") as driver:
        driver.write(request(1, "key.create", algorithm="ED25519"))
        key_id = result(driver)["key_id"]
        driver.write(request(2, "crypto.encrypt", key_id=key_id, plaintext=canary))
        refusal = answer(driver)
        key_line = (tmp_path / "keystore" / "master.key").read_text().strip()
        errors = driver.stop().decode()

    for text in (json.dumps(refusal), errors):
        assert canary not in text
        assert "canary plaintext" not in text
        assert key_line.split(":")[1] not in text


def test_check_reports_a_healthy_keystore(tmp_path: Path) -> None:
    settings = tmp_path / "config.toml"
    settings.write_text(f'path = "{tmp_path / "keystore"}"\n')

    done = subprocess.run(
        [*COMMAND, "--check", str(settings)], capture_output=True, timeout=PATIENCE_S, check=False
    )

    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["healthy"] is True
    assert re.fullmatch("local:[0-9a-f]{32}", report["identity"])
