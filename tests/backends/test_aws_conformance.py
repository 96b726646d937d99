"""The AWS KMS driver conforms, against LocalStack's KMS with the repairs that README.md lists."""

import os
import sys
from typing import Any

from backends.aws import NOT_THERE, SPARED
from conformance.drivers import failures, skipped
from kmsplug_host.conformance import run

# What KMS has nothing like.
NOT_OFFERED = {
    "keys.backup",
    "states.set_state",
    "states.purge",
    "crypto.wrap",
    "crypto.batch",
    "crypto.layout",  # no row has wrap algorithm A256GCM: its ciphertexts are opaque
    "framing.limit_of_answers",  # no answer is long enough
    "keystores.provision",
    "keystores.own",
    "keystores.trust",
}
NOT_TRIED = {"signing.encapsulate"}  # ML-KEM, which LocalStack does not have


def test_the_aws_driver_conforms(aws_settings: dict[str, Any]) -> None:
    without = [*NOT_THERE] if os.environ.get("KMSPLUG_SOAK") else [*NOT_THERE, *SPARED]

    report = run(
        [sys.executable, "-m", "kmsplug_plugins.aws_kms"], {**aws_settings, "without": without}, timeout_s=120
    )

    assert failures(report) == {}
    assert {*skipped(report)} == NOT_OFFERED | NOT_TRIED
