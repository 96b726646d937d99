"""Operations on how a key is reached: for keys of this machine there is little to say, and it is said."""

from collections.abc import Mapping
from typing import Final

from kmsplug_protocol import (
    ErrorCode,
    GetRegionParams,
    GetRegionResult,
    KeyState,
    TransformAccessParams,
    TransformAccessResult,
    ValidateAccessParams,
    ValidateKeyParams,
    ValidationResult,
)
from kmsplug_sdk import DriverError, provides

from .records import StoredKey
from .store import Store

_REGION: Final = "local"
_NO_ACCESS_DATA: Final = "keys of this driver need no access data: leave them empty"
_USABLE: Final = (KeyState.ACTIVE, KeyState.DEACTIVATED)


class AccessOperations:
    """The part of the driver that judges keys and what is needed to reach them."""

    _store: Store

    @provides(inline=True)
    def validate_key(self, request: ValidateKeyParams) -> ValidationResult:
        """Tell whether a key is there, can be used, and is what the caller expects."""
        reason = self._misfit(request)
        return ValidationResult(valid=reason is None, reason=reason)

    @provides(inline=True)
    def validate_key_access(self, request: ValidateAccessParams) -> ValidationResult:
        """Tell whether access data are empty, as they have to be."""
        reason = _NO_ACCESS_DATA if request.access_data else None
        return ValidationResult(valid=reason is None, reason=reason)

    @provides(inline=True)
    def transform_key_access(self, request: TransformAccessParams) -> TransformAccessResult:
        """Return access data as they are: empty."""
        self._existing(request.key_id, request.access_data)
        return TransformAccessResult(access_data={})

    @provides(inline=True)
    def get_key_region(self, request: GetRegionParams) -> GetRegionResult:
        """Tell that a key lives here."""
        self._existing(request.key_id, request.access_data)
        return GetRegionResult(region=_REGION)

    def _misfit(self, request: ValidateKeyParams) -> str | None:
        try:
            key = self._store.key(request.key_id)
        except DriverError as error:
            if error.data.code != ErrorCode.KEY_NOT_FOUND:
                raise
            return error.message
        if key.current.state not in _USABLE:
            return f"the key is {key.current.state}"
        if request.algorithm not in (None, key.algorithm):
            return f"the key is {key.algorithm}, not {request.algorithm}"
        if request.region not in (None, _REGION):
            return f"the key lives in {_REGION!r}"
        return None

    def _existing(self, key_id: str, access_data: Mapping[str, str]) -> StoredKey:
        if access_data:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, _NO_ACCESS_DATA, path="access_data")
        return self._store.key(key_id)
