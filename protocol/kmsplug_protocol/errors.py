"""The closed set of error codes of protocol version 1.

Wire strings are stable for ever. A program acts on the code, never on a message. What each code means stands
in `error_facts`.
"""

from enum import StrEnum
from typing import Final


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


INVALID_CIPHERTEXT_MESSAGE: Final = "the ciphertext does not belong to this key and context"
"""The one sentence for every refusal that is due to the bytes, whichever step refused."""
