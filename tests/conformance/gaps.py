"""The mock without one of its capabilities, and what the kit says of it then."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from conformance.drivers import failures, untried
from kmsplug_host.conformance import CASES, Report, run
from kmsplug_plugins.mock.driver import MockDriver
from kmsplug_protocol import KEYSTORE_API
from kmsplug_sdk.driver import capabilities

COMMAND: Final = [sys.executable, "-m", "kmsplug_plugins.mock"]
ROWS: Final = capabilities(MockDriver)

# Of a kind one is enough, and making RSA keys takes long.
SPARED: Final = (
    "AES_128_GCM", "RSA_2048", "RSA_3072", "RSA_4096", "EC_P384", "EC_P521", "HMAC_SHA_384", "HMAC_SHA_512",
)  # fmt: skip

# What another process would say just the same, whatever it offers.
OF_ANY_DRIVER: Final = frozenset({"framing", "process", "lifetime", "provider"})
OF_KEYS: Final = frozenset(case.group for case in CASES) - OF_ANY_DRIVER

# What is not declared is refused, and what is declared fits together.
REFUSALS: Final = frozenset(
    {"session.undeclared", "keys.undeclared_kinds", "crypto.left_out", "crypto.mismatch"}
    | {case.id for case in CASES if case.group == "rows" and case.id != "rows.steady"}
)


@dataclass(frozen=True)
class Lack:
    """What the mock is to lack: all rows that fit.

    Attributes:
        operation: One, or a pattern.
        key_algorithm: On keys of this kind only.
        mechanism: In this way only.
    """

    operation: str
    key_algorithm: str | None = None
    mechanism: str | None = None

    def gap(self) -> dict[str, Any]:
        """Return it as a scenario says it."""
        named = {"key_algorithm": self.key_algorithm, "mechanism": self.mechanism}
        return {
            "operations": [self.operation],
            **{name: value for name, value in named.items() if value is not None},
        }

    def __str__(self) -> str:
        return " ".join(filter(None, (self.operation, self.key_algorithm, self.mechanism)))


OPERATIONS: Final = tuple(Lack(operation.wire) for operation in KEYSTORE_API)
KINDS: Final = tuple(
    Lack("*", kind) for kind in sorted({row.key_algorithm for row in ROWS if row.key_algorithm is not None})
)
EACH_ROW: Final = tuple(
    dict.fromkeys(
        Lack(row.operation, row.key_algorithm, row.mechanism) for row in ROWS if row.key_algorithm is not None
    )
)


@dataclass(frozen=True)
class Found:
    """What the kit says of the mock with a lack.

    Attributes:
        failures: What failed, and why.
        untried: What was skipped for another reason than an operation that is not offered.
        tried: What passed or failed.
        left: The capabilities, as the mock declares them.
    """

    failures: dict[str, str]
    untried: set[str]
    tried: set[str]
    left: list[Lack]


def spared(but: str | None = None) -> list[dict[str, Any]]:
    """Return the gaps that save time, but for one kind."""
    return [Lack("*", kind).gap() for kind in SPARED if kind != but]


def try_mock(lack: Lack | None = None, only: Iterable[str] = OF_KEYS) -> Report:
    """Run cases on the mock."""
    gaps = spared() if lack is None else [*spared(lack.key_algorithm), lack.gap()]
    return run(COMMAND, {"scenario": {"gap": gaps}}, only=frozenset(only), timeout_s=60)


def try_without(job: tuple[Lack, frozenset[str]]) -> Found:
    """Run cases on the mock without something."""
    report = try_mock(*job)
    return Found(
        failures(report),
        untried(report),
        {result.case.id for result in report.cases if not result.detail or result in report.failed},
        [Lack(row.operation, row.key_algorithm, row.mechanism) for row in report.rows],
    )
