"""Calls of protocol version 1: models out, models in, every answer distrusted."""

import itertools
import secrets
from typing import Any, Final

from kmsplug_protocol import BY_WIRE, Capability, Model, Operation, Outcome, Peer, untrusted
from pydantic import ValidationError

from ._connection import Connection
from ._deadline import Deadline
from ._redaction import Redactor
from ._refusals import refused
from ._tracing import traceparent
from .errors import KmsplugError, ProtocolViolation

_WITH_ROWS: Final = (BY_WIRE["plugin.initialize"], BY_WIRE["plugin.configure"])
_BATCH: Final = BY_WIRE["crypto.batch"]
_NATIVE: Final = "native"
_HOST_ID: Final = secrets.token_hex(4)
_ABOUT: Final = 100  # characters to say what a row is about
_calls = itertools.count(1)


class FacadeV1:
    """The host's side of protocol version 1 over one connection.

    Args:
        connection: To the driver process.
        plugin: Name of the plugin, for errors.
        driver: What the driver says it is, for errors.
        redactor: Takes secrets out of what the driver says.
    """

    def __init__(self, connection: Connection, plugin: str, driver: Peer, redactor: Redactor) -> None:
        self.connection = connection
        self._redactor = redactor
        self._plugin = plugin
        self._driver = f"{driver.name} {driver.version}"
        self.ignored: tuple[str, ...] = ()
        """What the rows of the last answer are about, escaped, that were in words of a newer version."""

    def call(self, operation: Operation, params: Model, deadline: Deadline) -> Model:
        """Make a call and return its validated result.

        Raises:
            KmsplugError: What the driver answered, or what happened instead of an answer.
        """
        correlation_id = f"{_HOST_ID}-{next(_calls)}"
        body = params.to_wire(exclude_defaults=True)
        meta = body.setdefault("meta", {})
        meta["deadline_ms"] = int(deadline.remaining_s() * 1000)
        meta["correlation_id"] = correlation_id
        if (trace := traceparent()) is not None:
            meta["traceparent"] = trace
        try:
            response = self.connection.request(operation.wire, body, deadline)
            if "error" in response:
                raise refused(response["error"], operation, params, self._redactor)
            if operation in _WITH_ROWS:
                response, self.ignored = _without_newer_rows(response)
            return _accepted(response, operation, self._redactor)
        except KmsplugError as error:
            error.add(
                operation=operation.wire,
                plugin=self._plugin,
                driver=self._driver,
                key_id=getattr(params, "key_id", None),
                key_version=getattr(params, "key_version", None),
                correlation_id=correlation_id,
            )
            if not operation.changes:
                error.outcome = Outcome.NOT_APPLIED
            raise


def _accepted(response: dict[str, Any], operation: Operation, redactor: Redactor) -> Model:
    if "result" not in response:
        raise ProtocolViolation(f"the answer to {operation.wire} has neither result nor error")
    try:
        answer = operation.result.model_validate(response["result"])
    except ValidationError as error:
        # The message of a validation error may quote the value, which may be a secret: only the path is told.
        path = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        problem = ProtocolViolation(
            f"the result of {operation.wire} is malformed at {redactor.clean(path, 200)!r}"
        )
    else:
        if getattr(answer, "executed_by", _NATIVE) != _NATIVE:  # [4.3-1]: shims are the host's to name
            raise ProtocolViolation(f"the driver says that it did not do {operation.wire} itself")
        return _without_secrets(answer, redactor) if operation is _BATCH else answer
    raise problem  # out here, or the other exception would hang on to it


def _without_secrets(batch: Any, redactor: Redactor) -> Model:
    """Clean the errors in a batch; the results are payload and stay as they are."""
    items = tuple(
        item if item.error is None else item.model_copy(update={"error": redactor.clean_all(item.error)})
        for item in batch.items
    )
    cleaned: Model = batch.model_copy(update={"items": items})
    return cleaned


def _without_newer_rows(response: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Leave out capability rows whose words only a newer version knows (SPEC.md [9-5]), and tell of them."""
    result = response.get("result")
    if not isinstance(result, dict) or not isinstance(rows := result.get("capabilities"), list):
        return response, ()
    kept, ignored = [], []
    for row in rows:
        if _is_newer(row):
            words = (row.get(name) for name in ("operation", "key_algorithm", "mechanism"))
            ignored.append(untrusted(" ".join(word for word in words if isinstance(word, str)), _ABOUT))
        else:
            kept.append(row)
    return {**response, "result": {**result, "capabilities": kept}}, tuple(ignored)


def _is_newer(row: Any) -> bool:
    if isinstance(row, dict) and isinstance(row.get("operation"), str) and row["operation"] not in BY_WIRE:
        return True
    try:
        Capability.model_validate(row)
    except ValidationError as error:
        return all(item["type"] == "enum" for item in error.errors(include_url=False, include_input=False))
    return False
