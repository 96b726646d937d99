"""The Azure driver keeps to SPEC.md, as a program, against a scripted vault and a scripted Managed HSM."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backends.azure_fake import AzureFake, azure_fake
from conformance.drivers import (
    ALIASES,
    KEMS,
    KEYSTORES,
    MACS,
    WITHOUT_PROVIDER,
    failures,
    not_offered,
    untried,
)
from kmsplug_host.conformance import CASES, Report, run
from support.azure import HSM, SECRET_LOGIN, VAULT, led_to

# What the driver leaves to the host's shims, or to nobody.
NOT_OFFERED = {
    "key.set_state", "crypto.generate_data_key", "crypto.reencrypt", "crypto.batch", "crypto.derive",
    *ALIASES, *MACS, *KEMS, *KEYSTORES,
}  # fmt: skip
NO_AES = {"crypto.layout", "binding.associated_data", "binding.nothing_bound"}
# What there is nothing of that a case could be tried with.
ONE_WAY = {
    "session.secret_not_quoted",  # secrets stand deeper in its settings
    "keys.import", "keys.material_stays",  # keys come in Azure's transfer format: tests/unit/plugins
    "versions.disabled_for_all",  # what uses a key names its version
    "binding.order",  # associated data is bytes
    "signing.over_the_limit",
}  # fmt: skip

# What does not depend on the kind of vault, tried with the Managed HSM.
ALIKE = {"session", "process", "framing", "params", "lifetime"}


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


def conformance(config: dict[str, Any], timeout_s: float = 120, **more: Any) -> Report:
    return run([sys.executable, "-m", "kmsplug_plugins.azure_keyvault"], config, timeout_s=timeout_s, **more)


def test_a_vault_conforms(fake: AzureFake) -> None:
    fake.vault.nowhere = 1  # keys that are deleted or recovered take their time
    soak = "KMSPLUG_SOAK" in os.environ
    report = conformance(VAULT, only=None if soak else {case.id for case in CASES if case.group not in ALIKE})

    assert failures(report) == {}
    assert not_offered(report) == NOT_OFFERED | {"crypto.random"}
    tried = {result.case.id for result in report.cases}
    assert untried(report) == (ONE_WAY | NO_AES | WITHOUT_PROVIDER) & tried


def test_a_managed_hsm_conforms(fake: AzureFake) -> None:
    fake.hsm.rotation_copies_tags = True
    report = conformance(
        HSM,
        provider={**HSM, "vault_url": "https://{address}"},
        wrong_login={**HSM, "login": {**SECRET_LOGIN, "client_secret": "of somebody else"}},
    )

    assert failures(report) == {}
    assert not_offered(report) == NOT_OFFERED
    assert untried(report) == ONE_WAY
