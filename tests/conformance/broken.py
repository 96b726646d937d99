"""What the kit says of a broken driver: one that breaks the rule of a case, or that has a wrong source."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conformance.drivers import failures, try_file
from conformance.source_mutants import BY_SOURCE, EVERYTHING
from conformance.zygote import ZYGOTE
from kmsplug_host.conformance import CASES, Report, run

MUTANT: Final = str(Path(__file__).with_name("mutant.py"))
CLAUSES: Final = {case.id: {*case.clauses} for case in CASES}

FAILED_BY_SOURCE: Final = {case for _, mutant in BY_SOURCE.values() for case in mutant.fails.split()}
MUTATED: Final = tuple(case.id for case in CASES if case.id not in FAILED_BY_SOURCE)
"""The cases for which `mutant.py` breaks a rule."""

PATIENCE_S: Final = 10.0  # some do not end, and only waiting shows it
WHOLE_PATIENCE_S: Final = 20.0
UNBROKEN: Final = "nothing"  # no case: lines are passed on as they are
# Where nobody minds the code of an error, and what is kept of the whole run is looked at.
STRANGE: Final = "audit.fixed_sentence"


@dataclass(frozen=True)
class Broken:
    """A driver that is broken in one way.

    Attributes:
        by: The case whose rule it breaks, or what its source does wrong.
        whole: Whether it is tried on every case; else on its own.
    """

    by: str
    whole: bool = False

    @property
    def own(self) -> set[str]:
        """The cases that have to fail."""
        return {*BY_SOURCE[self.by][1].fails.split()} if self.by in BY_SOURCE else {self.by}

    def __str__(self) -> str:
        return self.by


@contextlib.contextmanager
def zygote() -> Iterator[None]:
    """Keep the good driver imported, so that mutants of it start at once: in processes started meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, MUTANT, "--zygote", f"{folder}/socket"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            os.environ[ZYGOTE] = f"{folder}/socket"
            try:
                yield
            finally:
                del os.environ[ZYGOTE]
                process.stdin.close()


def failures_of(broken: Broken) -> dict[str, str]:
    """Run the kit on a broken driver and return what failed, and why."""
    only = None if broken.whole else {*broken.own}
    if only is not None and broken.by.startswith("audit."):
        only.add(STRANGE)
    timeout_s = WHOLE_PATIENCE_S if broken.whole else PATIENCE_S
    source, mutant = BY_SOURCE.get(broken.by, (EVERYTHING, None))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if mutant is not None and source != EVERYTHING:
            driver = folder / source.name
            driver.write_text(mutant.changed(source), encoding="utf-8")
            return failures(try_file(driver, only=only, timeout_s=timeout_s))
        return failures(try_behind(broken.by, folder, only, timeout_s))


def try_behind(by: str, folder: Path, only: Collection[str] | None, timeout_s: float) -> Report:
    """Run the kit on the driver with every operation, behind a mutant."""
    return run(
        [sys.executable, "-S", "-E", MUTANT, "--mutate", by],
        {"state": str(folder / "state"), "pin": "canary-pin-1234"},
        only=only,
        timeout_s=timeout_s,
        provider={"url": "http://{address}/"},
        wrong_login={"pin": "wrong"},
    )
