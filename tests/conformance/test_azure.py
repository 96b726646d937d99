"""The Azure driver keeps to SPEC.md, as a program, against a scripted vault and a scripted Managed HSM."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backends.azure_fake import AzureFake, azure_fake
from conformance.drivers import failures, skipped
from kmsplug_host.conformance import CASES, Report, run
from support.azure import HSM, VAULT, led_to

# What the driver leaves to the host's shims, or to nobody.
NOT_OFFERED = {
    "keys.alias", "keys.import", "states.set_state", "crypto.data_key", "crypto.reencrypt", "crypto.batch",
    "binding.order", "signing.mac", "signing.mac_mismatch", "signing.encapsulate", "signing.derive",
    "keystores.provision", "keystores.own", "keystores.trust",
}  # fmt: skip
NO_AES = {"crypto.layout", "crypto.random", "binding.associated_data", "binding.nothing_bound"}

# Lines and phases are the SDK's part, which is tried with other drivers.
OF_A_DRIVER = {case.id for case in CASES if case.group not in ("framing", "session")}
# Where a Managed HSM does something that a vault does not.
OF_AES = {case.id for case in CASES if case.group == "binding"} | {
    "crypto.layout", "crypto.round_trip", "crypto.one_sentence", "crypto.wrap", "crypto.random",
    "crypto.over_the_limit", "states.rotate", "keys.create", "keys.public_key",
}  # fmt: skip


def test_a_vault_of_somebody_else_conforms() -> None:
    """Any vault that can be had: an account's, or an emulator's. Keys are left in it, deleted."""
    settings = os.environ.get("KMSPLUG_AZURE_CONFIG")
    if settings is None:
        pytest.skip("AZURE NOT CHECKED: set KMSPLUG_AZURE_CONFIG to a JSON file with the driver's settings")
    config = json.loads(Path(settings).read_text(encoding="utf-8"))

    assert failures(conformance(config, timeout_s=900)) == {}


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureFake]:
    with azure_fake(tmp_path_factory.mktemp("azure")) as running, led_to(running):
        yield running


def conformance(config: dict[str, Any], only: set[str] | None = None, timeout_s: float = 120) -> Report:
    return run(
        [sys.executable, "-m", "kmsplug_plugins.azure_keyvault"], config, only=only, timeout_s=timeout_s
    )


def test_a_vault_conforms(fake: AzureFake) -> None:
    fake.vault.nowhere = 1  # keys that are deleted or recovered take their time
    report = conformance(VAULT, OF_A_DRIVER)

    assert failures(report) == {}
    assert skipped(report).keys() >= NOT_OFFERED | NO_AES


def test_a_managed_hsm_conforms_in_what_a_vault_does_not_have(fake: AzureFake) -> None:
    fake.hsm.rotation_copies_tags = True
    report = conformance(HSM, OF_AES)

    assert failures(report) == {}
    assert skipped(report).keys() >= NOT_OFFERED & OF_AES
