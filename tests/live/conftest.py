"""One server for all tests that change nothing of it but keys; others start their own."""

from collections.abc import Iterator

import pytest
from backends.openbao import OpenBao, openbao
from kmsplug_plugins.vault_transit.driver import VaultTransitDriver
from kmsplug_sdk.testing import DriverClient, run_driver
from support.vault import Vault, settings


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with openbao(tmp_path_factory.mktemp("openbao")) as server:
        server.api("POST", "transit/config/keys", {"disable_upsert": True})
        yield server


@pytest.fixture(scope="session")
def client(bao: OpenBao) -> Iterator[DriverClient]:
    with run_driver(VaultTransitDriver, settings(bao)) as running:
        yield running


@pytest.fixture
def vault(client: DriverClient) -> Vault:
    return Vault(client)
