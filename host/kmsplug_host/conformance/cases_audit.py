"""Cases about all answers of a run: they run last, and look back at what `audit` kept."""

import functools
from typing import Any, Final

from kmsplug_protocol import jsonrpc

from .audit import RULES
from .bench import Bench
from .case import Case, Cases
from .verdict import Failed, check, quote

AUDIT: Final = Cases("audit")


@AUDIT.case(
    "fixed_sentence",
    "7.6-2 7.6-1",
    hint="catch what nobody expected in one place, and answer the same sentence for all of it",
)
def fixed_sentence(bench: Bench) -> None:
    """However strange a request, a defect is answered with one fixed sentence, and no value comes back."""
    canary = "canary-5e1d"
    strange: tuple[Any, ...] = (
        {"length_bytes": 1e300},
        {"length_bytes": {canary: [canary]}},
        {"key_id": {canary: canary}, "plaintext": [canary], "ciphertext": canary, "algorithm": [canary]},
        {"key_id": [], "meta": [canary], "message": {"a": canary}, "signature": 1.5, "mac": canary},
        {"limit": canary, "cursor": [canary], "calls": [canary], "set": [canary], "access_data": canary},
    )
    said = set()
    for operation in sorted({row.operation for row in bench.capabilities.rows}):
        for params in strange:
            answer = bench.session.call(operation, params)
            if answer.result is None:
                text = answer.message + str(answer.data)
                check(canary not in text, f"{operation} quotes the value that it refuses")
                if answer.number == jsonrpc.INTERNAL_ERROR:
                    said.add(answer.message)
    check(len(said) < 2, f"there are {len(said)} sentences for defects: {quote(str(sorted(said)))}")  # noqa: PLR2004


def _look_back(bench: Bench, rule: str) -> None:
    if rule in bench.budget.audit.breaches:
        raise Failed(bench.budget.audit.breaches[rule])


for _rule, _clauses, _sentence, _hint in RULES:
    _body = functools.partial(_look_back, rule=_rule)
    AUDIT.all.append(Case(f"audit.{_rule}", tuple(_clauses.split()), _sentence, _hint, (), _body))
