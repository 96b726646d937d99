"""Operations on how a key is reached: whether it fits, where it is, and what is needed to get there."""

import re
from collections.abc import Mapping
from typing import Final

from kmsplug_protocol import (
    ErrorCode,
    GetRegionParams,
    GetRegionResult,
    TransformAccessParams,
    TransformAccessResult,
    ValidateAccessParams,
    ValidateKeyParams,
    ValidationResult,
)
from kmsplug_sdk import DriverError

from ._capabilities import offers
from ._vault import Vault, usable

_UNTOLD: Final = "azure"  # where the vault does not say in which region it is
_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_MEMBERS: Final = ("vault_url", "tenant_id", "client_id")


class AccessOperations:
    """The part of the driver that judges keys and what is needed to reach them."""

    _vault: Vault

    @offers("key.validate")
    def validate_key(self, request: ValidateKeyParams) -> ValidationResult:
        """Tell whether a key is there, can be used, and is what the caller expects."""
        reason = self._misfit(request)
        return ValidationResult(valid=reason is None, reason=reason)

    @offers("key.validate_access")
    def validate_key_access(self, request: ValidateAccessParams) -> ValidationResult:
        """Tell whether access data name this vault, a tenant and an application; nothing is reached."""
        reason = self._wrong(request.access_data)
        return ValidationResult(valid=reason is None, reason=reason)

    @offers("key.transform_access")
    def transform_key_access(self, request: TransformAccessParams) -> TransformAccessResult:
        """Return access data in one spelling."""
        reason = self._wrong(request.access_data)
        if reason is not None:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, reason, path="access_data")
        self._vault.get("key.transform_access", request.key_id)
        data = {name: text.strip().rstrip("/").lower() for name, text in request.access_data.items()}
        return TransformAccessResult(access_data=data)

    @offers("key.get_region")
    def get_key_region(self, request: GetRegionParams) -> GetRegionResult:
        """Tell in which region the vault says that it is."""
        if request.access_data and (reason := self._wrong(request.access_data)) is not None:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, reason, path="access_data")
        _, answer = self._vault.get("key.get_region", request.key_id)
        return GetRegionResult(region=answer.region or _UNTOLD, vendor=answer.vendor)

    def _misfit(self, request: ValidateKeyParams) -> str | None:
        try:
            record, answer = self._vault.get("key.validate", request.key_id)
            algorithm = record.algorithm
        except DriverError as error:
            if error.code not in (ErrorCode.KEY_NOT_FOUND, ErrorCode.UNSUPPORTED_OPERATION):
                raise
            return error.message
        if not usable(record):
            return f"the key is {record.state}"
        if request.algorithm not in (None, algorithm):
            return f"the key is {algorithm}, not {request.algorithm}"
        region = answer.region or _UNTOLD
        if request.region not in (None, region):
            return f"the key lives in {region!r}"
        return None

    def _wrong(self, data: Mapping[str, str]) -> str | None:
        """Return what is wrong with access data, without their values."""
        if set(data) != set(_MEMBERS):
            return f"access data of this vault are {', '.join(_MEMBERS)}, all of them and no others"
        if data["vault_url"].strip().rstrip("/").lower() != self._vault.config.vault_url:
            return "vault_url names another vault than this one"
        for name in _MEMBERS[1:]:
            if not _GUID.fullmatch(data[name].strip()):
                return f"{name} is no GUID"
        return None
