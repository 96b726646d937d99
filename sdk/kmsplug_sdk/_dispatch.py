"""Dispatch by jsonrpcserver, set up for speed and wrapped for safety. The only module that imports it.

Its steps are taken one by one: look up the method, call it, make a response of the result. Those left out,
for text, batches, notifications and the names of arguments, cost 15 us a call, its validator 75 to 185 us;
the session checks the envelope, pydantic the params. It would put the text of an uncaught exception on the
wire: no handler lets one out.
"""

import contextlib
import importlib.util
import logging
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, cast

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
    """Import the library's dispatcher without the rest of the package.

    The rest is asyncio, an HTTP server and jsonschema, which is made to check a schema; and of the library
    below it all but one of its modules: 80 ms at every start of a driver, for nothing that is used here.
    """
    with _modules_only("jsonrpcserver"), _modules_only("oslash"):
        from jsonrpcserver import dispatcher  # noqa: PLC0415
        from jsonrpcserver.request import Request  # noqa: PLC0415
        from jsonrpcserver.response import to_serializable_one  # noqa: PLC0415
        from jsonrpcserver.result import Error, Success  # noqa: PLC0415
        from jsonrpcserver.sentinels import NOCONTEXT  # noqa: PLC0415
    return dispatcher, Request, to_serializable_one, Success, Error, NOCONTEXT


_dispatcher, _Request, _to_serializable, Success, Error, _NO_CONTEXT = _import_core()
_get_method, _call, _to_response = _dispatcher.get_method, _dispatcher.call, _dispatcher.to_response

_log = logging.getLogger(__name__)

_MAX_CAUSES: Final = 8
_MAX_CAUSE: Final = 128

Handler = Callable[..., Any]

_MAX_NAME: Final = 64  # longer than that of any member of the protocol


def make_handler(operation: Operation, method: Callable[[Any], Model]) -> Handler:
    """Wrap a method so that params come in validated and nothing but a typed answer goes out."""
    params_model, result_model = operation.params, operation.result

    def answer(params: dict[str, Any]) -> Any:
        try:
            # Strictly and as JSON: pydantic would take "32" or true for an integer, SPEC.md does not.
            request = params_model.model_validate_json(orjson.dumps(params), strict=True)
        except TypeError:
            return Error(jsonrpc.INVALID_REQUEST, *_too_deep())
        except ValidationError as error:
            if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
                return Error(jsonrpc.INVALID_REQUEST, *_too_deep())
            path, message = describe_invalid(error)
            return Error(
                jsonrpc.INVALID_PARAMS, message, _wire(ErrorData(code=ErrorCode.INVALID_ARGUMENT, path=path))
            )
        try:
            result = method(request)
        except DriverError as error:
            data = error.data.model_copy(update={"causes": _causes(error)})
            return Error(jsonrpc.KEYSTORE_ERROR, error.message, _wire(data))
        if not isinstance(result, result_model):
            _log.error("%s returned %s, not %s", operation.api, type(result).__name__, result_model.__name__)
            raise TypeError
        # A warning about a member that was never validated would quote it, and it may be secret.
        return Success(result.model_dump(mode="json", exclude_none=True, warnings=False))

    def handler(**params: Any) -> Any:
        try:
            return answer(params)
        except BaseException:  # noqa: BLE001 - also the SystemExit of a library: every request gets an answer
            return Error(jsonrpc.INTERNAL_ERROR, *defect(operation.wire))

    return handler


def dispatch(message: dict[str, Any], handlers: Mapping[str, Handler]) -> dict[str, Any]:
    """Answer one request whose envelope was checked."""
    request = _Request(message["method"], message.get("params", {}), message["id"])
    result = _get_method(handlers, request.method).bind(partial(_call, request, _NO_CONTEXT))
    response: Any = _to_serializable(_to_response(request, result))
    error = response.get("error")
    if error is not None and not isinstance(error.get("data"), dict):
        # Not ours: the library's own "method not found", with its text in place of our data.
        return jsonrpc.failure(
            message["id"],
            jsonrpc.METHOD_NOT_FOUND,
            "this driver does not offer the operation",
            _wire(ErrorData(code=ErrorCode.UNSUPPORTED_OPERATION)),
        )
    return cast(dict[str, Any], response)


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


def _too_deep() -> tuple[str, dict[str, Any]]:
    """Return the refusal of params that were read but cannot be written again: their only fault is depth."""
    return "params are nested too deeply", _wire(ErrorData(code=ErrorCode.INVALID_ARGUMENT))


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


def _wire(data: ErrorData) -> dict[str, Any]:
    return data.model_dump(mode="json", exclude_defaults=True)
