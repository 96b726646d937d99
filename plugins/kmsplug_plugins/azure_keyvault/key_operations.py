"""Operations on keys: making, reading, rotating, tagging, and telling what became of a change."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote, unquote

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
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
    Protection,
    TagKeyParams,
)
from kmsplug_sdk import DriverError

from ._capabilities import offers
from ._changes import Changes
from ._kinds import KINDS, NATURAL
from ._making import NAME_PREFIX, check_tags, new_key, public_key, waiting_key
from ._records import Note, Record, digest, is_name, moment, read, refusal
from ._vault import PAGE, Vault
from ._wire import Answer

_LISTS: Final = ("keys", "deletedkeys")
_CURSOR: Final = re.compile(r"(keys|deletedkeys)(?:\.([!-~]{1,4000}))?")


class KeyOperations:
    """The part of the driver that makes and shows keys."""

    _vault: Vault
    _changing: Changes

    @offers("key.create")
    def create_key(self, request: CreateKeyParams) -> Key:
        """Make a key. Asked for again under the same idempotency key, it is made once."""
        algorithm, usage = request.algorithm, self._usage_for(request)
        hsm = self._hsm_for(request)
        check_tags(request.tags)
        change = None if request.change_key is None else digest(request.change_key)
        name = self._name_for(request, change)
        waits = request.origin is Origin.IMPORTED
        note = Note(
            algorithm=algorithm,
            generation=0 if waits else 1,
            created_by=change or "",
            waits_for=usage if waits else "",
            imported=waits,
        )
        with self._changing.of(change):
            found = self._existing(name, change, algorithm, usage)
            if found is None:
                body = waiting_key(hsm=hsm) if waits else new_key(algorithm, usage, hsm=hsm)
                record = Record(name, "", {}, {}, request.tags, note)
                answer = self._vault.client.call(
                    "key.create", "POST", f"/keys/{name}/create", {**body, "tags": record.all_tags()}
                )
                found = read(answer.body), answer
            self._vault.set_policy(name)
        return self._vault.described(*found)

    @offers("key.get")
    def get_key(self, request: KeyParams) -> Key:
        """Return what is known about a key, also of one that is deleted and can be recovered."""
        return self._vault.described(*self._vault.get("key.get", request.key_id))

    @offers("key.list")
    def list_keys(self, request: ListKeysParams) -> ListKeysResult:
        """Return a page of keys: first those that are there, then those that are deleted and recoverable."""
        where, token = _position(request.cursor)
        try:
            items, token, answer = self._vault.page("key.list", f"/{where}", min(request.limit, PAGE), token)
        except DriverError as error:
            if where == _LISTS[0] or error.code is not ErrorCode.ACCESS_DENIED:
                raise
            return ListKeysResult(keys=())  # deleted keys are not for those who only use keys
        keys = tuple(key for item in items if (key := self._listed(item)) is not None)
        following = where if token is not None else _after(where)
        cursor = (
            None if following is None else following + ("" if token is None else "." + quote(token, safe=""))
        )
        return ListKeysResult(keys=keys, next_cursor=cursor, vendor=answer.vendor)

    @offers("key.list_versions")
    def list_key_versions(self, request: ListVersionsParams) -> ListVersionsResult:
        """Return a page of a key's versions, oldest first."""
        current, answer = self._vault.get("key.list_versions", request.key_id)
        alone = current.deleted or current.note.waits_for
        versions = [current] if alone else self._vault.versions("key.list_versions", current)
        start = _offset(request.cursor)
        page = versions[start : start + request.limit]
        more = start + request.limit < len(versions)
        return ListVersionsResult(
            key_id=self._vault.config.namespace + current.name,
            versions=tuple(
                KeyVersion(
                    key_version=one.version,
                    state=one.state,
                    current=one.version == current.version,
                    created_at=moment(one.created),
                )
                for one in page
            ),
            next_cursor=str(start + request.limit) if more else None,
            vendor=answer.vendor,
        )

    @offers("key.get_public_key")
    def get_public_key(self, request: GetPublicKeyParams) -> GetPublicKeyResult:
        """Return the public half of a version in whatever state: it is public."""
        record, answer = self._vault.get("key.get_public_key", request.key_id, request.key_version)
        if record.note.waits_for:
            raise refusal(record)
        public = public_key(record.jwk, answer)
        if public is None:
            raise DriverError(
                ErrorCode.KEY_USAGE_MISMATCH,
                f"key {record.name} is {record.algorithm}, which has no public half",
            )
        return GetPublicKeyResult(
            key_id=self._vault.config.namespace + record.name,
            key_version=record.version,
            algorithm=record.algorithm,
            public_key=public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            protection=record.protection,
            vendor=answer.vendor,
        )

    @offers("key.tag")
    def tag_key(self, request: TagKeyParams) -> Key:
        """Write and remove tags, in one step, on the current version."""
        if not request.set.keys().isdisjoint(request.remove):
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT, "a tag is to be both written and removed", path="remove"
            )
        record, _ = self._vault.live("key.tag", request.key_id)
        kept = {name: value for name, value in record.tags.items() if name not in request.remove}
        tags = {**kept, **request.set}
        check_tags(tags)
        return self._vault.described(
            *self._vault.update("key.tag", record, tags=replace(record, tags=tags).all_tags())
        )

    def _listed(self, item: Mapping[str, Any]) -> Key | None:
        """Return the description of a listed key; lists do not tell what a key is."""
        try:
            return self._vault.described(*self._vault.get("key.list", read(item).name))
        except DriverError as error:
            # Purged since the page was made, or of a kind that there is no name for here.
            if error.code in (ErrorCode.KEY_NOT_FOUND, ErrorCode.UNSUPPORTED_OPERATION):
                return None
            raise

    def _usage_for(self, request: CreateKeyParams) -> KeyUsage:
        kind = KINDS.get(request.algorithm)
        if kind is None or (kind.hsm_only and self._vault.config.kind != "managed_hsm"):
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                f"this vault makes no {request.algorithm} keys, but RSA and EC ones",
            )
        usage = request.usage or NATURAL.get(request.algorithm)
        if usage is None:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"give a usage for {request.algorithm}: {', '.join(kind.usages)}",
                path="usage",
            )
        if usage not in kind.usages:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION, f"this vault makes no {request.algorithm} keys for {usage}"
            )
        return usage

    def _hsm_for(self, request: CreateKeyParams) -> bool:
        config = self._vault.config
        managed = config.kind == "managed_hsm"
        if request.exportable:
            raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "this driver makes no exportable keys")
        match request.protection:
            case None:
                return managed
            case Protection.HSM if managed or config.premium:
                return True
            case Protection.SOFTWARE if not managed:
                return False
            case demanded:
                raise DriverError(
                    ErrorCode.UNSUPPORTED_OPERATION,
                    f"this vault makes no keys whose protection is {demanded}",
                )

    def _name_for(self, request: CreateKeyParams, change: str | None) -> str:
        if request.name is None:
            return NAME_PREFIX + (change or secrets.token_hex(16))
        if not is_name(request.name):
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                "the names of keys in this vault have 1 to 127 letters, digits and hyphens",
                path="name",
            )
        return request.name

    def _existing(
        self, name: str, change: str | None, algorithm: KeyAlgorithm, usage: KeyUsage
    ) -> tuple[Record, Answer] | None:
        """Return the key that the same change made before.

        Of any other of this name the service would make another version, without a word.

        Raises:
            DriverError: ALREADY_EXISTS.
        """
        try:
            found, answer = self._vault.get("key.create", name)
        except DriverError as error:
            if error.code is ErrorCode.KEY_NOT_FOUND:
                return None
            raise
        if (
            change is not None
            and found.note.created_by == change
            and (found.algorithm, found.usage) == (algorithm, usage)
        ):
            return found, answer
        hint = "cancel its deletion, purge it, or take another name" if found.deleted else None
        raise DriverError(ErrorCode.ALREADY_EXISTS, f"there is a key {name} in this vault already", hint=hint)


def _position(cursor: str | None) -> tuple[str, str | None]:
    """Return the list and the service's own token that a cursor stands for."""
    found = _CURSOR.fullmatch(_LISTS[0] if cursor is None else cursor)
    if found is None:
        raise _foreign_cursor()
    return found[1], None if found[2] is None else unquote(found[2])


def _after(where: str) -> str | None:
    place = _LISTS.index(where) + 1
    return _LISTS[place] if place < len(_LISTS) else None


def _offset(cursor: str | None) -> int:
    if cursor is not None and not re.fullmatch("[1-9][0-9]{0,8}", cursor):
        raise _foreign_cursor()
    return int(cursor or 0)


def _foreign_cursor() -> DriverError:
    return DriverError(
        ErrorCode.INVALID_ARGUMENT, "the cursor is none that this driver returned", path="cursor"
    )
