"""The mock driver conforms, and so does it with what a scenario takes away; whole by ``make conformance``."""

import sys
from typing import Any

import pytest
from conformance.drivers import failures, skipped
from kmsplug_host.conformance import CASES, run

COMMAND = [sys.executable, "-m", "kmsplug_plugins.mock"]

# Of a kind one is enough, and making RSA keys takes long.
SPARED: list[dict[str, Any]] = [
    {"operations": ["*"], "key_algorithm": algorithm}
    for algorithm in (
        "AES_128_GCM", "RSA_2048", "RSA_3072", "RSA_4096", "EC_P384", "EC_P521", "HMAC_SHA_384",
        "HMAC_SHA_512",
    )
]  # fmt: skip

# What the whole run tries already, whatever is offered.
OF_KEYS = {case.group for case in CASES} - {"framing", "process", "hostile", "lifetime", "provider"}


def test_with_one_kind_of_key_for_each_use_it_conforms_and_leaves_nearly_no_case_untried() -> None:
    report = run(COMMAND, {"scenario": {"gap": SPARED}}, timeout_s=60)

    assert failures(report) == {}
    # It has every operation, each process has keys of its own, and what is bound are bytes.
    assert {case for case in skipped(report) if case.partition(".")[0] not in ("lifetime", "provider")} == {
        "session.undeclared",
        "session.secret_not_quoted",
        "keys.same_keystore",
        "binding.order",
        "signing.other_mechanism",
        "signing.over_the_limit",
    }


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
    report = run(COMMAND, {"scenario": {"gap": [*SPARED, gap]}}, timeout_s=60, only=OF_KEYS)

    assert failures(report) == {}
    assert len(skipped(report)) < len(report.cases) / 2
