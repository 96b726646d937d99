"""What all messages are made of: their base, the members that several share, text and bytes within bounds.

Bytes travel as padded standard base64. Pydantic's own base64 types are not used: they write the URL-safe
alphabet and read foreign characters as other bytes.
"""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from kmsplug_protocol.binary import Secret, decode_base64, encode_base64
from kmsplug_protocol.types import Protection

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
"""A key id, as the driver wrote it: 1 to 2,048 characters, opaque (an envelope takes 2,048 bytes)."""

Version = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""A key version, as the driver wrote it. Opaque; not necessarily a number."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""A display name, alias or tag key."""

Timestamp = Annotated[
    str,
    StringConstraints(
        pattern=r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}(\.[0-9]{1,6})?Z$", max_length=27
    ),
]
"""A moment in UTC, RFC 3339 with Z: ``2026-01-31T09:30:00Z``."""


def _to_bytes(value: Any) -> Any:
    return decode_base64(value) if isinstance(value, str) else value


def _to_secret(value: Any) -> Any:
    if isinstance(value, str):
        return Secret(decode_base64(value))
    return Secret(value) if isinstance(value, (bytes, bytearray)) else value


_WIRE = PlainSerializer(encode_base64, return_type=str, when_used="json")
_JSON_SCHEMA = {"type": "string", "contentEncoding": "base64"}

Bytes = Annotated[bytes, BeforeValidator(_to_bytes), _WIRE, WithJsonSchema(_JSON_SCHEMA)]
"""A public byte string: ciphertext, signature, public key."""

SecretBytes = Annotated[
    bytes, BeforeValidator(_to_secret), _WIRE, WithJsonSchema({**_JSON_SCHEMA, "writeOnly": True})
]
"""A byte string that must not be printed: plaintext, key material. Validates to `Secret`."""


class Model(BaseModel):
    """Base of all wire models: frozen, and tolerant of members it does not know (SPEC.md 9)."""

    # Inputs are hidden: an error about a missing member would print the whole message, plaintext included.
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True, hide_input_in_errors=True)

    def to_wire(self, *, exclude_defaults: bool = False) -> dict[str, Any]:
        """Return the members as JSON has them, without those that are absent.

        What ``model_dump`` returns, but for the layer of Python around the serializer, which takes twice as
        long as that itself, and its warnings, which would quote a member that was never validated.
        """
        wire: dict[str, Any] = self.__pydantic_serializer__.to_python(
            self, mode="json", exclude_none=True, exclude_defaults=exclude_defaults, warnings=False
        )
        return wire


class Vendor(Model):
    """The provider's own account of a call."""

    service: str | None = Field(default=None, description="The provider's service, as `kms`.")
    code: str | None = Field(default=None, description="The provider's error code, verbatim.")
    message: str | None = Field(default=None, description="The provider's message, free of secrets.")
    http_status: int | None = Field(default=None, description="HTTP status, where there was one.")
    request_id: str | None = Field(
        default=None, description="The provider's request id, to match its audit log."
    )
    withheld: bool = Field(
        default=False,
        description="True where the message, or code and message, were withheld: they could be an oracle, or "
        "quote a credential.",
    )


class Meta(Model):
    """What accompanies every request."""

    deadline_ms: int | None = Field(
        default=None, ge=0, description="Time left when the request was written, in milliseconds."
    )
    traceparent: str | None = Field(default=None, max_length=256, description="W3C Trace Context.")
    tenant: str | None = Field(default=None, max_length=256, description="Tenant on whose behalf.")
    actor: str | None = Field(default=None, max_length=256, description="Who asked, for audit logs.")
    correlation_id: str | None = Field(default=None, max_length=128, description="The host's own request id.")
    idempotency_key: str | None = Field(
        default=None, max_length=128, description="Names the change that is asked for; see `key.reconcile`."
    )


class Params(Model):
    """Base of the params of every operation."""

    meta: Meta | None = Field(default=None, description="Deadline, tracing, tenant, actor (section 4.2).")

    @property
    def change_key(self) -> str | None:
        """What names the change that is asked for: ``meta.idempotency_key``, where the host sent it."""
        return None if self.meta is None else self.meta.idempotency_key


class Result(Model):
    """Base of the result of every operation on keys or data."""

    executed_by: str = Field(
        default="native", description="`native`, or `shim:NAME@VERSION` where the host did it."
    )
    protection: Protection | None = Field(default=None, description="Where the key material lives.")
    vendor: Vendor | None = Field(default=None, description="The provider's service and request id.")
