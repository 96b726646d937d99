"""Rotating, and telling what became of a change whose answer was lost."""

from collections.abc import Sequence
from dataclasses import replace

from kmsplug_protocol import ErrorCode, Key, KeyParams, KeyState, Outcome, ReconcileParams, ReconcileResult
from kmsplug_sdk import DriverError

from . import _rotations as rotations
from ._capabilities import offers
from ._changes import Changes
from ._making import NAME_PREFIX
from ._records import Record, digest, read, refusal
from ._vault import Vault
from ._wire import Answer


class ChangeOperations:
    """The part of the driver that makes new versions and keeps account of changes."""

    _vault: Vault
    _changing: Changes

    @offers("key.rotate")
    def rotate_key(self, request: KeyParams) -> Key:
        """Make a new current version; the older ones stay usable. It is made once for each change."""
        operation = "key.rotate"
        change = None if request.change_key is None else digest(request.change_key)
        name = self._vault.name(request.key_id)
        with self._changing.of(change), self._changing.of(f"rotate {name}"):
            current, answer = self._vault.live(operation, request.key_id)
            if current.state not in (KeyState.ACTIVE, KeyState.DEACTIVATED):
                raise refusal(current)
            if current.note.imported:
                raise DriverError(
                    ErrorCode.UNSUPPORTED_OPERATION,
                    f"the material of key {current.name} was imported: import other material into a new key",
                )
            versions = self._vault.versions(operation, current)
            if change is not None and self._was_made(operation, versions, change) is Outcome.APPLIED:
                return self._vault.described(*self._vault.live(operation, name))
            note = rotations.begun(versions, change)
            if note != current.note:
                self._vault.update(operation, current, tags=current.with_note(note).all_tags())
            answer = self._vault.client.call(operation, "POST", f"/keys/{current.name}/rotate")
            return self._vault.described(*self._finish(operation, read(answer.body), versions, change))

    def _was_made(self, operation: str, versions: Sequence[Record], change: str) -> Outcome:
        """Tell whether a rotation was carried out; one that was interrupted then is finished."""
        if rotations.made_by(versions, change) is not None:
            return Outcome.APPLIED
        outcome, made = rotations.inferred(versions, change)
        if made is not None:
            self._finish(operation, made, versions[: versions.index(made)], change)
        return outcome

    def _finish(
        self, operation: str, made: Record, before: Sequence[Record], change: str | None
    ) -> tuple[Record, Answer]:
        """Give the version that a rotation made its tags and its note."""
        new = replace(made, tags=before[-1].tags, note=rotations.finished(made, before, change))
        try:
            return self._vault.update(operation, new, tags=new.all_tags())
        except DriverError as error:
            # The version is there, whatever kept its tags from being written.
            error.data = error.data.model_copy(update={"outcome": Outcome.UNKNOWN})
            raise

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
                self._vault.set_policy(found.name)
                return ReconcileResult(outcome=Outcome.APPLIED, key=self._vault.described(found, answer))
        return ReconcileResult(outcome=Outcome.NOT_APPLIED)

    def _rotated(self, key_id: str, change: str) -> ReconcileResult:
        current, _ = self._vault.live("key.reconcile", key_id)
        versions = self._vault.versions("key.reconcile", current)
        outcome = self._was_made("key.reconcile", versions, change)
        if outcome is not Outcome.APPLIED:
            return ReconcileResult(outcome=outcome)
        current, answer = self._vault.live("key.reconcile", key_id)
        return ReconcileResult(outcome=outcome, key=self._vault.described(current, answer))

    def _imported(self, key_id: str, change: str) -> ReconcileResult:
        current, answer = self._vault.live("key.reconcile", key_id)
        if current.note.made_by == change and not current.note.waits_for:
            self._vault.retire_wrapping_keys("key.reconcile", current)
            return ReconcileResult(outcome=Outcome.APPLIED, key=self._vault.described(current, answer))
        waiting = bool(current.note.waits_for)
        return ReconcileResult(outcome=Outcome.NOT_APPLIED if waiting else Outcome.UNKNOWN)
