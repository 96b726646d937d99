"""The kit is tested by drivers that are broken in one way each: each fails the case that has to notice it.

Each is tried on its own cases here. On all cases, of which none may fail that stands on other clauses only:
``KMSPLUG_SOAK=1``, as ``make soak`` does.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conformance.broken import CLAUSES, FAILED_BY_SOURCE, MUTATED, Broken, failures_of, zygote
from conformance.drivers import failures, try_file
from conformance.mutant import Mutant as Between
from conformance.mutations import ANSWERS, REQUESTS
from conformance.patches import PATCHES
from conformance.source_mutants import BY_SOURCE, LICENCES, Mutant
from kmsplug_host.conformance import CASES
from support.ahead import ahead

EACH = [Broken(by) for by in (*BY_SOURCE, *MUTATED)]
ON_ALL = [Broken(broken.by, whole=True) for broken in EACH] if os.environ.get("KMSPLUG_SOAK") else []
Found = Callable[[Broken], dict[str, str]]


@pytest.fixture(scope="module")
def found() -> Iterator[Found]:
    with zygote(), ahead(failures_of, [*EACH, *ON_ALL]) as of:
        yield of


def test_every_case_has_a_driver_that_is_broken_for_it() -> None:
    by_hand = {
        name.partition("_")[2].replace("_", ".", 1)
        for name in dir(Between)
        if name.startswith(("line_", "request_", "answer_"))
    }
    in_the_process = {
        "session.end_of_stdin_with_requests", "session.sigterm", "process.anywhere",
        "process.bare_environment", "process.ctrl_c", "process.stray_signals", "process.sigterm_at_work",
        "process.no_core_dump",
        "process.bounded_memory", "framing.unfinished_line",
    }  # fmt: skip

    assert {*MUTATED} == {*ANSWERS, *REQUESTS, *PATCHES} | by_hand | in_the_process
    assert {*MUTATED} | FAILED_BY_SOURCE == {case.id for case in CASES}


@pytest.mark.parametrize("broken", EACH, ids=str)
def test_a_broken_driver_fails_its_own_cases(broken: Broken, found: Found) -> None:
    assert found(broken).keys() == broken.own


if ON_ALL:

    @pytest.mark.parametrize("broken", ON_ALL, ids=str)
    def test_a_broken_driver_fails_no_case_of_another_clause(broken: Broken, found: Found) -> None:
        failed = found(broken)

        clauses = {clause for case in broken.own for clause in CLAUSES[case]}
        assert broken.own <= failed.keys()
        assert {case: why for case, why in failed.items() if not CLAUSES[case] & clauses} == {}


@pytest.mark.parametrize(("source", "licence"), LICENCES, ids=[licence.does for _, licence in LICENCES])
def test_a_driver_may_have(source: Path, licence: Mutant, tmp_path: Path) -> None:
    driver = tmp_path / source.name
    driver.write_text(licence.changed(source), encoding="utf-8")

    report = try_file(driver, only=licence.fails.split(), timeout_s=10)

    assert failures(report) == {}
