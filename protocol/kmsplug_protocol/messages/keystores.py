"""Messages of the `keystore.*` operations: making and ending keystores, and who trusts whom."""

from pydantic import Field

from .base import Params, Result


class ProvisionParams(Params):
    """Makes a keystore for a tenant: an account, a vault, a mount, a token."""

    name: str = Field(min_length=1, max_length=256, description="Wished name.")
    settings: dict[str, str] = Field(
        default_factory=dict, max_length=64, description="The provider's settings."
    )


class KeystoreResult(Result):
    """A keystore."""

    identity: str = Field(min_length=1, max_length=256, description="Its stable identity.")
    config: dict[str, str] = Field(
        default_factory=dict,
        description="Settings with which a plugin reaches it; secrets are never among them.",
    )


class KeystoreParams(Params):
    """Names a keystore."""

    identity: str = Field(min_length=1, max_length=256, description="Its stable identity.")


class TrustParams(KeystoreParams):
    """Names a keystore and a subject."""

    subject: str = Field(
        min_length=1, max_length=2048, description="Who is trusted: a role, an identity, a key."
    )


class EmptyResult(Result):
    """Nothing to say but that it was done."""
