"""Operations on keys: making, reading, rotating, publishing."""

import re
import uuid
from typing import Any, Final

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
)
from kmsplug_sdk import DriverError, provides
from kmsplug_sdk.driver import provides_each

from . import _capabilities as rows
from ._algorithms import HMAC_BYTES, RSA, SIGNERS, TYPES, USAGES
from ._keyring import Keyring
from ._keys import ENCRYPTS, NAME, PLACEHOLDER, TransitKey, no_version, version_number
from ._public_keys import subject_public_key_info

_CREATE: Final = "key.create"
_MOST_ON_A_PAGE: Final = 50  # each key is read by a request of its own
_USABLE: Final = ("ACTIVE", "DEACTIVATED")


class KeyOperations:
    """The part of the driver that makes and shows keys."""

    _keys: Keyring
    _auto_rotate_hours: int

    @provides_each(rows.CREATE)
    def create_key(self, request: CreateKeyParams) -> Key:
        """Make a key, or what waits for a key's material.

        The name becomes the id. RSA keys that encrypt have names that end in ``.encrypt``. Of two callers who
        make a key of the same name at the same moment, both get the same key.
        """
        usage = _usage_for(request)
        _refuse_what_is_not_offered(request)
        name = _name_for(request, usage)
        self._require_free(name)
        pending = request.origin is Origin.IMPORTED
        body: dict[str, Any] = {"type": TYPES[request.algorithm]}
        if request.algorithm in HMAC_BYTES:
            body["key_size"] = HMAC_BYTES[request.algorithm]
        if request.exportable:
            body["exportable"] = True
        if self._auto_rotate_hours and not pending:
            body["auto_rotate_period"] = f"{self._auto_rotate_hours}h"
        self._keys.transit.post(_CREATE, f"keys/{name + PLACEHOLDER if pending else name}", body)
        key = self._read_again(_CREATE, name)
        if (key.algorithm, key.usage) != (request.algorithm, usage):
            raise DriverError(
                ErrorCode.ALREADY_EXISTS, f"somebody else made {key.key_id} at the same moment", path="name"
            )
        return key.described()

    @provides()
    def get_key(self, request: KeyParams) -> Key:
        """Return what is known about a key, in whatever state."""
        return self._keys.read("key.get", request.key_id).described()

    @provides()
    def list_keys(self, request: ListKeysParams) -> ListKeysResult:
        """Return a page of keys by name. Keys that the protocol has no name for are left out."""
        after = _name_in(request.cursor)
        found = self._names(after)
        page = found[: min(request.limit, _MOST_ON_A_PAGE)]
        keys = [key for name in page if (key := self._shown(name, found)) is not None]
        return ListKeysResult(
            keys=tuple(key.described().model_copy(update={"vendor": None}) for key in keys),
            next_cursor=f"after:{page[-1]}" if len(found) > len(page) else None,
        )

    @provides()
    def list_key_versions(self, request: ListVersionsParams) -> ListVersionsResult:
        """Return a page of a key's versions, oldest first; those that were trimmed are DESTROYED."""
        key = self._keys.read("key.list_versions", request.key_id)
        first = _version_in(request.cursor) + 1
        last = min(key.latest, first + request.limit - 1)
        return ListVersionsResult(
            key_id=key.key_id,
            versions=tuple(
                KeyVersion(
                    key_version=str(number),
                    state=key.state_of(number),
                    current=number == key.latest,
                    created_at=key.created_at(number),
                )
                for number in range(first, last + 1)
            ),
            next_cursor=str(last) if last < key.latest else None,
            protection=Protection.SOFTWARE,
            vendor=key.vendor,
        )

    @provides()
    def rotate_key(self, request: KeyParams) -> Key:
        """Make a new current version. Older ones stay ACTIVE, as the server has it."""
        operation = "key.rotate"
        key = self._keys.read(operation, request.key_id)
        if key.state not in _USABLE:
            raise key.refusal()
        if key.imported:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                f"key {key.key_id} was imported: import a new key in place of rotating it",
            )
        self._keys.transit.post(operation, f"keys/{key.name}/rotate")
        return self._read_again(operation, key.name).described()

    @provides_each(rows.PUBLIC_KEY)
    def get_public_key(self, request: GetPublicKeyParams) -> GetPublicKeyResult:
        """Return the public half of a version that is not below ``min_decryption_version``."""
        key = self._keys.read("key.get_public_key", request.key_id)
        if key.algorithm not in SIGNERS:
            raise DriverError(
                ErrorCode.KEY_USAGE_MISMATCH, f"key {key.key_id} is {key.algorithm}, which has no public half"
            )
        if key.pending:
            raise key.refusal()
        wanted = request.key_version
        number = key.latest if wanted is None else version_number(key.key_id, wanted)
        if number > key.latest:
            raise no_version(key.key_id, str(number))
        version = key.versions.get(str(number))
        if not isinstance(version, dict):
            raise key.refusal(number)
        return GetPublicKeyResult(
            key_id=key.key_id,
            key_version=str(number),
            algorithm=key.algorithm,
            public_key=subject_public_key_info(str(version.get("public_key"))),
            protection=Protection.SOFTWARE,
            vendor=key.vendor,
        )

    def _require_free(self, name: str) -> None:
        try:
            taken = any(self._keys.read_stored(_CREATE, stored) for stored in (name, name + PLACEHOLDER))
        except DriverError as error:
            if error.code is not ErrorCode.UNSUPPORTED_OPERATION:
                raise
            taken = True  # by a key that this driver cannot use
        if taken:
            raise DriverError(
                ErrorCode.ALREADY_EXISTS, f"there is a key {self._keys.prefix}{name} already", path="name"
            )

    def _read_again(self, operation: str, name: str) -> TransitKey:
        """Read a key that was changed just now; if that fails, the change was made all the same."""
        self._keys.forget(name)
        try:
            return self._keys.read(operation, self._keys.prefix + name)
        except DriverError as error:
            raise DriverError(
                error.code,
                error.message,
                outcome=Outcome.APPLIED,
                retry_after_ms=error.data.retry_after_ms,
                vendor=error.data.vendor,
            ) from error

    def _names(self, after: str) -> list[str]:
        try:
            answer = self._keys.transit.list("key.list", "keys")
        except DriverError as error:
            if error.code is ErrorCode.KEY_NOT_FOUND:  # the server's way to say that there are none
                return []
            raise
        names = answer.data.get("keys")
        return sorted(str(name) for name in names if str(name) > after) if isinstance(names, list) else []

    def _shown(self, stored_name: str, listed: list[str]) -> TransitKey | None:
        if stored_name.endswith(PLACEHOLDER) and stored_name.removesuffix(PLACEHOLDER) in listed:
            return None  # its key has its material, and the placeholder was left behind
        try:
            return self._keys.read_stored("key.list", stored_name)
        except DriverError as error:
            if error.code is ErrorCode.UNSUPPORTED_OPERATION:
                return None
            raise


def _usage_for(request: CreateKeyParams) -> KeyUsage:
    offered = USAGES.get(request.algorithm)
    if offered is None:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"this driver makes no {request.algorithm} keys, but {', '.join(TYPES)}",
        )
    if request.usage is None and len(offered) > 1:
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT,
            f"give a usage for {request.algorithm}: {', '.join(offered)}",
            path="usage",
        )
    usage = request.usage or offered[0]
    if usage not in offered:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"this driver makes no {request.algorithm} keys for {usage}, but for {', '.join(offered)}",
        )
    return usage


def _refuse_what_is_not_offered(request: CreateKeyParams) -> None:
    if request.protection not in (None, Protection.SOFTWARE):
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"the server protects keys by software, and {request.protection} was demanded",
        )
    if request.tags:
        raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "the server keeps no tags of keys", path="tags")


def _name_for(request: CreateKeyParams, usage: KeyUsage) -> str:
    name = request.name or f"kmsplug-{uuid.uuid4().hex}"
    if not NAME.fullmatch(name) or name.endswith(PLACEHOLDER):
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT,
            "the name becomes the key's id: letters, digits, '_', and within it '.' and '-'",
            path="name",
        )
    if _encrypts_with_rsa(request.algorithm, usage):
        return name if name.endswith(ENCRYPTS) else name + ENCRYPTS
    if request.algorithm in RSA and name.endswith(ENCRYPTS):
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT, f"only RSA keys that encrypt have names in {ENCRYPTS!r}", path="name"
        )
    return name


def _encrypts_with_rsa(algorithm: KeyAlgorithm, usage: KeyUsage) -> bool:
    return algorithm in RSA and usage is KeyUsage.ENCRYPT_DECRYPT


def _name_in(cursor: str | None) -> str:
    """Return the name that a cursor stands for: the last one of the page before."""
    if cursor is None:
        return ""
    name = cursor.removeprefix("after:")
    if name == cursor or not re.fullmatch(r"[A-Za-z0-9_.-]{1,512}", name):
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT, "the cursor is none that this driver returned", path="cursor"
        )
    return name


def _version_in(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not re.fullmatch("[1-9][0-9]{0,8}", cursor):
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT, "the cursor is none that this driver returned", path="cursor"
        )
    return int(cursor)
