"""Many callers on a provider that throttles, crashes and loses answers: all are served, nothing made twice.

A shorter run than in ``make soak``, of the same mixture.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

from kmsplug_host import BreakerState, Host, Keystore
from kmsplug_host.errors import CircuitOpen, ProviderUnavailable
from kmsplug_protocol import ErrorCode
from support.host import LONG_S, nothing_left
from support.zoo import SOAK

CALLERS = 16
ENCRYPTS = 10_000 if SOAK else 2_000
DOWN_S = 30 if SOAK else 3
CREATES, LOST = (10_000, 300) if SOAK else (1_000, 30)


@contextmanager
def misled(folder: Path, *rules: dict[str, Any], **keystore: Any) -> Iterator[Keystore]:
    """Open a keystore whose provider follows *rules* and survives its driver's crashes."""
    follow(folder, *rules)
    plugin = {
        "driver": "mock",
        "config": {
            "state_file": str(folder / "provider"),
            "scenario_file": str(folder / "scenario"),
        },
        "processes": 2,
        "max_crashes": 1_000_000,
    }
    configuration = {"plugins": {"mock": plugin}, "keystores": {"main": {"plugin": "mock", **keystore}}}
    with nothing_left(), Host.open(configuration) as host:
        yield host.keystore("main")


def follow(folder: Path, *rules: dict[str, Any]) -> None:
    """Say what goes wrong from now on."""
    (folder / "next").write_text(json.dumps({"seed": 7, "rule": rules}), encoding="utf-8")
    (folder / "next").rename(folder / "scenario")


def by_all_callers(count: int, call: Callable[[], object]) -> None:
    """Make so many calls, from all callers at once; raise what the first one raised."""
    left, lock = iter(range(count)), threading.Lock()

    def caller() -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            call()

    with ThreadPoolExecutor(CALLERS) as pool:
        for ended in [pool.submit(caller) for _ in range(CALLERS)]:
            ended.result()


def test_every_encrypt_succeeds_though_the_provider_throttles_and_the_driver_crashes(tmp_path: Path) -> None:
    throttle = {
        "effect": "throttle", "operations": ["crypto.*"], "probability": 0.3, "retry_after_ms": 20,
    }  # fmt: skip
    crash = {"effect": "crash", "operations": ["crypto.*"], "probability": 0.002}
    with misled(tmp_path, throttle, crash, retry={"max_reconnects": 8}, allow_raw=True) as keystore:
        key_id = keystore.create_key("AES_256_GCM").key_id
        by_all_callers(ENCRYPTS, lambda: keystore.encrypt(key_id, b"data", format="raw", timeout=10))

        stats = keystore.resilience.stats()
        assert stats.breaker is BreakerState.CLOSED
        assert stats.failures[ErrorCode.RATE_LIMIT_EXCEEDED] > ENCRYPTS * 0.3
        assert stats.failures[ErrorCode.PLUGIN_CRASHED] > 0
        assert stats.calls + stats.retries <= 1.6 * ENCRYPTS


def test_creates_whose_answer_is_lost_leave_as_many_keys_as_were_asked_for(tmp_path: Path) -> None:
    lose = {"effect": "lose_reply", "operations": ["key.create"], "every": CREATES // LOST, "times": LOST}
    with misled(tmp_path, lose, attempt_timeout_s=2.0) as keystore:
        made: list[str] = []
        by_all_callers(CREATES, lambda: made.append(keystore.create_key("AES_256_GCM", timeout=60).key_id))

        assert len(set(made)) == len(made) == CREATES
        assert sorted(map(attrgetter("key_id"), keystore.keys())) == sorted(made)
        # More than were lost, where so many answers never come that the driver is taken for wedged and
        # replaced: what it was working on is asked about as well.
        assert keystore.resilience.stats().reconciled >= LOST


def test_a_provider_that_was_down_was_spared_and_is_found_again(tmp_path: Path) -> None:
    down = {"effect": "fail", "code": "PROVIDER_UNAVAILABLE", "operations": ["crypto.*"]}
    with misled(tmp_path, down) as keystore:
        up = threading.Event()

        def caller() -> float:
            """Return when the first answer came."""
            while True:
                try:
                    keystore.random(8)
                    return time.monotonic()
                except (CircuitOpen, ProviderUnavailable):
                    up.wait(0.02)

        with ThreadPoolExecutor(CALLERS) as pool:
            answered = [pool.submit(caller) for _ in range(CALLERS)]
            up.wait(DOWN_S)
            follow(tmp_path)
            returned = time.monotonic()
            stats = keystore.resilience.stats()
            found = [future.result(LONG_S) for future in answered]

        assert stats.breaker is not BreakerState.CLOSED
        assert stats.failures[ErrorCode.PROVIDER_UNAVAILABLE] < 50
        assert stats.failures[ErrorCode.CIRCUIT_OPEN] > 50
        assert max(found) - returned < LONG_S
