"""The bundled driver for the Transit engine of Vault and OpenBao: keys stay in the server."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Final

from kmsplug_protocol import (
    Capability,
    ConfigureResult,
    ErrorCode,
    HealthCheck,
    HealthDepth,
    KeyUsage,
    encode_base64,
)
from kmsplug_sdk import Driver, DriverError
from kmsplug_sdk.driver import capabilities

from ._capabilities import LIFECYCLE
from ._client import CONNECTIONS, Client
from ._keyring import Keyring
from ._login import Credentials
from ._transit import Transit
from .access_operations import AccessOperations
from .batch_operations import BatchOperations
from .config import VaultConfig
from .crypto_operations import CryptoOperations
from .import_operations import ImportOperations
from .key_operations import KeyOperations
from .lifecycle_operations import LifecycleOperations
from .signing_operations import SigningOperations

_log: Final = logging.getLogger(__name__)

_CONFIGURE: Final = "plugin.configure"
_HEALTH: Final = "plugin.health"
_PROBE_BYTES: Final = 32
_LOOKED_FOR_S: Final = 30.0  # how long a good answer to a deep check is reused

_MAKES_MISSING_KEYS: Final = (
    "the server makes a missing key when something is encrypted with it, so every key is read before it is "
    "used, which costs a request each time: write disable_upsert=true to config/keys of the mount, or grant "
    "'update' on encrypt/* and not 'create'"
)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a mount turned out to be.

    Attributes:
        identity: The same for whoever opens it.
        soft_deletes: Whether keys can be suspended.
        makes_missing_keys: Whether encrypting makes a key that is not there.
        warnings: What an operator should know.
    """

    identity: str
    soft_deletes: bool
    makes_missing_keys: bool
    warnings: tuple[str, ...]


class VaultTransitDriver(
    KeyOperations,
    AccessOperations,
    LifecycleOperations,
    CryptoOperations,
    SigningOperations,
    ImportOperations,
    BatchOperations,
    Driver[VaultConfig],
):
    """Keys of one mount of the Transit engine."""

    name: ClassVar[str] = "vault_transit"
    version: ClassVar[str] = "0.1.0"
    Config = VaultConfig
    max_concurrency: ClassVar[int] = CONNECTIONS

    _config: VaultConfig
    _looked: HealthCheck

    def __init__(self) -> None:
        self._closing = ExitStack()
        self._looking = threading.Lock()
        self._look_again_at = 0.0

    def configure(self, config: VaultConfig, *, dry_run: bool) -> ConfigureResult:
        """Log in and look at the mount. Nothing in it is changed; a dry run gives its token back at once."""
        with ExitStack() as opened:
            client = Client(config)
            opened.callback(client.close)
            credentials = Credentials(client, config.login)
            credentials.open()
            opened.callback(credentials.close)
            transit = Transit(client, credentials, config.mount)
            found = _look_at(transit, config)
            prefix = f"{config.namespace}/{config.mount}/" if config.namespace else f"{config.mount}/"
            if not dry_run:
                self._config = config
                self._auto_rotate_hours = config.auto_rotate_hours
                self._soft_deletes = found.soft_deletes
                self._keys = Keyring(transit, prefix, config.usages, reads_first=found.makes_missing_keys)
                self._closing = opened.pop_all()
        return ConfigureResult(
            identity=found.identity,
            key_namespace=(prefix,),
            capabilities=None if found.soft_deletes else _without_soft_deletion(),
            warnings=found.warnings,
        )

    def health(self, depth: HealthDepth) -> Sequence[HealthCheck]:
        """Look whether the server works: by `health_key`, if there is one, else by random bytes."""
        if depth is HealthDepth.SHALLOW:
            return ()
        with self._looking:
            if time.monotonic() >= self._look_again_at:
                self._looked = self._look()
                # A bad answer is asked for again at once: nobody waits to hear that the server is back.
                self._look_again_at = time.monotonic() + (_LOOKED_FOR_S if self._looked.healthy else 0)
            return [self._looked]

    def _look(self) -> HealthCheck:
        if self._config.health_key is None:
            return _looked_at("random bytes", self._draw)
        return _looked_at("encryption", self._encrypt_and_decrypt)

    @property
    def keys(self) -> Keyring:
        """The keys of the mount. Strictly for `manage`."""
        return self._keys

    def close(self) -> None:
        """Give the token back and close the connections."""
        self._closing.close()

    def _draw(self) -> None:
        self._random(_HEALTH, _PROBE_BYTES)

    def _encrypt_and_decrypt(self) -> None:
        name = self._keys.use(_HEALTH, str(self._config.health_key), KeyUsage.ENCRYPT_DECRYPT).name
        plaintext, transit = encode_base64(uuid.uuid4().bytes), self._keys.transit
        sealed = transit.post(_HEALTH, f"encrypt/{name}", {"plaintext": plaintext}).data
        opened = transit.post(_HEALTH, f"decrypt/{name}", {"ciphertext": sealed.get("ciphertext")}).data
        if opened.get("plaintext") != plaintext:
            raise DriverError(ErrorCode.PROVIDER_INTERNAL, "what was encrypted does not come back")


def _look_at(transit: Transit, config: VaultConfig) -> _Found:
    """Find out what the mount is and can.

    Raises:
        DriverError: CONFIGURATION_ERROR: it is not there, or is another engine.
    """
    identity = _identity(transit, config.mount)
    makes_missing_keys = _makes_missing_keys(transit, config.mount)
    warnings = (_MAKES_MISSING_KEYS,) if makes_missing_keys else ()
    return _Found(identity, _soft_deletes(transit), makes_missing_keys, warnings)


def _identity(transit: Transit, mount: str) -> str:
    """Return the mount's own id, which whoever may do anything there may read."""
    try:
        data = transit.call(_CONFIGURE, "get", f"sys/internal/ui/mounts/{mount}").data
    except DriverError as error:
        if error.code is not ErrorCode.ACCESS_DENIED:
            raise
        raise DriverError(
            ErrorCode.CONFIGURATION_ERROR,
            f"there is no mount {mount!r} here, or the policy grants nothing in it",
            path="mount",
            vendor=error.data.vendor,
        ) from error
    unique = data.get("uuid") or data.get("accessor")
    if data.get("type") != "transit" or not unique:
        raise DriverError(
            ErrorCode.CONFIGURATION_ERROR, f"{mount!r} is no mount of the Transit engine", path="mount"
        )
    return f"transit:{unique}"


def _soft_deletes(transit: Transit) -> bool:
    """Ask the engine's own help, which needs no permission, for what OpenBao has and Vault has not."""
    try:
        transit.get(_CONFIGURE, "keys/kmsplug/soft-delete?help=1")
    except DriverError as error:
        if error.code in (
            ErrorCode.PROVIDER_UNAVAILABLE,
            ErrorCode.TIMEOUT,
            ErrorCode.RATE_LIMIT_EXCEEDED,
            ErrorCode.AUTHENTICATION_FAILED,
        ):
            raise
        return False
    return True


def _makes_missing_keys(transit: Transit, mount: str) -> bool:
    """Tell whether neither the mount nor the policy keeps the server from making keys unasked."""
    path = f"{mount}/encrypt/kmsplug-{uuid.uuid4().hex}"
    try:
        if transit.get(_CONFIGURE, "config/keys").data.get("disable_upsert") is True:
            return False
    except DriverError as error:
        if error.code not in (ErrorCode.ACCESS_DENIED, ErrorCode.KEY_NOT_FOUND):
            raise
    try:
        data = transit.call(_CONFIGURE, "post", "sys/capabilities-self", {"paths": [path]}).data
    except DriverError as error:
        if error.code is not ErrorCode.ACCESS_DENIED:
            raise
        return True
    allowed = data.get(path)
    return not isinstance(allowed, list) or bool({"create", "root", "sudo"} & {*allowed})


def _without_soft_deletion() -> tuple[Capability, ...]:
    return tuple(row for row in capabilities(VaultTransitDriver) if row.operation not in LIFECYCLE)


def _looked_at(name: str, check: Callable[[], None]) -> HealthCheck:
    try:
        check()
    except DriverError as error:
        return HealthCheck(name=name, healthy=False, detail=error.message)
    return HealthCheck(name=name, healthy=True)
