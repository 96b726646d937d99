"""Runs a driver in process, over real pipes and the real session, for unit tests of drivers."""

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from kmsplug_protocol import DEFAULT_FRAME_BYTES, FrameReader, Oversize, decode_frame, encode_frame, jsonrpc

from ._session import Session
from ._stdio import Wire
from .driver import Driver


class DriverClient:
    """The host's end of a session."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._frames = FrameReader(DEFAULT_FRAME_BYTES)
        self._received: deque[bytes | Oversize] = deque()
        self._kept: deque[dict[str, Any]] = deque()  # that came while `call` waited for another
        self._ids = itertools.count(1)

    def send(self, line: bytes) -> None:
        """Write raw bytes, also such as no host would."""
        self._wire.write(line)

    def receive(self, timeout_s: float = 10.0) -> dict[str, Any]:
        """Return the driver's next message that nobody has taken yet.

        Raises:
            TimeoutError: It did not come in time.
            EOFError: The session has ended.
        """
        return self._kept.popleft() if self._kept else self._next(timeout_s)

    def call(
        self, method: str, params: dict[str, Any] | None = None, timeout_s: float = 30.0
    ) -> dict[str, Any]:
        """Send a request and return its response, result or error; other messages wait for `receive`.

        Raises:
            TimeoutError: For so long nothing came. A late response is not taken for another's.
            EOFError: The session has ended.
        """
        request_id = next(self._ids)
        self.send(encode_frame(jsonrpc.request(method, params or {}, request_id)))
        while (message := self._next(timeout_s)).get("id") != request_id:
            self._kept.append(message)
        return message

    def _next(self, timeout_s: float) -> dict[str, Any]:
        while not self._received:
            if not self._wire.wait(timeout_s):
                raise TimeoutError(f"the driver said nothing for {timeout_s} s")
            if not (data := self._wire.read()):
                raise EOFError("the session has ended")
            self._received += self._frames.feed(data)
        frame = self._received.popleft()
        assert not isinstance(frame, Oversize)  # noqa: S101 - the SDK never writes such a line
        return decode_frame(frame)


@contextlib.contextmanager
def run_driver(driver: type[Driver[Any]], config: dict[str, Any] | None = None) -> Iterator[DriverClient]:
    """Serve *driver* on a thread and yield a client.

    Args:
        driver: The class.
        config: Its settings; given, the session is initialized and configured already.

    Raises:
        AssertionError: `configure` was refused.
        TimeoutError: A request goes on some seconds after the session was ended.
    """
    instance = driver()
    to_driver, to_client = os.pipe(), os.pipe()
    driver_wire = Wire(to_driver[0], to_client[1])
    client_wire = Wire(to_client[0], to_driver[1])
    session, complete = Session(instance, driver_wire), threading.Event()
    thread = threading.Thread(target=lambda: complete.set() if session.run() else None)
    thread.start()
    client = DriverClient(client_wire)
    try:
        if config is not None:
            host = {"name": "test", "version": "0"}
            client.call("plugin.initialize", {"protocol_versions": ["1"], "host": host})
            answer = client.call("plugin.configure", {"config": config})
            if "error" in answer:
                raise AssertionError(answer["error"])
        yield client
    finally:
        client_wire.close()  # both ends: a driver that waits for its answer to be read must not wait for ever
        thread.join(10)
        if not complete.is_set():
            # The driver's descriptors stay open: it still writes, and their numbers would be another file's.
            raise TimeoutError("a request of the driver did not end with the session")
        driver_wire.close()
