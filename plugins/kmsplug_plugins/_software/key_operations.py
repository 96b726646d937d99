"""Operations on keys: making, reading, rotating."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from kmsplug_protocol import (
    CreateKeyParams,
    ErrorCode,
    GetPublicKeyParams,
    GetPublicKeyResult,
    Key,
    KeyAlgorithm,
    KeyParams,
    KeyUsage,
    KeyVersion,
    ListKeysParams,
    ListKeysResult,
    ListVersionsParams,
    ListVersionsResult,
    Origin,
    Outcome,
    Protection,
    ReconcileParams,
    ReconcileResult,
)
from kmsplug_sdk import DriverError, provides
from kmsplug_sdk.driver import provides_each

from . import capabilities as rows
from .algorithms import GENERATORS, WITH_PUBLIC_HALF, default_usage, usages
from .asymmetric import public_half
from .changes import id_of_created, require_same, was_created, was_imported, was_rotated
from .lifecycle import created, require_rotatable, rotated, version_with_material
from .records import StoredKey
from .store import Store

# So that the description of every key, and a page of keys, fits into a frame.
_MAX_TAG_VALUE: Final = 1024

_CARRIED_OUT: Final = {"key.create": was_created, "key.rotate": was_rotated, "key.import": was_imported}

_T = TypeVar("_T")


class KeyOperations:
    """The part of the driver that makes and shows keys."""

    _store: Store

    @provides_each(rows.CREATE)
    def create_key(self, request: CreateKeyParams) -> Key:
        """Make a key with one ACTIVE version, or one that waits for its material.

        It is on the disk when this returns. Asked for again under the same idempotency key, it is made once.
        """
        usage = _usage_for(request)
        _refuse_what_is_not_offered(request)
        # Outside of any transaction: an RSA key takes up to seconds.
        material = GENERATORS[request.algorithm]() if request.origin is Origin.GENERATED else None
        change = request.change_key
        key = created(
            request.algorithm,
            usage,
            material,
            name=request.name,
            tags=request.tags,
            key_id=id_of_created(self._store.store_id, change) if change else None,
            change=change,
        )
        return described(require_same(self._store.add(key, again=bool(change)), key))

    @provides(inline=True)
    def get_key(self, request: KeyParams) -> Key:
        """Return what is known about a key, in whatever state."""
        return described(self._store.key(request.key_id))

    @provides()
    def list_keys(self, request: ListKeysParams) -> ListKeysResult:
        """Return a page of keys in the order of creation."""
        keys = self._store.page(_position(request.cursor), request.limit + 1)
        page, more = _page(keys, request.limit)
        return ListKeysResult(
            keys=tuple(described(key) for key in page),
            next_cursor=str(page[-1].position) if more else None,
        )

    @provides()
    def rotate_key(self, request: KeyParams) -> Key:
        """Make a new current version; the former one decrypts and verifies only from now on."""
        change = request.change_key
        key = self._store.key(request.key_id)
        if was_rotated(key, change):
            return described(key)
        require_rotatable(key)
        material = GENERATORS[key.algorithm]()
        return described(
            self._store.update(
                request.key_id,
                lambda now: now if was_rotated(now, change) else rotated(now, material, change=change),
            )
        )

    @provides()
    def reconcile(self, request: ReconcileParams) -> ReconcileResult:
        """Tell whether a create, rotate or import was carried out; of other changes nothing is kept."""
        change = request.idempotency_key
        carried_out = _CARRIED_OUT.get(request.method)
        key_id = request.key_id
        if request.method == "key.create":
            key_id = id_of_created(self._store.store_id, change)
        if carried_out is None or key_id is None:
            return ReconcileResult(outcome=Outcome.UNKNOWN)
        try:
            key = self._store.key(key_id)
        except DriverError as error:
            if error.code is not ErrorCode.KEY_NOT_FOUND or request.method != "key.create":
                raise
            return ReconcileResult(outcome=Outcome.NOT_APPLIED)
        if carried_out(key, change):
            return ReconcileResult(outcome=Outcome.APPLIED, key=described(key))
        return ReconcileResult(outcome=Outcome.NOT_APPLIED)  # and never twice: see `changes`

    @provides()
    def list_key_versions(self, request: ListVersionsParams) -> ListVersionsResult:
        """Return a page of a key's versions, oldest first."""
        key = self._store.key(request.key_id)
        page, more = _page(key.versions[_position(request.cursor) :], request.limit)
        return ListVersionsResult(
            key_id=key.key_id,
            versions=tuple(
                KeyVersion(
                    key_version=version.name,
                    state=version.state,
                    current=version is key.current,
                    created_at=version.created_at,
                )
                for version in page
            ),
            next_cursor=page[-1].name if more else None,
            protection=Protection.SOFTWARE,
        )

    @provides_each(rows.PUBLIC_KEY)
    def get_public_key(self, request: GetPublicKeyParams) -> GetPublicKeyResult:
        """Return the public half of a version in whatever state it has one: it is public."""
        key = self._store.key(request.key_id)
        if key.algorithm not in WITH_PUBLIC_HALF:
            raise DriverError(
                ErrorCode.KEY_USAGE_MISMATCH, f"key {key.key_id} is {key.algorithm}, which has no public half"
            )
        version = version_with_material(key, request.key_version)
        return GetPublicKeyResult(
            key_id=key.key_id,
            key_version=version.name,
            algorithm=key.algorithm,
            public_key=public_half(version.material),
            protection=Protection.SOFTWARE,
        )


def described(key: StoredKey) -> Key:
    """Return what is known about a key."""
    return Key(
        key_id=key.key_id,
        key_version=key.current.name,
        algorithm=key.algorithm,
        usage=key.usage,
        state=key.current.state,
        name=key.name,
        origin=key.origin,
        exportable=key.exportable,
        created_at=key.created_at,
        deletion_at=key.deletion_at,
        aliases=key.aliases,
        tags=key.tags,
        protection=Protection.SOFTWARE,
    )


def _usage_for(request: CreateKeyParams) -> KeyUsage:
    offered = usages(request.algorithm)
    if not offered:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"this driver makes no {request.algorithm} keys, but {_names(tuple(GENERATORS))}",
        )
    usage = request.usage or default_usage(request.algorithm)
    if usage is None:
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT,
            f"give a usage for {request.algorithm}: {_names(offered)}",
            path="usage",
        )
    if usage not in offered:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"this driver makes no {request.algorithm} keys for {usage}, but for {_names(offered)}",
        )
    return usage


def _refuse_what_is_not_offered(request: CreateKeyParams) -> None:
    """Refuse demands that this driver cannot meet: nothing asked for is lowered silently."""
    if request.protection not in (None, Protection.SOFTWARE):
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"keys of this driver are protected by software, and {request.protection} was demanded",
        )
    if request.exportable:
        raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "this driver makes no exportable keys")
    check_tags(request.tags)


def check_tags(tags: Mapping[str, str]) -> None:
    """Refuse tags that are too long.

    Raises:
        DriverError: INVALID_ARGUMENT.
    """
    if any(len(value) > _MAX_TAG_VALUE for value in tags.values()):
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT,
            f"a tag's value is longer than {_MAX_TAG_VALUE} characters",
            path="tags",
        )


def _names(members: Sequence[KeyAlgorithm] | Sequence[KeyUsage]) -> str:
    return ", ".join(members)


def _position(cursor: str | None) -> int:
    """Return the position that a cursor stands for: that of the last item of the page before."""
    if cursor is None:
        return 0
    if not re.fullmatch("[1-9][0-9]{0,15}", cursor):
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT, "the cursor is none that this driver returned", path="cursor"
        )
    return int(cursor)


def _page(found: Sequence[_T], limit: int) -> tuple[Sequence[_T], bool]:
    """Cut off what was found beyond the page, and tell whether there was anything."""
    return found[:limit], len(found) > limit
