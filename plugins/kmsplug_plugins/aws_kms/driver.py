"""The bundled AWS KMS driver: every operation that KMS has on keys and data, done by KMS itself.

`docs/drivers/aws_kms.md` lists the permissions that it needs, the ways to log in, the limits, and what is
known from documents only. Never offered, because KMS has nothing like it: purging a key before its window
ends, backup and restore, states other than enabled and disabled, wrapping keys (the host's shim does that),
batches.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import ClassVar, Final

from kmsplug_protocol import (
    Capability,
    ConfigureResult,
    DecryptParams,
    EncryptParams,
    ErrorCode,
    HealthCheck,
    HealthDepth,
    RandomParams,
    Secret,
)
from kmsplug_sdk import Driver, DriverError
from kmsplug_sdk.driver import capabilities

from ._access import AccessOperations
from ._client import CONNECTIONS, KmsClient, RenewingCredentials, forget_environment
from ._crypto import CryptoOperations
from ._imports import ImportOperations
from ._key_operations import KeyOperations
from ._keys import Keys
from ._labels import LabelOperations
from ._login import log_in
from ._signing import SigningOperations
from ._tables import KINDS
from .config import AwsConfig

_PROBE: Final = b"kmsplug health probe"
_HEALTH_HOLDS_S: Final = 30.0
_NOT_ALLOWED: Final = (
    "kms:ListKeys is not allowed: the account of the login was not compared with the settings"
)


class AwsKmsDriver(
    KeyOperations,
    LabelOperations,
    ImportOperations,
    AccessOperations,
    CryptoOperations,
    SigningOperations,
    Driver[AwsConfig],
):
    """The keys of one AWS account in one region."""

    name: ClassVar[str] = "aws_kms"
    version: ClassVar[str] = "0.1.0"
    Config = AwsConfig
    max_concurrency: ClassVar[int] = CONNECTIONS

    _credentials: RenewingCredentials
    _probe_key_id: str | None = None
    _checked: tuple[float, tuple[HealthCheck, ...]] = (float("-inf"), ())

    def __init__(self) -> None:
        self._closing = ExitStack()

    def configure(self, config: AwsConfig, *, dry_run: bool) -> ConfigureResult:
        """Log in and see that KMS answers. Nothing is changed, so a dry run does the same."""
        del dry_run
        forget_environment()
        self.close()
        self._credentials = log_in(config)
        self._credentials.current()
        self._client = KmsClient(config, self._credentials)
        self._closing.callback(self._client.close)
        self._keys = Keys(config, self._client)
        self._multi_region = config.multi_region
        self._kinds = frozenset(KINDS) - config.without
        self._probe_key_id = config.probe_key_id
        return ConfigureResult(
            identity=f"aws-kms:{config.partition}:{config.region}:{config.account}",
            key_namespace=(self._keys.namespace,),
            capabilities=_promises(config),
            warnings=(*_known_from_documents(config), *self._look_around(config)),
        )

    def health(self, depth: HealthDepth) -> Sequence[HealthCheck]:
        """Look whether KMS encrypts and decrypts, or gives random bytes where no key is set aside."""
        if depth is HealthDepth.SHALLOW:
            return ()
        at, checks = self._checked
        if time.monotonic() - at > _HEALTH_HOLDS_S:
            checks = (
                _looked_at("login", lambda: f"as {self._credentials.current().access_key_id}"),
                _looked_at("cryptography", self._probe),
            )
            if all(check.healthy for check in checks):
                self._checked = (time.monotonic(), checks)
        return checks

    def close(self) -> None:
        """Give the connections back."""
        self._closing.close()

    def _look_around(self, config: AwsConfig) -> tuple[str, ...]:
        """See that KMS answers, and that its keys are those of the account in the settings."""
        try:
            found = self._client.ask("list_keys", "plugin.configure", Limit=1)["Keys"]
        except DriverError as error:
            if error.code is ErrorCode.ACCESS_DENIED:
                return (_NOT_ALLOWED,)
            raise
        if found and not found[0]["KeyArn"].startswith(self._keys.namespace):
            raise DriverError(
                ErrorCode.CONFIGURATION_ERROR,
                f"the login is of another account than {config.account}",
                path="account",
                hint="set account to the one whose keys are meant, or assume_role to a role in it",
            )
        return ()

    def _probe(self) -> str:
        if self._probe_key_id is None:
            return f"{len(self.random(RandomParams(length_bytes=32)))} random bytes; probe_key_id is not set"
        sealed = self.encrypt(EncryptParams(key_id=self._probe_key_id, plaintext=Secret(_PROBE)))
        opened = self.decrypt(DecryptParams(key_id=self._probe_key_id, ciphertext=sealed.ciphertext))
        if opened.plaintext != _PROBE:
            raise DriverError(ErrorCode.INTEGRITY_ERROR, "the probe came back changed")
        return "encrypted and decrypted"


def _promises(config: AwsConfig) -> tuple[Capability, ...] | None:
    """Return the promises under these settings; None: they are those of the class."""
    if not config.without:
        return None
    return tuple(row for row in capabilities(AwsKmsDriver) if row.key_algorithm not in config.without)


def _known_from_documents(config: AwsConfig) -> tuple[str, ...]:
    """Name what of these settings no test of this driver could try."""
    found = {
        "login by roles_anywhere": config.login.method == "roles_anywhere",
        f"the partition {config.partition}": config.partition != "aws",
    }
    return tuple(
        f"{what} is documented only: it was never tried against AWS" for what, used in found.items() if used
    )


def _looked_at(name: str, check: Callable[[], str | None]) -> HealthCheck:
    try:
        detail = check()
    except DriverError as error:
        return HealthCheck(name=name, healthy=False, detail=error.message)
    return HealthCheck(name=name, healthy=True, detail=detail)
