"""Dispatch: params in, validated; one response out, whatever happens. Only this module imports jsonrpcserver.

The library makes the responses. Its dispatcher is not used: its validator takes 75 to 185 us a call, the rest
of it 12, and it would put the text of an uncaught exception on the wire. The session checks the envelope, and
pydantic the params.
"""

import contextlib
import importlib.util
import logging
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson
from kmsplug_protocol import ErrorCode, ErrorData, Model, Operation, jsonrpc, untrusted
from pydantic import ValidationError

from .errors import DriverError


@contextlib.contextmanager
def _modules_only(package: str) -> Iterator[None]:
    """Let modules of a package be imported in this block without what its ``__init__`` imports.

    Whoever imports the package later gets all of it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ImportError(f"{package} is not installed")
    whole = sys.modules.get(package)
    # It knows where its modules are, and runs nothing.
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[package]
        if whole is not None:
            sys.modules[package] = whole


def _import_core() -> tuple[Any, ...]:
    """Import the library's responses without the rest of the package.

    The rest is asyncio, an HTTP server and jsonschema, which is made to check a schema; and of the library
    below it all but one of its modules: 80 ms at every start of a driver, for nothing that is used here.
    """
    with _modules_only("jsonrpcserver"), _modules_only("oslash"):
        from jsonrpcserver import response  # noqa: PLC0415
    return (
        response.SuccessResponse,
        response.ErrorResponse,
        response.serialize_success,
        response.serialize_error,
    )


_Success, _Error, _serialize_success, _serialize_error = _import_core()

_log = logging.getLogger(__name__)

_MAX_CAUSES: Final = 8
_MAX_CAUSE: Final = 128

Response = dict[str, Any]
Handler = Callable[[dict[str, Any], jsonrpc.Id], Response]
"""Answers a request: its params and its id."""

_MAX_NAME: Final = 64  # longer than that of any member of the protocol


def make_handler(operation: Operation, method: Callable[[Any], Model]) -> Handler:
    """Wrap a method so that params come in validated and nothing but a typed answer goes out."""
    params_model, result_model = operation.params, operation.result

    def answer(params: dict[str, Any], request_id: jsonrpc.Id) -> Response:
        try:
            # Strictly and as JSON: pydantic would take "32" or true for an integer, SPEC.md does not.
            request = params_model.model_validate_json(orjson.dumps(params), strict=True)
        except TypeError:
            return _too_deep(request_id)
        except ValidationError as error:
            if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
                return _too_deep(request_id)
            path, message = describe_invalid(error)
            data = _wire(ErrorData(code=ErrorCode.INVALID_ARGUMENT, path=path))
            return _failure(request_id, jsonrpc.INVALID_PARAMS, message, data)
        try:
            result = method(request)
        except DriverError as error:
            data = _wire(error.data.model_copy(update={"causes": _causes(error)}))
            return _failure(request_id, jsonrpc.KEYSTORE_ERROR, error.message, data)
        if not isinstance(result, result_model):
            _log.error("%s returned %s, not %s", operation.api, type(result).__name__, result_model.__name__)
            raise TypeError
        success: Response = _serialize_success(_Success(result.to_wire(), request_id))
        return success

    def handler(params: dict[str, Any], request_id: jsonrpc.Id) -> Response:
        try:
            return answer(params, request_id)
        except BaseException:  # noqa: BLE001 - also the SystemExit of a library: every request gets an answer
            return _failure(request_id, jsonrpc.INTERNAL_ERROR, *defect(operation.wire))

    return handler


def dispatch(message: dict[str, Any], handlers: Mapping[str, Handler]) -> Response:
    """Answer one request whose envelope was checked."""
    return handlers.get(message["method"], _not_offered)(message.get("params", {}), message["id"])


def _not_offered(_params: dict[str, Any], request_id: jsonrpc.Id) -> Response:
    data = _wire(ErrorData(code=ErrorCode.UNSUPPORTED_OPERATION))
    return _failure(request_id, jsonrpc.METHOD_NOT_FOUND, "this driver does not offer the operation", data)


def defect(where: str) -> tuple[str, dict[str, Any]]:
    """Log the exception in progress; return the sentence and the data that stand for it on the wire."""
    correlation_id = uuid.uuid4().hex
    _log.exception("defect in %s, correlation id %s", where, correlation_id)
    return (
        "the driver failed; its log holds the details",
        _wire(ErrorData(code=ErrorCode.INTERNAL_ERROR, correlation_id=correlation_id)),
    )


def describe_invalid(error: ValidationError) -> tuple[str, str]:
    """Return the path of the first wrong member, and one line that says what was expected, no values."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # A part may be a name that the caller made up, as of a tag, and then it is of any length.
    path = ".".join(untrusted(str(part), _MAX_NAME) for part in first["loc"])
    text = first["msg"].removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    return path, f"{path}: {text}" if path else text


def _too_deep(request_id: jsonrpc.Id) -> Response:
    """Refuse params that were read but cannot be written again: their only fault is depth."""
    data = _wire(ErrorData(code=ErrorCode.INVALID_ARGUMENT))
    return _failure(request_id, jsonrpc.INVALID_REQUEST, "params are nested too deeply", data)


def _causes(error: DriverError) -> tuple[str, ...]:
    """Return the types of what it was raised from; none of a refused ciphertext: they tell the step."""
    if error.code is ErrorCode.INVALID_CIPHERTEXT:
        return ()
    found: list[str] = []
    cause = error.__cause__
    while cause is not None and len(found) < _MAX_CAUSES:  # a circle ends here, too
        found.append(f"{type(cause).__module__}.{type(cause).__qualname__}"[:_MAX_CAUSE])
        cause = cause.__cause__
    return tuple(found)


def _failure(request_id: jsonrpc.Id, number: int, message: str, data: dict[str, Any]) -> Response:
    failure: Response = _serialize_error(_Error(number, message, data, request_id))
    return failure


def _wire(data: ErrorData) -> dict[str, Any]:
    return data.model_dump(mode="json", exclude_defaults=True)
