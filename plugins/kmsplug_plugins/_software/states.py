"""The seven states and the moves between them: pure functions from one record to the next (SPEC.md 6.3)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from kmsplug_protocol import ErrorCode, KeyState, Secret
from kmsplug_sdk import DriverError

from .records import StoredKey, StoredVersion
from .refusals import REFUSALS

_S = KeyState

# From which states `key.set_state` leads to each of those that it knows.
_MOVES: Final[Mapping[KeyState, frozenset[KeyState]]] = {
    _S.ACTIVE: frozenset({_S.SUSPENDED, _S.DEACTIVATED}),  # a PRE_ACTIVE version here never has material
    _S.SUSPENDED: frozenset({_S.ACTIVE, _S.DEACTIVATED}),
    _S.DEACTIVATED: frozenset({_S.ACTIVE, _S.SUSPENDED}),
    _S.COMPROMISED: frozenset(_S) - {_S.COMPROMISED, _S.DESTROYED},
}

_NOT_ENABLED: Final = frozenset({_S.PRE_ACTIVE, _S.COMPROMISED, _S.DESTROY_SCHEDULED, _S.DESTROYED})
_GIVEN_BACK_BY_CANCEL: Final = frozenset({_S.PRE_ACTIVE, _S.COMPROMISED})


def refusal(key: StoredKey, version: StoredVersion) -> DriverError:
    """Return the refusal that belongs to a version's state."""
    code, reason = REFUSALS[version.state]
    return DriverError(code, f"version {version.name} of key {key.key_id} {reason}")


def suspended(key: StoredKey) -> StoredKey:
    """Return the key with all usable versions SUSPENDED, each remembering what it was.

    Raises:
        DriverError: There is nothing to suspend yet, or any more.
    """
    if key.current.state in (_S.PRE_ACTIVE, _S.DESTROYED):
        raise refusal(key, key.current)
    return _each(key, lambda version: _moved(version, _S.SUSPENDED))


def resumed(key: StoredKey) -> StoredKey:
    """Return the key with all SUSPENDED versions as they were before.

    Raises:
        DriverError: The current version is in a state that enabling does not end.
    """
    if key.current.state in _NOT_ENABLED:
        raise refusal(key, key.current)
    return _each(key, _resumed)


def moved(key: StoredKey, state: KeyState, only: StoredVersion | None) -> StoredKey:
    """Return the key with one version, or all that can be moved, in another state.

    Raises:
        DriverError: INVALID_ARGUMENT: nobody moves to that state in this way. Or the version, for a whole
            key the current one, cannot be moved there: with the code of its present state.
    """
    if state not in _MOVES:
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT,
            f"no key can be set to {state}, but to {', '.join(_MOVES)}",
            path="state",
        )
    decisive = key.current if only is None else only
    if decisive.state is not state and decisive.state not in _MOVES[state]:
        raise refusal(key, decisive)
    return _each(key, lambda version: _moved(version, state) if only in (None, version) else version)


def scheduled(key: StoredKey, deletion_at: str) -> StoredKey:
    """Return the key with all versions DESTROY_SCHEDULED, each remembering what it was.

    Raises:
        DriverError: KEY_PENDING_DELETION or KEY_DESTROYED: it is so already, or worse.
    """
    if key.current.state in (_S.DESTROY_SCHEDULED, _S.DESTROYED):
        raise refusal(key, key.current)
    return replace(_each(key, _scheduled), deletion_at=deletion_at)


def recovered(key: StoredKey) -> StoredKey:
    """Return the key with no version DESTROY_SCHEDULED, none of them usable yet.

    Raises:
        DriverError: KEY_DESTROYED.
    """
    if key.current.state is _S.DESTROYED:
        raise refusal(key, key.current)
    return _each(key, _recovered)


def destroyed(key: StoredKey) -> StoredKey:
    """Return what is left of the key: everything but its material and its aliases.

    Raises:
        DriverError: KEY_INVALID_STATE or KEY_DESTROYED: its deletion is not scheduled.
    """
    if key.current.state is _S.DESTROYED:
        raise refusal(key, key.current)
    if key.current.state is not _S.DESTROY_SCHEDULED:
        raise DriverError(
            ErrorCode.KEY_INVALID_STATE, f"key {key.key_id} is not scheduled for deletion: schedule it first"
        )
    return replace(_each(key, _destroyed), aliases=())


def _each(key: StoredKey, change: Callable[[StoredVersion], StoredVersion]) -> StoredKey:
    versions = tuple(change(version) for version in key.versions)
    pending = any(version.state is _S.DESTROY_SCHEDULED for version in versions)
    return replace(key, versions=versions, deletion_at=key.deletion_at if pending else None)


def _moved(version: StoredVersion, state: KeyState) -> StoredVersion:
    if version.state not in _MOVES[state]:
        return version
    return replace(version, state=state, former=version.state if state is _S.SUSPENDED else None)


def _resumed(version: StoredVersion) -> StoredVersion:
    if version.state is not _S.SUSPENDED or version.former is None:
        return version
    return replace(version, state=version.former, former=None)


def _scheduled(version: StoredVersion) -> StoredVersion:
    if version.state in (_S.DESTROY_SCHEDULED, _S.DESTROYED):
        return version
    # A suspended version comes back suspended, so what matters is what it was before that.
    former = version.former if version.state is _S.SUSPENDED else version.state
    return replace(version, state=_S.DESTROY_SCHEDULED, former=former)


def _recovered(version: StoredVersion) -> StoredVersion:
    if version.state is not _S.DESTROY_SCHEDULED:
        return version
    if version.former in _GIVEN_BACK_BY_CANCEL and version.former is not None:
        return replace(version, state=version.former, former=None)
    return replace(version, state=_S.SUSPENDED)


def _destroyed(version: StoredVersion) -> StoredVersion:
    return replace(version, state=_S.DESTROYED, former=None, material=Secret(b""))
