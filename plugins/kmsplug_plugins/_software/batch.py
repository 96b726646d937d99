"""Many calls in one: each is answered as it would have been alone."""

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from kmsplug_protocol import (
    DEFAULT_FRAME_BYTES,
    BatchCall,
    BatchItem,
    BatchParams,
    BatchResult,
    ErrorCode,
    ErrorData,
    Operation,
    Protection,
    Result,
    encode_frame,
    jsonrpc,
)
from kmsplug_sdk import DriverError, provides
from kmsplug_sdk.driver import operations
from pydantic import ValidationError

_log: Final = logging.getLogger(__name__)

_BATCH: Final = "crypto.batch"
# Leaves room for a thousand refusals and for what stands around the answers.
_MAX_BYTES: Final = DEFAULT_FRAME_BYTES * 3 // 4


class BatchOperations:
    """The part of the driver that answers several calls at once."""

    @provides()
    def batch(self, request: BatchParams) -> BatchResult:
        """Answer the calls one after the other. Once the frame is full no more are made."""
        answers = self._answers(request.calls)
        items: list[BatchItem] = []
        left = _MAX_BYTES
        for _ in request.calls:
            item = next(answers) if left > 0 else _TOO_LONG
            left -= len(encode_frame(item.model_dump(mode="json", exclude_none=True)))
            items.append(item if left > 0 else _TOO_LONG)
        return BatchResult(items=tuple(items), protection=Protection.SOFTWARE)

    def _answers(self, calls: Sequence[BatchCall]) -> Iterator[BatchItem]:
        """Yield the answers in order; a driver whose provider takes several at once has another way."""
        for call in calls:
            yield self._answer(call)

    def _answer(self, call: BatchCall) -> BatchItem:
        """Answer one call as if it had come alone."""
        operation = self._offered(call.method)
        if operation is None:
            return _failed(
                jsonrpc.METHOD_NOT_FOUND,
                "a batch holds the crypto operations of this driver, and no batch",
                ErrorData(code=ErrorCode.UNSUPPORTED_OPERATION, path="method"),
            )
        return answered(
            operation, lambda: getattr(self, operation.api)(operation.params.model_validate(call.params))
        )

    def _offered(self, method: str) -> Operation | None:
        if not method.startswith("crypto.") or method == _BATCH:
            return None
        offered = operations(type(self))  # type: ignore[arg-type]  # the driver is one of its bases
        return next((operation for operation, _ in offered if operation.wire == method), None)


def answered(operation: Operation, result: Callable[[], Result]) -> BatchItem:
    """Return the item for a call: its result, or the error that it would have had alone."""
    try:
        return BatchItem(result=result().model_dump(mode="json", exclude_none=True))
    except ValidationError as error:
        return _invalid(error)
    except DriverError as error:
        return _failed(jsonrpc.KEYSTORE_ERROR, error.message, error.data)
    except Exception:  # noqa: BLE001 - a defect in one call must not take the others with it
        correlation_id = uuid.uuid4().hex
        _log.exception("defect in %s of a batch, correlation id %s", operation.wire, correlation_id)
        return _failed(
            jsonrpc.INTERNAL_ERROR,
            "the driver failed; its log holds the details",
            ErrorData(code=ErrorCode.INTERNAL_ERROR, correlation_id=correlation_id),
        )


def _failed(number: int, message: str, data: ErrorData) -> BatchItem:
    error: dict[str, Any] = {
        "code": number,
        "message": message,
        "data": data.model_dump(mode="json", exclude_defaults=True),
    }
    return BatchItem(error=error)


def _invalid(error: ValidationError) -> BatchItem:
    """Say which member is wrong and what was expected, without the value that was found."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    return _failed(
        jsonrpc.INVALID_PARAMS,
        f"{path}: {first['msg'].removeprefix('Value error, ').lower()}",
        ErrorData(code=ErrorCode.INVALID_ARGUMENT, path=path),
    )


_TOO_LONG: Final = _failed(
    jsonrpc.KEYSTORE_ERROR,
    "the answers before this one fill the frame: ask for less at once",
    ErrorData(code=ErrorCode.LIMIT_EXCEEDED),
)
