"""Settings of the Azure driver. The login is chosen here and never guessed from the environment."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

DEFAULT_RECOVERABLE_DAYS: Final = 90  # of a vault that was made without saying otherwise

_MIN_ROTATION_DAYS: Final = 7
_MANAGED_HSM_NAME: Final = ".managedhsm."
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("expected an absolute path")
    return path


_Path = Annotated[Path, AfterValidator(_absolute)]
_Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-zA-Z.-]{1,128}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WorkloadIdentity(_Model):
    """A token of the platform, as of Kubernetes, is exchanged for one of Entra: no secret is stored."""

    method: Literal["workload_identity"]
    tenant_id: _Id = Field(description="Tenant of the application.")
    client_id: _Id = Field(description="Application or managed identity with the federated credential.")
    token_file: _Path = Field(
        description="File with the platform's token, read anew for each exchange. On AKS: "
        "/var/run/secrets/azure/tokens/azure-identity-token.",
        json_schema_extra={"format": "path"},
    )


class ManagedIdentity(_Model):
    """The identity of the machine or the service that this runs on. Without an id the system-assigned one."""

    method: Literal["managed_identity"]
    client_id: _Id | None = Field(default=None, description="Client id of a user-assigned identity.")
    object_id: _Id | None = Field(default=None, description="Its object id instead.")
    resource_id: str | None = Field(
        default=None, max_length=1024, description="Its Azure resource id instead."
    )

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if sum(name is not None for name in (self.client_id, self.object_id, self.resource_id)) > 1:
            raise ValueError("give one of client_id, object_id and resource_id")
        return self


class ClientSecret(_Model):
    """An application and its password."""

    method: Literal["client_secret"]
    tenant_id: _Id = Field(description="Tenant of the application.")
    client_id: _Id = Field(description="The application.")
    client_secret: SecretStr = Field(
        min_length=1, description="Its password.", json_schema_extra={"writeOnly": True}
    )


class ClientCertificate(_Model):
    """An application and its certificate."""

    method: Literal["client_certificate"]
    tenant_id: _Id = Field(description="Tenant of the application.")
    client_id: _Id = Field(description="The application.")
    certificate_file: _Path = Field(
        description="PEM or PKCS #12 file with the certificate and its private key.",
        json_schema_extra={"format": "path"},
    )
    password: SecretStr | None = Field(
        default=None, description="What the file is encrypted under.", json_schema_extra={"writeOnly": True}
    )
    send_chain: bool = Field(
        default=False, description="Send the certificate chain, for logins by subject name and issuer."
    )


Login = Annotated[
    WorkloadIdentity | ManagedIdentity | ClientSecret | ClientCertificate, Field(discriminator="method")
]


class AzureConfig(_Model):
    """Which vault, and who we are there."""

    vault_url: str = Field(
        max_length=256,
        description="The vault, as https://NAME.vault.azure.net or https://NAME.managedhsm.azure.net.",
    )
    kind: Literal["vault", "managed_hsm"] = Field(
        default="vault",
        description="`managed_hsm` adds AES keys, AES key wrap and random bytes.",
    )
    premium: bool = Field(
        default=False,
        description="Whether the vault is of the premium tier, so that RSA and EC keys can live in its HSM.",
    )
    login: Login = Field(description="How to log in.")
    authority: str = Field(
        default="login.microsoftonline.com",
        max_length=256,
        description="Host of the Entra endpoint; another one in sovereign clouds.",
    )
    instance_discovery: bool = Field(
        default=True,
        description="Whether the authority is checked against Microsoft's list; false for private clouds.",
    )
    verify_challenge_resource: bool = Field(
        default=True,
        description="Whether the vault's challenge must name the domain that the vault is in; false for "
        "emulators.",
    )
    ca_file: _Path | None = Field(
        default=None,
        description="Certificates to trust in place of the system's.",
        json_schema_extra={"format": "path"},
    )
    allow_oaep_sha1: bool = Field(
        default=False, description="Whether RSA_OAEP_SHA_1 may be asked for; RSA_OAEP_SHA_256 always may."
    )
    recoverable_days: int = Field(
        default=DEFAULT_RECOVERABLE_DAYS,
        ge=7,
        le=90,
        description="For how long the vault keeps deleted keys: a property of the vault. Where a key of "
        "the vault tells, that counts.",
    )
    rotate_after_days: int | None = Field(
        default=None,
        ge=_MIN_ROTATION_DAYS,
        le=3650,
        description="Gives new keys a rotation policy: the vault makes a new version when one is so old.",
    )
    connect_timeout_s: float = Field(
        default=3.0, gt=0, le=60, description="How long a connection may take to come about."
    )
    health_key: str | None = Field(
        default=None,
        max_length=2048,
        description="A key for deep health checks to encrypt and decrypt with; without one they only list.",
    )

    @field_validator("vault_url")
    @classmethod
    def _https(cls, text: str) -> str:
        url = urlsplit(text.strip().rstrip("/").lower())
        try:
            port = url.port
        except ValueError:
            raise ValueError("the port is no number") from None
        host = url.hostname or ""
        if url.scheme != "https" or url.path or url.query or url.fragment or "@" in url.netloc:
            raise ValueError("expected https://HOST without a path")
        if not _HOST.fullmatch(host):
            raise ValueError("expected https://HOST, in letters, digits, dots and hyphens")
        return f"https://{host}" + ("" if port in (None, 443) else f":{port}")

    @field_validator("authority")
    @classmethod
    def _host(cls, text: str) -> str:
        name = text.removeprefix("https://").rstrip("/").lower()
        if not re.fullmatch(_HOST.pattern + r"(:[0-9]{1,5})?", name):
            raise ValueError("expected the name of a host")
        return name

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
        if _MANAGED_HSM_NAME in self.vault_url and self.kind == "vault":
            raise ValueError('vault_url names a Managed HSM: set kind = "managed_hsm"')
        if self.kind == "managed_hsm" and self.premium:
            raise ValueError('premium is for kind = "vault"; a Managed HSM holds nothing but HSM keys')
        return self

    @property
    def namespace(self) -> str:
        """What every key id of this vault starts with."""
        return f"{self.vault_url}/keys/"
