"""The Vault driver keeps to SPEC.md on a real OpenBao."""

import os
import sys

import pytest
from backends.openbao import OpenBao
from conformance.drivers import TESTS, failures, skipped
from kmsplug_host.conformance import run
from support.vault import settings

# What the server does not have, or has in a form of its own.
NOT_OFFERED = {
    "keys.alias",
    "keys.tags",
    "keys.backup",
    "keys.import",  # under RSA_AES_KEY_WRAP_SHA_256 only: tested in test_vault_import.py
    "reconcile.create",
    "reconcile.rotate",
    "reconcile.in_progress",
    "reconcile.unknown",
    "crypto.layout",
    "crypto.wrap",
    "binding.order",
    "signing.encapsulate",
    "signing.derive",
    "keystores.provision",
    "keystores.own",
    "keystores.trust",
}


def test_with_one_kind_of_key_for_each_use_it_conforms(bao: OpenBao) -> None:
    report = run([sys.executable, str(TESTS / "drivers" / "small_vault.py")], settings(bao), timeout_s=90)

    assert failures(report) == {}
    assert {*skipped(report)} >= NOT_OFFERED


@pytest.mark.skipif(not os.environ.get("KMSPLUG_SOAK"), reason="takes minutes; run by `make soak`")
def test_with_every_kind_of_key_it_conforms(bao: OpenBao) -> None:
    report = run([sys.executable, "-m", "kmsplug_plugins.vault_transit"], settings(bao), timeout_s=300)

    assert failures(report) == {}
    assert {*skipped(report)} >= NOT_OFFERED
