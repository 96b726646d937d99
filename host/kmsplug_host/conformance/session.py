"""The host's side of a session, for cases: raw lines or whole calls, and answers that are taken apart.

Everything the driver writes is looked at. What is no response is kept as a stray; a response that nobody
asked for fails the case.
"""

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from kmsplug_protocol import (
    BY_WIRE,
    DEFAULT_FRAME_BYTES,
    KNOWN_VERSIONS,
    ConfigureResult,
    FrameError,
    InitializeResult,
    Oversize,
    decode_frame,
    encode_base64,
    encode_frame,
    jsonrpc,
)

from .audit import Audit
from .verdict import Failed, check, quote
from .wire import Wire

HOST: Final = {"name": "kmsplug-conformance", "version": "1"}
_MAX_STRAYS: Final = 100


@dataclass(slots=True)
class Budget:
    """The time that the running case has left, and what the driver wrote besides responses.

    Attributes:
        deadline: On `time.monotonic`.
        strays: Lines that were no responses.
        audit: Looks at every response.
        asked: The methods that the running case asked for.
    """

    deadline: float = 0.0
    strays: list[str] = field(default_factory=list)
    audit: Audit = field(default_factory=Audit)
    asked: set[str] = field(default_factory=set)

    def restart(self, seconds: float) -> None:
        """Begin another case."""
        self.deadline = time.monotonic() + seconds
        self.asked = set()


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, its envelope checked.

    Attributes:
        id: Its id.
        result: The result; None: it is an error.
        number: JSON-RPC number of the error.
        message: Text of the error.
        data: Data of the error.
        to: What it answers, for details.
    """

    id: Any
    result: dict[str, Any] | None
    number: int = 0
    message: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    to: str = "the line"

    @property
    def code(self) -> str:
        """Code of the error."""
        return str(self.data.get("code", ""))

    def granted(self) -> dict[str, Any]:
        """Return the result, or fail the case."""
        if self.result is None:
            raise Failed(f"{self.to} was refused: {self}")
        return self.result

    def refused(self, *codes: str, number: int | tuple[int, ...] = jsonrpc.KEYSTORE_ERROR) -> Self:
        """Fail the case unless it is a refusal with one of *codes* and *number*."""
        numbers = number if isinstance(number, tuple) else (number,)
        wanted = f"{' or '.join(map(str, numbers))} {' or '.join(codes)}"
        check(self.result is None, f"{self.to} was answered with a result, not refused with {wanted}")
        check(
            self.number in numbers and (not codes or self.code in codes),
            f"{self.to} was refused with {self}, not with {wanted}",
        )
        return self

    def under(self, request_id: Any) -> Self:
        """Fail the case unless it carries this id, of this type."""
        same = type(self.id) is type(request_id) and self.id == request_id
        check(same, f"{self.to} was answered under id {quote(repr(self.id))}, not {request_id!r}")
        return self

    def __str__(self) -> str:
        return f"{self.number} {quote(self.code, 64)}, {quote(self.message)!r}"


class Session:
    """One session with one driver process."""

    def __init__(self, wire: Wire, budget: Budget) -> None:
        self.wire = wire
        self._budget = budget
        self._ids = itertools.count(1)
        self.max_frame_bytes = wire.frames.max_bytes

    @property
    def deadline(self) -> float:
        """When the running case has to be over."""
        return self._budget.deadline

    def send(self, line: bytes) -> None:
        """Write raw bytes."""
        self.wire.send(line, self.deadline)

    def request(self, method: str, params: Mapping[str, Any] | None = None, request_id: Any = None) -> Any:
        """Send a request without waiting for its answer; return its id. Bytes in *params* become base64."""
        request_id = next(self._ids) if request_id is None else request_id
        self.send(self.frame(method, params, request_id))
        return request_id

    def frame(self, method: str, params: Mapping[str, Any] | None, request_id: Any) -> bytes:
        """Return the line of a request."""
        self._budget.asked.add(method)
        return encode_frame(jsonrpc.request(method, _to_wire(params or {}), request_id))

    def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification."""
        self.send(encode_frame(jsonrpc.notification(method, _to_wire(params or {}))))

    def next(self, to: str = "the line") -> Answer:
        """Return the next response, whatever its id.

        Raises:
            Failed: There is none, or its envelope is not legal.
        """
        while True:
            try:
                line = self.wire.receive(self.deadline)
            except TimeoutError:
                raise Failed(f"no answer to {to}") from None
            if line is None:
                raise Failed(f"no answer to {to}, the driver has gone: {self.wire.epitaph(self.deadline)}")
            if isinstance(line, Oversize):
                raise Failed(
                    f"the answer to {to} is a line longer than {self.wire.frames.max_bytes} bytes: "
                    f"{quote(line.head, 80)}"
                )
            if (message := self._message(line)) is not None:
                self._budget.audit.note(message, to)
                return _answer(message, to)

    def exchange(self, line: bytes, to: str | None = None) -> Answer:
        """Send a raw line, newline included, and return the next response."""
        self.send(line)
        return self.next(to or f"the line {quote(line.rstrip(), 80)}")

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> Answer:
        """Send a request and return its answer, which must be the next one."""
        request_id = self.request(method, params)
        return self.next(method).under(request_id)

    def ask(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """Make a call that has to succeed and return its result as a model."""
        return read_result(method, self.call(method, params).granted())

    def settle(self) -> None:
        """Make sure that the driver still answers, and that it has nothing else to say."""
        request_id = f"settle-{next(self._ids)}"
        self.request("plugin.ping", {}, request_id)
        answer = self.next("plugin.ping")
        if answer.id != request_id:
            raise Failed(
                f"there was one more response than requests: id {quote(repr(answer.id))}, "
                f"{answer if answer.result is None else 'a result'}"
            )
        answer.granted()

    def ended(self) -> None:
        """Fail the case unless stdout ends now, without another response."""
        try:
            while (line := self.wire.receive(self.deadline)) is not None:
                if isinstance(line, Oversize) or self._message(line) is not None:
                    raise Failed(f"one more response came at the end: {quote(bytes_of(line), 120)}")
        except TimeoutError:
            raise Failed("the driver did not close its stdout in time") from None

    def initialize(self, **params: Any) -> InitializeResult:
        """Open the session and take over the limit of a line."""
        body = {"protocol_versions": KNOWN_VERSIONS, "host": HOST, "max_frame_bytes": DEFAULT_FRAME_BYTES}
        result: InitializeResult = self.ask("plugin.initialize", {**body, **params})
        check(
            result.max_frame_bytes <= params.get("max_frame_bytes", DEFAULT_FRAME_BYTES),
            f"the driver raised the limit of a line to {result.max_frame_bytes}",
        )
        self.max_frame_bytes = self.wire.frames.max_bytes = result.max_frame_bytes
        return result

    def configure(self, config: Mapping[str, Any], **params: Any) -> ConfigureResult:
        """Hand over the settings."""
        result: ConfigureResult = self.ask("plugin.configure", {"config": config, **params})
        return result

    def _message(self, line: bytes) -> dict[str, Any] | None:
        """Return the response on a line; keep what is none."""
        try:
            message = decode_frame(line)
        except FrameError:
            self._stray(line)
            return None
        if "method" in message or "id" not in message:
            self._stray(line)
            return None
        return message

    def _stray(self, line: bytes) -> None:
        if len(self._budget.strays) < _MAX_STRAYS:
            self._budget.strays.append(quote(line, 120))


def read_result(method: str, result: Mapping[str, Any]) -> Any:
    """Read a result as the model of its operation; types are taken strictly.

    Raises:
        Failed: It does not fit.
    """
    try:
        return BY_WIRE[method].result.model_validate_json(encode_frame(dict(result)), strict=True)
    except ValueError as error:
        # The text of a validation error goes on with the value, which may be long.
        lines = [line.partition(" [type=")[0].strip() for line in str(error).splitlines()[1:3]]
        raise Failed(f"the result of {method} is malformed: {quote(': '.join(lines))}") from None


def bytes_of(line: bytes | Oversize) -> bytes:
    """Return a line, or what was kept of one that was too long."""
    return line.head if isinstance(line, Oversize) else line


def _to_wire(value: Any) -> Any:
    if isinstance(value, bytes):
        return encode_base64(value)
    if isinstance(value, Mapping):
        return {name: _to_wire(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_wire(member) for member in value]
    return value


def _answer(message: dict[str, Any], to: str) -> Answer:
    """Check the envelope of a response (SPEC.md 2.5, 7.2)."""
    check(message.get("jsonrpc") == "2.0", f"the answer to {to} does not say jsonrpc 2.0")
    check(
        ("result" in message) != ("error" in message),
        f"the answer to {to} has not exactly one of result and error",
    )
    if "result" in message:
        result = message["result"]
        check(isinstance(result, dict), f"the result of {to} is not an object")
        return Answer(message["id"], result, to=to)
    error = message["error"]
    check(
        isinstance(error, dict)
        and type(error.get("code")) is int
        and isinstance(error.get("message"), str)
        and isinstance(error.get("data"), dict)
        and isinstance(error["data"].get("code"), str),
        f"the error that answers {to} lacks its number, message or data.code",
    )
    return Answer(message["id"], None, error["code"], error["message"], error["data"], to)
