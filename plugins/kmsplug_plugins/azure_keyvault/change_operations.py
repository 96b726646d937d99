"""Rotating, and telling what became of a change whose answer was lost."""

from dataclasses import replace

from kmsplug_protocol import ErrorCode, Key, KeyParams, KeyState, Outcome, ReconcileParams, ReconcileResult
from kmsplug_sdk import DriverError

from . import _rotations as rotations
from ._capabilities import offers
from ._changes import Changes
from ._making import NAME_PREFIX
from ._records import digest, read, refusal
from ._vault import Vault


class ChangeOperations:
    """The part of the driver that makes new versions and keeps account of changes."""

    _vault: Vault
    _changing: Changes

    @offers("key.rotate")
    def rotate_key(self, request: KeyParams) -> Key:
        """Make a new current version; the older ones stay usable. It is made once for each change."""
        operation = "key.rotate"
        change = None if request.change_key is None else digest(request.change_key)
        with self._changing.of(change):
            current, answer = self._vault.live(operation, request.key_id)
            if current.state not in (KeyState.ACTIVE, KeyState.DEACTIVATED):
                raise refusal(current)
            if current.note.imported:
                raise DriverError(
                    ErrorCode.UNSUPPORTED_OPERATION,
                    f"the material of key {current.name} was imported: import other material into a new key",
                )
            versions = self._vault.versions(operation, current)
            if change is not None and rotations.made_by(versions, change) is not None:
                return self._vault.described(current, answer)
            note = rotations.begun(versions, change)
            if note != current.note:
                self._vault.update(operation, current, tags=current.with_note(note).all_tags())
            answer = self._vault.client.call(operation, "POST", f"/keys/{current.name}/rotate")
            new = replace(read(answer.body), tags=current.tags, note=rotations.finished(versions, change))
            return self._vault.described(*self._vault.update(operation, new, tags=new.all_tags()))

    @offers("key.reconcile")
    def reconcile(self, request: ReconcileParams) -> ReconcileResult:
        """Tell whether a create, rotate or import was carried out; of other changes nothing is kept."""
        change = digest(request.idempotency_key)
        if self._changing.is_going_on(change):
            return ReconcileResult(outcome=Outcome.UNKNOWN)
        match request.method, request.key_id:
            case "key.create", _:
                return self._created(change)
            case "key.rotate", str(key_id):
                return self._rotated(key_id, change)
            case "key.import", str(key_id):
                return self._imported(key_id, change)
            case _:
                return ReconcileResult(outcome=Outcome.UNKNOWN)

    def _created(self, change: str) -> ReconcileResult:
        names = [NAME_PREFIX + change]
        for name in names:
            try:
                found, answer = self._vault.get("key.reconcile", name)
            except DriverError as error:
                if error.code is not ErrorCode.KEY_NOT_FOUND:
                    raise
                # It may have been made under a name of the caller's, which nobody told us.
                names += [
                    record.name
                    for item in self._vault.items("key.reconcile", "/keys")
                    if (record := read(item)).note.created_by == change
                ]
            else:
                return ReconcileResult(outcome=Outcome.APPLIED, key=self._vault.described(found, answer))
        return ReconcileResult(outcome=Outcome.NOT_APPLIED)

    def _rotated(self, key_id: str, change: str) -> ReconcileResult:
        current, answer = self._vault.live("key.reconcile", key_id)
        versions = self._vault.versions("key.reconcile", current)
        known = rotations.made_by(versions, change) is not None
        outcome = Outcome.APPLIED if known else rotations.outcome(versions, change)
        key = self._vault.described(current, answer) if outcome is Outcome.APPLIED else None
        return ReconcileResult(outcome=outcome, key=key)

    def _imported(self, key_id: str, change: str) -> ReconcileResult:
        current, answer = self._vault.live("key.reconcile", key_id)
        if current.note.made_by == change and not current.note.waits_for:
            return ReconcileResult(outcome=Outcome.APPLIED, key=self._vault.described(current, answer))
        waiting = bool(current.note.waits_for)
        return ReconcileResult(outcome=Outcome.NOT_APPLIED if waiting else Outcome.UNKNOWN)
