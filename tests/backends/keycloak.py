"""A real Keycloak on the loopback interface, which judges tokens of other issuers as Entra does.

Its federated client authentication takes an assertion (RFC 7523) of the issuer, subject and audience that are
registered for a client, signed by a key that the issuer publishes, within its times: the rule of Entra's
federated credentials, by somebody else. It is fetched once, into the user's cache; its pin is here.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backends.azure_entra import TENANT, Entra, TokenError, claims_of
from support.cache import UnavailableError, cached
from support.lifeline import running
from support.loopback import free_port

VERSION: Final = "26.7.3"
_SHA256: Final = "77657f30b7e90d70f727712ce1c967f430fd6a5e9f458d32d8c6df0635345f47"
_ADMIN: Final = "admin"
_BOUND_S: Final = 400.0
_CALL_S: Final = 60.0
_SETTINGS: Final = """
db=dev-file
cache=local
features=client-auth-federated
http-enabled=true
http-host=127.0.0.1
hostname-strict=false
spi-public-key-storage--infinispan--min-time-between-requests=-1
"""
"""The last: a key that it does not know is asked for at once; with 0, not within the same second."""
_ENVIRONMENT: Final = {
    "PATH": os.environ.get("PATH", os.defpath),
    # It runs for seconds only: what the second compiler makes faster takes longer.
    "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1 -Djava.net.preferIPv4Stack=true",
    "KC_BOOTSTRAP_ADMIN_USERNAME": _ADMIN,
    "KC_BOOTSTRAP_ADMIN_PASSWORD": _ADMIN,
}


@dataclass(frozen=True)
class Keycloak:
    """A running server.

    Attributes:
        url: Its address.
    """

    url: str

    def endpoint(self, realm: str, name: str) -> str:
        """Return where a realm gives tokens (``token``), or publishes its keys (``certs``)."""
        return f"{self.url}/realms/{realm}/protocol/openid-connect/{name}"

    def federate(
        self, realm: str, client: str, *, issuer: str, jwks: str, subject: str, audience: str, service: str
    ) -> None:
        """Make a realm with one client, for which tokens of an issuer stand, and one service to ask for.

        Args:
            realm: Its name.
            client: The client's id.
            issuer: What stands in ``iss`` of the issuer's tokens.
            jwks: Where the issuer publishes its keys.
            subject: What stands in ``sub``.
            audience: What stands in ``aud``.
            service: What stands in ``aud`` of tokens that are given for its scope.
        """
        login = {"grant_type": "password", "client_id": "admin-cli", "username": _ADMIN, "password": _ADMIN}
        token = _call(self.endpoint("master", "token"), urllib.parse.urlencode(login).encode())[
            "access_token"
        ]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        provider = {
            "issuer": issuer, "jwksUrl": jwks, "useJwksUrl": "true", "validateSignature": "true",
            "supportsClientAssertions": "true", "supportsClientAssertionReuse": "true",
            # The audience that it then expects is what it calls its client id at the issuer.
            "clientId": audience, "allowClientIdAsAudience": "true",
            "federatedClientAssertionMaxExpiration": "86400",
            # Of no use, but asked for.
            "authorizationUrl": f"{issuer}/authorize", "tokenUrl": f"{issuer}/token",
            "clientAuthMethod": "client_secret_post", "clientSecret": "unused",
        }  # fmt: skip
        scope = f"{service}/.default"
        mapper = {
            "name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
            "config": {"included.custom.audience": service, "access.token.claim": "true"},
        }  # fmt: skip
        made = {
            "realm": realm,
            "enabled": True,
            "identityProviders": [
                {"alias": "cluster", "providerId": "oidc", "enabled": True, "config": provider}
            ],
            "clientScopes": [{"name": scope, "protocol": "openid-connect", "protocolMappers": [mapper]}],
            "clients": [
                {
                    "clientId": client,
                    "serviceAccountsEnabled": True,
                    "standardFlowEnabled": False,
                    "clientAuthenticatorType": "federated-jwt",
                    "attributes": {"jwt.credential.issuer": "cluster", "jwt.credential.sub": subject},
                    "defaultClientScopes": [],
                    "optionalClientScopes": [scope],
                }
            ],
        }
        _call(f"{self.url}/admin/realms", json.dumps(made).encode(), headers)


class KeycloakEntra(Entra):
    """Entra's endpoints, with every token judged and given by Keycloak: forms and answers pass unchanged.

    Attributes:
        presented: The assertions that came, in order.
    """

    def __init__(self, keycloak: Keycloak) -> None:
        super().__init__()
        self._keycloak = keycloak
        self.presented: list[str] = []

    def give(self, tenant: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Ask Keycloak; only how long the token is told to be good may be another (``expires_in``).

        Raises:
            TokenError: It refused; the code is its reason.
        """
        self.presented.append(form["client_assertion"])
        try:
            answer = _call(self._keycloak.endpoint(tenant, "token"), urllib.parse.urlencode(form).encode())
        except urllib.error.HTTPError as error:
            with error:
                raise TokenError(str(json.load(error)["error_description"])) from None
        return answer if self.expires_in is None else {**answer, "expires_in": self.expires_in}

    def check(self, token: str, audience: str) -> None:
        """Check by the keys that Keycloak publishes a token that was presented to a service.

        Raises:
            TokenError: It is none of Keycloak's, for another service, or its time is over.
        """
        if claims_of(token, _call(self._keycloak.endpoint(TENANT, "certs")))["aud"] != audience:
            raise TokenError("another audience")


@contextlib.contextmanager
def keycloak() -> Iterator[Keycloak]:
    """Run one.

    Raises:
        UnavailableError: It cannot be had here.
    """
    digest = hashlib.sha256(_SETTINGS.encode()).hexdigest()[:12]
    cache = cached(f"keycloak-{VERSION}-{digest}", _make)
    with tempfile.TemporaryDirectory(prefix="kmsplug-keycloak-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "lib").symlink_to(cache / "lib")  # 180 MB, and nobody writes into it
        for name in ("bin", "conf", "data"):
            shutil.copytree(cache / name, home / name)
        with _running(home) as server:
            yield server


def _make(folder: Path) -> None:
    """Fetch the server, compile its settings into it, and let it make its database."""
    if shutil.which("mvn") is None or shutil.which("java") is None:
        raise UnavailableError("it needs Java and Maven")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    artifact = f"-Dartifact=org.keycloak:keycloak-quarkus-dist:{VERSION}:tar.gz"
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
    _do(["mvn", "--quiet", "--batch-mode", goal, artifact, f"-DoutputDirectory={folder}"], folder)
    (archive,) = folder.glob("*.tar.gz")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != _SHA256:
        raise UnavailableError("what was fetched is not what is pinned")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    archive.unlink()
    unpacked = folder / f"keycloak-{VERSION}"
    for part in unpacked.iterdir():
        part.rename(folder / part.name)
    unpacked.rmdir()
    (folder / "conf" / "keycloak.conf").write_text(_SETTINGS)
    _do([folder / "bin" / "kc.sh", "build"], folder)
    with _running(folder):
        pass


def _do(command: Sequence[str | Path], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_BOUND_S, check=False,
            env={**os.environ, **_ENVIRONMENT},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{command[0]} did not end in time") from None
    if done.returncode:
        raise UnavailableError(f"{command[0]} did not end well: {done.stdout.strip()[-300:]}")


@contextlib.contextmanager
def _running(home: Path) -> Iterator[Keycloak]:
    port = free_port()
    command: list[str | Path] = [home / "bin" / "kc.sh", "start", "--optimized", f"--http-port={port}"]
    server = Keycloak(f"http://127.0.0.1:{port}")
    with (
        tempfile.TemporaryFile() as output,
        # Its database is closed by SIGTERM.
        running(command, stdout=output, stderr=output, env={**os.environ, **_ENVIRONMENT}) as process,
    ):
        until = time.monotonic() + _BOUND_S
        while not _answers(server):
            if process.poll() is not None or time.monotonic() > until:
                output.seek(0)
                text = output.read()[-2000:].decode(errors="replace")
                raise AssertionError(f"Keycloak did not start: status {process.poll()}\n{text}")
            time.sleep(0.1)
        yield server


def _answers(server: Keycloak) -> bool:
    with contextlib.suppress(OSError):
        return bool(_call(f"{server.url}/realms/master"))
    return False


def _call(url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Ask for something, without proxies; an answer without content is an empty object."""
    request = urllib.request.Request(url, body, dict(headers or {}))
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        request, timeout=_CALL_S
    ) as answer:
        found: dict[str, Any] = json.loads(answer.read() or b"{}")
    return found
