"""What tests of the Azure driver share: its settings, and sessions with it beside the scripted Azure."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from backends.azure_entra import CLIENT, TENANT
from backends.azure_fake import AzureFake
from backends.azure_vault import HSM_HOST, VAULT_HOST
from kmsplug_plugins.azure_keyvault.driver import AzureKeyVaultDriver
from kmsplug_protocol import encode_frame, jsonrpc
from kmsplug_sdk.testing import DriverClient, run_driver

SECRET_LOGIN: Final = {
    "method": "client_secret",
    "tenant_id": TENANT,
    "client_id": CLIENT,
    "client_secret": "an-application-secret",
}


def workload(token_file: Path) -> dict[str, Any]:
    """Return the login with the platform's token in a file."""
    return {
        "method": "workload_identity",
        "tenant_id": TENANT,
        "client_id": CLIENT,
        "token_file": str(token_file),
    }


VAULT: Final[dict[str, Any]] = {"vault_url": f"https://{VAULT_HOST}", "login": SECRET_LOGIN}
HSM: Final[dict[str, Any]] = {
    "vault_url": f"https://{HSM_HOST}",
    "kind": "managed_hsm",
    "login": SECRET_LOGIN,
}


@contextlib.contextmanager
def led_to(fake: AzureFake, **more: str) -> Iterator[None]:
    """Let this process, and those that it starts, reach the scripted Azure and nothing else."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("AZURE_", "IDENTITY_", "MSI_")):
            del os.environ[name]
    os.environ.update({**fake.environment, **more})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Session:
    """A configured driver; methods are the wire's, answers are results or errors."""

    def __init__(self, client: DriverClient) -> None:
        self._client = client
        self._begun = itertools.count()

    def ask(self, method: str, /, **params: Any) -> dict[str, Any]:
        """Return the result of a request that has to succeed."""
        answer = self._client.call(method, params)
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    def refused(self, method: str, /, **params: Any) -> dict[str, Any]:
        """Return the data of the error that a request has to be refused with."""
        answer = self._client.call(method, params)
        assert "error" in answer, answer["result"]
        return {"message": answer["error"]["message"], **answer["error"]["data"]}

    def begin(self, method: str, /, **params: Any) -> None:
        """Send a request, and go on."""
        self._client.send(encode_frame(jsonrpc.request(method, params, f"begun-{next(self._begun)}")))

    def end(self) -> dict[str, Any]:
        """Return the next response to a request that was begun."""
        answer = self._client.receive()
        assert str(answer["id"]).startswith("begun-")
        return answer

    def make(
        self, algorithm: str = "RSA_2048", usage: str = "ENCRYPT_DECRYPT", **members: Any
    ) -> dict[str, Any]:
        """Make a key."""
        return self.ask("key.create", algorithm=algorithm, usage=usage, **members)


@contextlib.contextmanager
def session(config: dict[str, Any] = VAULT, **more: Any) -> Iterator[Session]:
    """Run the driver in this process."""
    with run_driver(AzureKeyVaultDriver, {**config, **more}) as client:
        yield Session(client)
