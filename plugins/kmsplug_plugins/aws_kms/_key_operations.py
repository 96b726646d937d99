"""Making, reading and listing keys; their material, states, deletion and what became of lost changes."""

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from kmsplug_protocol import (
    CreateKeyParams,
    ErrorCode,
    GetPublicKeyParams,
    GetPublicKeyResult,
    Key,
    KeyParams,
    KeyState,
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
    ScheduleDeletionParams,
)
from kmsplug_sdk import DriverError, provides
from kmsplug_sdk.call import Call, current_call, set_current_call

from . import _changes
from . import _tables as tables
from ._client import CONNECTIONS
from ._crypto import UsesKeys
from ._keys import ONLY_VERSION, OWN_TAGS, timestamp, vendor_of, version_of
from ._tables import DELETION_WINDOW, KINDS, RSA_KEYS, SPECS, STATES, SYMMETRIC, USAGES, provides_each

_SEEN_AFTER_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # how long a rotation takes to show
_MAX_TAGS: Final = 49  # KMS takes 50, and one is the driver's
_OFFSET: Final = re.compile(r"[0-9]{1,4}")


class KeyOperations(UsesKeys):
    """The part of the driver that makes keys, reads them and moves them from state to state."""

    _multi_region: bool
    _kinds: frozenset[Any]

    @provides_each(tables.CREATE)
    def create_key(self, request: CreateKeyParams) -> Key:
        """Make a key, tagged with the name of the change so that a lost answer can be told."""
        usage = self._usage(request)
        self._check_demands(request)
        tags = dict(request.tags)
        if request.change_key is not None:
            tags[_changes.CREATED_BY] = _changes.digest(request.change_key)
        answer = self._client.ask(
            "create_key",
            "key.create",
            KeySpec=SPECS[request.algorithm],
            KeyUsage=USAGES[usage],
            Origin="EXTERNAL" if request.origin is Origin.IMPORTED else "AWS_KMS",
            MultiRegion=self._multi_region,
            Description=request.name or "",
            Tags=[{"TagKey": tag, "TagValue": value} for tag, value in tags.items()],
        )
        metadata = answer["KeyMetadata"]
        self._client.remember_new(metadata["Arn"])
        return self._keys.described(
            {**metadata, "vendor": vendor_of(answer)}, "key.create", tags=tags, aliases=()
        )

    @provides()
    def get_key(self, request: KeyParams) -> Key:
        """Describe a key."""
        return self._keys.describe(request.key_id, "key.get")

    @provides()
    def list_keys(self, request: ListKeysParams) -> ListKeysResult:
        """List the keys of the account in the region, those of AWS services among them."""
        params: dict[str, Any] = {} if request.cursor is None else {"Marker": request.cursor}
        answer = self._client.ask("list_keys", "key.list", Limit=request.limit, **params)
        call = current_call()
        with ThreadPoolExecutor(CONNECTIONS // 2) as pool:
            found = pool.map(lambda entry: self._entry(entry["KeyArn"], call), answer["Keys"])
            keys = tuple(key for key in found if key is not None)
        return ListKeysResult(
            keys=keys, next_cursor=answer.get("NextMarker") or None, vendor=vendor_of(answer)
        )

    @provides_each(tables.PUBLIC_KEY)
    def get_public_key(self, request: GetPublicKeyParams) -> GetPublicKeyResult:
        """Return the public half."""
        operation = "key.get_public_key"
        facts = self._keys.facts(request.key_id, operation)
        if facts.algorithm not in tables.WITH_PUBLIC_HALF:
            raise DriverError(ErrorCode.KEY_USAGE_MISMATCH, f"a key of {facts.algorithm} has no public half")
        self._require_current(facts, request.key_version, operation)
        answer = self._client.ask("get_public_key", operation, KeyId=facts.arn)
        return GetPublicKeyResult(
            key_id=facts.arn,
            key_version=ONLY_VERSION,
            algorithm=facts.algorithm,
            public_key=answer["PublicKey"],
            protection=facts.protection,
            vendor=vendor_of(answer),
        )

    @provides()
    def enable_key(self, request: KeyParams) -> Key:
        """Enable a key."""
        facts = self._keys.facts(request.key_id, "key.enable")
        self._client.ask("enable_key", "key.enable", KeyId=facts.arn)
        return self._keys.describe(facts.arn, "key.enable")

    @provides()
    def disable_key(self, request: KeyParams) -> Key:
        """Disable a key: nothing works with it."""
        facts = self._keys.facts(request.key_id, "key.disable")
        self._client.ask("disable_key", "key.disable", KeyId=facts.arn)
        return self._keys.describe(facts.arn, "key.disable")

    @provides(deletion_window_days=DELETION_WINDOW)
    def schedule_key_deletion(self, request: ScheduleDeletionParams) -> Key:
        """Begin the deletion window; AWS KMS destroys the key at its end, and not before."""
        operation = "key.schedule_deletion"
        facts = self._keys.facts(request.key_id, operation)
        least, most = DELETION_WINDOW
        days = most if request.window_days is None else request.window_days
        if not least <= days <= most:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"the deletion window of AWS KMS is {least} to {most} days",
                path="window_days",
            )
        self._client.ask("schedule_key_deletion", operation, KeyId=facts.arn, PendingWindowInDays=days)
        return self._keys.describe(facts.arn, operation)

    @provides()
    def cancel_key_deletion(self, request: KeyParams) -> Key:
        """End the deletion window; the key is disabled then. Of another key nothing is changed."""
        operation = "key.cancel_deletion"
        facts = self._keys.facts(request.key_id, operation)
        if self._state(facts.arn, operation) is KeyState.DESTROY_SCHEDULED:
            self._client.ask("cancel_key_deletion", operation, KeyId=facts.arn)
        return self._keys.describe(facts.arn, operation)

    @provides_each(tables.ROTATE)
    def rotate_key(self, request: KeyParams) -> Key:
        """Make new material and wait until it is current; AWS KMS allows 25 such rotations of a key.

        Raises:
            DriverError: TIMEOUT, outcome unknown: it was asked for and did not show in time.
        """
        operation = "key.rotate"
        facts = self._keys.facts(request.key_id, operation)
        if facts.algorithm is not SYMMETRIC:
            raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "AWS KMS rotates symmetric keys only")
        start = version_of(self._keys.metadata(facts.arn, operation))
        if request.change_key is not None:
            self._note(facts.arn, _changes.rotation(request.change_key, start))
        self._client.ask("rotate_key_on_demand", operation, KeyId=facts.arn)
        metadata = self._await_material(facts.arn, start)
        if request.change_key is not None:
            # The rotation is done, whatever becomes of the note about it.
            with contextlib.suppress(DriverError):
                self._note(facts.arn, _changes.rotation(request.change_key, start, version_of(metadata)))
        return self._keys.described(metadata, operation)

    @provides()
    def list_key_versions(self, request: ListVersionsParams) -> ListVersionsResult:
        """List the materials of a key, oldest first."""
        operation = "key.list_versions"
        facts = self._keys.facts(request.key_id, operation)
        metadata = self._keys.metadata(facts.arn, operation)
        state, current = STATES[metadata["KeyState"]], version_of(metadata)
        versions: tuple[KeyVersion, ...]
        if facts.pinned or current == ONLY_VERSION:
            created = timestamp(metadata.get("CreationDate"))
            versions = (KeyVersion(key_version=current, state=state, current=True, created_at=created),)
        else:
            versions = tuple(
                _version(entry, state, current) for entry in self._materials(facts.arn, operation)
            )
        begin = _offset(request.cursor, len(versions))
        end = begin + request.limit
        return ListVersionsResult(
            key_id=facts.arn,
            versions=versions[begin:end],
            next_cursor=str(end) if end < len(versions) else None,
            vendor=metadata["vendor"],
        )

    @provides()
    def reconcile(self, request: ReconcileParams) -> ReconcileResult:
        """Tell what became of a change, from the tags and the state of keys; never that it did not happen.

        AWS KMS takes no name of a request, so one that is still on its way could be carried out after this.
        """
        operation = "key.reconcile"
        if request.method == "key.create":
            arn = self._created_by(request.idempotency_key)
            outcome = Outcome.UNKNOWN if arn is None else Outcome.APPLIED
        elif request.key_id is None:
            arn, outcome = None, Outcome.UNKNOWN
        else:
            arn = self._keys.facts(request.key_id, operation).arn
            outcome = self._outcome(request.method, arn, request.idempotency_key)
        applied = outcome is Outcome.APPLIED and arn is not None
        return ReconcileResult(
            outcome=outcome, key=self._keys.describe(arn, operation) if applied and arn is not None else None
        )

    def _state(self, arn: str, operation: str) -> KeyState:
        return STATES[self._keys.metadata(arn, operation)["KeyState"]]

    def _usage(self, request: CreateKeyParams) -> KeyUsage:
        if request.algorithm not in self._kinds:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION, f"AWS KMS makes no keys of {request.algorithm} here"
            )
        if request.usage is None:
            if request.algorithm in RSA_KEYS:
                raise DriverError(ErrorCode.INVALID_ARGUMENT, "an RSA key needs a usage", path="usage")
            return KINDS[request.algorithm][0]
        if request.usage not in KINDS[request.algorithm]:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                f"AWS KMS makes no keys of {request.algorithm} for {request.usage}",
                path="usage",
            )
        return request.usage

    def _check_demands(self, request: CreateKeyParams) -> None:
        if request.protection not in (None, Protection.HSM):
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION, "keys of AWS KMS live in HSMs", path="protection"
            )
        if request.exportable:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION, "keys of AWS KMS are never exported", path="exportable"
            )
        if request.origin is Origin.IMPORTED and not any(
            row["key_algorithm"] is request.algorithm for row in tables.IMPORT
        ):
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                f"AWS KMS takes no material of {request.algorithm}",
                path="origin",
            )
        check_tags(request.tags)

    def _entry(self, arn: str, call: Call) -> Key | None:
        """Return a key of a list; None: the protocol has no name for its kind, or it has just gone."""
        set_current_call(call)
        try:
            return self._keys.describe(arn, "key.list")
        except DriverError as error:
            if error.code in (ErrorCode.UNSUPPORTED_OPERATION, ErrorCode.KEY_NOT_FOUND):
                return None
            raise
        finally:
            set_current_call(None)

    def _note(self, arn: str, rotation: _changes.Rotation) -> None:
        if outlived := _changes.outlived(self._keys.tags(arn, "key.rotate")):
            self._client.ask("untag_resource", "key.rotate", KeyId=arn, TagKeys=outlived)
        tag = {"TagKey": rotation.tag, "TagValue": rotation.value}
        self._client.ask("tag_resource", "key.rotate", KeyId=arn, Tags=[tag])

    def _await_material(self, arn: str, start: str) -> dict[str, Any]:
        call = current_call()
        for pause_s in (*_SEEN_AFTER_S, 0.0):
            metadata = self._keys.metadata(arn, "key.rotate")
            if version_of(metadata) != start:
                return metadata
            if call.remaining_s(60.0) <= pause_s or call.cancelled.wait(pause_s):
                break
        raise DriverError(
            ErrorCode.TIMEOUT, "the rotation was asked for and has not ended yet", outcome=Outcome.UNKNOWN
        )

    def _materials(self, arn: str, operation: str) -> list[dict[str, Any]]:
        """Return the materials of a key, oldest first; the first has no date of a rotation."""
        found = [
            entry
            for page in self._keys.pages(
                "list_key_rotations", operation, KeyId=arn, IncludeKeyMaterial="ALL_KEY_MATERIAL"
            )
            for entry in page["Rotations"]
        ]
        return sorted(
            found, key=lambda one: one["RotationDate"].timestamp() if one.get("RotationDate") else 0.0
        )

    def _created_by(self, change: str) -> str | None:
        """Look through the tags of all keys; what cannot be seen before the deadline stays unknown."""
        wanted, call = _changes.digest(change), current_call()
        for page in self._keys.pages("list_keys", "key.reconcile", Limit=1000):
            for entry in page["Keys"]:
                if call.cancelled.is_set() or call.remaining_s(60.0) <= 1.0:
                    return None
                with contextlib.suppress(DriverError):  # it may have gone, or be another's to read
                    if self._keys.tags(entry["KeyArn"], "key.reconcile").get(_changes.CREATED_BY) == wanted:
                        return str(entry["KeyArn"])
        return None

    def _outcome(self, method: str, arn: str, change: str) -> Outcome:
        operation = "key.reconcile"
        if method == "key.rotate":
            materials = [entry["KeyMaterialId"] for entry in self._materials(arn, operation)]
            return _changes.outcome_of_rotate(change, self._keys.tags(arn, operation), materials)
        state = self._state(arn, operation)
        done = {
            # A key takes one material only, so if it has some, it is this one.
            "key.import": state is not KeyState.PRE_ACTIVE,
            "key.schedule_deletion": state is KeyState.DESTROY_SCHEDULED,
        }
        return Outcome.APPLIED if done.get(method, False) else Outcome.UNKNOWN


def check_tags(tags: dict[str, str]) -> None:
    """Refuse tags that the driver keeps for itself, and more than a key can have."""
    if any(tag.startswith(OWN_TAGS) for tag in tags):
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT, f"tags that begin with {OWN_TAGS!r} are the driver's own", path="tags"
        )
    if len(tags) > _MAX_TAGS:
        raise DriverError(ErrorCode.INVALID_ARGUMENT, f"a key has {_MAX_TAGS} tags at most", path="tags")


def _version(entry: dict[str, Any], state: KeyState, current: str) -> KeyVersion:
    """Describe a material. Earlier ones only open, and share a state in which nothing works."""
    is_current = entry["KeyMaterialId"] == current
    if not is_current and state is KeyState.ACTIVE:
        pending = str(entry.get("KeyMaterialState", "")).startswith("PENDING")
        state = KeyState.PRE_ACTIVE if pending else KeyState.DEACTIVATED
    return KeyVersion(
        key_version=entry["KeyMaterialId"],
        state=state,
        current=is_current,
        created_at=timestamp(entry.get("RotationDate")),
    )


def _offset(cursor: str | None, length: int) -> int:
    if cursor is None:
        return 0
    if not _OFFSET.fullmatch(cursor) or not 0 < int(cursor) < length:
        raise DriverError(ErrorCode.INVALID_ARGUMENT, "the cursor is none of this list", path="cursor")
    return int(cursor)
