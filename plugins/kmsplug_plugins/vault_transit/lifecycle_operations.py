"""Operations on the life of keys: by OpenBao's soft deletion, and by the thresholds of Transit's versions."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from kmsplug_protocol import (
    EmptyResult,
    ErrorCode,
    Key,
    KeyParams,
    KeyState,
    Protection,
    ScheduleDeletionParams,
    SetStateParams,
)
from kmsplug_sdk import DriverError, provides

from ._keyring import Keyring
from ._keys import PLACEHOLDER, TransitKey, no_version, version_number

_S = KeyState

_SETTABLE: Final = (_S.ACTIVE, _S.SUSPENDED, _S.DEACTIVATED, _S.COMPROMISED)


class LifecycleOperations:
    """The part of the driver that moves keys from state to state."""

    _keys: Keyring
    _soft_deletes: bool

    @provides()
    def enable_key(self, request: KeyParams) -> Key:
        """End the suspension of a key. Versions below the thresholds stay as they are."""
        operation = "key.enable"
        key = self._keys.read(operation, request.key_id)
        if key.state is _S.SUSPENDED:
            self._keys.transit.post(operation, f"keys/{key.name}/soft-delete-restore")
            key = self._keys.read(operation, request.key_id)
        elif key.state not in (_S.ACTIVE, _S.DEACTIVATED):
            raise key.refusal()
        return key.described()

    @provides()
    def disable_key(self, request: KeyParams) -> Key:
        """Suspend a key whole. Of one whose deletion is scheduled nothing is changed."""
        operation = "key.disable"
        key = self._keys.read(operation, request.key_id)
        if key.pending:
            raise key.refusal()
        if key.soft_deleted:
            return key.described()
        if key.deletion_allowed:  # together with the soft deletion it would say that deletion is scheduled
            self._configure(operation, key, deletion_allowed=False)
        return self._soft_deleted(operation, key).described()

    @provides()
    def set_key_state(self, request: SetStateParams) -> Key:
        """Suspend or resume a key, or move the threshold of its versions by one version.

        The server keeps no COMPROMISED, and the current version cannot be DEACTIVATED: rotate first.
        """
        if request.state not in _SETTABLE:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"no key can be set to {request.state}, but to {', '.join(_SETTABLE)}",
                path="state",
            )
        key = self._keys.read("key.set_state", request.key_id)
        if request.key_version is not None:
            return self._set_version(key, version_number(key.key_id, request.key_version), request.state)
        if key.state in (_S.PRE_ACTIVE, _S.DESTROY_SCHEDULED):
            raise key.refusal()
        whole: Mapping[KeyState, Callable[[KeyParams], Key]] = {
            _S.ACTIVE: self.enable_key,
            _S.SUSPENDED: self.disable_key,
        }
        if request.state not in whole or not self._soft_deletes:
            raise _no_such_state(request.state)
        return whole[request.state](KeyParams(key_id=key.key_id))

    @provides()
    def schedule_key_deletion(self, request: ScheduleDeletionParams) -> Key:
        """Suspend a key and allow its deletion. It then waits for `purge_key`: no clock runs."""
        operation = "key.schedule_deletion"
        if request.window_days is not None:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                "the server keeps no date of deletion: leave the window out, and the key waits for its purge",
                path="window_days",
            )
        key = self._keys.read(operation, request.key_id)
        if key.state is _S.DESTROY_SCHEDULED:
            raise key.refusal()
        if not key.soft_deleted:  # first: a key that is in use must not be deletable, not even for a moment
            self._soft_deleted(operation, key)
        return self._configure(operation, key, deletion_allowed=True).described()

    @provides()
    def cancel_key_deletion(self, request: KeyParams) -> Key:
        """Forbid the deletion again; the key stays suspended. Of another key nothing is changed."""
        operation = "key.cancel_deletion"
        key = self._keys.read(operation, request.key_id)
        if key.state is _S.DESTROY_SCHEDULED:
            key = self._configure(operation, key, deletion_allowed=False)
        return key.described()

    @provides()
    def purge_key(self, request: KeyParams) -> EmptyResult:
        """Delete a key whose deletion is scheduled, with all versions. The server forgets it."""
        operation = "key.purge"
        key = self._keys.read(operation, request.key_id)
        if key.state is not _S.DESTROY_SCHEDULED:
            raise DriverError(
                ErrorCode.KEY_INVALID_STATE,
                f"key {key.key_id} is not scheduled for deletion: schedule it first",
            )
        if not key.pending:  # else what an interrupted import left behind would come to light
            discard(self._keys, operation, key.name + PLACEHOLDER)
        answer = self._keys.transit.delete(operation, f"keys/{key.stored_name}")
        self._keys.forget(key.name)
        return EmptyResult(protection=Protection.SOFTWARE, vendor=answer.vendor)

    def _set_version(self, key: TransitKey, number: int, state: KeyState) -> Key:
        """Move one version, if the thresholds can say so."""
        if number > key.latest:
            raise no_version(key.key_id, str(number))
        now = key.state_of(number)
        if now is state:
            return key.described()
        if now not in (_S.ACTIVE, _S.DEACTIVATED, _S.SUSPENDED) or key.soft_deleted:
            raise key.refusal(number)
        if state is _S.COMPROMISED or (number == key.latest and state is not _S.ACTIVE):
            raise _no_such_state(state)
        decryption, encryption = _thresholds(key, number, state)
        moved = replace(key, min_decryption=decryption, min_encryption=encryption)
        others = (other for other in range(1, key.latest + 1) if other != number)
        if any(moved.state_of(other) is not key.state_of(other) for other in others):
            raise DriverError(
                ErrorCode.KEY_INVALID_STATE,
                f"the server moves versions in their order: version {number} of key {key.key_id} cannot be "
                f"{state} with its neighbours as they are",
            )
        return self._configure(
            "key.set_state", key, min_decryption_version=decryption, min_encryption_version=encryption
        ).described()

    def _soft_deleted(self, operation: str, key: TransitKey) -> TransitKey:
        self._keys.transit.delete(operation, f"keys/{key.stored_name}/soft-delete")
        return self._keys.read(operation, key.key_id)

    def _configure(self, operation: str, key: TransitKey, **settings: int) -> TransitKey:
        self._keys.transit.post(operation, f"keys/{key.stored_name}/config", settings)
        return self._keys.read(operation, key.key_id)


def discard(keys: Keyring, operation: str, stored_name: str) -> None:
    """Delete a key for good, if it is there."""
    if keys.read_stored(operation, stored_name) is not None:
        keys.transit.post(operation, f"keys/{stored_name}/config", {"deletion_allowed": True})
        keys.transit.delete(operation, f"keys/{stored_name}")


def _thresholds(key: TransitKey, number: int, state: KeyState) -> tuple[int, int]:
    """Return min_decryption_version and min_encryption_version under which a version has this state."""
    decryption, encryption = key.min_decryption, key.min_encryption
    if state is _S.SUSPENDED:
        decryption = max(decryption, number + 1)
        encryption = max(encryption, decryption) if encryption else 0
    elif state is _S.DEACTIVATED:
        decryption = min(decryption, number)
        encryption = max(encryption, number + 1)
    else:
        decryption = min(decryption, number)
        encryption = min(encryption, number)
    return decryption, encryption


def _no_such_state(state: KeyState) -> DriverError:
    return DriverError(
        ErrorCode.UNSUPPORTED_OPERATION,
        f"the server cannot keep {state} for this version: it has thresholds of versions, and OpenBao "
        "suspends whole keys",
        path="state",
    )
