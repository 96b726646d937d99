"""The mock conforms, and so does it with any of its capabilities taken away: what it lacks it refuses.

With each operation and each kind of keys away, what concerns them is tried here; everything, and each row,
with ``KMSPLUG_SOAK=1``, as ``make soak`` does.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conformance.drivers import failures, untried
from conformance.gaps import (
    COMMAND,
    EACH_ROW,
    KINDS,
    OF_KEYS,
    OPERATIONS,
    REFUSALS,
    Found,
    Lack,
    spared,
    try_mock,
    try_without,
)
from kmsplug_host.conformance import CASES, Report, run
from support.ahead import ahead

SOAK = bool(os.environ.get("KMSPLUG_SOAK"))
Without = Callable[[tuple[Lack, frozenset[str]]], Found]

# Each process has keys of its own, and what is bound are bytes.
ONE_WAY = {
    "session.secret_not_quoted", "keys.same_keystore", "binding.order",
    "signing.other_mechanism", "signing.over_the_limit",
}  # fmt: skip
# Where nothing is left that opens in another way, or by RSA or key wrap.
OPENED_IN_ONE_WAY = {"relabelled.swapped", "relabelled.withheld"}
KEPT = ("lifetime", "provider")
EVERYTHING = frozenset(case.group for case in CASES)
OF_A_ROW = OF_KEYS - {"session"} | REFUSALS


@pytest.fixture(scope="module")
def whole() -> Report:
    """The whole kit on the mock, with one kind of key for each use."""
    return try_mock(only=EVERYTHING)


def concerned(whole: Report, operation: str) -> frozenset[str]:
    """Return the cases in which an operation is asked for, but for those that ask for all of them."""
    cases = {
        result.case.id
        for result in whole.cases
        if operation in result.asked and len(result.asked) < len(OPERATIONS) / 2
    }
    return REFUSALS | {case for case in cases if case.partition(".")[0] in OF_KEYS - {"session"}}


def test_with_one_kind_of_key_for_each_use_it_conforms_and_leaves_nearly_no_case_untried(
    whole: Report,
) -> None:
    assert failures(whole) == {}
    assert {
        case for case in untried(whole) if case.partition(".")[0] not in ("lifetime", "provider")
    } == ONE_WAY


@pytest.fixture(scope="module")
def without(whole: Report) -> Iterator[Without]:
    operations = [(lack, EVERYTHING if SOAK else concerned(whole, lack.operation)) for lack in OPERATIONS]
    kinds = [(lack, EVERYTHING if SOAK else REFUSALS) for lack in KINDS]
    rows = [(lack, OF_A_ROW) for lack in EACH_ROW] if SOAK else []
    with ahead(try_without, [*operations, *kinds, *rows]) as found:
        yield found


@pytest.mark.parametrize("lack", OPERATIONS, ids=str)
def test_without_an_operation_it_refuses_that_and_does_all_else(
    lack: Lack, whole: Report, without: Without
) -> None:
    cases = EVERYTHING if SOAK else concerned(whole, lack.operation)

    found = without((lack, cases))

    assert found.failures == {}
    assert lack.operation not in {row.operation for row in found.left}
    assert "session.undeclared" in found.tried
    assert found.untried <= untried(whole) | OPENED_IN_ONE_WAY


@pytest.mark.parametrize("lack", KINDS, ids=str)
def test_without_a_kind_of_keys_it_refuses_those_and_does_all_else(lack: Lack, without: Without) -> None:
    found = without((lack, EVERYTHING if SOAK else REFUSALS))

    assert found.failures == {}
    assert lack.key_algorithm not in {row.key_algorithm for row in found.left}
    assert "keys.undeclared_kinds" in found.tried


if SOAK:

    @pytest.mark.parametrize("lack", EACH_ROW, ids=str)
    def test_without_a_row_it_refuses_what_that_promised_and_does_all_else(
        lack: Lack, without: Without
    ) -> None:
        found = without((lack, OF_A_ROW))

        assert found.failures == {}
        assert lack not in found.left


@pytest.mark.parametrize(
    "gap",
    [
        {"operations": ["key.rotate", "key.reconcile", "keystore.*"]},
        {"operations": ["crypto.generate_data_key", "crypto.wrap_key", "crypto.reencrypt", "crypto.random"]},
        {"operations": ["crypto.*"], "associated_data": "none"},
        {"operations": ["crypto.encrypt"], "max_input_bytes": 100},
        {"operations": ["crypto.wrap_key", "crypto.unwrap_key"], "mechanism": "AES_256_KW"},
    ],
    ids=["operations", "crypto", "associated-data", "limit", "mechanism"],
)
def test_with_a_gap_it_conforms_to_what_is_left(gap: dict[str, Any]) -> None:
    report = run(COMMAND, {"scenario": {"gap": [*spared(), gap]}}, timeout_s=60, only=OF_A_ROW)

    assert failures(report) == {}
    assert len(untried(report)) < len(report.cases) / 2
