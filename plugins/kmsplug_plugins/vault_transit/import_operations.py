"""Operations that take in material: wrapped under the server's own key, which never leaves it."""

import hashlib
import hmac
import logging
from typing import Any, Final

from kmsplug_protocol import (
    ErrorCode,
    GetImportParametersParams,
    GetImportParametersResult,
    ImportKeyParams,
    Key,
    Outcome,
    Protection,
    encode_base64,
)
from kmsplug_sdk import DriverError
from kmsplug_sdk.driver import provides_each

from . import _capabilities as rows
from ._algorithms import TYPES
from ._keyring import Keyring
from ._keys import PLACEHOLDER, TransitKey
from ._public_keys import subject_public_key_info
from .lifecycle_operations import discard

_log: Final = logging.getLogger(__name__)

_IMPORT: Final = "key.import"
_MAX_WRAPPED: Final = 16 * 1024


class ImportOperations:
    """The part of the driver that takes in material."""

    _keys: Keyring

    @provides_each(rows.IMPORT)
    def get_import_parameters(self, request: GetImportParametersParams) -> GetImportParametersResult:
        """Return the server's wrapping key, which is the same for all keys and has no end."""
        operation = "key.get_import_parameters"
        _require_format(request.wrapping_algorithm)
        key = self._waiting(operation, request.key_id)
        public_key = self._wrapping_key(operation)
        return GetImportParametersResult(
            key_id=key.key_id,
            wrapping_algorithm=request.wrapping_algorithm,
            public_key=public_key,
            import_token=_token(key.key_id, public_key),
            protection=Protection.SOFTWARE,
        )

    @provides_each(rows.IMPORT)
    def import_key(self, request: ImportKeyParams) -> Key:
        """Make the key of the material. The placeholder goes after that, so that nothing is ever lost."""
        if request.expires_at is not None:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                "the server does not forget material at a date",
                path="expires_at",
            )
        _require_format(request.wrapping_algorithm)
        key = self._waiting(_IMPORT, request.key_id)
        token = _token(key.key_id, self._wrapping_key(_IMPORT))
        if not hmac.compare_digest(token, request.import_token) or len(request.wrapped_key) > _MAX_WRAPPED:
            raise misfit()
        body: dict[str, Any] = {
            "type": TYPES[key.algorithm],
            "hash_function": "SHA256",
            "ciphertext": encode_base64(request.wrapped_key),
        }
        if key.exportable:
            body["exportable"] = True
        self._keys.transit.post(_IMPORT, f"keys/{key.name}/import", body)
        self._keys.forget(key.name)
        imported = self._require_same(key)
        try:
            discard(self._keys, _IMPORT, key.name + PLACEHOLDER)
        except DriverError as error:
            _log.warning("the placeholder of %s is left behind: %s", key.key_id, error.code)
        return imported.described()

    def _waiting(self, operation: str, key_id: str) -> TransitKey:
        key = self._keys.read(operation, key_id)
        if not key.pending or key.soft_deleted:
            raise key.refusal()
        return key

    def _wrapping_key(self, operation: str) -> bytes:
        answer = self._keys.transit.get(operation, "wrapping_key")
        return subject_public_key_info(str(answer.data.get("public_key")))

    def _require_same(self, key: TransitKey) -> TransitKey:
        """Of HMAC keys the server takes any length: what became another kind of key goes away again."""
        imported = None
        try:
            imported = self._keys.read_stored(_IMPORT, key.name)
        except DriverError as error:
            if error.code is not ErrorCode.UNSUPPORTED_OPERATION:
                raise DriverError(error.code, error.message, outcome=Outcome.APPLIED) from error
        if imported is not None and imported.algorithm is key.algorithm:
            return imported
        path = f"keys/{key.name}"
        self._keys.transit.post(_IMPORT, f"{path}/config", {"deletion_allowed": True})
        self._keys.transit.delete(_IMPORT, path)
        raise misfit()


def misfit() -> DriverError:
    """Return the one refusal of everything that does not fit."""
    return DriverError(
        ErrorCode.INVALID_ARGUMENT,
        "the import token or the material does not fit this key: ask for import parameters again",
    )


def _require_format(wrapping_algorithm: str) -> None:
    if wrapping_algorithm != rows.IMPORT_FORMAT:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"the server takes in material that is wrapped by {rows.IMPORT_FORMAT}",
            path="wrapping_algorithm",
        )


def _token(key_id: str, public_key: bytes) -> bytes:
    """Return what ties material to its key and the wrapping key: no secret, a guard against mistakes."""
    digest = hashlib.sha256(b"kmsplug-vault/v1/import-token\0" + public_key)
    digest.update(key_id.encode())
    return digest.digest()
