"""Many callers, many restarts: every caller gets its own answer, and nothing grows."""

import os
import signal
from functools import partial
from pathlib import Path

from kmsplug_host import Host, PluginState
from support.host import (
    LONG_S,
    Bad,
    bad_driver,
    begin,
    bench,
    children,
    descriptors,
    misbehaving,
    threads,
    wait_until,
)


def is_replaced(bad: Bad, pid: int) -> bool:
    """Tell whether all processes are there, and this one is none of them."""
    return pid not in bad.pids and bad.host.plugins()[0].state is PluginState.READY


def test_sixteen_threads_get_their_own_answers(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", processes=2) as bad:

        def call(caller: int) -> list[bytes]:
            return [bad.keystore.mac("k", f"{caller}/{index}".encode()).mac for index in range(200)]

        callers = [begin(call, caller) for caller in range(16)]
        for caller, answers in enumerate(callers):
            assert answers.result(LONG_S) == [f"{caller}/{index}".encode() for index in range(200)]
        assert [replica.in_flight for replica in bad.host.plugins()[0].replicas] == [0, 0]


def test_callers_get_their_own_answers_while_processes_are_killed(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good", processes=3) as bad:

        def call(caller: int) -> list[bytes]:
            return [bad.keystore.mac("k", f"{caller}/{index}".encode()).mac for index in range(300)]

        callers = [begin(call, caller) for caller in range(8)]
        for _ in range(3):
            killed = bad.pids[0]
            os.kill(killed, signal.SIGKILL)
            wait_until(partial(is_replaced, bad, killed), "all processes")

        for caller, answers in enumerate(callers):
            assert answers.result(LONG_S) == [f"{caller}/{index}".encode() for index in range(300)]


def test_big_and_small_requests_of_many_threads_do_not_mix(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "good") as bad:

        def call(caller: int) -> None:
            for size in (1, 5_000, 70_000, 300_000):
                message = bytes([caller]) * size
                assert bad.keystore.mac("k", message).mac == message

        for caller in [begin(call, caller) for caller in range(8)]:
            caller.result(LONG_S)


def test_nothing_grows_over_thirty_restarts(tmp_path: Path) -> None:
    others = set(children())  # servers of other tests
    with bad_driver(tmp_path, "good") as bad:
        before = len(descriptors()), sorted(threads())
        for _ in range(30):
            plugin = bad.host._plugins["bad"]
            plugin._fleet.replicas[0].policy.forget()  # else the waits between restarts would take a minute
            os.kill(bad.pid, signal.SIGKILL)
            assert len(bad.keystore.random(8)) == 8

        wait_until(lambda: (len(descriptors()), sorted(threads())) == before, "old threads and pipes to go")
        assert len(set(children()) - others) == 2  # the driver and its guardian
        assert bad.host.plugins()[0].replicas[0].restarts == 30


def test_nothing_grows_over_twenty_hosts(tmp_path: Path) -> None:
    with bench(tmp_path):
        before = threads(), children()
        for _ in range(20):
            with Host.open({"plugins": {"bad": misbehaving(tmp_path, "good", processes=2)}}) as host:
                host.keystore("bad").random(8)
            # The thread that has buried a process is at its last step.
            wait_until(lambda: (threads(), children()) == before, "threads and processes to go")
