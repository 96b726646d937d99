"""The AWS KMS driver conforms, against LocalStack's KMS with the repairs that README.md lists."""

import os
import sys
from typing import Any

from backends.aws import NOT_THERE, SPARED
from conformance.drivers import failures, skipped, untried
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
# What there is one of only, or none that two cases need together.
ONE_WAY = {
    "session.secret_not_quoted",  # secrets stand deeper in its settings
    "versions.public_key",
    "crypto.layout",
    "relabelled.swapped",
    "signing.over_the_limit",
}
NOT_TRIED = {"signing.encapsulate"}  # ML-KEM, which LocalStack does not have


def test_the_aws_driver_conforms(aws_settings: dict[str, Any]) -> None:
    without = [*NOT_THERE] if os.environ.get("KMSPLUG_SOAK") else [*NOT_THERE, *SPARED]

    report = run(
        [sys.executable, "-m", "kmsplug_plugins.aws_kms"],
        {**aws_settings, "without": without},
        timeout_s=120,
        provider={**aws_settings, "endpoint": "http://{address}"},
    )

    assert failures(report) == {}
    assert {*skipped(report)} >= NOT_OFFERED | NOT_TRIED
    assert untried(report) == ONE_WAY
