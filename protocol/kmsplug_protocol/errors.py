"""The closed set of error codes of protocol version 1, with what each means and asks of its reader.

Wire strings are stable for ever. A program acts on the code, never on a message.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from . import jsonrpc
from .types import Vendor


class RetryClass(StrEnum):
    """What may help after a failure. The host decides; a driver never retries."""

    NEVER = "never"
    """The same request fails again."""
    AFTER = "after"
    """Wait as long as `retry_after_ms` says, else as `backoff`."""
    BACKOFF = "backoff"
    """Wait a growing, random time."""
    REAUTH = "reauth"
    """Once, after new credentials were obtained. A rejected PIN or password is never tried again."""
    RECONNECT = "reconnect"
    """On another process or connection."""
    RECONCILE = "reconcile"
    """Read first whether the change was made."""


class Outcome(StrEnum):
    """What is known about the effect of a request that failed."""

    APPLIED = "applied"
    NOT_APPLIED = "not_applied"
    UNKNOWN = "unknown"


class ErrorCode(StrEnum):
    """Why a request failed. `ERROR_FACTS` holds the meaning of each."""

    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    KEY_NOT_FOUND = "KEY_NOT_FOUND"
    KEY_DISABLED = "KEY_DISABLED"
    KEY_PENDING_DELETION = "KEY_PENDING_DELETION"
    KEY_DESTROYED = "KEY_DESTROYED"
    KEY_INVALID_STATE = "KEY_INVALID_STATE"
    KEY_USAGE_MISMATCH = "KEY_USAGE_MISMATCH"
    KEY_COMPROMISED = "KEY_COMPROMISED"
    ACCESS_DENIED = "ACCESS_DENIED"
    AUTHENTICATION_FAILED = "AUTHENTICATION_FAILED"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    INVALID_CIPHERTEXT = "INVALID_CIPHERTEXT"
    INTEGRITY_ERROR = "INTEGRITY_ERROR"
    UNSUPPORTED_OPERATION = "UNSUPPORTED_OPERATION"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    CONFLICT = "CONFLICT"
    PROVIDER_UNAVAILABLE = "PROVIDER_UNAVAILABLE"
    TIMEOUT = "TIMEOUT"
    PROVIDER_INTERNAL = "PROVIDER_INTERNAL"
    CONFIGURATION_ERROR = "CONFIGURATION_ERROR"
    KEYSTORE_CORRUPT = "KEYSTORE_CORRUPT"
    UNCLASSIFIED = "UNCLASSIFIED"
    PLUGIN_CRASHED = "PLUGIN_CRASHED"
    PLUGIN_UNAVAILABLE = "PLUGIN_UNAVAILABLE"
    PROTOCOL_VIOLATION = "PROTOCOL_VIOLATION"
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    OVERLOADED = "OVERLOADED"
    CANCELLED = "CANCELLED"
    SHIM_FAILED = "SHIM_FAILED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    POLICY_DENIED = "POLICY_DENIED"
    TENANT_MISMATCH = "TENANT_MISMATCH"
    QUORUM_NOT_MET = "QUORUM_NOT_MET"
    OFFLINE_LIMIT_EXCEEDED = "OFFLINE_LIMIT_EXCEEDED"


@dataclass(frozen=True, slots=True)
class ErrorFact:
    """What is always true of a code.

    Attributes:
        meaning: One clause, lower case.
        retry: What may help.
        may_have_acted: Whether the provider can have carried out the request all the same.
        from_plugin: Whether the plugin or the host failed (true) or the keystore said no (false).
    """

    meaning: str
    retry: RetryClass
    may_have_acted: bool = False
    from_plugin: bool = False


_R = RetryClass
_C = ErrorCode

ERROR_FACTS: Final[dict[ErrorCode, ErrorFact]] = {
    _C.RATE_LIMIT_EXCEEDED: ErrorFact("throttled, or a quota per second is used up", _R.AFTER),
    _C.LIMIT_EXCEEDED: ErrorFact("a hard quota is used up: keys, rotations, uses of one key", _R.NEVER),
    _C.KEY_NOT_FOUND: ErrorFact("no key or version of this id, or it may not be seen", _R.NEVER),
    _C.KEY_DISABLED: ErrorFact("the key or version is suspended, or outside its validity dates", _R.NEVER),
    _C.KEY_PENDING_DELETION: ErrorFact("the key is scheduled for deletion and can be recovered", _R.NEVER),
    _C.KEY_DESTROYED: ErrorFact("the material is gone; a tombstone is left", _R.NEVER),
    _C.KEY_INVALID_STATE: ErrorFact("the state of the key does not allow this operation", _R.NEVER),
    _C.KEY_USAGE_MISMATCH: ErrorFact("the type, usage or algorithm of the key does not allow this", _R.NEVER),
    _C.KEY_COMPROMISED: ErrorFact("the key is marked as compromised and refuses everything", _R.NEVER),
    _C.ACCESS_DENIED: ErrorFact("known to the keystore, but not allowed to do this", _R.NEVER),
    _C.AUTHENTICATION_FAILED: ErrorFact("the credential is missing, expired or rejected", _R.REAUTH),
    _C.INVALID_ARGUMENT: ErrorFact("a parameter is malformed or out of bounds", _R.NEVER),
    _C.INVALID_CIPHERTEXT: ErrorFact("the bytes do not belong to this key and context", _R.NEVER),
    _C.INTEGRITY_ERROR: ErrorFact("a transport checksum did not match", _R.BACKOFF, may_have_acted=True),
    _C.UNSUPPORTED_OPERATION: ErrorFact("the provider, key or driver cannot do this", _R.NEVER),
    _C.ALREADY_EXISTS: ErrorFact("the name is taken", _R.NEVER),
    _C.CONFLICT: ErrorFact("somebody else changed the same thing at the same time", _R.BACKOFF),
    _C.PROVIDER_UNAVAILABLE: ErrorFact(
        "the provider cannot be reached or says it is down", _R.BACKOFF, may_have_acted=True
    ),
    _C.TIMEOUT: ErrorFact("the deadline passed before an answer came", _R.RECONCILE, may_have_acted=True),
    _C.PROVIDER_INTERNAL: ErrorFact(
        "the provider failed and does not say why", _R.BACKOFF, may_have_acted=True
    ),
    _C.CONFIGURATION_ERROR: ErrorFact("the configuration is wrong: region, path, login, schema", _R.NEVER),
    _C.KEYSTORE_CORRUPT: ErrorFact("stored rows are damaged or were tampered with", _R.NEVER),
    _C.UNCLASSIFIED: ErrorFact("the driver has no row for the vendor's error", _R.NEVER, may_have_acted=True),
    _C.PLUGIN_CRASHED: ErrorFact(
        "the driver process ended with the request in flight",
        _R.RECONNECT,
        may_have_acted=True,
        from_plugin=True,
    ),
    _C.PLUGIN_UNAVAILABLE: ErrorFact("no driver process is ready", _R.RECONNECT, from_plugin=True),
    _C.PROTOCOL_VIOLATION: ErrorFact(
        "the driver broke the protocol", _R.RECONNECT, may_have_acted=True, from_plugin=True
    ),
    _C.CIRCUIT_OPEN: ErrorFact("the keystore failed too often and rests", _R.AFTER, from_plugin=True),
    _C.OVERLOADED: ErrorFact("too many requests in flight", _R.BACKOFF, from_plugin=True),
    _C.CANCELLED: ErrorFact("the caller cancelled", _R.NEVER, may_have_acted=True, from_plugin=True),
    _C.SHIM_FAILED: ErrorFact("a shim of the host could not do its part", _R.NEVER, from_plugin=True),
    _C.INTERNAL_ERROR: ErrorFact(
        "a defect; details stand in the log", _R.NEVER, may_have_acted=True, from_plugin=True
    ),
    _C.POLICY_DENIED: ErrorFact("the host's configuration forbids this", _R.NEVER),
    _C.TENANT_MISMATCH: ErrorFact("the object belongs to another tenant", _R.NEVER),
    _C.QUORUM_NOT_MET: ErrorFact("reserved: too few shares agreed", _R.NEVER),
    _C.OFFLINE_LIMIT_EXCEEDED: ErrorFact("reserved: offline for longer than allowed", _R.NEVER),
}

INVALID_CIPHERTEXT_MESSAGE: Final = "the ciphertext does not belong to this key and context"
"""The one sentence for every refusal that is due to the bytes, whichever step refused."""


class ErrorData(BaseModel):
    """The `data` member of an error response."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True, hide_input_in_errors=True)

    code: str = Field(
        description="An error code of section 7. A host treats one that it does not know as UNCLASSIFIED."
    )
    outcome: Outcome | None = Field(
        default=None, description="What is known about the effect; default by section 7."
    )
    retry_after_ms: int | None = Field(
        default=None, ge=0, description="The provider's own hint, in milliseconds."
    )
    credential_renewed: bool | None = Field(
        default=None,
        description="With AUTHENTICATION_FAILED: the driver holds another credential by now; try once more.",
    )
    hint: str | None = Field(default=None, description="What to do about it, one sentence.")
    path: str | None = Field(default=None, description="The wrong member of settings or params, as `a.b.0`.")
    vendor: Vendor | None = Field(default=None, description="The provider's own words.")
    correlation_id: str | None = Field(default=None, description="Finds the details in the driver's log.")


def error_response(request_id: jsonrpc.Id | None, message: str, data: ErrorData) -> dict[str, Any]:
    """Return the response for a typed failure."""
    return jsonrpc.failure(
        request_id, jsonrpc.KEYSTORE_ERROR, message, data.model_dump(mode="json", exclude_none=True)
    )
