"""Judging keys, and what is needed to reach them: a role, and how it is taken."""

import json
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
from pydantic import ValidationError

from ._crypto import UsesKeys
from .config import AssumeRole

_MEMBERS: Final = frozenset({"role_arn", "external_id"})


class AccessOperations(UsesKeys):
    """The part of the driver that judges keys and access data."""

    @provides()
    def validate_key(self, request: ValidateKeyParams) -> ValidationResult:
        """Tell whether a key is there, can be used, and is what the caller expects."""
        reason = self._misfit(request)
        return ValidationResult(valid=reason is None, reason=reason)

    @provides(inline=True)
    def validate_key_access(self, request: ValidateAccessParams) -> ValidationResult:
        """Tell whether access data name a role to take: `role_arn`, and `external_id` where it has one."""
        reason = _fault(request.access_data)
        return ValidationResult(valid=reason is None, reason=reason)

    @provides()
    def transform_key_access(self, request: TransformAccessParams) -> TransformAccessResult:
        """Return the settings of this driver by which the key is reached."""
        reason = _fault(request.access_data)
        if reason is not None:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, reason, path="access_data")
        facts = self._keys.facts(request.key_id, "key.transform_access")
        _, _, _, region, account, _ = facts.arn.split(":")
        return TransformAccessResult(
            access_data={
                "region": region,
                "account": account,
                **({"assume_role": json.dumps(request.access_data)} if request.access_data else {}),
            }
        )

    @provides()
    def get_key_region(self, request: GetRegionParams) -> GetRegionResult:
        """Tell the region of a key that exists."""
        if request.access_data and (reason := _fault(request.access_data)) is not None:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, reason, path="access_data")
        self._keys.facts(request.key_id, "key.get_region")
        return GetRegionResult(region=self._keys.region)

    def _misfit(self, request: ValidateKeyParams) -> str | None:
        try:
            key = self._keys.describe(request.key_id, "key.validate")
        except DriverError as error:
            if error.code not in (ErrorCode.KEY_NOT_FOUND, ErrorCode.UNSUPPORTED_OPERATION):
                raise
            return error.message
        if key.state is not KeyState.ACTIVE:
            return f"the key is {key.state}"
        if request.algorithm not in (None, key.algorithm):
            return f"the key is {key.algorithm}, not {request.algorithm}"
        if request.region not in (None, key.region):
            return f"the key lives in {key.region!r}"
        return None


def _fault(access_data: Mapping[str, str]) -> str | None:
    """Say what is wrong with access data, without their values. None are needed within the account."""
    if not access_data:
        return None
    if access_data.keys() - _MEMBERS:
        return f"access data have no other members than {', '.join(sorted(_MEMBERS))}"
    try:
        AssumeRole.model_validate(dict(access_data))
    except ValidationError as error:
        return f"{error.errors(include_input=False)[0]['loc'][0]} is missing or malformed"
    return None
