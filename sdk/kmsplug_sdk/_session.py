"""One session with a host: phases, dispatch to threads, cancel, end (SPEC.md section 3).

Every request gets exactly one answer. Ping and cancel are answered by the reading thread, so a driver
whose threads are all busy, or which is still opening its keystore, answers.
"""

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from typing import Any, Final

from kmsplug_protocol import (
    BY_WIRE,
    CANCEL,
    DEFAULT_FRAME_BYTES,
    KNOWN_VERSIONS,
    ConfigureParams,
    ConfigureResult,
    ErrorCode,
    ErrorData,
    FrameError,
    FrameReader,
    HealthParams,
    HealthResult,
    InitializeParams,
    InitializeResult,
    Outcome,
    Oversize,
    Peer,
    PingParams,
    PingResult,
    ShutdownParams,
    ShutdownResult,
    decode_frame,
    encode_frame,
    error_response,
    jsonrpc,
    negotiate,
)
from pydantic import ValidationError

from ._dispatch import Handler, defect, describe_invalid, dispatch, make_handler
from ._stdio import Wire
from .call import Call, set_current_call
from .driver import Driver, capabilities, operations
from .errors import DriverError

_log = logging.getLogger(__name__)

_CONFIGURE: Final = "plugin.configure"
_KEYSTORE_NAMESPACES: Final = ("key.", "crypto.", "keystore.")
_END_GRACE_S: Final = 5.0  # for what is still in progress when the host has gone (SPEC.md [3.7-2])
_MAX_QUEUED: Final = 4096  # requests waiting for a thread; a host bounds its calls long before


class _Phase(Enum):
    NEW = auto()
    INITIALIZED = auto()
    CONFIGURING = auto()
    READY = auto()
    ENDED = auto()


class Session:
    """Serves one driver over one wire until the host says shutdown or closes its end."""

    def __init__(self, driver: Driver[Any], wire: Wire) -> None:
        self._driver = driver
        self._wire = wire
        self._phase = _Phase.NEW
        self._frames = FrameReader()
        self._calls: dict[jsonrpc.Id, Call] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(driver.max_concurrency, thread_name_prefix="kmsplug-call")
        self._control: Mapping[str, Handler] = {
            wire_name: make_handler(BY_WIRE[wire_name], method)
            for wire_name, method in (
                ("plugin.initialize", self._initialize),
                ("plugin.ping", self._ping),
                ("plugin.shutdown", self._shutdown),
            )
        }
        offered = list(operations(type(driver)))
        self._handlers: Mapping[str, Handler] = {
            _CONFIGURE: make_handler(BY_WIRE[_CONFIGURE], self._configure),
            "plugin.health": make_handler(BY_WIRE["plugin.health"], self._health),
            **{op.wire: make_handler(op, getattr(driver, op.api)) for op, _ in offered},
        }
        self._inline = frozenset(op.wire for op, inline in offered if inline)

    def run(self) -> bool:
        """Serve until the session ends, then close the driver.

        Returns:
            False where a request had to be abandoned: its thread goes on, so the driver was not closed.
        """
        try:
            while self._phase is not _Phase.ENDED and (data := self._wire.read()):
                self._take_all(self._frames.feed(data))
        except OSError:
            _log.info("the host has gone")
        finally:
            complete = self._end()
        return complete

    def _end(self) -> bool:
        with self._lock:
            for call in self._calls.values():
                call.cancelled.set()
        # The pool itself cannot wait for a limited time.
        waiting = threading.Thread(target=self._pool.shutdown, kwargs={"cancel_futures": True}, daemon=True)
        waiting.start()
        waiting.join(_END_GRACE_S)
        if waiting.is_alive():
            _log.warning("a request is abandoned: it goes on %s s after the host has gone", _END_GRACE_S)
            return False
        close(self._driver)
        return True

    def _take_all(self, frames: list[bytes | Oversize]) -> None:
        for frame in frames:
            if self._phase is _Phase.ENDED:  # what comes after shutdown is not looked at, even in one read
                return
            self._take(frame)

    def _take(self, frame: bytes | Oversize) -> None:
        if isinstance(frame, Oversize):
            self._refuse(
                None, jsonrpc.INVALID_REQUEST, f"the line is longer than {self._frames.max_bytes} bytes"
            )
            return
        try:
            message = decode_frame(frame)
        except FrameError as error:
            self._refuse(None, jsonrpc.PARSE_ERROR, str(error))
            return
        request_id = message.get("id")
        if "id" in message and "method" not in message:
            return  # a response, to nothing that we asked: to answer it could begin an endless exchange
        if "id" in message and not jsonrpc.is_id(request_id):
            self._refuse(None, jsonrpc.INVALID_REQUEST, "id must be a string or an integer within 2^53")
        elif message.get("jsonrpc") != "2.0" or type(message.get("method")) is not str:
            self._refuse(request_id, jsonrpc.INVALID_REQUEST, "not a JSON-RPC 2.0 request")
        elif not isinstance(message.get("params", {}), dict):
            self._refuse(request_id, jsonrpc.INVALID_REQUEST, "params must be an object")
        elif "id" not in message:
            self._notified(message)
        else:
            self._requested(message)

    def _refuse(
        self, request_id: jsonrpc.Id | None, number: int, message: str, code: ErrorCode | None = None
    ) -> None:
        data = {"code": (code or ErrorCode.INVALID_ARGUMENT).value}
        self._wire.write(encode_frame(jsonrpc.failure(request_id, number, message, data)))

    def _notified(self, message: dict[str, Any]) -> None:
        """Cancel is the only notification with a meaning; any other is ignored (SPEC.md 9)."""
        if message["method"] == CANCEL:
            request_id = message.get("params", {}).get("id")
            call = self._calls.get(request_id) if jsonrpc.is_id(request_id) else None
            if call is not None:
                call.cancelled.set()

    def _requested(self, message: dict[str, Any]) -> None:
        method, request_id = message["method"], message["id"]
        if request_id in self._calls:
            self._refuse(request_id, jsonrpc.INVALID_REQUEST, "a request of this id is still in progress")
            return
        call = _call_of(message)
        if method in self._control:
            self._wire.write(self._answer(message, call, self._control))
        elif method in self._handlers and self._phase is not _Phase.READY and method != _CONFIGURE:
            self._refuse(request_id, jsonrpc.INVALID_REQUEST, "send plugin.configure first")
        elif method in self._inline or method not in self._handlers:
            self._wire.write(self._answer(message, call, self._handlers))
        elif len(self._calls) >= _MAX_QUEUED:
            self._refuse(request_id, jsonrpc.KEYSTORE_ERROR, "too many requests wait", ErrorCode.OVERLOADED)
        else:
            with self._lock:
                self._calls[request_id] = call
            self._pool.submit(self._work, message, call)

    def _work(self, message: dict[str, Any], call: Call) -> None:
        """On a pool thread: answer, unless the caller left while the request was waiting."""
        if call.cancelled.is_set():
            data = ErrorData(code=ErrorCode.CANCELLED, outcome=Outcome.NOT_APPLIED)
            frame = encode_frame(error_response(message["id"], "cancelled before it began", data))
        else:
            frame = self._answer(message, call, self._handlers)
        # Before the answer is written: whoever reads it may use its id again at once.
        with self._lock:
            self._calls.pop(message["id"], None)
        try:
            for _ in range(call.answers):
                self._wire.write(frame)
        except OSError:
            _log.info("the host left before its answer")

    def _answer(self, message: dict[str, Any], call: Call, handlers: Mapping[str, Handler]) -> bytes:
        # Read before the call: the host reads the answer to initialize under the limit of before it.
        max_bytes = self._frames.max_bytes
        set_current_call(call)
        try:
            return _encode(dispatch(message, handlers), message["id"], max_bytes)
        finally:
            set_current_call(None)

    def _initialize(self, request: InitializeParams) -> InitializeResult:
        if self._phase is not _Phase.NEW:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, "the session is initialized already")
        version = negotiate(request.protocol_versions)
        if version is None:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                f"no protocol version in common: this driver speaks {', '.join(KNOWN_VERSIONS)}",
                hint="install a driver and a host of the same generation",
            )
        max_bytes = min(request.max_frame_bytes, DEFAULT_FRAME_BYTES)
        description = describe(type(self._driver), max_bytes, version)
        self._phase = _Phase.INITIALIZED
        # The reading thread is in here, so nobody reads between the answer and the new limit.
        self._frames.max_bytes = max_bytes
        return description

    def _configure(self, request: ConfigureParams) -> ConfigureResult:
        with self._lock:
            if self._phase is not _Phase.INITIALIZED:
                raise DriverError(
                    ErrorCode.INVALID_ARGUMENT, "plugin.configure follows plugin.initialize, once"
                )
            self._phase = _Phase.CONFIGURING
        after = _Phase.INITIALIZED
        try:
            result = configure(self._driver, request.config, dry_run=request.dry_run)
            if not request.dry_run:
                self._withdraw(result)
                after = _Phase.READY
            return result
        finally:
            with self._lock:
                if self._phase is _Phase.CONFIGURING:  # else shutdown came meanwhile
                    self._phase = after

    def _withdraw(self, opened: ConfigureResult) -> None:
        """Refuse from now on what the class offers and the keystore turned out not to have."""
        if opened.capabilities is None:
            return
        left = {row.operation for row in opened.capabilities}
        self._handlers = {
            name: handler
            for name, handler in self._handlers.items()
            if name in left or not name.startswith(_KEYSTORE_NAMESPACES)
        }

    def _ping(self, _request: PingParams) -> PingResult:
        return PingResult()

    def _health(self, request: HealthParams) -> HealthResult:
        checks = tuple(self._driver.health(request.depth))
        return HealthResult(healthy=all(check.healthy for check in checks), checks=checks)

    def _shutdown(self, _request: ShutdownParams) -> ShutdownResult:
        with self._lock:
            self._phase = _Phase.ENDED
        self._pool.shutdown(wait=True)  # requests before it are answered before it
        return ShutdownResult()


def describe(
    driver: type[Driver[Any]],
    max_frame_bytes: int = DEFAULT_FRAME_BYTES,
    protocol_version: str = KNOWN_VERSIONS[0],
) -> InitializeResult:
    """Return what a driver class says of itself before it is configured."""
    return InitializeResult(
        protocol_version=protocol_version,
        driver=Peer(name=driver.name, version=driver.version),
        max_frame_bytes=max_frame_bytes,
        max_concurrency=driver.max_concurrency,
        config_schema=driver.Config.model_json_schema(),
        capabilities=capabilities(driver),
    )


def configure(driver: Driver[Any], settings: dict[str, Any], *, dry_run: bool) -> ConfigureResult:
    """Validate *settings* and open the keystore.

    Raises:
        DriverError: CONFIGURATION_ERROR that names the member, or what the driver raised.
    """
    try:
        config = driver.Config.model_validate(settings)
    except ValidationError as error:
        path, message = describe_invalid(error)
        raise DriverError(ErrorCode.CONFIGURATION_ERROR, message, path=path) from None
    return driver.configure(config, dry_run=dry_run)


def close(driver: Driver[Any]) -> None:
    """Close the driver. A failure is logged and nothing more: the session has ended, and nobody waits."""
    try:
        driver.close()
    except Exception:  # noqa: BLE001 - nor may its text reach stderr
        _log.exception("defect in close")


def _encode(response: dict[str, Any], request_id: jsonrpc.Id, max_bytes: int) -> bytes:
    try:
        frame = encode_frame(response)
    except TypeError:  # a lone surrogate, an integer over 64 bits, a message that is no text
        return encode_frame(jsonrpc.failure(request_id, jsonrpc.INTERNAL_ERROR, *defect("the answer")))
    if len(frame) - 1 <= max_bytes:
        return frame
    data = ErrorData(
        code=ErrorCode.LIMIT_EXCEEDED,
        outcome=Outcome.UNKNOWN,
        hint="ask for less at once, or raise the frame limit",
    )
    return encode_frame(error_response(request_id, "the answer is longer than the frame limit", data))


def _call_of(message: dict[str, Any]) -> Call:
    """Read the deadline early, so that time spent waiting for a thread counts."""
    meta = message.get("params", {}).get("meta")
    call = Call()
    if isinstance(meta, dict):
        deadline_ms = meta.get("deadline_ms")
        if type(deadline_ms) is int:
            call.deadline = time.monotonic() + deadline_ms / 1000
        correlation_id = meta.get("correlation_id")
        if type(correlation_id) is str:
            call.correlation_id = correlation_id[:128]
        traceparent = meta.get("traceparent")
        if type(traceparent) is str:
            call.traceparent = traceparent[:256]
    return call
