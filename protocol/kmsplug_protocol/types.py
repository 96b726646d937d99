"""The vocabulary: key states, algorithms, usages, and the small models that several messages share."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class KeyState(StrEnum):
    """The state of a key version (SPEC.md section 6)."""

    PRE_ACTIVE = "PRE_ACTIVE"
    """Made, but nothing works yet: waits for material or for a date."""
    ACTIVE = "ACTIVE"
    """Everything works."""
    SUSPENDED = "SUSPENDED"
    """Nothing works; reversible. What `key.disable` leads to."""
    DEACTIVATED = "DEACTIVATED"
    """Decrypts, unwraps, verifies; makes nothing new. What rotation leaves behind."""
    COMPROMISED = "COMPROMISED"
    """Nothing works; not reversible by `key.enable`."""
    DESTROY_SCHEDULED = "DESTROY_SCHEDULED"
    """Nothing works; `key.cancel_deletion` recovers it until the date."""
    DESTROYED = "DESTROYED"
    """The material is gone."""


class Enforcement(StrEnum):
    """Who keeps a key's state from being ignored."""

    PROVIDER = "provider"
    HOST = "host"


class Protection(StrEnum):
    """Where key material lives."""

    HSM = "hsm"
    SOFTWARE = "software"
    HOST = "host"


class KeyAlgorithm(StrEnum):
    """What a key is."""

    AES_128_GCM = "AES_128_GCM"
    AES_256_GCM = "AES_256_GCM"
    AES_256_KW = "AES_256_KW"
    RSA_2048 = "RSA_2048"
    RSA_3072 = "RSA_3072"
    RSA_4096 = "RSA_4096"
    EC_P256 = "EC_P256"
    EC_P384 = "EC_P384"
    EC_P521 = "EC_P521"
    EC_SECP256K1 = "EC_SECP256K1"
    ED25519 = "ED25519"
    X25519 = "X25519"
    HMAC_SHA_224 = "HMAC_SHA_224"
    HMAC_SHA_256 = "HMAC_SHA_256"
    HMAC_SHA_384 = "HMAC_SHA_384"
    HMAC_SHA_512 = "HMAC_SHA_512"
    ML_DSA_44 = "ML_DSA_44"
    ML_DSA_65 = "ML_DSA_65"
    ML_DSA_87 = "ML_DSA_87"
    ML_KEM_512 = "ML_KEM_512"
    ML_KEM_768 = "ML_KEM_768"
    ML_KEM_1024 = "ML_KEM_1024"


class Mechanism(StrEnum):
    """How a key is used in one operation."""

    AES_128_GCM = "AES_128_GCM"
    AES_256_GCM = "AES_256_GCM"
    AES_256_KW = "AES_256_KW"
    AES_256_KWP = "AES_256_KWP"
    RSA_OAEP_SHA_1 = "RSA_OAEP_SHA_1"
    RSA_OAEP_SHA_256 = "RSA_OAEP_SHA_256"
    RSA_PSS_SHA_256 = "RSA_PSS_SHA_256"
    RSA_PSS_SHA_384 = "RSA_PSS_SHA_384"
    RSA_PSS_SHA_512 = "RSA_PSS_SHA_512"
    RSA_PKCS1_SHA_256 = "RSA_PKCS1_SHA_256"
    RSA_PKCS1_SHA_384 = "RSA_PKCS1_SHA_384"
    RSA_PKCS1_SHA_512 = "RSA_PKCS1_SHA_512"
    ECDSA_SHA_256 = "ECDSA_SHA_256"
    ECDSA_SHA_384 = "ECDSA_SHA_384"
    ECDSA_SHA_512 = "ECDSA_SHA_512"
    ED25519 = "ED25519"
    ML_DSA_44 = "ML_DSA_44"
    ML_DSA_65 = "ML_DSA_65"
    ML_DSA_87 = "ML_DSA_87"
    HMAC_SHA_224 = "HMAC_SHA_224"
    HMAC_SHA_256 = "HMAC_SHA_256"
    HMAC_SHA_384 = "HMAC_SHA_384"
    HMAC_SHA_512 = "HMAC_SHA_512"
    ECDH = "ECDH"
    ML_KEM_512 = "ML_KEM_512"
    ML_KEM_768 = "ML_KEM_768"
    ML_KEM_1024 = "ML_KEM_1024"


class KeyUsage(StrEnum):
    """The one purpose of a key, fixed when it is made."""

    ENCRYPT_DECRYPT = "ENCRYPT_DECRYPT"
    WRAP_UNWRAP = "WRAP_UNWRAP"
    SIGN_VERIFY = "SIGN_VERIFY"
    GENERATE_VERIFY_MAC = "GENERATE_VERIFY_MAC"
    KEY_AGREEMENT = "KEY_AGREEMENT"
    KEY_ENCAPSULATION = "KEY_ENCAPSULATION"


class Origin(StrEnum):
    """Where the material came from."""

    GENERATED = "generated"
    IMPORTED = "imported"


class AssociatedData(StrEnum):
    """What kind of associated data an operation authenticates."""

    NONE = "none"
    BYTES = "bytes"
    MAP = "map"


class Probe(StrEnum):
    """How a driver has tried a capability row at ``plugin.configure``."""

    KNOWN_ANSWER = "known_answer"
    """What the provider answered was checked by something else that is known to be right."""
    ROUND_TRIP = "round_trip"
    """The provider opened or verified what it had made itself."""


class SignedForm(StrEnum):
    """What a signing operation takes."""

    MESSAGE = "message"
    DIGEST = "digest"


class HealthDepth(StrEnum):
    """How much a health check may cost."""

    SHALLOW = "shallow"
    DEEP = "deep"


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

Context = dict[str, str]
"""An encryption context: authenticated, not secret, order without meaning."""

MAX_RANDOM_BYTES: Final = 1024 * 64


class Model(BaseModel):
    """Base of all wire models: frozen, and tolerant of members it does not know (SPEC.md 9)."""

    # Inputs are hidden: an error about a missing member would print the whole message, plaintext included.
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True, hide_input_in_errors=True)


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
