"""The Azure driver: keys of one Key Vault or Managed HSM, used by the service itself.

It is tried against a server of our own that speaks the service's REST interface, so every promise is marked
as documented only; `docs/drivers/azure_keyvault.md` tells what that means.
"""

from collections.abc import Sequence
from typing import ClassVar, Final

from kmsplug_protocol import (
    ConfigureResult,
    DecryptParams,
    EncryptParams,
    ErrorCode,
    HealthCheck,
    HealthDepth,
)
from kmsplug_sdk import Driver, DriverError

from ._capabilities import rows
from ._changes import Changes
from ._records import read
from ._vault import Vault
from .access_operations import AccessOperations
from .change_operations import ChangeOperations
from .config import AzureConfig
from .crypto_operations import CryptoOperations
from .import_operations import ImportOperations
from .key_operations import KeyOperations
from .lifecycle_operations import LifecycleOperations

_PROBE: Final = b"kmsplug health check"
_NETWORK: Final = ("ForbiddenByFirewall", "ForbiddenByConnection")
_FOR_EMULATORS: Final = (
    "verify_challenge_resource is off, which is for emulators: a vault of Azure needs it on"
)


class AzureKeyVaultDriver(
    KeyOperations,
    ChangeOperations,
    LifecycleOperations,
    ImportOperations,
    CryptoOperations,
    AccessOperations,
    Driver[AzureConfig],
):
    """Keys in one vault. Several processes, and several hosts, may share it."""

    name: ClassVar[str] = "azure"
    version: ClassVar[str] = "0.1.0"
    Config = AzureConfig
    max_concurrency: ClassVar[int] = 8

    def __init__(self) -> None:
        self._opened: Vault | None = None
        self._changing = Changes()

    def configure(self, config: AzureConfig, *, dry_run: bool) -> ConfigureResult:
        """Log in, and learn from a key how long the vault keeps deleted ones. Changes nothing."""
        from ._client import VaultClient  # noqa: PLC0415 - takes longer than a handshake may last

        vault = Vault(config, VaultClient(config))
        days = self._recoverable(vault)
        if dry_run:
            vault.client.close()
        else:
            self._opened, self._vault, self._recoverable_days = vault, vault, days
        return ConfigureResult(
            identity=f"azure:{config.vault_url.removeprefix('https://')}",
            key_namespace=(config.namespace,),
            capabilities=rows(config, days),
            warnings=() if config.verify_challenge_resource else (_FOR_EMULATORS,),
        )

    def health(self, depth: HealthDepth) -> Sequence[HealthCheck]:
        """Look whether the vault answers, and with a key for it, whether it encrypts and decrypts."""
        if depth is HealthDepth.SHALLOW:
            return ()
        try:
            detail = self._probe(self._vault.config.health_key)
        except DriverError as error:
            return [HealthCheck(name="vault", healthy=False, detail=f"{error.code}: {error.message}")]
        return [HealthCheck(name="vault", healthy=True, detail=detail)]

    def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            self._opened.client.close()

    def _probe(self, key_id: str | None) -> str:
        if key_id is None:
            self._vault.page("plugin.health", "/keys", 1, None)
            return "keys can be listed; set health_key to have one tried"
        sealed = self.encrypt(EncryptParams(key_id=key_id, plaintext=_PROBE))
        opened = self.decrypt(
            DecryptParams(key_id=key_id, key_version=sealed.key_version, ciphertext=sealed.ciphertext)
        )
        if bytes(opened.plaintext) != _PROBE:
            raise DriverError(ErrorCode.INTEGRITY_ERROR, "the vault opened something else than it sealed")
        return "encrypts and decrypts"

    def _recoverable(self, vault: Vault) -> int:
        try:
            items, _, _ = vault.page("plugin.configure", "/keys", 1, None)
        except DriverError as error:
            if error.code is ErrorCode.ACCESS_DENIED and _code(error) not in _NETWORK:
                return (
                    vault.config.recoverable_days
                )  # logged in, with rights to use keys and not to list them
            vault.client.close()
            raise
        told = [read(item).attributes.get("recoverableDays") for item in items]
        return next((int(days) for days in told if days), vault.config.recoverable_days)


def _code(error: DriverError) -> str | None:
    return None if error.data.vendor is None else error.data.vendor.code
