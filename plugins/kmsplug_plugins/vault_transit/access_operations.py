"""Operations on how a key is reached: by the plugin's settings alone, so there is little to say."""

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

from ._keyring import Keyring

_REGION: Final = "vault"  # the one word of a provider without regions
_NO_ACCESS_DATA: Final = "keys of this driver need no access data: leave them empty"
_USABLE: Final = (KeyState.ACTIVE, KeyState.DEACTIVATED)


class AccessOperations:
    """The part of the driver that judges keys and what is needed to reach them."""

    _keys: Keyring

    @provides()
    def validate_key(self, request: ValidateKeyParams) -> ValidationResult:
        """Tell whether a key is there, can be used, and is what the caller expects."""
        reason = self._misfit(request)
        return ValidationResult(valid=reason is None, reason=reason)

    @provides(inline=True)
    def validate_key_access(self, request: ValidateAccessParams) -> ValidationResult:
        """Tell whether access data are empty, as they have to be."""
        reason = _NO_ACCESS_DATA if request.access_data else None
        return ValidationResult(valid=reason is None, reason=reason)

    @provides()
    def transform_key_access(self, request: TransformAccessParams) -> TransformAccessResult:
        """Return access data as they are: empty."""
        self._require_existing("key.transform_access", request.key_id, request.access_data)
        return TransformAccessResult(access_data={})

    @provides()
    def get_key_region(self, request: GetRegionParams) -> GetRegionResult:
        """Tell that there are no regions."""
        self._require_existing("key.get_region", request.key_id, request.access_data)
        return GetRegionResult(region=_REGION)

    def _misfit(self, request: ValidateKeyParams) -> str | None:
        try:
            key = self._keys.read("key.validate", request.key_id)
        except DriverError as error:
            if error.code not in (ErrorCode.KEY_NOT_FOUND, ErrorCode.UNSUPPORTED_OPERATION):
                raise
            return error.message
        if key.state not in _USABLE:
            return f"the key is {key.state}"
        if request.algorithm not in (None, key.algorithm):
            return f"the key is {key.algorithm}, not {request.algorithm}"
        if request.region not in (None, _REGION):
            return "this provider has no regions"
        return None

    def _require_existing(self, operation: str, key_id: str, access_data: Mapping[str, str]) -> None:
        if access_data:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, _NO_ACCESS_DATA, path="access_data")
        self._keys.read(operation, key_id)
