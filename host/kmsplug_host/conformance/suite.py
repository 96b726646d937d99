"""Runs the cases against a driver, one after the other, and reports. Bounded, whatever the driver does."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kmsplug_protocol import Capability

from .bench import Bench
from .capabilities import Capabilities
from .case import Case, CaseResult, Outcome
from .cases_audit import AUDIT
from .cases_binding import BINDING
from .cases_crypto import CRYPTO
from .cases_framing import CLEAN_STDOUT, FRAMING
from .cases_hostile import HOSTILE
from .cases_import import IMPORTED
from .cases_keys import KEYS
from .cases_labels import LABELS
from .cases_left_out import LEFT_OUT
from .cases_lifetime import LIFETIME
from .cases_management import ACCESS, KEYSTORES
from .cases_params import PARAMS
from .cases_process import PROCESS
from .cases_provider import PROVIDER
from .cases_reconcile import RECONCILE
from .cases_relabelled import RELABELLED
from .cases_rows import ROWS
from .cases_session import SESSION
from .cases_signing import SIGNING
from .cases_states import STATES
from .cases_versions import VERSIONS
from .verdict import Failed, Skipped, quote

CASES: Final[tuple[Case, ...]] = (
    *SESSION.all,
    *ROWS.all,
    *PROCESS.all,
    *FRAMING.all,
    *KEYS.all,
    *LABELS.all,
    *IMPORTED.all,
    *PARAMS.all,
    *HOSTILE.all,
    *RECONCILE.all,
    *STATES.all,
    *VERSIONS.all,
    *CRYPTO.all,
    *LEFT_OUT.all,
    *BINDING.all,
    *RELABELLED.all,
    *SIGNING.all,
    *LIFETIME.all,
    *ACCESS.all,
    *KEYSTORES.all,
    *PROVIDER.all,
    *AUDIT.all,
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
        rows: Its capabilities, as probed.
    """

    driver: Mapping[str, str]
    cases: tuple[CaseResult, ...]
    rows: tuple[Capability, ...] = ()

    @property
    def failed(self) -> tuple[CaseResult, ...]:
        """The cases that failed."""
        return tuple(result for result in self.cases if result.outcome is Outcome.FAILED)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        counts = Counter(result.outcome for result in self.cases)
        return {
            "driver": dict(self.driver),
            "capabilities": [row.model_dump(mode="json", exclude_defaults=True) for row in self.rows],
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
    provider: Mapping[str, Any] | None = None,
    wrong_login: Mapping[str, Any] | None = None,
    variables: Collection[str] = (),
    strict: bool = False,
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
        provider: Settings in which ``{address}`` stands for the address of a provider, which is played here:
            a sick one. Default: cases about that are skipped.
        wrong_login: Settings whose login the provider rejects. Default: that is not tried.
        variables: Names of environment variables that a vendor's library needs; the driver needs no others.
        strict: A case fails in which anything but responses came over stdout; else only the last case tells.

    Returns:
        How each case went.
    """
    bench = Bench(
        command, config or {}, timeout_s, provider=provider, wrong_login=wrong_login, variables=variables
    )
    results: list[CaseResult] = []
    try:
        for case in selected(only):
            opened = not results or results[0].outcome is Outcome.PASSED
            result = _try(case, bench, strict=strict) if opened else _without_session(case)
            results.append(result)
            if on_case is not None:
                on_case(result)
    finally:
        bench.close()
    return Report(_driver(bench), tuple(results), bench.capabilities.rows)


def selected(only: Collection[str] | None) -> list[Case]:
    """Return the cases that `run` tries: those that are named by id or group, and always the first."""
    return [case for case in CASES if only is None or case is _OPENS or {case.id, case.group} & {*only}]


def _try(case: Case, bench: Bench, *, strict: bool) -> CaseResult:
    if (missing := _missing(case, bench.capabilities)) is not None:
        return CaseResult(case, Outcome.SKIPPED, missing)
    began = time.monotonic()
    bench.begin()
    strays = len(bench.budget.strays)
    try:
        case.body(bench)
        bench.settle()
        if strict:
            _no_more_strays(bench, strays)
    except Skipped as reason:
        outcome, detail = Outcome.SKIPPED, str(reason)
    except Failed as reason:
        outcome, detail = Outcome.FAILED, str(reason)
        bench.close_shared()  # whatever is on its way in that session must not disturb the next case
    except Exception as error:  # noqa: BLE001 - a driver can answer what no case foresaw
        said = quote(f"{type(error).__name__}: {error}")
        outcome, detail = Outcome.FAILED, f"no sense could be made of an answer ({said})"
        bench.close_shared()
    else:
        outcome, detail = Outcome.PASSED, ""
    return CaseResult(case, outcome, detail, time.monotonic() - began, frozenset(bench.budget.asked))


def _no_more_strays(bench: Bench, before: int) -> None:
    if len(bench.budget.strays) > before:
        raise Failed(f"on stdout came a line that is no response: {bench.budget.strays[before]!r}")


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
