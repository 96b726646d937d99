"""The operations of whoever manages keystores: provisioning, trust, and judging access data."""

import json

from kmsplug_protocol import (
    EmptyResult,
    ErrorCode,
    GetRegionParams,
    GetRegionResult,
    KeystoreParams,
    KeystoreResult,
    ProvisionParams,
    TransformAccessParams,
    TransformAccessResult,
    TrustParams,
    ValidateAccessParams,
    ValidateKeyParams,
    ValidationResult,
)
from kmsplug_sdk import DriverError, provides

from ._journal import Event, Journal
from ._store import MemoryStore

_REGION = "mock-1"
_ACCESS_DATA = "account"  # the one member without which nobody reaches a key here


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
            raise DriverError(ErrorCode.KEY_NOT_FOUND, f"no keystore {identity!r} was provisioned here")
        return self._trusted[identity]

    def _changed(self, event: Event) -> None:
        if event["trusted"] is None:
            self._trusted.pop(event["identity"], None)
        else:
            self._trusted[event["identity"]] = frozenset(event["trusted"])


def identity_of(store: MemoryStore) -> str:
    """Return the identity of the keystore that a session serves."""
    return f"mock:{store.store_id.hex()}"


class ManagementOperations:
    """The part of the driver that software keystores do not share: a file has no region and no accounts."""

    _keystores: Keystores
    _store: MemoryStore

    @provides()
    def validate_key(self, request: ValidateKeyParams) -> ValidationResult:
        """Tell whether a key is there and is what is expected."""
        try:
            key = self._store.key(request.key_id)
        except DriverError as error:
            return ValidationResult(valid=False, reason=error.message)
        if request.algorithm not in (None, key.algorithm):
            return ValidationResult(valid=False, reason=f"the key is {key.algorithm}")
        if request.region not in (None, _REGION):
            return ValidationResult(valid=False, reason=f"the key is in {_REGION}")
        return ValidationResult(valid=True)

    @provides()
    def validate_key_access(self, request: ValidateAccessParams) -> ValidationResult:
        """Tell whether access data name an account."""
        if request.access_data.get(_ACCESS_DATA):
            return ValidationResult(valid=True)
        return ValidationResult(valid=False, reason=f"{_ACCESS_DATA} is missing")

    @provides()
    def transform_key_access(self, request: TransformAccessParams) -> TransformAccessResult:
        """Return access data as one JSON text, beside the key that they are for."""
        if not request.access_data.get(_ACCESS_DATA):
            raise DriverError(ErrorCode.INVALID_ARGUMENT, f"{_ACCESS_DATA} is missing", path="access_data")
        text = json.dumps(request.access_data, sort_keys=True)
        return TransformAccessResult(access_data={"key": request.key_id, "access": text})

    @provides()
    def get_key_region(self, request: GetRegionParams) -> GetRegionResult:
        """Return the one region, for every key that is there."""
        self._store.key(request.key_id)
        return GetRegionResult(region=_REGION)

    @provides()
    def provision_keystore(self, request: ProvisionParams) -> KeystoreResult:
        """Make a keystore: it has an identity, and nothing in it."""
        identity = f"mock:{request.name}"
        self._keystores.provision(identity)
        return KeystoreResult(identity=identity)

    @provides()
    def deprovision_keystore(self, request: KeystoreParams) -> EmptyResult:
        """End a keystore that was provisioned."""
        if request.identity == identity_of(self._store):
            raise DriverError(ErrorCode.INVALID_ARGUMENT, "a session does not end its own keystore")
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
