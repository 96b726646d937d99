"""The PKCS#11 driver conforms on each token that can be had here, to what the token was found able to do."""

import os
import sys
from pathlib import Path

import pytest
from conformance.drivers import WITHOUT_PROVIDER, failures, skipped, untried
from kmsplug_host.conformance import run
from support.tokens import TOKENS

# One of each: making long RSA keys takes long.
KINDS = (
    "AES_256_GCM", "AES_256_KW", "RSA_2048", "EC_P256", "ED25519", "HMAC_SHA_512", "ML_DSA_65", "ML_KEM_768",
)  # fmt: skip
# What depends on the token; the rest is the same everywhere, and tried on the first.
OF_THE_TOKEN = ("keys.create", "keys.public_key", "crypto", "binding", "signing", "states.purge")
COMMAND = [sys.executable, "-m", "kmsplug_plugins.pkcs11"]


@pytest.mark.parametrize("name", TOKENS)
def test_the_driver_conforms_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = name == "softhsm" or "KMSPLUG_SOAK" in os.environ
    with TOKENS[name](tmp_path) as tokens:
        for variable, value in tokens.env.items():
            monkeypatch.setenv(variable, value)
        config = {**tokens.config, "algorithms": KINDS}
        report = run(
            COMMAND, config, only=None if whole else OF_THE_TOKEN, timeout_s=120, variables=tokens.env
        )

    assert failures(report) == {}
    if name == "softhsm":
        assert untried(report) == WITHOUT_PROVIDER | {"binding.order", "signing.over_the_limit"}
    assert len(skipped(report)) < len(report.cases) / 2
