"""Operations on keys: making, reading, listing, judging, destroying."""

from abc import ABC, abstractmethod
from typing import Final

from kmsplug_protocol import (
    CreateKeyParams,
    EmptyResult,
    ErrorCode,
    GetPublicKeyParams,
    GetPublicKeyResult,
    Key,
    KeyParams,
    KeyState,
    ListKeysParams,
    ListKeysResult,
    Origin,
    Outcome,
    ReconcileParams,
    ReconcileResult,
    ValidateKeyParams,
    ValidationResult,
)
from kmsplug_sdk import DriverError

from . import _keys
from ._client import Attribute, KeyType
from ._destroying import Destruction
from ._encoding import public_key_info, rsa_public_key_info
from ._keys import StoredKey
from ._kinds import KINDS, Kind, default_usage
from ._known_answers import edwards_params
from ._link import Link, Worker
from ._offer import Offer, declared
from ._use import public_point

_MAX_LABEL_BYTES: Final = 255


class KeyOperations(ABC):
    """The part of the driver that makes and shows keys."""

    _link: Link
    _offer: Offer

    @declared("key.create")
    def create_key(self, request: CreateKeyParams) -> Key:
        """Make a key on the token: private, sensitive, not extractable. Its name is its CKA_LABEL.

        Asked for again under the same idempotency key, it is found by the CKA_ID that follows from that.
        """
        kind = self._kind_for(request)
        key_id = _keys.new_id(request.change_key)

        def act(worker: Worker) -> Key:
            # A repetition comes after `reconcile`, which looks surely: most creates are no repetition.
            there = _keys.look_up(worker, key_id, surely=False) if request.change_key else None
            if there is None and request.origin is Origin.IMPORTED:
                self._make_waiting(worker, kind, key_id, request.name or "")
                there = _keys.look_up(worker, key_id)
            if there is None:
                curve = (
                    edwards_params(self._offer.profile) if kind.key_type is KeyType.EC_EDWARDS else kind.curve
                )
                _keys.make(worker.session, kind, key_id, request.name or "", curve=curve, store=True)
                there = _keys.look_up(worker, key_id)
            if there is None or there.kind != kind:
                raise DriverError(
                    ErrorCode.ALREADY_EXISTS, "the idempotency key was used for another key of this token"
                )
            return self._described(there)

        return self._link.run("key.create", act, makes=True)

    @declared("key.get")
    def get_key(self, request: KeyParams) -> Key:
        """Return what the token says of a key now."""

        def act(worker: Worker) -> Key:
            worker.found.clear()  # whatever was found before may have been renamed
            return self._described(_keys.find(worker, request.key_id))

        return self._link.run("key.get", act)

    @declared("key.list")
    def list_keys(self, request: ListKeysParams) -> ListKeysResult:
        """Return a page of keys in the order of their ids. The token is searched whole for each page."""
        cursor = request.cursor
        if cursor is not None and not _keys.is_id(cursor):
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT, "the cursor is none that this driver returned", path="cursor"
            )

        def act(worker: Worker) -> ListKeysResult:
            found = [
                key
                for key in _keys.everything(worker)
                if cursor is None or _keys.text_of(key.key_id) > cursor
            ]
            page = found[: request.limit]
            return ListKeysResult(
                keys=tuple(self._described(key) for key in page),
                next_cursor=_keys.text_of(page[-1].key_id) if len(found) > len(page) else None,
                protection=self._offer.protection,
            )

        return self._link.run("key.list", act)

    @declared("key.get_public_key")
    def get_public_key(self, request: GetPublicKeyParams) -> GetPublicKeyResult:
        """Return the public half of a key."""

        def act(worker: Worker) -> GetPublicKeyResult:
            key = _keys.find(worker, request.key_id)
            require_version(request.key_version)
            if key.kind.symmetric:
                raise DriverError(
                    ErrorCode.KEY_USAGE_MISMATCH, f"the key is {key.kind.algorithm}, which has no public half"
                )
            return GetPublicKeyResult(
                key_id=_keys.text_of(key.key_id),
                key_version=_keys.VERSION,
                algorithm=key.kind.algorithm,
                public_key=_public_key(key),
                protection=self._offer.protection,
            )

        return self._link.run("key.get_public_key", act)

    @declared("key.validate")
    def validate_key(self, request: ValidateKeyParams) -> ValidationResult:
        """Tell whether a key is there and what the caller expects."""

        def act(worker: Worker) -> ValidationResult:
            reason = self._misfit(worker, request)
            return ValidationResult(valid=reason is None, reason=reason, protection=self._offer.protection)

        return self._link.run("key.validate", act)

    @declared("key.purge")
    def purge_key(self, request: KeyParams) -> EmptyResult:
        """Destroy every object of a key that this driver made, now: a token keeps no window.

        What an interruption left of a key is destroyed by the same call made again. Afterwards the key is not
        there.
        """
        destruction = Destruction(request.key_id)
        try:
            self._link.run("key.purge", destruction.run, makes=True)
        except DriverError as error:
            if destruction.begun:
                error.data = error.data.model_copy(update={"outcome": Outcome.UNKNOWN})
            raise
        return EmptyResult(protection=self._offer.protection)

    @declared("key.reconcile")
    def reconcile(self, request: ReconcileParams) -> ReconcileResult:
        """Tell whether a create or a purge was carried out.

        Of a create the key is there, or it is not known what became of it: a token does not refuse a second
        key of one CKA_ID, so that one in progress in another process could come after an answer that it never
        will. A purge may be repeated for as long as anything of the key is there.
        """
        if request.method == "key.purge" and request.key_id is not None:
            return self._purged(request.key_id)
        if request.method != "key.create":
            return ReconcileResult(outcome=Outcome.UNKNOWN)

        def act(worker: Worker) -> ReconcileResult:
            key = _keys.look_up(worker, _keys.new_id(request.idempotency_key))
            if key is None:
                return ReconcileResult(outcome=Outcome.UNKNOWN)
            return ReconcileResult(outcome=Outcome.APPLIED, key=self._described(key))

        return self._link.run("key.reconcile", act)

    def _purged(self, text: str) -> ReconcileResult:
        key_id = _keys.bytes_of(text)

        def act(worker: Worker) -> ReconcileResult:
            left = _keys.objects(worker, key_id)
            return ReconcileResult(outcome=Outcome.NOT_APPLIED if left else Outcome.APPLIED)

        return self._link.run("key.reconcile", act)

    @abstractmethod
    def _make_waiting(self, worker: Worker, kind: Kind, key_id: bytes, name: str) -> None:
        """Make what waits for the material of a key."""

    def _described(self, key: StoredKey) -> Key:
        return Key(
            key_id=_keys.text_of(key.key_id),
            key_version=_keys.VERSION,
            algorithm=key.kind.algorithm,
            usage=key.kind.usage,
            state=KeyState.ACTIVE if key.waits_until is None else KeyState.PRE_ACTIVE,
            name=key.name,
            origin=Origin.GENERATED if key.generated else Origin.IMPORTED,
            exportable=key.exportable,
            protection=self._offer.protection,
        )

    def _kind_for(self, request: CreateKeyParams) -> Kind:
        """Return the kind of key that is asked for, or refuse what cannot be met."""
        offer = self._offer
        usages = [kind.usage for kind in offer.kinds if kind.algorithm is request.algorithm]
        usage = request.usage or default_usage(request.algorithm)
        kind = next(
            (each for each in KINDS if (each.algorithm, each.usage) == (request.algorithm, usage)), None
        )
        if usages and usage is None:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"give a usage for {request.algorithm}: {', '.join(usages)}",
                path="usage",
            )
        if kind is None or kind not in offer.kinds:
            reason = "" if kind is None else f": {next(offer.why_not(kind), 'the token cannot make them')}"
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                f"there are no {request.algorithm} keys for {usage} here{reason}",
            )
        refused = {
            "origin": request.origin is Origin.IMPORTED and not (kind.symmetric and offer.import_formats),
            "exportable": request.exportable,
            "tags": bool(request.tags),
            "protection": request.protection not in (None, offer.protection),
            "name": len((request.name or "").encode("utf-8")) > _MAX_LABEL_BYTES,
        }
        for member, unmet in refused.items():
            if unmet:
                raise DriverError(
                    ErrorCode.UNSUPPORTED_OPERATION,
                    f"this token cannot meet {member!r} as asked for",
                    path=member,
                )
        return kind

    def _misfit(self, worker: Worker, request: ValidateKeyParams) -> str | None:
        try:
            key = _keys.find(worker, request.key_id)
        except DriverError as error:
            if error.code not in (
                ErrorCode.KEY_NOT_FOUND,
                ErrorCode.KEY_USAGE_MISMATCH,
                ErrorCode.KEY_INVALID_STATE,
            ):
                raise
            return error.message
        if request.algorithm not in (None, key.kind.algorithm):
            return f"the key is {key.kind.algorithm}, not {request.algorithm}"
        if request.region is not None:
            return "a token is in no region"
        if key.waits_until is not None:
            return "the key waits for its material"
        if key.kind not in self._offer.kinds:
            return next(self._offer.why_not(key.kind), "the token cannot use it")
        return None


def require_version(wanted: str | None) -> None:
    """Refuse a version that no key of this driver has.

    Raises:
        DriverError: KEY_NOT_FOUND.
    """
    if wanted not in (None, _keys.VERSION):
        raise DriverError(
            ErrorCode.KEY_NOT_FOUND,
            "the key has no such version: on a token each key has one",
            path="key_version",
        )


def _public_key(key: StoredKey) -> bytes:
    half = key.public or key.secret
    try:
        if key.kind.key_type is KeyType.RSA:
            return rsa_public_key_info(bytes(half[Attribute.MODULUS]), bytes(half[Attribute.PUBLIC_EXPONENT]))
        if key.public is None:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                "the public half of this key is not on the token: import it there",
            )
        return public_key_info(key.kind, public_point(key.public, key.kind.key_type))
    except ValueError:
        raise DriverError(
            ErrorCode.KEY_INVALID_STATE, "the attributes of the public half on the token are no such key"
        ) from None
