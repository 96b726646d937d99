"""The bundled PKCS#11 driver: keys in an HSM or another token, through its vendor's module.

A module is code of somebody else in this process, which is why there is a process: whatever it does ends this
driver and nothing else. What it offers is found out when it is configured; `docs/drivers/pkcs11.md` says what
is known of which vendor.
"""

import threading
import time
from collections.abc import Sequence
from typing import ClassVar, Final

from kmsplug_protocol import ConfigureResult, ErrorCode, HealthCheck, HealthDepth
from kmsplug_sdk import Driver, DriverError

from . import _known_answers, _profiles, _selection
from ._client import Module, PKCS11Error, Token
from ._errors import name_of, translated
from ._keys import NAMESPACE
from ._link import Link, Worker
from ._offer import Offer, offer_of
from .config import Pkcs11Config
from .crypto_operations import CryptoOperations
from .import_operations import ImportOperations

_HEALTH_AGE_S: Final = 30.0


class Pkcs11Driver(ImportOperations, CryptoOperations, Driver[Pkcs11Config]):
    """Keys on one token. Several processes may share it, each with its own login."""

    name: ClassVar[str] = "pkcs11"
    version: ClassVar[str] = "0.1.0"
    Config = Pkcs11Config
    max_concurrency: ClassVar[int] = 8

    def __init__(self) -> None:
        self._opened: Link | None = None
        self._refused: tuple[Pkcs11Config, DriverError] | None = None
        self._looked = threading.Lock()
        self._last_look: tuple[float, tuple[HealthCheck, ...]] | None = None

    def configure(self, config: Pkcs11Config, *, dry_run: bool) -> ConfigureResult:
        """Load the module, log in and find out what the token can do. A rejected PIN is not shown again."""
        if self._refused is not None and self._refused[0] == config:
            raise self._refused[1]
        link = Link(config)
        try:
            module, token = link.open()
            offer = _offer(config, module, token)
        except DriverError as error:
            link.close()
            if error.code is ErrorCode.AUTHENTICATION_FAILED:
                self._refused = config, error
            raise
        if dry_run:
            link.close()
        else:
            self._opened = self._link = link
            self._offer = offer
            link.refuses_by = frozenset(offer.profile.refuses_by)
            link.overlooks_new = offer.profile.overlooks_new
            link.makes_alone = offer.profile.makes_alone
        serial = token.serial.decode("ascii", "replace")
        return ConfigureResult(
            identity=f"pkcs11:{token.manufacturer_id}:{serial}"[:256],
            key_namespace=(NAMESPACE,),
            capabilities=offer.capabilities(),
            warnings=offer.warnings(),
        )

    def health(self, depth: HealthDepth) -> Sequence[HealthCheck]:
        """Look whether the token does what it did at the start, with a key that it makes for a moment."""
        if depth is HealthDepth.SHALLOW:
            return ()
        with self._looked:
            if self._last_look is None or time.monotonic() - self._last_look[0] > _HEALTH_AGE_S:
                self._last_look = time.monotonic(), (self._look(),)
            return self._last_look[1]

    def close(self) -> None:
        """Log out and give the module back."""
        if self._opened is not None:
            self._opened.close()

    def _look(self) -> HealthCheck:
        # The first kind is an AES key where the token has one; each has a trial.
        kind, mechanisms = next(iter(self._offer.kinds.items()), (None, ()))

        def act(worker: Worker) -> str | None:
            if kind is None:
                worker.session.generate_random(8 * 16)
                return None
            profile = self._offer.profile
            return _known_answers.tried(worker.session, kind, mechanisms[0], profile).refusal

        try:
            reason = self._link.run("plugin.health", act)
        except DriverError as error:
            reason = error.message
        return HealthCheck(name="token", healthy=reason is None, detail=reason)


def _offer(config: Pkcs11Config, module: Module, token: Token) -> Offer:
    profile = _profiles.choose(config.profile, _selection.described(module, token))
    try:
        return offer_of(token, profile, config.algorithms)
    except PKCS11Error as error:
        raise translated(name_of(error), "plugin.configure") from error
