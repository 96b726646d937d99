"""The bundled local driver: symmetric, RSA, elliptic-curve and post-quantum keys in one SQLite file.

It needs no provider, only a folder of its own. For development, tests and single machines;
`docs/drivers/local.md` says what the file is protected against and what not. Never offered: exporting a key.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import ClassVar, Final

from kmsplug_protocol import Capability, ConfigureResult, HealthCheck, HealthDepth
from kmsplug_sdk import Driver, DriverError
from kmsplug_sdk.driver import capabilities

from kmsplug_plugins._software.capabilities import DELETION_WINDOW
from kmsplug_plugins._software.keystore import SoftwareKeystore
from kmsplug_plugins._software.leases import Leases
from kmsplug_plugins._software.lifecycle import KEY_NAMESPACE, MAX_DELETION_DAYS

from ._opening import inspect_store, open_store
from ._store import Store
from .config import LocalConfig

_KEY_BESIDE_DATABASE: Final = (
    "the key file stands beside the database and protects only against a copy of the database alone: "
    "set key_file to another disk, or a passphrase"
)


class LocalDriver(SoftwareKeystore, Driver[LocalConfig]):
    """Keys in a folder of this machine. Several processes may share it."""

    name: ClassVar[str] = "local"
    version: ClassVar[str] = "0.1.0"
    Config = LocalConfig

    _store: Store

    def __init__(self) -> None:
        self._closing = ExitStack()

    def configure(self, config: LocalConfig, *, dry_run: bool) -> ConfigureResult:
        """Open the keystore; make it first if it is missing and this is no dry run."""
        self._min_deletion_days = config.min_deletion_days
        warnings = []
        if config.passphrase is None and config.key_path.parent == config.folder:
            warnings.append(_KEY_BESIDE_DATABASE)
        if dry_run:
            store_id = inspect_store(config)
            if store_id is None:
                warnings.append(f"there is no keystore in {config.folder} yet: it will be made")
        else:
            store = open_store(config)
            self._closing.callback(store.close)
            self._store, self._leases = store, Leases(store)
            store_id = store.store_id
        return ConfigureResult(
            identity=f"local:{'new' if store_id is None else store_id.hex()}",
            key_namespace=(KEY_NAMESPACE,),
            capabilities=_promises(config),
            warnings=tuple(warnings),
        )

    def health(self, depth: HealthDepth) -> Sequence[HealthCheck]:
        """Look whether keys can be opened and the database answers. Writes nothing."""
        if depth is HealthDepth.SHALLOW:
            return ()
        return [
            _looked_at("cryptography", self._store.probe),
            _looked_at("database", lambda: f"epoch {self._store.check()}"),
        ]

    def close(self) -> None:
        """Close the database."""
        self._closing.close()


def _promises(config: LocalConfig) -> tuple[Capability, ...] | None:
    """Return the promises under these settings; None: they are those of the class."""
    window = (config.min_deletion_days, MAX_DELETION_DAYS)
    if window == DELETION_WINDOW:
        return None
    return tuple(
        row if row.deletion_window_days is None else row.model_copy(update={"deletion_window_days": window})
        for row in capabilities(LocalDriver)
    )


def _looked_at(name: str, check: Callable[[], str | None]) -> HealthCheck:
    try:
        detail = check()
    except DriverError as error:
        return HealthCheck(name=name, healthy=False, detail=error.message)
    return HealthCheck(name=name, healthy=True, detail=detail)
