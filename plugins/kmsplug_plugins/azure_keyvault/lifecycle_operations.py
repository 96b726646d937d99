"""Operations on the life of keys: disabling, deleting, recovering, backing up.

The service keeps states per version only, so a key is moved version by version. Whatever interrupts that, the
same call sent again completes it.
"""

from dataclasses import replace

from kmsplug_protocol import (
    BackupResult,
    EmptyResult,
    ErrorCode,
    Key,
    KeyParams,
    Outcome,
    RestoreParams,
    ScheduleDeletionParams,
)
from kmsplug_sdk import DriverError

from ._capabilities import offers
from ._records import Record, read, refusal
from ._vault import Vault, wait_until
from ._wire import Answer, b64, unb64


class LifecycleOperations:
    """The part of the driver that ends keys and brings them back."""

    _vault: Vault
    _recoverable_days: int

    @offers("key.enable")
    def enable_key(self, request: KeyParams) -> Key:
        """Enable every version, the current one last: the key is said to work when all of it does."""
        current, answer = self._vault.live("key.enable", request.key_id)
        if current.note.waits_for:
            return self._vault.described(current, answer)
        return self._vault.described(*self._switch("key.enable", current, answer, enabled=True))

    @offers("key.disable")
    def disable_key(self, request: KeyParams) -> Key:
        """Disable every version, the current one last: the key is said to be disabled when all of it is."""
        current, answer = self._vault.live("key.disable", request.key_id)
        if current.note.waits_for:
            raise refusal(current)
        return self._vault.described(*self._switch("key.disable", current, answer, enabled=False))

    @offers("key.schedule_deletion")
    def schedule_key_deletion(self, request: ScheduleDeletionParams) -> Key:
        """Delete a key, to be recovered for as many days as the vault keeps it.

        Its versions are disabled first, so that a key that is recovered, also by somebody else, does not work
        before it is enabled.
        """
        operation = "key.schedule_deletion"
        current, answer = self._vault.get(operation, request.key_id)
        if current.deleted:
            self._check_window(request.window_days, current)
            return self._vault.described(current, answer)
        self._check_window(request.window_days, current)
        if "Recoverable" not in str(current.attributes.get("recoveryLevel", "Recoverable")):
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                "this vault keeps no deleted keys: deleting one would destroy it at once",
                hint="switch soft-delete on for the vault",
            )
        usable = [] if current.note.waits_for else self._vault.versions(operation, current)
        disabled = [one for one in usable if one.enabled]
        for one in disabled:
            self._vault.update(operation, one, attributes={"enabled": False})
        try:
            answer = self._vault.client.call(operation, "DELETE", f"/keys/{current.name}")
        except DriverError as error:
            if error.data.outcome is not Outcome.UNKNOWN and error.code in _REFUSED:
                for one in reversed(disabled):
                    self._vault.update(operation, one, attributes={"enabled": True})
            raise
        self._wait(operation, current.name, deleted=True)
        return self._vault.described(replace(read(answer.body), deleted=True), answer)

    @offers("key.cancel_deletion")
    def cancel_key_deletion(self, request: KeyParams) -> Key:
        """Recover a deleted key. It stays disabled until it is enabled."""
        operation = "key.cancel_deletion"
        current, answer = self._vault.get(operation, request.key_id)
        if not current.deleted:
            return self._vault.described(current, answer)
        self._vault.client.call(operation, "POST", f"/deletedkeys/{current.name}/recover")
        self._wait(operation, current.name, deleted=False)
        current, answer = self._vault.live(operation, request.key_id)
        if not current.note.waits_for:
            # Nothing is left to do, unless another tool deleted it.
            current, answer = self._switch(operation, current, answer, enabled=False)
        return self._vault.described(current, answer)

    @offers("key.purge")
    def purge_key(self, request: KeyParams) -> EmptyResult:
        """Destroy a deleted key now. The service refuses it where the vault is protected from that."""
        operation = "key.purge"
        current, _ = self._vault.get(operation, request.key_id)
        if not current.deleted:
            raise DriverError(
                ErrorCode.KEY_INVALID_STATE,
                f"key {current.name} is not scheduled for deletion: schedule it first",
            )
        answer = self._vault.client.call(operation, "DELETE", f"/deletedkeys/{current.name}")
        if not wait_until(lambda: not self._vault.is_deleted(operation, current.name)):
            raise _not_yet("purged")
        return EmptyResult(vendor=answer.vendor)

    @offers("key.backup")
    def backup_key(self, request: KeyParams) -> BackupResult:
        """Return all versions, encrypted for vaults of the same subscription and geography."""
        current, _ = self._vault.live("key.backup", request.key_id)
        answer = self._vault.client.call("key.backup", "POST", f"/keys/{current.name}/backup")
        return BackupResult(
            backup=unb64(answer, "value"), protection=current.protection, vendor=answer.vendor
        )

    @offers("key.restore")
    def restore_key(self, request: RestoreParams) -> Key:
        """Bring a key back under its name, with all its versions."""
        answer = self._vault.client.call(
            "key.restore", "POST", "/keys/restore", {"value": b64(request.backup)}
        )
        return self._vault.described(read(answer.body), answer)

    def _switch(
        self, operation: str, current: Record, answer: Answer, *, enabled: bool
    ) -> tuple[Record, Answer]:
        """Enable or disable each version that is not so, and return the current one."""
        found = current, answer
        for one in self._vault.versions(operation, current):
            if one.enabled is not enabled:
                found = self._vault.update(operation, one, attributes={"enabled": enabled})
        return found if found[0].version == current.version else (current, answer)

    def _check_window(self, days: int | None, record: Record) -> None:
        kept = int(record.attributes.get("recoverableDays") or self._recoverable_days)
        if days not in (None, kept):
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"this vault keeps every deleted key for {kept} days: leave window_days out, or give that",
                path="window_days",
            )

    def _wait(self, operation: str, name: str, *, deleted: bool) -> None:
        def arrived() -> bool:
            if deleted:
                return self._vault.is_deleted(operation, name)
            try:
                return not self._vault.get(operation, name)[0].deleted
            except DriverError as error:
                if error.code is ErrorCode.KEY_NOT_FOUND:  # on its way from there to here it is nowhere
                    return False
                raise

        if not wait_until(arrived):
            raise _not_yet("deleted" if deleted else "recovered")


_REFUSED = (
    ErrorCode.ACCESS_DENIED,
    ErrorCode.UNSUPPORTED_OPERATION,
    ErrorCode.CONFLICT,
    ErrorCode.RATE_LIMIT_EXCEEDED,
)


def _not_yet(what: str) -> DriverError:
    return DriverError(
        ErrorCode.TIMEOUT,
        f"the vault took the request, and the key was not {what} before the deadline",
        outcome=Outcome.APPLIED,
    )
