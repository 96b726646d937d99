"""An HTTP proxy in front of a provider's server, which does to requests what real networks and providers do.

It answers in the server's place, waits, resets, cuts an answer off, or loses the answer of a request that was
carried out; it counts what passes. On the loopback interface, on a free port, over TLS where asked.

Run as a program it adds a delay to every request, in a process of its own, so that what is measured does not
share an interpreter with it::

    python fault_proxy.py http://127.0.0.1:4566 --latency-ms 10     # prints its URL; ends with its stdin
"""

import argparse
import contextlib
import http.client
import os
import random
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit

_BOUND_S: Final = 30.0  # nothing waits longer than this, whatever a test forgot
_BACKLOG: Final = 128
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


@dataclass(frozen=True)
class Seen:
    """A request that came to the proxy.

    Attributes:
        method: As ``POST``.
        path: With its query.
        headers: Their names in lower case.
        body: The body.
        at: When it came, on `time.monotonic`.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float


@dataclass(frozen=True)
class Fault:
    """What becomes of a request. Without a member it is passed on as usual.

    Attributes:
        status: The proxy answers in the server's place, with these headers and this body.
        headers: Of that answer.
        body: Of that answer.
        stall_s: Wait first; a client that leaves ends the wait.
        reset: Reset the connection in place of an answer.
        cut: Send half of the answer, and close.
        reached: The server carries the request out all the same, before it is answered, reset or cut.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    stall_s: float = 0.0
    reset: bool = False
    cut: bool = False
    reached: bool = False


Plan = Callable[[Seen], Fault | None]


def once(*faults: Fault | None) -> Plan:
    """Let each of *faults* happen to one request, in order; None: that one passes. Then all pass."""
    left = iter(faults)
    lock = threading.Lock()

    def plan(_seen: Seen) -> Fault | None:
        with lock:
            return next(left, None)

    return plan


def share(rate: float, fault: Fault, seed: int = 7) -> Plan:
    """Let *fault* happen to this share of requests, without a pattern, the same in each run."""
    dice = random.Random(seed)  # noqa: S311 - to be repeated
    lock = threading.Lock()

    def plan(_seen: Seen) -> Fault | None:
        with lock:
            return fault if dice.random() < rate else None

    return plan


class FaultProxy:
    """The proxy, on threads of this process.

    Attributes:
        plan: What becomes of the next requests; may be replaced at any time.
        latency_s: How long every request takes longer than it would.
        seen: The requests that came, in order.
    """

    def __init__(
        self,
        upstream: str,
        *,
        server_tls: ssl.SSLContext | None = None,
        upstream_tls: ssl.SSLContext | None = None,
    ) -> None:
        """Start.

        Args:
            upstream: URL of the server.
            server_tls: Speak TLS to clients, with this certificate.
            upstream_tls: How the server's certificate is checked, where *upstream* is https.
        """
        self.plan: Plan = lambda _seen: None
        self.latency_s = 0.0
        self.seen: list[Seen] = []
        self.upstream = upstream
        self._closing = threading.Event()
        self._upstream = urlsplit(upstream)
        self._upstream_tls = upstream_tls
        self._server = _Server(self, server_tls)
        scheme = "http" if server_tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def count(self, header: str, value: str = "") -> int:
        """Return how many requests had a header with this value, or with any."""
        return sum(value in one.headers.get(header, "") for one in self.seen if header in one.headers)

    def connect(self) -> http.client.HTTPConnection:
        """Strictly for the handler: a connection to the server."""
        host, port = self._upstream.hostname or "", self._upstream.port
        if self._upstream.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=_BOUND_S, context=self._upstream_tls)
        return http.client.HTTPConnection(host, port, timeout=_BOUND_S)

    def wait(self, seconds: float, client: socket.socket) -> None:
        """Strictly for the handler: wait, but no longer than the client does."""
        until = time.monotonic() + min(seconds, _BOUND_S)
        while (left := until - time.monotonic()) > 0 and not self._closing.is_set():
            client.settimeout(min(left, 0.05))
            with contextlib.suppress(TimeoutError, ssl.SSLError):
                tls = isinstance(client, ssl.SSLSocket)  # which cannot be peeked into
                if not (client.recv(1) if tls else client.recv(1, socket.MSG_PEEK)):
                    return
                self._closing.wait(min(left, 0.05))
        client.settimeout(_BOUND_S)

    def close(self) -> None:
        """Stop, whoever is connected."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_BOUND_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = _BACKLOG

    def __init__(self, proxy: FaultProxy, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        if tls is not None:
            # The handshake belongs to the handler's thread: a silent client must not stop others.
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that leave in the middle are what the proxy is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else an answer waits for the acknowledgement of its own head
    wbufsize = -1
    timeout = _BOUND_S
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.upstream = self.server.proxy.connect()

    def finish(self) -> None:
        self.upstream.close()
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the original
        """Say nothing."""

    def do_any(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, self.path, headers, body, time.monotonic())
        proxy.seen.append(seen)
        fault = proxy.plan(seen) or Fault()
        if proxy.latency_s:
            time.sleep(proxy.latency_s)
        if fault.stall_s:
            proxy.wait(fault.stall_s, self.connection)
        mine = fault.status is not None or fault.reset
        if not mine or fault.reached:
            answer = self._ask(seen)
        if fault.reset:
            self._reset()
        elif fault.status is not None:
            self._answer(fault.status, fault.headers, fault.body, cut=fault.cut)
        else:
            self._answer(*answer, cut=fault.cut)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_LIST = do_any  # noqa: N815

    def _ask(self, seen: Seen) -> tuple[int, Mapping[str, str], bytes]:
        headers = {name: value for name, value in seen.headers.items() if name not in _HOP_BY_HOP}
        if seen.body or seen.method in ("POST", "PUT", "PATCH"):
            headers["content-length"] = str(len(seen.body))
        # Looked at before it is used: a request that failed is not sent again, it could be carried out twice.
        if self.upstream.sock is not None and select.select([self.upstream.sock], [], [], 0)[0]:
            self.upstream.close()  # the server has closed it, which was idle for too long
        try:
            self.upstream.request(seen.method, seen.path, seen.body or None, headers)
            response = self.upstream.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        except (OSError, http.client.HTTPException):
            self.upstream.close()
            return 502, {}, b""

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, *, cut: bool) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.wfile.flush()
        self.close_connection = self.close_connection or cut

    def _reset(self) -> None:
        # Closed while it lingers for no time at all, a connection ends with RST.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        os.close(self.connection.detach())  # close() would wait for the files made of it


@contextlib.contextmanager
def fault_proxy(
    upstream: str,
    *,
    server_tls: ssl.SSLContext | None = None,
    upstream_tls: ssl.SSLContext | None = None,
) -> Iterator[FaultProxy]:
    """Run one in front of *upstream*."""
    proxy = FaultProxy(upstream, server_tls=server_tls, upstream_tls=upstream_tls)
    try:
        yield proxy
    finally:
        proxy.close()


def main() -> None:
    """Run as a program until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("upstream")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    arguments = parser.parse_args()
    with fault_proxy(arguments.upstream) as proxy:
        proxy.latency_s = arguments.latency_ms / 1000
        print(proxy.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
