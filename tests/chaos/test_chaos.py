"""Sixteen callers, two processes, and somebody who kills, stops and wedges them at random.

Whoever does that waits for nothing: it also strikes the last process that works, and kills one that starts.
So the limits are raised that would end in quarantine, or leave the keystore alone.
"""

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
from kmsplug_host import Host, PluginState
from kmsplug_protocol import Outcome
from support.host import DRIVERS, bad_driver, children, descriptors, nothing_left, threads, wait_until
from support.zoo import SOAK

from .callers import Account, Caller

CALLERS = 16
SECONDS = 60 if SOAK else 10
RESTARTS = 200 if SOAK else 25
KILL, STOP, WEDGE = signal.SIGKILL, signal.SIGSTOP, signal.SIGUSR1
MOST_GROWTH_BYTES = 16 * 1024 * 1024


def settings(folder: Path) -> dict[str, object]:
    driver = {
        "command": [sys.executable, "-I", str(DRIVERS / "wedgeable.py")],
        "isolation": "process",
        "config": {"path": str(folder / "store")},
        "processes": 2, "max_crashes": 10_000, "grace_s": 0.5,
    }  # fmt: skip
    patience = {"retry": {"max_reconnects": 100, "budget": 1_000_000}, "breaker": {"failures": 0}}
    return {"plugins": {"local": driver}, "keystores": {"main": {"plugin": "local", **patience}}}


def strike(host: Host, dice: random.Random, seconds: float, longest_s: float) -> Counter[str]:
    """Do something bad to one of the processes, again and again, at intervals of up to *longest_s*."""
    struck: Counter[str] = Counter()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(dice.uniform(0.1, longest_s))
        victim, number = dice.choice(host.plugins()[0].replicas), dice.choice((KILL, STOP, WEDGE))
        # One that stops while it starts has half a minute to answer: longer than any caller here waits.
        if victim.pid is not None and (number is KILL or victim.state is PluginState.READY):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(victim.pid, number)
                struck[number.name] += 1
    return struck


def summed(accounts: list[Account]) -> Account:
    total = Account()
    for account in accounts:
        total.answers += account.answers
        total.errors += account.errors
        total.faults += account.faults
        total.outcomes |= account.outcomes
    return total


def test_every_answer_is_right_or_a_typed_error_with_an_honest_outcome(tmp_path: Path) -> None:
    seed = int(os.environ.get("KMSPLUG_SEED", random.SystemRandom().randrange(10**6)))
    print(f"KMSPLUG_SEED={seed}")
    stop = threading.Event()
    began = time.monotonic()
    with nothing_left(), Host.open(settings(tmp_path)) as host:
        longest_s = max(1.0, 2 * (time.monotonic() - began))  # a busy machine starts processes slowly
        keystore = host.keystore("main")
        kinds = {"aes": "AES_256_GCM", "hmac": "HMAC_SHA_256", "ec": "EC_P256"}
        keys = {kind: keystore.create_key(algorithm).key_id for kind, algorithm in kinds.items()}
        callers = [Caller(number, seed, keystore, keys) for number in range(CALLERS)]
        running = [threading.Thread(target=caller.run, args=(stop,)) for caller in callers]
        for thread in running:
            thread.start()
        try:
            struck = strike(host, random.Random(seed), SECONDS, longest_s)  # noqa: S311 - to be repeated
        finally:
            stop.set()
            for thread in running:
                thread.join(60)
        wait_until(lambda: host.plugins()[0].state is PluginState.READY, "all processes", 60)
        found = Counter(key.name for key in keystore.keys() if key.name)  # noqa: SIM118 - no mapping
    total = summed([caller.account for caller in callers])
    print(f"struck {dict(struck)}, answers {dict(total.answers)}, errors {dict(total.errors)}")

    assert not total.faults, "\n".join(total.faults)
    assert min(total.answers[kind] for kind in ("encrypt", "mac", "sign", "random", "get_key")) > 0
    for name, outcome in total.outcomes.items():
        assert found[name] <= 1, f"{name} was made {found[name]} times"
        assert outcome is not Outcome.APPLIED or found[name] == 1, f"{name} was made, and is not there"
        assert outcome is not Outcome.NOT_APPLIED or found[name] == 0, f"{name} was not made, but is there"


def test_nothing_grows_over_restarts(tmp_path: Path) -> None:
    many = {"retry": {"budget": 10_000}}  # each kill takes one, and each call gives half a one
    with bad_driver(tmp_path, "good", keystore=many, max_crashes=10_000) as bad:
        family = len(children())  # the driver and its guardian

        def restart() -> None:
            bad.host._plugins["bad"]._fleet.replicas[0].policy.forget()  # else the waits would take minutes
            os.kill(bad.pid, signal.SIGKILL)
            assert len(bad.keystore.random(8)) == 8

        for _ in range(10):  # caches and arenas fill once
            restart()
        wait_until(lambda: len(children()) == family, "the old process to go")
        before, rss = (len(descriptors()), sorted(threads())), psutil.Process().memory_info().rss
        for _ in range(RESTARTS):
            restart()

        wait_until(lambda: (len(descriptors()), sorted(threads())) == before, "old threads and pipes to go")
        wait_until(lambda: len(children()) == family, "zombies to be reaped")
        assert psutil.Process().memory_info().rss - rss < MOST_GROWTH_BYTES
