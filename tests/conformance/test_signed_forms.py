"""A driver whose provider signs one form only conforms, if its rows say so."""

import pytest
from conformance.drivers import failures
from conformance.gaps import COMMAND, SPARED
from kmsplug_host.conformance import run


@pytest.mark.parametrize("form", ["message", "digest"])
def test_a_driver_that_signs_one_form_only_conforms(form: str) -> None:
    gaps = [
        *({"operations": ["*"], "key_algorithm": algorithm} for algorithm in SPARED),
        {"operations": ["crypto.sign", "crypto.verify"], "signs": form},
    ]

    report = run(COMMAND, {"scenario": {"gap": gaps}}, timeout_s=60, only={"signing", "rows"})

    assert failures(report) == {}
    assert [each.case.id for each in report.cases if each.outcome == "passed"].count("signing.digest") == 1
