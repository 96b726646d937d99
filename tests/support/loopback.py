"""A server on the loopback interface that answers each request with the bytes that a test gives it."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

_BOUND_S = 20.0


class Loopback:
    """Reads a request, writes ``reply`` and closes; ``silent``: waits for the client to go, first."""

    def __init__(self, listening: socket.socket) -> None:
        self.reply: bytes | None = None
        self.silent = False
        self.requests: list[bytes] = []
        self._listening = listening
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def answer(self, fixture: dict[str, Any], **headers: str) -> None:
        """Answer from now on as a row's fixture says."""
        body = fixture["body"].encode()
        lines = {
            **headers,
            **fixture.get("headers", {}),
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.reply = f"HTTP/1.1 {fixture['status']} Reason\r\n{head}\r\n".encode() + body

    def close(self) -> None:
        """Stop."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(_BOUND_S)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_BOUND_S)
                self.requests.append(_request(connection))
                if self.reply is not None:
                    connection.sendall(self.reply)
                if self.silent:
                    connection.recv(1)


def _request(connection: socket.socket) -> bytes:
    """Read one request with its body, or whatever comes instead."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return data
        data += more
        if not data[:1].isalpha():  # the beginning of TLS
            return data
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ),
        0,
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + body


@contextlib.contextmanager
def loopback() -> Iterator[Loopback]:
    """Run one."""
    server = Loopback(socket.create_server(("127.0.0.1", 0)))
    try:
        yield server
    finally:
        server.close()


def free_port() -> int:
    """Return a port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """Yield a port whose system takes no more connections, and does not say so."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        yield int(listening.getsockname()[1])
