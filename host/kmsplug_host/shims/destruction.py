"""The end of a key whose deletion is due: all that the provider holds of it goes, and nothing brings it back.

The catalog says first that the destruction has begun, by a compare-and-set that finds the deletion still
due: what somebody has cancelled is not destroyed by anybody else. Then the provider's keys are destroyed, the
newest version's first and the key itself last. Whatever interrupts that, the same call finishes it; what is
gone already counts as destroyed.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from kmsplug_protocol import BY_WIRE, EmptyResult, Key, KeyAlgorithm, KeyParams, KeyState, Outcome

from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import (
    KeyDestroyed,
    KeyInvalidState,
    KeyNotFound,
    KeyPendingDeletion,
    KmsplugError,
)

from . import lifecycle, versioning
from .records import Body, Records
from .routing import Below
from .shim import Provider

_PURGE: Final = "key.purge"
_SCHEDULE: Final = "key.schedule_deletion"
_GONE: Final = (KeyNotFound, KeyDestroyed)


@dataclass(frozen=True, slots=True)
class Destruction:
    """What is destroyed with a key.

    Attributes:
        key_id: The key.
        versions: The provider's key of each version, oldest first: the key itself, where it has no others.
        deletion_at: Since when it is due; None: it is not told.
        done: Whether they are gone.
    """

    key_id: str
    versions: Mapping[str, str]
    deletion_at: str | None
    done: bool = False


class Destroyer:
    """Destroys keys of one keystore that has a catalog.

    Args:
        provider: The keystore.
        records: What the catalog knows of its keys.
        below: Carries out an operation with a key of the provider.
    """

    def __init__(self, provider: Provider, records: Records, below: Below) -> None:
        self._provider = provider
        self._records = records
        self._below = below

    def plan(self, key_id: str, deadline: Deadline) -> Destruction:
        """Tell what would go of a key whose states the host keeps.

        Raises:
            KeyInvalidState: Its deletion is not due.
        """
        owner, body, key = self._row(key_id, deadline)
        if not body.get("destroyed"):
            lifecycle.require_due(body, self._now())
        parts = versioning.keys_of(owner, body, "1" if key is None else key.key_version)
        return Destruction(owner, parts, body.get("deletion"), done=bool(body.get("destroyed")))

    def destroy(self, key_id: str, deadline: Deadline) -> EmptyResult:
        """Destroy a key whose states the host keeps.

        Raises:
            KeyInvalidState: Its deletion is not due.
            KeyDestroyed: It is destroyed.
            KmsplugError: The provider refused. If it did so before anything was destroyed, and nobody else
                has begun, the deletion is due as before; else the call has to be made again.
        """
        owner, _, key = self._row(key_id, deadline)
        now = self._now()
        body = self._records.change(owner, lambda body: lifecycle.destroying(body, now))
        untouched, answer = body["destroying"] == 1, EmptyResult()
        for part in reversed(versioning.keys_of(owner, body).values()):
            try:
                answer = self._end(part, None if key is None else key.algorithm, deadline)
            except _GONE:
                pass
            except KmsplugError as error:
                if error.outcome is not Outcome.APPLIED:
                    if untouched and error.outcome is Outcome.NOT_APPLIED:
                        with contextlib.suppress(KmsplugError):  # then it counts as begun
                            self._records.change(owner, lifecycle.spared)
                    raise
            untouched = False
        self._records.change(owner, lambda body: lifecycle.destroyed(body, datetime.now(UTC)))
        return answer

    def finish(self, key_id: str, body: Body, deadline: Deadline) -> EmptyResult:
        """Destroy a key whose states the provider keeps, with the versions that the host keeps."""
        answer = EmptyResult()
        *others, last = reversed(versioning.keys_of(key_id, body).values())
        for part in others:
            with contextlib.suppress(*_GONE):  # an earlier call came so far
                self._purge(part, deadline)
        answer = self._purge(last, deadline)
        if body:
            self._records.change(key_id, lambda body: lifecycle.destroyed(body, datetime.now(UTC)))
        return answer

    def _end(self, part: str, algorithm: KeyAlgorithm | None, deadline: Deadline) -> EmptyResult:
        native = self._provider.rows.find(_SCHEDULE, algorithm)
        if native is not None:  # the host kept the window, and the provider wants one of its own
            window = (native.deletion_window_days or (None,))[0]
            with contextlib.suppress(KeyPendingDeletion):
                self._provider.ask(_SCHEDULE, deadline, key_id=part, window_days=window)
        return self._purge(part, deadline)

    def _purge(self, part: str, deadline: Deadline) -> EmptyResult:
        answer: Any = self._below(BY_WIRE[_PURGE], KeyParams(key_id=part), deadline)
        return answer  # type: ignore[no-any-return]

    def _row(self, key_id: str, deadline: Deadline) -> tuple[str, Body, Key | None]:
        """Return the id, row and description of a key, also of one that is not there any more."""
        try:
            target = self._records.find(key_id, deadline, fresh=True)
        except KeyDestroyed:
            owner, body = self._records.row(key_id)
            return owner, body or {}, None
        return target.key_id, target.body or {}, target.key

    def _now(self) -> datetime:
        """Return the earlier of this host's time and the database's: both must say that a deletion is due."""
        return min(datetime.now(UTC), self._records.catalog.now())


def native_plan(provider: Provider, key_id: str, deadline: Deadline) -> Destruction:
    """Tell what would go of a key whose states the provider keeps.

    Raises:
        KeyInvalidState: Its deletion is not scheduled, or its window is not over.
    """
    key = provider.ask("key.get", deadline, key_id=key_id)
    due = is_due(key.state, key.deletion_at)
    if key.state is not KeyState.DESTROYED and not due:
        scheduled = key.state is KeyState.DESTROY_SCHEDULED
        when = f"due before {key.deletion_at}" if scheduled else "scheduled"
        raise KeyInvalidState(f"the deletion is not {when}")
    done = key.state is KeyState.DESTROYED
    return Destruction(key.key_id, {key.key_version: key.key_id}, key.deletion_at, done=done)


def is_due(state: KeyState, deletion_at: str | None) -> bool:
    """Tell whether a deletion waits for nothing but somebody who wants it; where no clock runs, at once."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return state is KeyState.DESTROY_SCHEDULED and (deletion_at is None or deletion_at <= now)
