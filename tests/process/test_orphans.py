"""Nothing of a driver outlives it, its guardian or the application; README.md shows what is promised."""

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.host import wait_until
from support.isolation import require
from support.orphans import Application, Case, cases
from support.tables import published, writing

LEVELS = ["process", "landlock", "bwrap"]
VICTIMS = {"host": "the application", "driver": "the driver", "guardian": "its guardian"}
KINDS = {"plain": "a plain child", "session": "a child in its own session", "twice": "a child forked twice"}
NOTHING, LEFT = "nothing", "**the child**"
LONG_S = 20.0  # for a busy machine; the promise is two seconds
SHORT_S = 1.0  # where something is known to be left


@contextlib.contextmanager
def application(folder: Path, levels: list[str]) -> Iterator[Application]:
    """Run an application whose drivers leave children; afterwards the children are ended in any case."""
    running = Application(folder, levels)
    try:
        yield running
    finally:
        running.close()
        for case in cases(levels):
            child = folder / case.name / "child"
            if case.level != "bwrap" and child.exists() and is_alive(folder, case):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child.read_text()), signal.SIGKILL)


def is_alive(folder: Path, case: Case) -> bool:
    """Tell whether the driver or its child still holds its lock."""
    with (folder / case.name / "alive").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def is_left(folder: Path, case: Case, seconds: float) -> bool:
    """Tell whether anything is left of a driver after so long."""
    try:
        wait_until(lambda: not is_alive(folder, case), "the end of a driver's processes", seconds)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("victim", VICTIMS)
def test_the_readme_tells_what_is_left_of_a_driver(tmp_path: Path, victim: str) -> None:
    for level in LEVELS:
        require(level)
    rows = {kind: f"{VICTIMS[victim]}, {words}" for kind, words in KINDS.items()}
    promised = published("orphans", {})
    measured: dict[str, dict[str, str]] = {row: {} for row in rows.values()}
    with application(tmp_path, LEVELS) as running:
        if victim == "host":
            running.process.kill()
        else:
            for pids in running.pids.values():
                os.kill(pids[victim], signal.SIGKILL)
        for case in cases(LEVELS):
            row, column = rows[case.kind], f"`{case.level}`"
            expected = promised.get(row, {}).get(column)
            left = is_left(tmp_path, case, SHORT_S if expected == LEFT or writing() else LONG_S)
            if left or column not in measured[row]:
                measured[row][column] = LEFT if left else NOTHING

    assert measured.items() <= published("orphans", {**promised, **measured}).items()


def test_an_application_that_ends_without_closing_leaves_nothing_though_it_has_forked(tmp_path: Path) -> None:
    """The forked child lives on, with copies of whatever the application had open."""
    levels = ["process", "landlock"]
    require("landlock")
    with application(tmp_path, levels) as running:
        running.fork()
        running.exit()
        left = [case.name for case in cases(levels) if is_left(tmp_path, case, LONG_S)]

    assert left == []


def test_nothing_is_left_in_the_folder_for_temporary_files(tmp_path: Path) -> None:
    with application(tmp_path, ["process"]) as running:
        assert len(list(tmp_path.glob("kmsplug-*"))) == 6
        running.process.kill()

        wait_until(lambda: not list(tmp_path.glob("kmsplug-*")), "the drivers' folders to go")
