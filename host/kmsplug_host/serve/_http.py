"""HTTP for a few known readers, bounded against all others: in time, bytes and connections.

One request a connection. Its head is read whole before anything is parsed, for at most so long and so many
bytes; where there are too many connections, the one that has kept its request back longest gives way.
"""

import contextlib
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlsplit

from kmsplug_host.errors import ConfigurationError

MAX_HEAD_BYTES: Final = 8 * 1024
MAX_CONNECTIONS: Final = 64
HEAD_S: Final = 5.0  # for a whole request to come
_SEND_S: Final = 10.0  # for an answer to be taken
_DRAIN_S: Final = 0.2
_DRAIN_READS: Final = 16
_PORT: Final = re.compile(r"[0-9]{1,5}")
_MAX_PORT: Final = 65535

# Nothing is executed, and nothing is loaded but the style sheet; nobody may frame the page.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a path is answered with.

    Attributes:
        status: HTTP status.
        kind: Media type.
        body: The bytes.
        headers: Further headers.
    """

    status: HTTPStatus
    kind: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


Routes = Callable[[str, str], Reply | None]
"""Answers a path and its query; None: there is nothing."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen.

    Attributes:
        host: An IP address.
        port: 0: any that is free.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, remote: bool = False) -> "Address":
        """Read ``127.0.0.1:9464`` or ``[::1]:9464``.

        Args:
            text: What was written.
            remote: Whether an address may be one that other machines reach.

        Raises:
            ConfigurationError: It is no such thing, or others could reach it and may not.
        """
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]").replace("localhost", "127.0.0.1")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if address is None or not _PORT.fullmatch(port) or int(port) > _MAX_PORT:
            raise ConfigurationError(
                f"--listen: expected an address and a port as 127.0.0.1:9464, not {text!r}"
            )
        if not address.is_loopback and not remote:
            raise ConfigurationError(
                f"--listen: {host} can be reached by other machines, and this has neither login nor TLS",
                hint="listen on 127.0.0.1 and let a proxy that has both stand before it, or say --remote",
            )
        return cls(host, int(port))


class Server(ThreadingHTTPServer):
    """Listens on one address and answers by *routes*.

    Raises:
        OSError: The address cannot be had.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: Address, routes: Routes) -> None:
        self.routes = routes
        self.loopback = ipaddress.ip_address(address.host).is_loopback
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._lock = threading.Lock()
        self._silent: dict[int, socket.socket] = {}  # connections whose request has not come, oldest first
        self._open = 0
        super().__init__((address.host, address.port), _Handler)

    @property
    def port(self) -> int:
        """The port that it has."""
        return int(self.server_address[1])

    def server_bind(self) -> None:
        """Bind without asking the system for the name of the address, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread for a connection, unless there are too many that are being answered."""
        with self._lock:
            room = self._open < MAX_CONNECTIONS
            if not room and self._silent and self._open < 2 * MAX_CONNECTIONS:
                _shut(self._silent.pop(next(iter(self._silent))))  # its thread reads the end, and ends
                room = True
            if room:
                self._open += 1
                self._silent[id(request)] = request
        if not room:
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has no thread for it
            self.shutdown_request(request)
            self._done(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._done(request)

    def heard(self, request: Any) -> None:
        """Note that a connection's request has come: it is answered whatever comes after it."""
        with self._lock:
            self._silent.pop(id(request), None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever left in the middle of an answer is no event."""

    def _done(self, request: Any) -> None:
        with self._lock:
            self._silent.pop(id(request), None)
            self._open -= 1


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "kmsplug"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self._refusal: HTTPStatus | None = None
        self.rfile = BytesIO(self._read_head())
        self.server.heard(self.request)
        self.request.settimeout(_SEND_S)

    def handle_one_request(self) -> None:
        if self._refusal is None:
            super().handle_one_request()
            return
        self.requestline, self.request_version, self.command = "", "HTTP/1.0", ""
        self.send_error(self._refusal)
        self.wfile.flush()
        # What was not read would make the system reset the connection, and the answer with it.
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_WR)
            self.request.settimeout(_DRAIN_S)
            for _ in range(_DRAIN_READS):
                if not self.request.recv(MAX_HEAD_BYTES):
                    break

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: object) -> None:
        """A probe every second is no news."""

    def _read_head(self) -> bytes:
        """Return all up to the empty line, and no more than is allowed."""
        head, end = b"", time.monotonic() + HEAD_S
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            if len(head) > MAX_HEAD_BYTES:
                self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                break
            left = end - time.monotonic()
            self.request.settimeout(max(left, 0.001))
            try:
                data = self.request.recv(MAX_HEAD_BYTES) if left > 0 else None
            except TimeoutError:
                data = None
            except OSError:
                data = b""
            if data is None:
                self._refusal = HTTPStatus.REQUEST_TIMEOUT
            if not data:
                break
            head += data
        return head

    def _answer(self, *, with_body: bool) -> None:
        try:
            path = urlsplit(self.path)
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        if self.server.loopback and not _is_local(self.headers.get("Host")):
            # A page elsewhere whose name was made to lead here (DNS rebinding) reads nothing.
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "use the address, not a name that leads to it")
            return
        reply = self.server.routes(path.path, path.query)
        if reply is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(reply.body)

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()


def _is_local(host: str | None) -> bool:
    """Tell whether a Host header names this machine by an address; HTTP/1.0 has none."""
    if host is None:
        return True
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
