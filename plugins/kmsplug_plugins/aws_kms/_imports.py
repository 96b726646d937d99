"""Bringing in material, under a public key that AWS KMS makes for it."""

import datetime as dt
from typing import Final

from kmsplug_protocol import (
    ErrorCode,
    GetImportParametersParams,
    GetImportParametersResult,
    ImportKeyParams,
    Key,
)
from kmsplug_sdk import DriverError

from . import _tables as tables
from ._crypto import UsesKeys
from ._keys import timestamp, vendor_of
from ._tables import WRAPPINGS, provides_each

_WRAPPING_KEY: Final = "RSA_3072"


class ImportOperations(UsesKeys):
    """The part of the driver that takes material in."""

    @provides_each(tables.IMPORT)
    def get_import_parameters(self, request: GetImportParametersParams) -> GetImportParametersResult:
        """Return a wrapping key and its token, good for 24 hours."""
        operation = "key.get_import_parameters"
        facts = self._keys.facts(request.key_id, operation)
        answer = self._client.ask(
            "get_parameters_for_import",
            operation,
            KeyId=facts.arn,
            WrappingAlgorithm=_wrapping(request.wrapping_algorithm),
            WrappingKeySpec=_WRAPPING_KEY,
        )
        return GetImportParametersResult(
            key_id=facts.arn,
            wrapping_algorithm=request.wrapping_algorithm,
            public_key=answer["PublicKey"],
            import_token=answer["ImportToken"],
            valid_to=timestamp(answer.get("ParametersValidTo")),
            vendor=vendor_of(answer),
        )

    @provides_each(tables.IMPORT)
    def import_key(self, request: ImportKeyParams) -> Key:
        """Hand in wrapped material. A key takes one material only, and the same again."""
        operation = "key.import"
        facts = self._keys.facts(request.key_id, operation)
        _wrapping(request.wrapping_algorithm)
        if not request.wrapped_key or not request.import_token:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, "the material or its token is empty")
        expiry = (
            {"ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}
            if request.expires_at is None
            else {
                "ExpirationModel": "KEY_MATERIAL_EXPIRES",
                "ValidTo": dt.datetime.fromisoformat(request.expires_at),
            }
        )
        self._client.ask(
            "import_key_material",
            operation,
            withhold=True,
            KeyId=facts.arn,
            ImportToken=request.import_token,
            EncryptedKeyMaterial=request.wrapped_key,
            **expiry,
        )
        return self._keys.describe(facts.arn, operation)


def _wrapping(name: str) -> str:
    if name not in WRAPPINGS:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"material is wrapped by one of {', '.join(WRAPPINGS)}",
            path="wrapping_algorithm",
        )
    return WRAPPINGS[name]
