"""Settings of the AWS KMS driver: where the keys are, and who asks for them.

Nothing is taken from the environment, from files of the home folder or from the machine's metadata service:
what is not written here is not used.
"""

from typing import Annotated, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit

from kmsplug_protocol import KeyAlgorithm
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    StringConstraints,
    model_validator,
)

_NEAR: Final = frozenset({
    "localhost", "127.0.0.1", "::1",
    "169.254.170.2", "169.254.170.23", "fd00:ec2::23",  # the agents of ECS and EKS, on the same machine
})  # fmt: skip
_PATH: Final[dict[str, JsonValue]] = {"format": "path"}
_SECRET: Final[dict[str, JsonValue]] = {"writeOnly": True}

Account = Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")]
Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,}(-[a-z]+)+-[0-9]+$", max_length=32)]
RoleArn = Annotated[
    str, StringConstraints(pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,600}$")
]
_AnchorArn = Annotated[
    str, StringConstraints(pattern=r"^arn:aws[a-z-]*:rolesanywhere:[a-z0-9-]+:[0-9]{12}:.+$")
]
_SessionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+=,.@-]{2,64}$")]
ExternalId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+=,.@:/-]{2,1224}$")]
_LifeSeconds = Annotated[int, Field(ge=900, le=43_200)]


def _absolute(path: str) -> str:
    """A relative path would mean another file in every working directory."""
    if not path.startswith("/") or "\0" in path:
        raise ValueError("expected an absolute path")
    return path


def _endpoint(url: str) -> str:
    """A plain connection is for a server on this machine: an agent, or one for tests."""
    parts = urlsplit(url)
    try:
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if parts.scheme not in ("https", "http") or not host or parts.query or parts.fragment or parts.username:
        raise ValueError("expected a URL, as https://kms.eu-west-1.amazonaws.com")
    if parts.scheme == "http" and host not in _NEAR:
        raise ValueError("expected https: http is for servers on this machine")
    return url


_Path = Annotated[str, AfterValidator(_absolute)]
_Url = Annotated[str, AfterValidator(_endpoint)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Login(_Table):
    """``login``: who asks. Exactly one way, named, with the members that it needs and no others."""

    # Each way: what it must have, and what else it may have.
    WAYS: ClassVar[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
        "web_identity": (
            frozenset({"role_arn", "token_file"}),
            frozenset({"session_name", "duration_s"}),
        ),
        "pod_identity": (frozenset({"token_file"}), frozenset({"url"})),
        "profile": (frozenset({"profile"}), frozenset({"config_file", "credentials_file"})),
        "static": (frozenset({"access_key_id", "secret_access_key"}), frozenset({"session_token"})),
        "roles_anywhere": (
            frozenset(
                {"role_arn", "certificate_file", "private_key_file", "trust_anchor_arn", "profile_arn"}
            ),
            frozenset({"duration_s", "url"}),
        ),
    }

    method: Literal["web_identity", "pod_identity", "profile", "static", "roles_anywhere"] = Field(
        description="web_identity: IRSA, the token of a Kubernetes service account. pod_identity: the EKS "
        "agent. profile: a profile of a file. static: an access key. roles_anywhere: an X.509 certificate."
    )
    role_arn: RoleArn | None = Field(
        default=None, description="The role that the token or certificate stands for."
    )
    token_file: _Path | None = Field(
        default=None,
        description="File with the token; read again at each renewal, so it may be replaced.",
        json_schema_extra=_PATH,
    )
    session_name: _SessionName | None = Field(
        default=None, description="Name of the session, as CloudTrail shows it. Default: kmsplug."
    )
    duration_s: _LifeSeconds | None = Field(
        default=None, description="How long credentials live, in seconds. Default: 3600."
    )
    url: _Url | None = Field(
        default=None,
        description="Where credentials come from. Default: the EKS agent, or Roles Anywhere of the region.",
    )
    profile: str | None = Field(
        default=None, min_length=1, max_length=256, description="Name of the profile."
    )
    config_file: _Path | None = Field(
        default=None, description="Default: none is read.", json_schema_extra=_PATH
    )
    credentials_file: _Path | None = Field(
        default=None, description="Default: none is read.", json_schema_extra=_PATH
    )
    access_key_id: str | None = Field(
        default=None, min_length=16, max_length=128, description="The access key."
    )
    secret_access_key: SecretStr | None = Field(
        default=None, min_length=1, description="Its secret.", json_schema_extra=_SECRET
    )
    session_token: SecretStr | None = Field(
        default=None, min_length=1, description="Its session token.", json_schema_extra=_SECRET
    )
    certificate_file: _Path | None = Field(
        default=None,
        description="PEM: the certificate, then those between it and the trust anchor.",
        json_schema_extra=_PATH,
    )
    private_key_file: _Path | None = Field(
        default=None, description="PEM: its RSA or EC key, not encrypted.", json_schema_extra=_PATH
    )
    trust_anchor_arn: _AnchorArn | None = Field(default=None, description="Of Roles Anywhere.")
    profile_arn: _AnchorArn | None = Field(default=None, description="Of Roles Anywhere.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        needed, allowed = self.WAYS[self.method]
        given = {
            name for name in type(self).model_fields if name != "method" and getattr(self, name) is not None
        }
        if missing := sorted(needed - given):
            raise ValueError(f"{self.method} needs {', '.join(missing)}")
        if foreign := sorted(given - needed - allowed):
            raise ValueError(f"{self.method} has nothing to do with {', '.join(foreign)}")
        if self.method == "profile" and self.config_file is None and self.credentials_file is None:
            raise ValueError("profile needs config_file or credentials_file: none is looked for")
        return self


class AssumeRole(_Table):
    """``assume_role``: a role that is then taken, as in another account."""

    role_arn: RoleArn = Field(description="The role.")
    external_id: ExternalId | None = Field(default=None, description="What the role's owner agreed on.")
    session_name: _SessionName = Field(
        default="kmsplug", description="Name of the session, as CloudTrail shows it."
    )
    duration_s: _LifeSeconds = Field(
        default=3600, description="How long credentials live, in seconds; at most 3600 after another role."
    )


class AwsConfig(_Table):
    """One account in one region."""

    region: Region = Field(description="The region, as eu-west-1.")
    account: Account = Field(
        description="The account that owns the keys: 12 digits. Keys of others are refused."
    )
    login: Login = Field(description="Who asks.")
    assume_role: AssumeRole | None = Field(default=None, description="A role that is then taken.")
    endpoint: _Url | None = Field(
        default=None, description="URL of KMS, as of a VPC endpoint. Default: that of the region."
    )
    sts_endpoint: _Url | None = Field(default=None, description="URL of STS. Default: that of the region.")
    ca_bundle_file: _Path | None = Field(
        default=None,
        description="PEM: the authorities to trust in place of the usual ones.",
        json_schema_extra=_PATH,
    )
    fips: bool = Field(default=False, description="Whether the region's FIPS endpoints are used.")
    connect_timeout_s: float = Field(default=2.0, gt=0, le=60, description="Seconds to reach the service.")
    read_timeout_s: float = Field(default=10.0, gt=0, le=60, description="Seconds to wait for its answer.")
    multi_region: bool = Field(
        default=False, description="Whether new keys are multi-Region primary keys, which can be replicated."
    )
    probe_key_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=2048,
        description="Key of the deep health check. Default: it asks for random bytes instead.",
    )
    without: frozenset[KeyAlgorithm] = Field(
        default=frozenset(),
        description="Kinds of keys that this region does not have: they are not offered.",
    )

    @property
    def partition(self) -> str:
        """The partition that the region is in."""
        return next((name for start, name in _PARTITIONS.items() if self.region.startswith(start)), "aws")


# By the beginning of a region's name; as of the SDK's own list, which a test compares.
_PARTITIONS: Final = {
    "cn-": "aws-cn",
    "us-gov-": "aws-us-gov",
    "us-isob-": "aws-iso-b",
    "us-isof-": "aws-iso-f",
    "us-iso-": "aws-iso",
    "eu-isoe-": "aws-iso-e",
    "eusc-": "aws-eusc",
}
