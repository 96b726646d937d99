"""The operations of whoever manages keystores: making and ending them, and who trusts whom."""

from kmsplug_protocol import (
    EmptyResult,
    ErrorCode,
    KeystoreParams,
    KeystoreResult,
    ProvisionParams,
    TrustParams,
)
from kmsplug_sdk import DriverError, provides

from ._journal import Event, Journal
from ._store import MemoryStore


class Keystores:
    """Which keystores were provisioned, and who is trusted with each.

    Args:
        journal: Where changes go; not open yet.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._trusted: dict[str, frozenset[str]] = {}
        journal.listen("keystore", self._changed)

    def provision(self, identity: str) -> None:
        """Make one, which nobody is trusted with yet."""
        with self._journal.turn() as happen:
            if identity in self._trusted:
                raise DriverError(ErrorCode.ALREADY_EXISTS, f"there is a keystore {identity!r} already")
            happen("keystore", {"identity": identity, "trusted": []})

    def deprovision(self, identity: str) -> None:
        """End one."""
        with self._journal.turn() as happen:
            self._find(identity)
            happen("keystore", {"identity": identity, "trusted": None})

    def trust(self, identity: str, subject: str, *, granted: bool) -> None:
        """Trust a subject, or no longer."""
        with self._journal.turn() as happen:
            trusted = self._find(identity)
            trusted = trusted | {subject} if granted else trusted - {subject}
            happen("keystore", {"identity": identity, "trusted": sorted(trusted)})

    def _find(self, identity: str) -> frozenset[str]:
        if identity not in self._trusted:
            raise DriverError(ErrorCode.KEY_NOT_FOUND, f"there is no keystore {identity!r}: provision it")
        return self._trusted[identity]

    def _changed(self, event: Event) -> None:
        if event["trusted"] is None:
            self._trusted.pop(event["identity"], None)
        else:
            self._trusted[event["identity"]] = frozenset(event["trusted"])


class ManagementOperations:
    """The part of the driver that other software keystores lack: in a file there are no other keystores."""

    _keystores: Keystores
    _store: MemoryStore

    @provides()
    def provision_keystore(self, request: ProvisionParams) -> KeystoreResult:
        """Make a keystore: it has an identity, and nothing in it."""
        identity = f"mock:{request.name}"
        self._keystores.provision(identity)
        return KeystoreResult(identity=identity, config=request.settings)

    @provides()
    def deprovision_keystore(self, request: KeystoreParams) -> EmptyResult:
        """End a keystore that was provisioned."""
        if request.identity == self._store.identity:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                "this is the keystore of the session: end another",
                path="identity",
            )
        self._keystores.deprovision(request.identity)
        return EmptyResult()

    @provides()
    def grant_trust(self, request: TrustParams) -> EmptyResult:
        """Trust a subject with a keystore. Twice is once."""
        self._keystores.trust(request.identity, request.subject, granted=True)
        return EmptyResult()

    @provides()
    def remove_trust(self, request: TrustParams) -> EmptyResult:
        """Trust a subject no longer."""
        self._keystores.trust(request.identity, request.subject, granted=False)
        return EmptyResult()
