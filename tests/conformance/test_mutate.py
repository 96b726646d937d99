"""The kit is tested by drivers that are broken in one way each: `mutant.py --mutate CASE` fails that case.

Each is tried on its own case here. On all cases, of which none may fail that stands on other clauses only:
``KMSPLUG_SOAK=1``, as ``make soak`` does.
"""

import os
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from conformance.drivers import failures
from conformance.mutant import ZYGOTE, Mutant
from conformance.mutations import ANSWERS, REQUESTS
from conformance.patches import PATCHES
from conformance.test_mutants import EVERYTHING_MUTANTS, MANAGING_MUTANTS, PLAIN_MUTANTS
from kmsplug_host.conformance import CASES, Report, run

MUTANT = str(Path(__file__).with_name("mutant.py"))
BY_SOURCE = {
    case
    for mutant in (*PLAIN_MUTANTS, *EVERYTHING_MUTANTS, *MANAGING_MUTANTS)
    for case in mutant.fails.split()
}
MUTATED = [case.id for case in CASES if case.id not in BY_SOURCE]
CLAUSES = {case.id: {*case.clauses} for case in CASES}

PATIENCE_S = 10.0  # some do not end, and only waiting shows it
# Where nobody minds the code of an error, and what is kept of the whole run is looked at.
STRANGE = "audit.fixed_sentence"


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the good driver imported, so that a mutant of it starts at once."""
    path = tmp_path_factory.mktemp("zygote") / "socket"
    command = [sys.executable, MUTANT, "--zygote", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.environ[ZYGOTE] = str(path)
        try:
            yield
        finally:
            del os.environ[ZYGOTE]
            assert process.stdin is not None
            process.stdin.close()


def try_mutant(case: str, folder: Path, only: Collection[str] | None, timeout_s: float) -> Report:
    return run(
        [sys.executable, "-S", "-E", MUTANT, "--mutate", case],
        {"state": str(folder / "state"), "pin": "canary-pin-1234"},
        only=only,
        timeout_s=timeout_s,
        provider={"url": "http://{address}/"},
        wrong_login={"pin": "wrong"},
    )


def test_every_case_has_a_driver_that_is_broken_for_it() -> None:
    by_hand = {
        name.partition("_")[2].replace("_", ".", 1)
        for name in dir(Mutant)
        if name.startswith(("line_", "request_", "answer_"))
    }
    in_the_process = {
        "session.end_of_stdin_with_requests", "session.sigterm", "process.anywhere",
        "process.bare_environment", "process.ctrl_c", "process.stray_signals", "process.sigterm_at_work",
        "process.no_core_dump",
        "process.bounded_memory", "framing.unfinished_line",
    }  # fmt: skip

    assert {*MUTATED} == {*ANSWERS, *REQUESTS, *PATCHES} | by_hand | in_the_process
    assert {*MUTATED} | BY_SOURCE == {case.id for case in CASES}


@pytest.mark.parametrize("case", MUTATED)
def test_a_driver_that_is_broken_for_a_case_fails_it(case: str, zygote: None, tmp_path: Path) -> None:
    only = [case, STRANGE] if case.startswith("audit.") else [case]

    report = try_mutant(case, tmp_path, only, PATIENCE_S)

    assert failures(report).keys() == {case}


if os.environ.get("KMSPLUG_SOAK"):

    @pytest.mark.parametrize("case", MUTATED)
    def test_a_driver_that_is_broken_for_a_case_fails_none_of_another_clause(
        case: str, zygote: None, tmp_path: Path
    ) -> None:
        report = try_mutant(case, tmp_path, None, 20)

        found = failures(report)
        assert case in found
        assert {other: why for other, why in found.items() if not CLAUSES[other] & CLAUSES[case]} == {}
