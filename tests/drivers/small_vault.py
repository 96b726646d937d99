"""The Vault driver with one kind of key for each use: making RSA keys of all sizes takes a minute."""

from kmsplug_plugins.vault_transit._capabilities import CREATE
from kmsplug_plugins.vault_transit.config import VaultConfig
from kmsplug_plugins.vault_transit.driver import VaultTransitDriver
from kmsplug_protocol import ConfigureResult, CreateKeyParams, ErrorCode, Key, KeyAlgorithm, Mechanism
from kmsplug_sdk import DriverError, serve
from kmsplug_sdk.driver import capabilities, provides_each

_LEFT_OUT = {
    KeyAlgorithm.AES_128_GCM,
    KeyAlgorithm.RSA_3072,
    KeyAlgorithm.RSA_4096,
    KeyAlgorithm.EC_P384,
    KeyAlgorithm.HMAC_SHA_384,
    KeyAlgorithm.HMAC_SHA_512,
}
_ALIKE = {
    Mechanism.RSA_PSS_SHA_384,
    Mechanism.RSA_PSS_SHA_512,
    Mechanism.RSA_PKCS1_SHA_384,
    Mechanism.RSA_PKCS1_SHA_512,
}


class SmallVault(VaultTransitDriver):
    """Less of the same."""

    def configure(self, config: VaultConfig, *, dry_run: bool) -> ConfigureResult:
        """Open as usual, and promise less."""
        opened = super().configure(config, dry_run=dry_run)
        rows = capabilities(VaultTransitDriver) if opened.capabilities is None else opened.capabilities
        fewer = (row for row in rows if row.key_algorithm not in _LEFT_OUT and row.mechanism not in _ALIKE)
        return opened.model_copy(update={"capabilities": tuple(fewer)})

    @provides_each(row for row in CREATE if row.get("key_algorithm") not in _LEFT_OUT)
    def create_key(self, request: CreateKeyParams) -> Key:
        """Make what is promised."""
        if request.algorithm in _LEFT_OUT:
            raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "left out")
        return super().create_key(request)


if __name__ == "__main__":
    serve("small_vault:SmallVault")
