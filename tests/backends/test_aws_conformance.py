"""The AWS KMS driver conforms, against LocalStack's KMS with the repairs that README.md lists."""

import os
import sys
from typing import Any

from backends.aws import NOT_THERE, SPARED
from conformance.drivers import KEMS, KEYSTORES, LOGIN, failures, not_offered, untried
from kmsplug_host.conformance import run

# What KMS has nothing like, or LocalStack: it has no ML-KEM.
NOT_OFFERED = {
    "key.set_state", "key.backup", "key.restore", "key.purge", "crypto.wrap_key", "crypto.unwrap_key",
    "crypto.batch", *KEMS, *KEYSTORES,
}  # fmt: skip
# What there is one of only, or none that two cases need together.
ONE_WAY = {
    "session.secret_not_quoted",  # secrets stand deeper in its settings
    "versions.public_key",
    "crypto.layout",  # no row has wrap algorithm A256GCM: its ciphertexts are opaque
    "relabelled.swapped",
    "signing.over_the_limit",
}


def test_the_aws_driver_conforms(aws_settings: dict[str, Any]) -> None:
    without = [*NOT_THERE] if os.environ.get("KMSPLUG_SOAK") else [*NOT_THERE, *SPARED]

    report = run(
        [sys.executable, "-m", "kmsplug_plugins.aws_kms"],
        {**aws_settings, "without": without},
        timeout_s=120,
        provider={**aws_settings, "endpoint": "http://{address}"},
    )

    assert failures(report) == {}
    assert not_offered(report) == NOT_OFFERED
    assert untried(report) == ONE_WAY | {LOGIN}
