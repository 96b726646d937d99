"""As much of a Kubernetes cluster as it takes to judge a service account: TokenReview and a projected token.

The answers are those of the API `authentication.k8s.io/v1`, over TLS; the file is laid out and rotated as the
kubelet does it.
"""

import base64
import contextlib
import json
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .openbao import OpenBao

_NAMESPACE = "shop"


@dataclass(frozen=True)
class SigningKey:
    """A key that signs tokens.

    Attributes:
        private: Its private half.
        public: Its public half, PEM.
    """

    private: rsa.RSAPrivateKey
    public: str


def signing_key() -> SigningKey:
    """Make one."""
    private = rsa.generate_private_key(65537, 2048)
    pem = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return SigningKey(private, pem.decode())


def signed_jwt(key: SigningKey, *, life_s: int = 3600, **claims: Any) -> str:
    """Return a JSON Web Token by RS256 (RFC 7519)."""
    now = int(time.time())
    body = {"iat": now - 60, "nbf": now - 60, "exp": now + life_s, "jti": secrets.token_hex(8), **claims}
    signed = b".".join(_part(one) for one in ({"alg": "RS256", "typ": "JWT"}, body))
    signature = key.private.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def _part(content: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")


@dataclass
class Cluster:
    """The cluster.

    Attributes:
        url: Of its API.
        ca: Who signed the API's certificate, PEM.
        reviewer: The token of who may ask for reviews.
        valid: Tokens that are valid now, and whose they are.
        reviewed: Tokens that were asked about, in order.
    """

    url: str
    ca: str
    reviewer: str
    key: SigningKey
    valid: dict[str, str] = field(default_factory=dict)
    reviewed: list[str] = field(default_factory=list)

    def project(self, folder: Path) -> Path:
        """Write a service account's token as a projected volume does, and return the path to use."""
        self.rotate(folder)
        (folder / "token").symlink_to("..data/token")
        return folder / "token"

    def rotate(self, folder: Path, account: str = "orders") -> None:
        """Put a new token in its place, in one step; the old one is not valid any more."""
        claims: dict[str, Any] = {
            "kubernetes.io": {"namespace": _NAMESPACE, "serviceaccount": {"name": account, "uid": "u-1"}}
        }
        token = signed_jwt(
            self.key,
            sub=f"system:serviceaccount:{_NAMESPACE}:{account}",
            aud=["vault"],
            **claims,
        )
        version = folder / f"..{secrets.token_hex(4)}"
        version.mkdir()
        (version / "token").write_text(token)
        (folder / "..data_tmp").symlink_to(version.name)
        (folder / "..data_tmp").rename(folder / "..data")
        self.valid = {token: account}

    def configure(self, bao: OpenBao, *, policy: str) -> None:
        """Let a server log in the service account ``orders`` as its role ``orders``."""
        bao.api(
            "POST",
            "auth/kubernetes/config",
            {
                "kubernetes_host": self.url,
                "kubernetes_ca_cert": self.ca,
                "token_reviewer_jwt": self.reviewer,
                "disable_local_ca_jwt": True,
                "disable_iss_validation": True,
            },
        )
        role = {
            "bound_service_account_names": "orders",
            "bound_service_account_namespaces": _NAMESPACE,
            "token_policies": policy,
        }
        bao.api("POST", "auth/kubernetes/role/orders", role)

    def review(self, token: str) -> dict[str, Any]:
        """Judge a token."""
        self.reviewed.append(token)
        account = self.valid.get(token)
        if account is None:
            return {"authenticated": False, "error": "token is not valid"}
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{_NAMESPACE}"]
        user = {"username": f"system:serviceaccount:{_NAMESPACE}:{account}", "uid": "u-1", "groups": groups}
        return {"authenticated": True, "user": user, "audiences": ["vault"]}


@contextlib.contextmanager
def kubernetes() -> Iterator[Cluster]:
    """Run one."""
    key = signing_key()
    authority = trustme.CA()
    cluster = Cluster(
        "",
        authority.cert_pem.bytes().decode(),
        signed_jwt(key, sub="system:serviceaccount:kube-system:reviewer"),
        key,
    )

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = self.path == "/apis/authentication.k8s.io/v1/tokenreviews"
            known = known and self.headers["Authorization"] == f"Bearer {cluster.reviewer}"
            answer = (
                {**body, "status": cluster.review(body["spec"]["token"])} if known else {"kind": "Status"}
            )
            data = json.dumps(answer).encode()
            self.send_response(201 if known else 403)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    cluster.url = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
