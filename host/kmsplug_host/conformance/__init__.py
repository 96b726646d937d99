"""Checks any driver, in any language, against protocol/SPEC.md: black-box, over the wire, two keys of a kind.

What a driver declares has to work in full; what it does not declare has to be refused with the typed error.

>>> from kmsplug_host.conformance import run
>>> report = run(["my-driver"], {"address": "https://vault.example"})
>>> [result.case.sentence for result in report.failed]
[]
"""

from .case import Case, CaseResult, Outcome
from .report import junit, markdown
from .suite import CASES, DEFAULT_TIMEOUT_S, Report, run, selected

__all__ = [
    "CASES",
    "DEFAULT_TIMEOUT_S",
    "Case",
    "CaseResult",
    "Outcome",
    "Report",
    "junit",
    "markdown",
    "run",
    "selected",
]
