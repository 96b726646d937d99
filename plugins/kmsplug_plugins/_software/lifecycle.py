"""The life of keys: making, rotating, giving material, and which version may do what."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from kmsplug_protocol import ErrorCode, KeyAlgorithm, KeyState, KeyUsage, Origin, Secret
from kmsplug_sdk import DriverError

from .records import StoredKey, StoredVersion
from .states import refusal

KEY_NAMESPACE: Final = "key-"

MIN_DELETION_DAYS: Final = 7
MAX_DELETION_DAYS: Final = 30

_OPENING: Final = frozenset({KeyState.ACTIVE, KeyState.DEACTIVATED})
_ROTATABLE: Final = frozenset({KeyState.ACTIVE, KeyState.DEACTIVATED, KeyState.COMPROMISED})


def created(
    algorithm: KeyAlgorithm,
    usage: KeyUsage,
    material: Secret | None,
    *,
    name: str | None,
    tags: Mapping[str, str],
    key_id: str | None = None,
    change: str | None = None,
) -> StoredKey:
    """Return a new key with one version, not stored yet: ACTIVE, or PRE_ACTIVE if it waits for material."""
    now = moment()
    state = KeyState.PRE_ACTIVE if material is None else KeyState.ACTIVE
    return StoredKey(
        key_id=key_id or KEY_NAMESPACE + secrets.token_hex(16),
        algorithm=algorithm,
        usage=usage,
        created_at=now,
        versions=(StoredVersion(1, state, now, material or Secret(b""), made_by=change),),
        name=name,
        tags=dict(tags),
        origin=Origin.IMPORTED if material is None else Origin.GENERATED,
    )


def imported(key: StoredKey, material: Secret, *, change: str | None = None) -> StoredKey:
    """Return the key with the material that it waited for.

    Raises:
        DriverError: It waits for none: with the code of its state.
    """
    require_waiting(key)
    return key.with_version(replace(key.current, state=KeyState.ACTIVE, material=material, filled_by=change))


def require_waiting(key: StoredKey) -> None:
    """Refuse a key that does not wait for material.

    Raises:
        DriverError: With the code of its state.
    """
    if key.current.state is not KeyState.PRE_ACTIVE:
        raise refusal(key, key.current)


def rotated(key: StoredKey, material: Secret, *, change: str | None = None) -> StoredKey:
    """Return the key with a new current version; an ACTIVE former one only opens from now on.

    Raises:
        DriverError: The key cannot be rotated, or not in its state.
    """
    require_rotatable(key)
    former = key.current
    if former.state is KeyState.ACTIVE:
        key = key.with_version(replace(former, state=KeyState.DEACTIVATED))
    version = StoredVersion(former.number + 1, KeyState.ACTIVE, moment(), material, made_by=change)
    return replace(key, versions=(*key.versions, version))


def require_rotatable(key: StoredKey) -> None:
    """Refuse a key that gets no new version.

    Raises:
        DriverError: UNSUPPORTED_OPERATION: its material comes from outside. Or with the code of its state.
    """
    if key.current.state not in _ROTATABLE:
        raise refusal(key, key.current)
    if key.origin is not Origin.GENERATED:
        # A generated version would make the key's origin a lie.
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"the material of key {key.key_id} was imported: import other material into a new key",
        )


def require_active(key: StoredKey, version: StoredVersion) -> None:
    """Refuse a version that may not make anything new.

    Raises:
        DriverError: With the code of its state.
    """
    if version.state is not KeyState.ACTIVE:
        raise refusal(key, version)


def require_not_destroyed(key: StoredKey) -> None:
    """Refuse a key of which only a tombstone is left.

    Raises:
        DriverError: KEY_DESTROYED.
    """
    if key.current.state is KeyState.DESTROYED:
        raise refusal(key, key.current)


def making_version(key: StoredKey, wanted: str | None) -> StoredVersion:
    """Return the version that encrypts or signs: the one asked for, else the current one.

    Raises:
        DriverError: There is no such version, or its state forbids it.
    """
    version = named_version(key, wanted)
    require_active(key, version)
    return version


def opening_versions(key: StoredKey, wanted: str | None) -> Sequence[StoredVersion]:
    """Return the versions that may decrypt or verify: the one asked for, else all, newest first.

    Raises:
        DriverError: There is no such version, or the state of it, or of all, forbids it.
    """
    versions = [named_version(key, wanted)] if wanted is not None else key.versions[::-1]
    usable = [version for version in versions if version.state in _OPENING]
    if not usable:
        raise refusal(key, versions[0])
    return usable


def version_with_material(key: StoredKey, wanted: str | None) -> StoredVersion:
    """Return the version of this name in whatever state, if it has material.

    Raises:
        DriverError: KEY_NOT_FOUND; or with the code of its state.
    """
    version = named_version(key, wanted)
    if not version.material:
        raise refusal(key, version)
    return version


def named_version(key: StoredKey, wanted: str | None) -> StoredVersion:
    """Return the version of this name, whatever its state; None names the current one.

    Raises:
        DriverError: KEY_NOT_FOUND.
    """
    if wanted is None:
        return key.current
    for version in key.versions:
        if version.name == wanted:
            return version
    raise DriverError(ErrorCode.KEY_NOT_FOUND, f"key {key.key_id} has no version {wanted!r}")


def moment(*, days: int = 0, hours: int = 0) -> str:
    """Return the present moment in UTC, or one that is so much later."""
    then = datetime.now(UTC) + timedelta(days=days, hours=hours)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")
