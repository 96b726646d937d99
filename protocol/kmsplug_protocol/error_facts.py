"""What is always true of an error code: its meaning, what may help, what to do about it."""

from dataclasses import dataclass
from typing import Final

from .errors import ErrorCode, RetryClass


@dataclass(frozen=True, slots=True)
class ErrorFact:
    """What is always true of a code.

    Attributes:
        meaning: One clause, lower case.
        retry: What may help.
        grpc: The status that a service over gRPC would answer with.
        action: What an operator should do, in sentences.
        may_have_acted: Whether the provider can have carried out the request all the same.
        from_plugin: Whether the plugin or the host failed (true) or the keystore said no (false).
    """

    meaning: str
    retry: RetryClass
    grpc: str
    action: str
    may_have_acted: bool = False
    from_plugin: bool = False


_R = RetryClass
_C = ErrorCode

ERROR_FACTS: Final[dict[ErrorCode, ErrorFact]] = {
    _C.RATE_LIMIT_EXCEEDED: ErrorFact(
        "throttled, or a quota per second is used up",
        _R.AFTER,
        "RESOURCE_EXHAUSTED",
        "Nothing, if it is rare: the host waits and repeats. Else call less often, or ask for a higher rate.",
    ),
    _C.LIMIT_EXCEEDED: ErrorFact(
        "a hard quota is used up: keys, rotations, uses of one key",
        _R.NEVER,
        "RESOURCE_EXHAUSTED",
        "Waiting does not help. Find out which quota it is from the vendor's message; raise it, delete what "
        "is unused, or rotate the key.",
    ),
    _C.KEY_NOT_FOUND: ErrorFact(
        "no key or version of this id, or it may not be seen",
        _R.NEVER,
        "NOT_FOUND",
        "Compare the key id with `kmsplug key list`, and the keystore with the one that made the key. A key "
        "that was just made may take a minute to be seen everywhere.",
    ),
    _C.KEY_DISABLED: ErrorFact(
        "the key or version is suspended, or outside its validity dates",
        _R.NEVER,
        "FAILED_PRECONDITION",
        "Find out who disabled it and why; `kmsplug key enable` gives it back.",
    ),
    _C.KEY_PENDING_DELETION: ErrorFact(
        "the key is scheduled for deletion and can be recovered",
        _R.NEVER,
        "FAILED_PRECONDITION",
        "If something still needs it, recover it before the date: `kmsplug key cancel-deletion`, then "
        "`kmsplug key enable`.",
    ),
    _C.KEY_DESTROYED: ErrorFact(
        "the material is gone; a tombstone is left",
        _R.NEVER,
        "FAILED_PRECONDITION",
        "What it encrypted can be opened only from a backup of the key: `kmsplug key restore`.",
    ),
    _C.KEY_INVALID_STATE: ErrorFact(
        "the state of the key does not allow this operation",
        _R.NEVER,
        "FAILED_PRECONDITION",
        "Look at its state with `kmsplug key describe`: it may wait for its material, or for a change.",
    ),
    _C.KEY_USAGE_MISMATCH: ErrorFact(
        "the type, usage or algorithm of the key does not allow this",
        _R.NEVER,
        "FAILED_PRECONDITION",
        "Name another key, or another mechanism. Type and usage of a key never change.",
    ),
    _C.KEY_COMPROMISED: ErrorFact(
        "the key is marked as compromised and refuses everything",
        _R.NEVER,
        "FAILED_PRECONDITION",
        "Use another key. That somebody marked it is an incident: find out who and why.",
    ),
    _C.ACCESS_DENIED: ErrorFact(
        "known to the keystore, but not allowed to do this",
        _R.NEVER,
        "PERMISSION_DENIED",
        "Grant the permission that the vendor's message names to the identity that the plugin logs in with; "
        "a new grant may take minutes. For a ciphertext: name its keystore and key in the configuration.",
    ),
    _C.AUTHENTICATION_FAILED: ErrorFact(
        "the credential is missing, expired or rejected",
        _R.REAUTH,
        "UNAUTHENTICATED",
        "Renew the credential that the plugin's settings name, and open the host again. A wrong PIN is not "
        "tried twice, because HSMs lock. Also look at the machine's clock.",
    ),
    _C.INVALID_ARGUMENT: ErrorFact(
        "a parameter is malformed or out of bounds",
        _R.NEVER,
        "INVALID_ARGUMENT",
        "Correct the caller; the message or `path` names the parameter.",
    ),
    _C.INVALID_CIPHERTEXT: ErrorFact(
        "the bytes do not belong to this key and context",
        _R.NEVER,
        "INVALID_ARGUMENT",
        "Compare key, context and tenant with those of the encryption, and the bytes with what was stored. "
        "Which of them is wrong is not told, to nobody: it would help an attacker.",
    ),
    _C.INTEGRITY_ERROR: ErrorFact(
        "a transport checksum did not match",
        _R.BACKOFF,
        "UNAVAILABLE",
        "Look for a proxy that changes what passes through it, or for failing hardware.",
        may_have_acted=True,
    ),
    _C.UNSUPPORTED_OPERATION: ErrorFact(
        "the provider, key or driver cannot do this",
        _R.NEVER,
        "UNIMPLEMENTED",
        "See what the plugin offers: `kmsplug plugin describe`. Allow shims, or use another keystore.",
    ),
    _C.ALREADY_EXISTS: ErrorFact(
        "the name is taken",
        _R.NEVER,
        "ALREADY_EXISTS",
        "Choose another name. A deleted object may hold it until its deletion window ends.",
    ),
    _C.CONFLICT: ErrorFact(
        "somebody else changed the same thing at the same time",
        _R.BACKOFF,
        "ABORTED",
        "Let one program at a time change a key.",
    ),
    _C.PROVIDER_UNAVAILABLE: ErrorFact(
        "the provider cannot be reached or says it is down",
        _R.BACKOFF,
        "UNAVAILABLE",
        "Look at network, proxy, address and the provider's status page; `kmsplug health` tries again.",
        may_have_acted=True,
    ),
    _C.TIMEOUT: ErrorFact(
        "the deadline passed before an answer came",
        _R.RECONCILE,
        "DEADLINE_EXCEEDED",
        "After a change, look whether it was made before you repeat it. Compare `deadline_s` with the "
        "latency that `kmsplug health` shows.",
        may_have_acted=True,
    ),
    _C.PROVIDER_INTERNAL: ErrorFact(
        "the provider failed and does not say why",
        _R.BACKOFF,
        "INTERNAL",
        "Give the vendor's request id to its support, if it stays.",
        may_have_acted=True,
    ),
    _C.CONFIGURATION_ERROR: ErrorFact(
        "the configuration is wrong: region, path, login, schema",
        _R.NEVER,
        "FAILED_PRECONDITION",
        "Correct what the message or `path` names; `kmsplug plugin check` tries it out.",
    ),
    _C.KEYSTORE_CORRUPT: ErrorFact(
        "stored rows are damaged or were tampered with",
        _R.NEVER,
        "DATA_LOSS",
        "Stop all users of the keystore, keep a copy for inquiry, restore from a backup. Take tampering for "
        "an incident.",
    ),
    _C.UNCLASSIFIED: ErrorFact(
        "the driver has no row for the vendor's error",
        _R.NEVER,
        "UNKNOWN",
        "The vendor's code and message say what happened. After a change, look whether it was made. Report "
        "the code to the driver's author.",
        may_have_acted=True,
    ),
    _C.PLUGIN_CRASHED: ErrorFact(
        "the driver process ended with the request in flight",
        _R.RECONNECT,
        "UNAVAILABLE",
        "The diagnosis holds how it ended and its last words; the driver is started again by itself. After a "
        "change, look whether it was made.",
        may_have_acted=True,
        from_plugin=True,
    ),
    _C.PLUGIN_UNAVAILABLE: ErrorFact(
        "no driver process is ready",
        _R.RECONNECT,
        "UNAVAILABLE",
        "The cause and the diagnosis say why it does not start; `kmsplug plugin check` tries it alone.",
        from_plugin=True,
    ),
    _C.PROTOCOL_VIOLATION: ErrorFact(
        "the driver broke the protocol",
        _R.RECONNECT,
        "INTERNAL",
        "A defect of the driver: `kmsplug conformance` finds it. Update the driver, or report it.",
        may_have_acted=True,
        from_plugin=True,
    ),
    _C.CIRCUIT_OPEN: ErrorFact(
        "the keystore failed too often and rests",
        _R.AFTER,
        "UNAVAILABLE",
        "See the cause. The host tries again by itself, and goes on when the keystore answers.",
        from_plugin=True,
    ),
    _C.OVERLOADED: ErrorFact(
        "too many requests in flight",
        _R.BACKOFF,
        "RESOURCE_EXHAUSTED",
        "Call less at once, or raise the limit and the number of processes of the plugin.",
        from_plugin=True,
    ),
    _C.CANCELLED: ErrorFact(
        "the caller cancelled",
        _R.NEVER,
        "CANCELLED",
        "Nothing. After a change, look whether it was made.",
        may_have_acted=True,
        from_plugin=True,
    ),
    _C.SHIM_FAILED: ErrorFact(
        "a shim of the host could not do its part",
        _R.NEVER,
        "INTERNAL",
        "See the cause, and the state that the shim keeps.",
        from_plugin=True,
    ),
    _C.INTERNAL_ERROR: ErrorFact(
        "a defect; details stand in the log",
        _R.NEVER,
        "INTERNAL",
        "Find the correlation id in the log, and report what stands there.",
        may_have_acted=True,
        from_plugin=True,
    ),
    _C.POLICY_DENIED: ErrorFact(
        "the host's configuration forbids this",
        _R.NEVER,
        "PERMISSION_DENIED",
        "If it should be allowed, change the configuration; the message names what forbids it.",
    ),
    _C.TENANT_MISMATCH: ErrorFact(
        "the object belongs to another tenant",
        _R.NEVER,
        "PERMISSION_DENIED",
        "Find out how data came to another tenant: it may be a defect of the application, or an attack.",
    ),
    _C.QUORUM_NOT_MET: ErrorFact(
        "reserved: too few shares agreed",
        _R.NEVER,
        "FAILED_PRECONDITION",
        "Nothing: no version of the host raises it yet.",
    ),
    _C.OFFLINE_LIMIT_EXCEEDED: ErrorFact(
        "reserved: offline for longer than allowed",
        _R.NEVER,
        "FAILED_PRECONDITION",
        "Nothing; no version of the host raises it yet.",
    ),
}
