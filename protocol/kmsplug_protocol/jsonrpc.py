"""JSON-RPC 2.0: the error numbers in use, each with its meaning, and the shape of a message.

Source: https://www.jsonrpc.org/specification. The numbers are transport only; a program acts on
`data.code`, an `ErrorCode`.
"""

from typing import Any, Final, TypeGuard

PARSE_ERROR: Final = -32700
"""The line was not JSON. Answered under id null, because no id could be read."""
INVALID_REQUEST: Final = -32600
"""JSON, but not a request: no version member, a bad id, params that are no object."""
METHOD_NOT_FOUND: Final = -32601
"""No such method in this driver, also for an operation that it does not offer."""
INVALID_PARAMS: Final = -32602
"""A member is missing, of the wrong type or out of bounds."""
INTERNAL_ERROR: Final = -32603
"""A defect of the driver. The text is fixed; details stand in its log under the correlation id."""
KEYSTORE_ERROR: Final = -32000
"""Every typed refusal and failure: see `data.code`."""

Id = int | str


def request(method: str, params: dict[str, Any], request_id: Id) -> dict[str, Any]:
    """Return a request."""
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def notification(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return a notification, which is never answered."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def failure(
    request_id: Id | None, number: int, message: str, data: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return an error response."""
    error: dict[str, Any] = {"code": number, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def is_id(value: object) -> TypeGuard[Id]:
    """Tell whether *value* may identify a request: a short string or an integer within 2^53."""
    if type(value) is int:
        return abs(value) < 2**53
    return type(value) is str and len(value) <= 128  # noqa: PLR2004 - SPEC.md 2.3
