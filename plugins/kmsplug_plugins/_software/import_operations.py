"""Operations that take in material from outside."""

from kmsplug_protocol import (
    ErrorCode,
    GetImportParametersParams,
    GetImportParametersResult,
    ImportKeyParams,
    Key,
    Protection,
)
from kmsplug_sdk import DriverError
from kmsplug_sdk.driver import provides_each

from . import capabilities as rows
from .changes import was_imported
from .importing import FORMATS, VALID_HOURS, UnfitMaterialError, misfit, new_token, unwrapped
from .key_operations import described
from .lifecycle import imported, moment, require_waiting
from .store import Store


class ImportOperations:
    """The part of the driver that takes in material."""

    _store: Store

    @provides_each(rows.IMPORT)
    def get_import_parameters(self, request: GetImportParametersParams) -> GetImportParametersResult:
        """Make a wrapping key for the material of one key. Nothing of it is stored."""
        if request.wrapping_algorithm not in FORMATS:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                f"this driver takes in material that is wrapped by {' or '.join(FORMATS)}",
                path="wrapping_algorithm",
            )
        key = self._store.key(request.key_id)
        require_waiting(key)
        valid_to = moment(hours=VALID_HOURS)
        public_key, token = new_token(self._store, key, request.wrapping_algorithm)
        return GetImportParametersResult(
            key_id=key.key_id,
            wrapping_algorithm=request.wrapping_algorithm,
            public_key=public_key,
            import_token=token,
            valid_to=valid_to,
            protection=Protection.SOFTWARE,
        )

    @provides_each(rows.IMPORT)
    def import_key(self, request: ImportKeyParams) -> Key:
        """Give a PRE_ACTIVE key its material, once."""
        if request.expires_at is not None:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                "this driver does not forget material at a date",
                path="expires_at",
            )
        change = request.change_key
        key = self._store.key(request.key_id)
        if was_imported(key, change):
            return described(key)
        require_waiting(key)
        try:
            material = unwrapped(
                self._store, key, request.wrapping_algorithm, request.import_token, request.wrapped_key
            )
        except UnfitMaterialError:
            raise misfit() from None
        return described(
            self._store.update(
                key.key_id,
                lambda now: now if was_imported(now, change) else imported(now, material, change=change),
            )
        )
