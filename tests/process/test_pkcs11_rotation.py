"""Two hosts rotate one key of a token: no version is lost or used twice, and no kill breaks it."""

import base64
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import Host, Keystore
from support.host import LONG_S
from support.postgres import database
from support.tokens import softhsm
from support.zoo import SOAK

TESTS = Path(__file__).parents[1]
ROUNDS = 500 if SOAK else 20  # of each of two hosts
KILLS = 40 if SOAK else 4
UNTOLD = 10
STEP_S = 0.05  # about as long as a rotation takes


# A kill at each single step, also in PostgreSQL, is in test_kept_shims.py; here it is the token that counts.
@pytest.fixture(params=["sqlite", *(["postgresql"] if SOAK else [])])
def configuration(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/catalog.db"
        if request.param == "postgresql":
            url = stack.enter_context(database(request.getfixturevalue("postgresql")))
        yield {
            "plugins": {"hsm": softhsm(tmp_path).plugin(tmp_path)},
            "keystores": {"main": {"plugin": "hsm", "allow_raw": True}},
            "catalog": {"url": url, "key_file": str(tmp_path / "catalog.key")},
        }


class Rotator:
    """An application of its own. What it says is kept, also of one that was killed."""

    def __init__(
        self, configuration: dict[str, Any], folder: Path, key_id: str, rounds: int, seed: int
    ) -> None:
        file = folder / "settings.json"
        file.write_text(json.dumps(configuration), encoding="utf-8")
        command = [sys.executable, "-m", "support.rotator", str(file), key_id, str(rounds), str(seed)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True
        )

    def lines(self) -> Iterator[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield line.strip()

    def finish(self) -> list[dict[str, str]]:
        out, error = self.process.communicate(timeout=60 * LONG_S)
        assert self.process.returncode == 0, error
        return told(out.splitlines())


def told(lines: list[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def require_all_open(keystore: Keystore, key_id: str, said: list[dict[str, str]]) -> None:
    """See that every ciphertext opens: by its version, and the last ones without being told which."""
    made = [each for each in said if "made" in each]
    for number, each in enumerate(reversed(made)):
        version = None if number < UNTOLD else each["version"]
        opened = keystore.decrypt(
            base64.b64decode(each["made"]), key_id=key_id, key_version=version, format="raw"
        )
        assert opened.plaintext == b"data"


@contextmanager
def key_of(configuration: dict[str, Any]) -> Iterator[tuple[Keystore, str]]:
    with Host.open(configuration) as host:
        keystore = host.keystore("main")
        yield keystore, keystore.create_key("AES_256_GCM", name="shared").key_id


def test_two_hosts_that_share_a_catalog_use_no_version_twice_and_lose_none(
    configuration: dict[str, Any], tmp_path: Path
) -> None:
    with key_of(configuration) as (keystore, key_id):
        pair = [Rotator(configuration, tmp_path, key_id, ROUNDS, seed) for seed in (1, 2)]
        said = [line for each in pair for line in each.finish()]
        versions = keystore.list_key_versions(key_id, limit=1000).versions
        current = keystore.get_key(key_id).key_version

        require_all_open(keystore, key_id, said)

    # A rotation tells which version is current by then: another one's, if that came just after it.
    rotated = [each["rotated"] for each in said if "rotated" in each]
    listed = [version.key_version for version in versions]
    assert rotated
    assert len(listed) == len(set(listed)) == 1 + len(rotated)
    assert set(rotated) <= set(listed)
    assert [version.key_version for version in versions if version.current] == [current]


def test_a_host_that_is_killed_at_any_step_of_a_rotation_leaves_a_usable_key(
    configuration: dict[str, Any], tmp_path: Path
) -> None:
    dice = random.Random(7)  # noqa: S311 - for moments
    said: list[str] = []
    with key_of(configuration) as (keystore, key_id):
        for seed in range(KILLS):
            victim = Rotator(configuration, tmp_path, key_id, 1_000_000, seed)
            for line in victim.lines():
                said.append(line)
                if line == "rotating":
                    break
            threading.Event().wait(dice.uniform(0, STEP_S))  # some step of it, another one each time
            victim.process.send_signal(signal.SIGKILL)
            rest, _ = victim.process.communicate(timeout=LONG_S)
            said += rest.splitlines()

            made = keystore.encrypt(key_id, b"after", format="raw")
            opened = keystore.decrypt(made.ciphertext, key_id=key_id, format="raw")
            assert opened.plaintext == b"after"
        rotated = keystore.rotate_key(key_id).key_version
        versions = [
            version.key_version for version in keystore.list_key_versions(key_id, limit=1000).versions
        ]
        require_all_open(keystore, key_id, told(said))

    seen = [each["rotated"] for each in told(said) if "rotated" in each]
    assert len(versions) == len(set(versions))
    assert rotated in versions
    assert set(seen) <= set(versions)
