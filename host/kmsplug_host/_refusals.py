"""From a driver's error response to an exception: nothing of the root cause is lost, and no secret kept."""

from typing import Any, Final, cast

from kmsplug_protocol import (
    INVALID_CIPHERTEXT_MESSAGE,
    ErrorCode,
    ErrorData,
    Mechanism,
    Model,
    Operation,
    Outcome,
    Vendor,
    jsonrpc,
)
from pydantic import ValidationError

from ._redaction import Redactor
from .errors import KmsplugError, ProtocolViolation, UnsupportedOperation, error_class

_NUMBERS: Final = {
    jsonrpc.METHOD_NOT_FOUND: ErrorCode.UNSUPPORTED_OPERATION,
    jsonrpc.INVALID_PARAMS: ErrorCode.INVALID_ARGUMENT,
    jsonrpc.INTERNAL_ERROR: ErrorCode.INTERNAL_ERROR,
}

# SPEC.md [7.3-2]: what only the host can know. A driver that says so would be believed to have crashed.
_OF_THE_HOST: Final = frozenset(
    {
        ErrorCode.PLUGIN_CRASHED, ErrorCode.PLUGIN_UNAVAILABLE, ErrorCode.PROTOCOL_VIOLATION,
        ErrorCode.CIRCUIT_OPEN, ErrorCode.SHIM_FAILED, ErrorCode.POLICY_DENIED, ErrorCode.TENANT_MISMATCH,
        ErrorCode.QUORUM_NOT_MET, ErrorCode.OFFLINE_LIMIT_EXCEEDED,
    }
)  # fmt: skip

# SPEC.md [7.5-3]: with these a vendor's code may tell which step refused, as a padding oracle does.
_PADDED: Final = frozenset(
    {Mechanism.RSA_OAEP_SHA_1, Mechanism.RSA_OAEP_SHA_256, Mechanism.AES_256_KW, Mechanism.AES_256_KWP}
)
_UNWRAPS: Final = frozenset({"crypto.unwrap_key", "key.import"})  # by one of these, also where none is named

_AUTHENTICATION_MESSAGE: Final = "the keystore refused the plugin's credential"
_AUTHENTICATION_HINT: Final = (
    "renew the credential in the plugin's settings; the driver's own words are withheld, they may quote it"
)


def refused(error: Any, operation: Operation, params: Model, redactor: Redactor) -> KmsplugError:
    """Turn an error object into an exception.

    Args:
        error: The ``error`` member of a response.
        operation: What was asked for.
        params: With what.
        redactor: Knows the secrets.
    """
    if not isinstance(error, dict) or type(error.get("code")) is not int:
        return ProtocolViolation(f"the error answer to {operation.wire} is malformed")
    number = cast(int, error["code"])
    message = error.get("message")
    text = message if isinstance(message, str) else "no message"
    data = error.get("data")
    fallback = _NUMBERS.get(number)
    if not isinstance(data, dict) or not isinstance(data.get("code"), str):
        if fallback is None:
            return ProtocolViolation(
                f"the driver answered {operation.wire} with error {number}: {redactor.clean(text, 200)}"
            )
        data = {"code": fallback.value}
    details = _well_formed(data)
    if details.code in _OF_THE_HOST:
        return ProtocolViolation(
            f"the driver answered {operation.wire} with {details.code}, which only a host can say"
        )
    if details.code == ErrorCode.INVALID_CIPHERTEXT:
        # Whatever the driver says, and wherever, the step that refused is not told.
        text = INVALID_CIPHERTEXT_MESSAGE
        vendor = _withheld(details.vendor) if _is_padded(operation, params) else details.vendor
        details = details.model_copy(update={"hint": None, "path": None, "causes": (), "vendor": vendor})
    elif operation.wire in _UNWRAPS:
        details = details.model_copy(update={"causes": ()})
    refusal = from_wire(text, details, redactor, may_have_acted=operation.changes)
    if isinstance(refusal, UnsupportedOperation):
        refusal.unknown_method = number == jsonrpc.METHOD_NOT_FOUND
    return refusal


def from_wire(message: str, data: ErrorData, redactor: Redactor, *, may_have_acted: bool) -> KmsplugError:
    """Make the exception for a driver's refusal; its texts are cleaned.

    Args:
        message: The driver's sentence.
        data: The error's data.
        redactor: Knows the secrets.
        may_have_acted: Whether the operation changes anything; an honest outcome depends on it.
    """
    clean = redactor.clean
    kind = error_class(data.code)
    hint = f"driver says: {clean(data.hint)}" if data.hint else None
    vendor = data.vendor
    if data.code == ErrorCode.AUTHENTICATION_FAILED:
        message, hint = _AUTHENTICATION_MESSAGE, _AUTHENTICATION_HINT
        if vendor is not None and vendor.message is not None:
            vendor = vendor.model_copy(update={"message": None, "withheld": True})
    if vendor is not None:
        vendor = vendor.model_copy(
            update={name: clean(text) for name, text in vendor if isinstance(text, str)}
        )
    outcome = data.outcome
    if outcome is None and not may_have_acted:
        outcome = Outcome.NOT_APPLIED
    return kind(
        clean(message),
        outcome=outcome,
        hint=hint,
        vendor=vendor,
        causes=tuple(clean(cause, 128) for cause in data.causes),
        retry_after_ms=data.retry_after_ms,
        credential_renewed=data.credential_renewed or None,
        path=clean(data.path) if data.path else None,
        correlation_id=clean(data.correlation_id, 128) if data.correlation_id else None,
        driver_code=None if kind.code == data.code else clean(data.code, 64),
    )


def _well_formed(data: dict[str, Any]) -> ErrorData:
    """Read the data without the members that are malformed: the others may hold the root cause."""
    try:
        return ErrorData.model_validate(data)
    except ValidationError as problem:
        wrong = {item["loc"][0] for item in problem.errors(include_url=False, include_input=False)}
        return ErrorData.model_validate({name: data[name] for name in data.keys() - wrong})


def _is_padded(operation: Operation, params: Model) -> bool:
    """Whether the mechanism gives answers of the padding kind, as far as the request tells.

    Where it names none, the driver chose, and it is the driver that has to withhold.
    """
    mechanism = getattr(params, "mechanism", None)
    return mechanism in _PADDED or (mechanism is None and operation.wire in _UNWRAPS)


def _withheld(vendor: Vendor | None) -> Vendor:
    found = vendor or Vendor()
    return Vendor(service=found.service, request_id=found.request_id, withheld=True)
