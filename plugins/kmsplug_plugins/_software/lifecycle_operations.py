"""Operations on the life of keys: states, deletion, backup and restore."""

import logging
from typing import Final

from kmsplug_protocol import (
    BackupResult,
    EmptyResult,
    ErrorCode,
    Key,
    KeyParams,
    Protection,
    RestoreParams,
    ScheduleDeletionParams,
    SetStateParams,
)
from kmsplug_sdk import DriverError, provides

from . import capabilities as rows
from .backup import opened_backup, sealed_backup
from .key_operations import described
from .lifecycle import MAX_DELETION_DAYS, MIN_DELETION_DAYS, moment, named_version, require_not_destroyed
from .states import destroyed, moved, recovered, resumed, scheduled, suspended
from .store import Store

_log: Final = logging.getLogger(__name__)


class LifecycleOperations:
    """The part of the driver that moves keys from state to state."""

    _store: Store
    _min_deletion_days: int = MIN_DELETION_DAYS

    @provides()
    def enable_key(self, request: KeyParams) -> Key:
        """Give every SUSPENDED version its former state back. Enabling twice is enabling once."""
        return described(self._store.update(request.key_id, resumed))

    @provides()
    def disable_key(self, request: KeyParams) -> Key:
        """Suspend every usable version. Disabling twice is disabling once."""
        return described(self._store.update(request.key_id, suspended))

    @provides()
    def set_key_state(self, request: SetStateParams) -> Key:
        """Move one version, or all that can be moved."""
        wanted = request.key_version
        return described(
            self._store.update(
                request.key_id,
                lambda key: moved(key, request.state, named_version(key, wanted) if wanted else None),
            )
        )

    @provides(deletion_window_days=rows.DELETION_WINDOW)
    def schedule_key_deletion(self, request: ScheduleDeletionParams) -> Key:
        """Begin the deletion window. Nothing ends it by itself but `purge_key` and `cancel_key_deletion`."""
        shortest = self._min_deletion_days
        days = MAX_DELETION_DAYS if request.window_days is None else request.window_days
        if not shortest <= days <= MAX_DELETION_DAYS:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"the deletion window is {shortest} to {MAX_DELETION_DAYS} days in this keystore",
                path="window_days",
            )
        return described(self._store.update(request.key_id, lambda key: scheduled(key, moment(days=days))))

    @provides()
    def cancel_key_deletion(self, request: KeyParams) -> Key:
        """End the deletion window; the key is disabled then. Of another key nothing is changed."""
        return described(self._store.update(request.key_id, recovered))

    @provides()
    def purge_key(self, request: KeyParams) -> EmptyResult:
        """Destroy the material of a key whose deletion is scheduled, and leave a tombstone."""
        self._store.update(request.key_id, destroyed)
        if not self._store.forget_deleted():
            _log.warning("the material of %s leaves the journal with one of the next changes", request.key_id)
        return EmptyResult(protection=Protection.SOFTWARE)

    @provides()
    def backup_key(self, request: KeyParams) -> BackupResult:
        """Return a key with all versions, in a box that only this keystore opens."""
        key = self._store.key(request.key_id)
        require_not_destroyed(key)
        return BackupResult(backup=sealed_backup(self._store, key), protection=Protection.SOFTWARE)

    @provides()
    def restore_key(self, request: RestoreParams) -> Key:
        """Bring back a key that this keystore once had and has no more, not even as a tombstone."""
        return described(self._store.add(opened_backup(self._store, request.backup)))
