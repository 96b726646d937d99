"""The mock as a process under a host: it crashes, forgets or remembers, and lacks what shims supply."""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kmsplug_host import Host, Keystore
from kmsplug_host.errors import PluginCrashed
from support.host import LONG_S, nothing_left

CREATE = "key.create"


@contextlib.contextmanager
def mock(
    *rules: dict[str, Any], gaps: list[dict[str, Any]] | None = None, **settings: Any
) -> Iterator[Keystore]:
    """Open a host with a mock under these rules; afterwards nothing may be left of either."""
    config = {"scenario": {"rule": list(rules), "gap": gaps or []}, **settings.pop("config", {})}
    plugin = {"driver": "mock", "deadline_s": LONG_S, "config": config, **settings}
    with nothing_left(), Host.open({"plugins": {"mock": plugin}}) as host:
        yield host.keystore("mock")


def calls(state: Path, operation: str) -> int:
    """Return how many calls of an operation are in a state file."""
    events = [json.loads(line) for line in state.read_text().splitlines()]
    return sum(event["call"]["operation"] == operation for event in events if "call" in event)


def test_a_crash_before_the_effect_costs_a_repeatable_call_nothing_and_the_keys_survive(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    crash = {"effect": "crash", "operations": ["crypto.mac"], "times": 1}

    with mock(crash, config={"state_file": str(state)}) as keystore:
        key_id = keystore.create_key("HMAC_SHA_256").key_id

        assert keystore.mac(key_id, b"message").mac == keystore.mac(key_id, b"message").mac
    assert calls(state, "crypto.mac") == 3


def test_a_crash_after_the_effect_leaves_exactly_one_key(tmp_path: Path) -> None:
    crash = {"effect": "crash", "when": "after", "operations": [CREATE], "times": 1}

    with mock(crash, config={"state_file": str(tmp_path / "state")}) as keystore:
        with contextlib.suppress(PluginCrashed):
            keystore.create_key("AES_256_GCM")

        assert len(list(keystore.list_keys().keys)) == 1


def test_several_processes_with_one_state_file_are_one_provider(tmp_path: Path) -> None:
    state = tmp_path / "state"

    with mock(processes=2, config={"state_file": str(state)}) as keystore:
        key_id = keystore.create_key("HMAC_SHA_256").key_id
        with ThreadPoolExecutor(8) as pool:
            codes = {
                bytes(code.mac) for code in pool.map(lambda _: keystore.mac(key_id, b"message"), range(64))
            }

    assert len(codes) == 1
    assert calls(state, "crypto.mac") == 64


def test_an_answer_that_comes_twice_is_nobody_elses() -> None:
    with mock({"effect": "answer_twice", "operations": ["crypto.random"]}) as keystore:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: bytes(keystore.random(16)), range(200)))

        assert len(set(found)) == 200


def test_a_shim_supplies_what_the_provider_lacks() -> None:
    gaps = [{"operations": ["crypto.encrypt", "crypto.generate_data_key"], "max_input_bytes": 32}]

    with mock(gaps=gaps) as keystore:
        key_id = keystore.create_key("AES_256_GCM").key_id
        sealed = keystore.encrypt(key_id, bytes(100_000), context={"tenant": "acme"})

        assert sealed.executed_by.startswith("shim:envelope")
        assert keystore.decrypt(sealed.ciphertext, context={"tenant": "acme"}).plaintext == bytes(100_000)
