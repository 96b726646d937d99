"""Servers that give credentials and that nobody emulates: the EKS agent; Roles Anywhere with its check."""

import base64
import contextlib
import datetime as dt
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import load_der_x509_certificate

Answer = Callable[[BaseHTTPRequestHandler, bytes], tuple[int, dict[str, Any]]]


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """Run a server that answers with JSON, and yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the original
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, document = answer(self, body)
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815 - the name of the original

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def expiry(seconds: int = 3600) -> str:
    """Return a moment as AWS writes it."""
    return (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Agent:
    """The EKS Pod Identity agent: gives credentials to whoever has the token.

    Attributes:
        token: The one that is good now.
        tokens: Those that were shown, in order.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.tokens: list[str | None] = []

    def answer(self, request: BaseHTTPRequestHandler, _body: bytes) -> tuple[int, dict[str, Any]]:
        shown = request.headers.get("Authorization")
        self.tokens.append(shown)
        if shown != self.token:
            return 403, {"code": "AccessDenied", "message": "the token is not good"}
        number = len(self.tokens)
        return 200, {
            "AccessKeyId": f"ASIAAGENT{number:011}",
            "SecretAccessKey": "canary-agent",
            "Token": "canary-token",
            "Expiration": expiry(),
        }


class RolesAnywhere:
    """Gives credentials to whoever signs a request with a certificate's key, as AWS describes the signature.

    Attributes:
        refusals: Why requests were refused.
        issuers: Who issued the certificates that were accepted.
    """

    def __init__(self) -> None:
        self.refusals: list[str] = []
        self.issuers: list[str] = []

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, Any]]:
        try:
            self._check(request, body)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it
            self.refusals.append(repr(error))
            return 403, {"message": "Untrusted signing certificate"}
        credentials = {
            "accessKeyId": "ASIAANYWHERE00000001",
            "secretAccessKey": "canary-anywhere",
            "sessionToken": "canary-token",
            "expiration": expiry(),
        }
        return 201, {"credentialSet": [{"credentials": credentials}]}

    def _check(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        url = urlsplit(request.path)
        assert url.path == "/sessions"
        assert json.loads(body)["durationSeconds"] >= 900
        algorithm, _, rest = request.headers["Authorization"].partition(" ")
        fields = dict(part.strip().split("=", 1) for part in rest.split(","))
        serial, _, scope = fields["Credential"].partition("/")
        names = fields["SignedHeaders"].split(";")
        assert {"host", "x-amz-date", "x-amz-x509"} <= {*names}
        assert names == sorted(names)
        certificate = load_der_x509_certificate(base64.b64decode(request.headers["X-Amz-X509"]))
        assert certificate.serial_number == int(serial)
        query = "&".join(sorted(url.query.split("&")))
        headers = "".join(f"{name}:{request.headers[name]}\n" for name in names)
        canonical = (
            f"POST\n/sessions\n{query}\n{headers}\n{';'.join(names)}\n{hashlib.sha256(body).hexdigest()}"
        )
        moment = request.headers["X-Amz-Date"]
        assert scope == f"{moment[:8]}/eu-west-1/rolesanywhere/aws4_request"
        text = f"{algorithm}\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}".encode()
        key, signature = certificate.public_key(), bytes.fromhex(fields["Signature"])
        if isinstance(key, rsa.RSAPublicKey):
            assert algorithm == "AWS4-X509-RSA-SHA256"
            key.verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
        else:
            assert isinstance(key, ec.EllipticCurvePublicKey)
            assert algorithm == "AWS4-X509-ECDSA-SHA256"
            key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
        self.issuers.append(certificate.issuer.rfc4514_string())
