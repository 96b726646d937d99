"""A scripted Azure on the loopback interface: Entra, a vault, a Managed HSM and the identity of a machine.

Clients reach it as an HTTP proxy (``HTTPS_PROXY``), under the real names of the services and with TLS
certificates for those, so that the SDKs run with the settings that they have in production, every check of
names included. What the services say only when something is wrong is scripted: `AzureFake.script`.
"""

import contextlib
import json
import re
import socket
import ssl
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import trustme
from backends.azure_entra import LOGIN_HOST, TENANT, Entra, TokenError
from backends.azure_vault import HSM_HOST, VAULT_HOST, Body, RefusedError, VaultFake

IDENTITY_SECRET: Final = "the-machine-may-ask"
REGION: Final = "westeurope"

_BOUND_S: Final = 30.0


@dataclass
class Script:
    """What is to happen to requests in place of an answer.

    Attributes:
        on: Requests whose ``METHOD /path`` this matches.
        times: How many more of them.
        status: Of the answer; 0: the connection ends without one.
        body: Of the answer.
        headers: Of the answer.
        after: Whether the request is carried out first, and only its answer is lost or replaced.
        cut: Whether half of the body is sent.
        silent: Whether nothing at all is sent until the client goes.
        reached: Set when one has come.
    """

    on: str
    times: int = 1
    status: int = 0
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: bool = False
    cut: bool = False
    silent: bool = False
    reached: threading.Event = field(default_factory=threading.Event)


class AzureFake:
    """The server; made by `azure_fake`.

    Attributes:
        entra: Gives the tokens.
        vaults: By host name.
        requests: ``METHOD /path STATUS`` of all that came, in order; status 0: no answer.
        connections: Those that are open.
        ca_file: The certificate authority to trust.
        port: Where the proxy listens.
    """

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca_file = folder / "azure-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(LOGIN_HOST, VAULT_HOST, HSM_HOST, "127.0.0.1").configure_cert(self._tls)
        self.entra = Entra()
        self.vaults = {host: VaultFake(host) for host in (VAULT_HOST, HSM_HOST)}
        self.requests: list[str] = []
        self.connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._scripts: list[Script] = []
        self._server = _Server(self)
        self.port = int(self._server.server_address[1])

    @property
    def vault(self) -> VaultFake:
        """The vault."""
        return self.vaults[VAULT_HOST]

    @property
    def hsm(self) -> VaultFake:
        """The Managed HSM."""
        return self.vaults[HSM_HOST]

    @property
    def environment(self) -> dict[str, str]:
        """What leads a client here."""
        return {
            "HTTPS_PROXY": f"http://127.0.0.1:{self.port}",
            "REQUESTS_CA_BUNDLE": str(self.ca_file),
            "NO_PROXY": "127.0.0.1",
        }

    @property
    def identity_environment(self) -> dict[str, str]:
        """What the platform sets where a managed identity is there."""
        return {
            "IDENTITY_ENDPOINT": f"http://127.0.0.1:{self.port}/msi/token",
            "IDENTITY_HEADER": IDENTITY_SECRET,
        }

    def script(self, on: str, **members: Any) -> Script:
        """Let something else happen to the next requests that *on* matches."""
        script = Script(on, **members)
        with self._lock:
            self._scripts.append(script)
        return script

    def settle(self) -> None:
        """Forget scripts that were not used up, and what came."""
        with self._lock:
            self._scripts.clear()
            self.requests.clear()

    def seen(self, pattern: str) -> list[str]:
        """Return the requests that came and match."""
        with self._lock:
            return [one for one in self.requests if re.search(pattern, one)]

    def close(self) -> None:
        """Stop, and wait until nothing of it is left."""
        self._server.shutdown()
        with self._lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    @contextlib.contextmanager
    def keeping(self, connection: socket.socket) -> Iterator[None]:
        """Know a connection, so that it can be ended."""
        with self._lock:
            self.connections.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self.connections.discard(connection)
            connection.close()

    def scripted(self, what: str) -> Script | None:
        """Return what is to happen to a request."""
        with self._lock:
            for script in self._scripts:
                if re.search(script.on, what):
                    script.times -= 1
                    if script.times <= 0:
                        self._scripts.remove(script)
                    script.reached.set()
                    return script
        return None

    def note(self, what: str, status: int) -> None:
        """Write down what came."""
        with self._lock:
            self.requests.append(f"{what} {status}")

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """Speak TLS from here on."""
        return self._tls.wrap_socket(connection, server_side=True)

    def carry_out(
        self, host: str, method: str, target: str, headers: Any, body: bytes
    ) -> tuple[int, Body | None, dict[str, str]]:
        """Return status, body and headers of the answer to a request."""
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/metadata/identity/oauth2/token":
            return 400, {"error": "invalid_request", "error_description": "Identity not found"}, {}
        if url.path == "/msi/token":
            return self._identity(query, headers)
        if host == LOGIN_HOST:
            return self._login(url.path, body)
        vault = self.vaults[host]
        try:
            self.entra.check(str(headers.get("authorization", "")).removeprefix("Bearer "), vault.audience)
            return 200, vault.answer(method, url.path, query, json.loads(body) if body else {}), {}
        except TokenError as error:
            challenge = f'Bearer authorization="https://{LOGIN_HOST}/{TENANT}", resource="{vault.audience}"'
            refused = RefusedError(401, "Unauthorized", f"{error.code}: the token is not good")
            return 401, refused.body, {"WWW-Authenticate": challenge}
        except RefusedError as error:
            return error.status, error.body, {}

    def _login(self, path: str, body: bytes) -> tuple[int, Body, dict[str, str]]:
        if not path.endswith("/oauth2/v2.0/token"):
            return 200, self.entra.discovery(path), {}
        form = dict(urllib.parse.parse_qsl(body.decode()))
        try:
            return 200, self.entra.give(path.split("/")[1], form), {}
        except TokenError as error:
            description = f"{error.code}: refused. Trace ID: {uuid.uuid4()}"
            return 401, {"error": "invalid_client", "error_description": description}, {}

    def _identity(self, query: Mapping[str, str], headers: Any) -> tuple[int, Body, dict[str, str]]:
        if headers.get("X-IDENTITY-HEADER") != IDENTITY_SECRET:
            return 401, {"error": "unauthorized"}, {}
        token = self.entra.token(query["resource"], appid="the machine")
        return 200, {**token, "expires_on": str(int(time.time() + self.entra.lifetime_s))}, {}


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, fake: AzureFake) -> None:
        self.fake = fake
        super().__init__(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def server_close(self) -> None:
        """Stop listening, and wait for whoever is being served."""
        super().server_close()
        self._thread.join(_BOUND_S)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _BOUND_S
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def handle_one_request(self) -> None:
        """Acknowledge at once: towards proxies clients wait for that between head and body of a request."""
        if hasattr(socket, "TCP_QUICKACK"):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        super().handle_one_request()

    def handle(self) -> None:
        """Serve one connection."""
        with self.server.fake.keeping(self.connection), contextlib.suppress(OSError):
            super().handle()

    def do_CONNECT(self) -> None:
        """Be the server that the client asked for, until it goes."""
        self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.close_connection = True
        secured = self.server.fake.wrap(self.connection)
        with self.server.fake.keeping(secured), secured.makefile("rb") as lines:
            secured.settimeout(_BOUND_S)
            self.connection, self.rfile, self.close_connection = secured, lines, False
            while not self.close_connection:
                self.handle_one_request()

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fake, host = self.server.fake, str(self.headers.get("host")).partition(":")[0]
        what = f"{self.command} {urllib.parse.urlsplit(self.path).path}"
        # A request without a token only asks where to get one: scripts are for what comes then.
        asks = host != LOGIN_HOST and "authorization" not in self.headers and "/msi/" not in self.path
        script = None if asks else fake.scripted(what)
        if script is None or script.after:
            status, answer, headers = fake.carry_out(host, self.command, self.path, self.headers, body)
            text = "" if answer is None else json.dumps(answer)
        if script is not None:
            status, text, headers = script.status, script.body, dict(script.headers)
        fake.note(what, status)
        if script is not None and (status == 0 or script.silent):
            self._leave(wait=script.silent)
            return
        self._write(status, text.encode(), headers, cut=script is not None and script.cut)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 - names of the library

    def _write(self, status: int, body: bytes, headers: Mapping[str, str], *, cut: bool) -> None:
        lines = {
            "content-type": "application/json; charset=utf-8",
            "x-ms-request-id": str(uuid.uuid4()),
            "x-ms-keyvault-region": REGION,
            **headers,
            "content-length": str(len(body)),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        # In one piece: two would wait for each other.
        data = f"HTTP/1.1 {status} Reason\r\n{head}\r\n".encode() + (body[: len(body) // 2] if cut else body)
        self.connection.sendall(data)
        if cut:
            self._leave(wait=False)

    def _leave(self, *, wait: bool) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            if wait:
                self.connection.recv(1)
            self.connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def azure_fake(folder: Path) -> Iterator[AzureFake]:
    """Run one; *folder* gets the certificate authority."""
    fake = AzureFake(folder)
    try:
        yield fake
    finally:
        fake.close()
