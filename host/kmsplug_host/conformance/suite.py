"""Runs the cases against a driver, one after the other, and reports. Bounded, whatever the driver does."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .bench import Bench
from .capabilities import Capabilities
from .case import Case, CaseResult, Outcome
from .cases_binding import BINDING
from .cases_crypto import CRYPTO
from .cases_framing import CLEAN_STDOUT, FRAMING
from .cases_keys import KEYS
from .cases_management import ACCESS, KEYSTORES
from .cases_reconcile import RECONCILE
from .cases_session import SESSION
from .cases_signing import SIGNING
from .cases_states import STATES
from .verdict import Failed, Skipped, quote

CASES: Final[tuple[Case, ...]] = (
    *SESSION.all,
    *FRAMING.all,
    *KEYS.all,
    *RECONCILE.all,
    *STATES.all,
    *CRYPTO.all,
    *BINDING.all,
    *SIGNING.all,
    *ACCESS.all,
    *KEYSTORES.all,
    *CLEAN_STDOUT.all,
)
"""Every case, in the order in which they run: the first opens a session, the last looks back at all."""

DEFAULT_TIMEOUT_S: Final = 30.0  # a case may make several RSA keys

_OPENS: Final = CASES[0]


@dataclass(frozen=True, slots=True)
class Report:
    """How a driver did.

    Attributes:
        driver: Its name, version and protocol version; empty where it did not say.
        cases: How each case went, in order.
    """

    driver: Mapping[str, str]
    cases: tuple[CaseResult, ...]

    @property
    def failed(self) -> tuple[CaseResult, ...]:
        """The cases that failed."""
        return tuple(result for result in self.cases if result.outcome is Outcome.FAILED)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        counts = Counter(result.outcome for result in self.cases)
        return {
            "driver": dict(self.driver),
            "cases": [result.as_json() for result in self.cases],
            "summary": {outcome.value: counts[outcome] for outcome in Outcome} | {"total": len(self.cases)},
        }


def run(
    command: Sequence[str],
    config: Mapping[str, Any] | None = None,
    *,
    on_case: Callable[[CaseResult], None] | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    only: Collection[str] | None = None,
) -> Report:
    """Try a driver in every way that SPEC.md asks for.

    It makes keys in the keystore that *config* names, and schedules their deletion at the end where the
    driver offers that. When it returns, every process that it started has been killed, with its group.

    Args:
        command: The driver's executable and arguments.
        config: The settings to hand over; default: none.
        on_case: Called after each case.
        timeout_s: How long one case may take.
        only: Ids of cases, or of groups; the first case always runs. Default: all.

    Returns:
        How each case went.
    """
    bench = Bench(command, config or {}, timeout_s)
    results: list[CaseResult] = []
    wanted = [case for case in CASES if only is None or case is _OPENS or {case.id, case.group} & {*only}]
    try:
        for case in wanted:
            opened = not results or results[0].outcome is Outcome.PASSED
            result = _try(case, bench) if opened else _without_session(case)
            results.append(result)
            if on_case is not None:
                on_case(result)
    finally:
        bench.close()
    return Report(_driver(bench), tuple(results))


def _try(case: Case, bench: Bench) -> CaseResult:
    if (missing := _missing(case, bench.capabilities)) is not None:
        return CaseResult(case, Outcome.SKIPPED, missing)
    began = time.monotonic()
    bench.begin()
    try:
        case.body(bench)
        bench.settle()
    except Skipped as reason:
        outcome, detail = Outcome.SKIPPED, str(reason)
    except Failed as reason:
        outcome, detail = Outcome.FAILED, str(reason)
        bench.close_shared()  # whatever is on its way in that session must not disturb the next case
    else:
        outcome, detail = Outcome.PASSED, ""
    return CaseResult(case, outcome, detail, time.monotonic() - began)


def _missing(case: Case, found: Capabilities) -> str | None:
    return next((need.reason for need in case.needs if not need.met(found)), None)


def _without_session(case: Case) -> CaseResult:
    return CaseResult(case, Outcome.SKIPPED, f"{_OPENS.id} failed")


def _driver(bench: Bench) -> dict[str, str]:
    if not hasattr(bench, "hello"):
        return {}
    hello = bench.hello
    return {
        "name": quote(hello.driver.name, 128),
        "version": quote(hello.driver.version, 64),
        "protocol_version": quote(hello.protocol_version, 64),
    }
