"""Settings of the driver: where the server is, which mount, and how to log in. Nothing else is consulted.

Neither the environment (``VAULT_ADDR``, ``VAULT_TOKEN``, variables of proxies and certificates) nor
``~/.vault-token``.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from kmsplug_protocol import KeyUsage
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints
from pydantic.config import JsonDict

_MAX_AUTO_ROTATE_HOURS: Final = 87_600  # ten years


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("expected an absolute path; '~' is not expanded")
    return path


def _server(address: str) -> str:
    """Take the address of a server over TLS; in clear only of this machine."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("expected https://HOST or https://HOST:PORT") from None
    if parts.scheme not in ("https", "http") or not host or parts.path not in ("", "/"):
        raise ValueError("expected https://HOST or https://HOST:PORT")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("expected an address without credentials and parameters")
    if parts.scheme == "http" and not _is_this_machine(host):
        raise ValueError("expected https: without TLS only a loopback address is accepted")
    return address.rstrip("/")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
_PART: Final = r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*"
_ApiPath = Annotated[str, StringConstraints(pattern=f"^{_PART}(/{_PART})*$", max_length=128)]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]
_SECRET: Final[JsonDict] = {"writeOnly": True}
_PATH: Final[JsonDict] = {"format": "path"}


class _Login(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KubernetesLogin(_Login):
    """With the token of a Kubernetes service account. The file is read again for each login."""

    method: Literal["kubernetes"]
    role: _Name = Field(description="Role of the auth method.")
    jwt_file: _AbsolutePath = Field(
        description="The projected token of the service account.", json_schema_extra=_PATH
    )
    mount: _ApiPath = Field(default="kubernetes", description="Where the auth method is mounted.")


class JwtLogin(_Login):
    """With a JSON Web Token in a file, which is read again for each login."""

    method: Literal["jwt"]
    role: _Name = Field(description="Role of the auth method.")
    jwt_file: _AbsolutePath = Field(description="The token.", json_schema_extra=_PATH)
    mount: _ApiPath = Field(default="jwt", description="Where the auth method is mounted.")


class AppRoleLogin(_Login):
    """With a role id and its secret id."""

    method: Literal["approle"]
    role_id: _Name = Field(description="Which role.")
    secret_id: SecretStr = Field(description="Its secret id.", json_schema_extra=_SECRET)
    mount: _ApiPath = Field(default="approle", description="Where the auth method is mounted.")


class CertificateLogin(_Login):
    """With the client certificate of the TLS connection, which nothing on the way may end."""

    method: Literal["cert"]
    certificate_file: _AbsolutePath = Field(
        description="The certificate and its chain, PEM.", json_schema_extra=_PATH
    )
    private_key_file: _AbsolutePath = Field(description="Its key, PEM.", json_schema_extra=_PATH)
    role: _Name | None = Field(default=None, description="Which role; default: any that fits.")
    mount: _ApiPath = Field(default="cert", description="Where the auth method is mounted.")


class TokenLogin(_Login):
    """With a token that somebody else made. It is renewed while it can be, and cannot be replaced."""

    method: Literal["token"]
    token: SecretStr = Field(description="The token.", json_schema_extra=_SECRET)


Login = KubernetesLogin | JwtLogin | AppRoleLogin | CertificateLogin | TokenLogin


class VaultConfig(BaseModel):
    """Where the keys are, and how to get at them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: Annotated[str, AfterValidator(_server)] = Field(
        description="The server: https://HOST:PORT. Without TLS only on a loopback address."
    )
    login: Login = Field(discriminator="method", description="How to log in.")
    mount: _ApiPath = Field(default="transit", description="Where the Transit engine is mounted.")
    namespace: _ApiPath | None = Field(default=None, description="Namespace of the mount and the login.")
    ca_file: _AbsolutePath | None = Field(
        default=None,
        description="Certificates, PEM, by which the server is known. Default: the public ones.",
        json_schema_extra=_PATH,
    )
    proxy: Annotated[str, StringConstraints(pattern=r"^https?://[^/@\s]+$")] | None = Field(
        default=None, description="Proxy on the way to the server: http://HOST:PORT."
    )
    usages: dict[str, KeyUsage] = Field(
        default_factory=dict,
        description="Usage of RSA keys that were not made by this driver, by name. Default: SIGN_VERIFY.",
    )
    auto_rotate_hours: int = Field(
        default=0,
        ge=0,
        le=_MAX_AUTO_ROTATE_HOURS,
        description="The server rotates the keys that this driver makes after so many hours; 0: never.",
    )
    health_key: _Name | None = Field(
        default=None, description="A key with which a deep health check encrypts and decrypts."
    )
