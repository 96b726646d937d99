"""Taking in material: it is unwrapped on the token, into a key that never leaves it, and never seen here.

A key that waits for its material is an RSA pair of the token which can unwrap and nothing else. It has the
key's CKA_ID, and a label that says what the key will be. Its public half goes out; what comes back is
unwrapped under the other half (C_UnwrapKey), and the pair is destroyed. So it serves once, and for a day at
most.
"""

import datetime as dt
import hashlib
import hmac
import time
from typing import Final

from kmsplug_protocol import (
    ErrorCode,
    GetImportParametersParams,
    GetImportParametersResult,
    ImportKeyParams,
    Key,
)
from kmsplug_sdk import DriverError

from . import _keys
from ._client import Attribute
from ._encoding import rsa_public_key_info
from ._imports import make_waiting, unwrap_into
from ._keys import StoredKey, read
from ._kinds import Kind
from ._link import Link, Worker
from ._offer import Offer, declared
from .key_operations import KeyOperations

_MISFITS: Final = (ErrorCode.INVALID_CIPHERTEXT, ErrorCode.INVALID_ARGUMENT, ErrorCode.KEY_USAGE_MISMATCH)


class ImportOperations(KeyOperations):
    """The part of the driver that takes in material."""

    _link: Link
    _offer: Offer

    def _make_waiting(self, worker: Worker, kind: Kind, key_id: bytes, name: str) -> None:
        make_waiting(worker.session, kind, key_id, name)

    @declared("key.get_import_parameters")
    def get_import_parameters(self, request: GetImportParametersParams) -> GetImportParametersResult:
        """Return the public half under which material is to be wrapped. One that is too old is replaced."""
        if request.wrapping_algorithm not in self._offer.import_formats:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                f"this token takes in material that is wrapped by {' or '.join(self._offer.import_formats)}",
                path="wrapping_algorithm",
            )

        def act(worker: Worker) -> GetImportParametersResult:
            key = _require_waiting(_keys.find(worker, request.key_id))
            if (key.waits_until or 0) <= time.time():
                old = [key.secret, *([key.public] if key.public is not None else [])]
                make_waiting(worker.session, key.kind, key.key_id, key.name or "")
                for each in old:
                    each.destroy()
                key = _require_waiting(_keys.find(worker, request.key_id))
            public_key = _public_half(key)
            until = dt.datetime.fromtimestamp(key.waits_until or 0, dt.UTC)
            return GetImportParametersResult(
                key_id=_keys.text_of(key.key_id),
                wrapping_algorithm=request.wrapping_algorithm,
                public_key=public_key,
                import_token=_token(key, public_key),
                valid_to=until.strftime("%Y-%m-%dT%H:%M:%SZ"),
                protection=self._offer.protection,
            )

        return self._link.run("key.get_import_parameters", act, makes=True)

    @declared("key.import")
    def import_key(self, request: ImportKeyParams) -> Key:
        """Unwrap material on the token, into the key that waits for it."""
        if request.expires_at is not None:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                "a token does not forget material at a date",
                path="expires_at",
            )

        def act(worker: Worker) -> Key:
            key = _require_waiting(_keys.find(worker, request.key_id))
            good = hmac.compare_digest(_token(key, _public_half(key)), request.import_token)
            if not good or (key.waits_until or 0) <= time.time():
                raise _misfit()
            if request.wrapping_algorithm not in self._offer.import_formats:
                raise _misfit()
            _unwrap(key, request)
            for each in (key.secret, key.public):
                if each is not None:
                    each.destroy()
            found = _keys.look_up(worker, key.key_id)
            if found is None:
                raise _misfit()
            return self._described(found)

        try:
            # As of an unwrapping: whatever the token says of the bytes, one answer is given.
            return self._link.run("crypto.unwrap_key", act, makes=True)
        except DriverError as error:
            if error.code in _MISFITS:
                raise _misfit() from None
            raise


def _unwrap(key: StoredKey, request: ImportKeyParams) -> None:
    made = unwrap_into(
        key.secret,
        key.kind,
        request.wrapping_algorithm,
        request.wrapped_key,
        key_id=key.key_id,
        label=key.name or "",
        store=True,
    )
    if 8 * int(read(made, Attribute.VALUE_LEN, 0)) != key.kind.size:
        made.destroy()
        raise _misfit()


def _require_waiting(key: StoredKey) -> StoredKey:
    if key.waits_until is None:
        raise DriverError(
            ErrorCode.KEY_INVALID_STATE, "the key has its material; only a new one waits for some"
        )
    return key


def _public_half(key: StoredKey) -> bytes:
    half = key.public or key.secret
    return rsa_public_key_info(bytes(half[Attribute.MODULUS]), bytes(half[Attribute.PUBLIC_EXPONENT]))


def _token(key: StoredKey, public_key: bytes) -> bytes:
    """Return what shows that the material was wrapped for this key and pair. It is no secret: the pair is."""
    text = f"kmsplug-pkcs11/v1/import-token/{key.waits_until}/".encode()
    return hashlib.sha256(text + key.key_id + b"/" + public_key).digest()


def _misfit() -> DriverError:
    """Return the one refusal of everything that does not fit."""
    return DriverError(
        ErrorCode.INVALID_ARGUMENT,
        "the import token or the material does not fit this key: ask for import parameters again",
    )
