"""The Vault driver keeps to SPEC.md on a real OpenBao."""

import os
import sys

import pytest
from backends.openbao import OpenBao
from conformance.drivers import (
    ALIASES,
    KEMS,
    KEYSTORES,
    TESTS,
    WITHOUT_PROVIDER,
    failures,
    not_offered,
    untried,
)
from kmsplug_host.conformance import run
from support.vault import settings

# What the server does not have.
NOT_OFFERED = {
    "key.tag", "key.backup", "key.restore", "key.reconcile", "crypto.wrap_key", "crypto.unwrap_key",
    "crypto.derive", *ALIASES, *KEMS, *KEYSTORES,
}  # fmt: skip
# What there is nothing of that a case could be tried with.
ONE_WAY = {
    "session.secret_not_quoted",  # secrets stand deeper in its settings
    "keys.import", "keys.material_stays",  # under RSA_AES_KEY_WRAP_SHA_256 only: test_vault_import.py
    "versions.one_version",  # there are thresholds, not states of single versions
    "crypto.layout",  # ciphertexts have a form of the server's own
    "binding.order",  # associated data are bytes
    "signing.over_the_limit",
}  # fmt: skip


def test_with_one_kind_of_key_for_each_use_it_conforms(bao: OpenBao) -> None:
    report = run(
        [sys.executable, str(TESTS / "drivers" / "small_vault.py")],
        settings(bao),
        timeout_s=90,
        provider={**settings(bao), "address": "http://{address}"},
        wrong_login=settings(bao, token="s.of-nobody"),
    )

    assert failures(report) == {}
    assert not_offered(report) == NOT_OFFERED
    assert untried(report) == ONE_WAY | {"relabelled.swapped"}


@pytest.mark.skipif(not os.environ.get("KMSPLUG_SOAK"), reason="takes minutes; run by `make soak`")
def test_with_every_kind_of_key_it_conforms(bao: OpenBao) -> None:
    report = run([sys.executable, "-m", "kmsplug_plugins.vault_transit"], settings(bao), timeout_s=300)

    assert failures(report) == {}
    assert not_offered(report) == NOT_OFFERED
    assert untried(report) == ONE_WAY | WITHOUT_PROVIDER
