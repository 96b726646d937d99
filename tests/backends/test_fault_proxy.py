"""The proxy that stands between drivers and servers does what its faults say, and counts."""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme
from backends.fault_proxy import Fault, FaultProxy, fault_proxy, once, share


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    carried_out: list[bytes]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the original
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.carried_out.append(body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Path", self.path)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def carried_out() -> list[bytes]:
    return []


@pytest.fixture
def proxy(carried_out: list[bytes]) -> Iterator[FaultProxy]:
    handler = type("Handler", (_Echo,), {"carried_out": carried_out})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    with fault_proxy(f"http://127.0.0.1:{server.server_address[1]}") as running:
        yield running
    server.shutdown()
    server.server_close()
    thread.join(10)


def _post(proxy: FaultProxy, body: bytes = b"0123456789", timeout_s: float = 10) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=timeout_s)
    try:
        connection.request("POST", "/a?b=c", body, {"X-Attempt": "1"})
        response = connection.getresponse()
        assert response.status != 200 or response.headers["X-Path"] == "/a?b=c"
        return response.status, response.read()
    finally:
        connection.close()


def test_without_a_fault_requests_and_answers_pass_and_are_counted(proxy: FaultProxy) -> None:
    assert [_post(proxy) for _ in range(3)] == [(200, b"0123456789")] * 3
    assert [one.body for one in proxy.seen] == [b"0123456789"] * 3
    assert proxy.count("x-attempt", "1") == 3
    assert proxy.count("x-attempt", "2") == 0


def test_it_answers_in_the_servers_place(proxy: FaultProxy, carried_out: list[bytes]) -> None:
    proxy.plan = once(Fault(status=429, headers={"Retry-After": "1"}, body=b"slow down"))

    assert [_post(proxy) for _ in range(2)] == [(429, b"slow down"), (200, b"0123456789")]
    assert len(carried_out) == 1


@pytest.mark.parametrize("reached", [False, True])
def test_it_resets_before_or_after_the_server_acted(
    proxy: FaultProxy, carried_out: list[bytes], reached: bool
) -> None:
    proxy.plan = once(Fault(reset=True, reached=reached))

    with pytest.raises(ConnectionResetError):
        _post(proxy)

    assert len(carried_out) == reached
    assert _post(proxy)[0] == 200


def test_it_cuts_an_answer_off(proxy: FaultProxy) -> None:
    proxy.plan = once(Fault(cut=True))

    with pytest.raises(http.client.IncompleteRead):
        _post(proxy)


def test_it_stalls_until_the_client_leaves(proxy: FaultProxy) -> None:
    proxy.plan = once(Fault(stall_s=30))
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        _post(proxy, timeout_s=0.2)

    assert time.monotonic() - began < 5
    assert _post(proxy)[0] == 200


def test_it_adds_its_delay_to_every_request(proxy: FaultProxy) -> None:
    proxy.latency_s = 0.05
    began = time.monotonic()

    for _ in range(3):
        _post(proxy)

    assert time.monotonic() - began >= 0.15


def test_a_share_of_faults_has_no_pattern_and_is_the_same_each_time(proxy: FaultProxy) -> None:
    runs = []
    for _ in range(2):
        proxy.plan = share(0.3, Fault(status=503))
        runs.append([_post(proxy)[0] for _ in range(50)])

    assert runs[0] == runs[1]
    assert 5 < runs[0].count(503) < 25


def test_it_speaks_tls_where_it_is_asked_to(proxy: FaultProxy) -> None:
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_tls)
    client_tls = ssl.create_default_context()
    authority.configure_trust(client_tls)

    with (
        fault_proxy(proxy.url, server_tls=server_tls) as outer,
        fault_proxy(outer.url, upstream_tls=client_tls) as plain,
        socket.create_connection(("127.0.0.1", int(outer.url.rpartition(":")[2]))),  # and says nothing
    ):
        assert _post(plain) == (200, b"0123456789")
        assert len(proxy.seen) == len(outer.seen) == 1
