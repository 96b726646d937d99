"""Calls of protocol version 1: models out, models in, every answer distrusted."""

import itertools
import secrets
from typing import Any, Final, cast

from kmsplug_protocol import (
    BY_WIRE,
    INVALID_CIPHERTEXT_MESSAGE,
    Capability,
    ErrorCode,
    ErrorData,
    Model,
    Operation,
    Outcome,
    Peer,
    jsonrpc,
    untrusted,
)
from pydantic import ValidationError

from ._connection import Connection
from ._deadline import Deadline
from .errors import KmsplugError, ProtocolViolation, from_wire

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

_HOST_ID: Final = secrets.token_hex(4)
_calls = itertools.count(1)


class FacadeV1:
    """The host's side of protocol version 1 over one connection.

    Args:
        connection: To the driver process.
        plugin: Name of the plugin, for errors.
        driver: What the driver says it is, for errors.
    """

    def __init__(self, connection: Connection, plugin: str, driver: Peer) -> None:
        self.connection = connection
        self._plugin = plugin
        self._driver = f"{driver.name} {driver.version}"

    def call(self, operation: Operation, params: Model, deadline: Deadline) -> Model:
        """Make a call and return its validated result.

        Raises:
            KmsplugError: What the driver answered, or what happened instead of an answer.
        """
        correlation_id = f"{_HOST_ID}-{next(_calls)}"
        body = params.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        meta = body.setdefault("meta", {})
        meta["deadline_ms"] = int(deadline.remaining_s() * 1000)
        meta["correlation_id"] = correlation_id
        try:
            response = self.connection.request(operation.wire, body, deadline)
            if "error" in response:
                raise _refused(response["error"], operation)
            return _accepted(response, operation)
        except KmsplugError as error:
            error.add(
                operation=operation.wire,
                plugin=self._plugin,
                driver=self._driver,
                correlation_id=correlation_id,
            )
            if not operation.changes:
                error.outcome = Outcome.NOT_APPLIED
            raise


def _accepted(response: dict[str, Any], operation: Operation) -> Model:
    if "result" not in response:
        raise ProtocolViolation(f"the answer to {operation.wire} has neither result nor error")
    result = response["result"]
    if "capabilities" in operation.result.model_fields:
        result = _without_newer_rows(result)
    try:
        return operation.result.model_validate(result)
    except ValidationError as error:
        # The message of a validation error may quote the value, which may be a secret: only the path is told.
        path = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        problem = ProtocolViolation(
            f"the result of {operation.wire} is malformed at {untrusted(path, 200)!r}"
        )
    raise problem  # out here, or the other exception would hang on to it


def _without_newer_rows(result: Any) -> Any:
    """Leave out the capability rows whose words only a newer version knows (SPEC.md [9-5])."""
    rows = result.get("capabilities") if isinstance(result, dict) else None
    if not isinstance(rows, list):
        return result
    return {**result, "capabilities": [row for row in rows if not _is_newer(row)]}


def _is_newer(row: Any) -> bool:
    if isinstance(row, dict) and isinstance(row.get("operation"), str) and row["operation"] not in BY_WIRE:
        return True
    try:
        Capability.model_validate(row)
    except ValidationError as error:
        return all(item["type"] == "enum" for item in error.errors(include_url=False, include_input=False))
    return False


def _refused(error: Any, operation: Operation) -> KmsplugError:
    """Turn an error object into an exception."""
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
                f"the driver answered {operation.wire} with error {number}: {untrusted(text, 200)}"
            )
        data = {"code": fallback.value}
    try:
        details = ErrorData.model_validate(data)
    except ValidationError as problem:  # what is well-formed is kept: it may be the root cause
        wrong = {item["loc"][0] for item in problem.errors(include_url=False, include_input=False)}
        details = ErrorData.model_validate({name: data[name] for name in data.keys() - wrong})
    if details.code in _OF_THE_HOST:
        return ProtocolViolation(
            f"the driver answered {operation.wire} with {details.code}, which only a host can say"
        )
    if details.code == ErrorCode.INVALID_CIPHERTEXT:
        # Whatever the driver says, and wherever, the step that refused is not told.
        text = INVALID_CIPHERTEXT_MESSAGE
        details = details.model_copy(update={"hint": None, "path": None})
    return from_wire(text, details, may_have_acted=operation.changes)
