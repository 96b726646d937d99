"""The exceptions of the host, one class per error code, in two branches.

The branches exist because their readers act differently::

    KmsplugError
     +- PluginError                 the plugin or the host failed: look at the process
     |   +- PluginCrashed
     |   +- PluginUnavailable
     |   +- ProtocolViolation
     |   +- CircuitOpen
     |   +- Overloaded
     |   +- Cancelled
     |   +- ShimFailed
     |   +- InternalError
     +- KeystoreError               the keystore said no: look at the request
         +- RateLimitExceeded
         +- LimitExceeded
         +- KeyNotFound
         +- KeyDisabled
         +- KeyPendingDeletion
         +- KeyDestroyed
         +- KeyInvalidState
         +- KeyUsageMismatch
         +- KeyCompromised
         +- AccessDenied
         +- AuthenticationFailed
         +- InvalidArgument
         +- InvalidCiphertext
         +- IntegrityError
         +- UnsupportedOperation
         +- AlreadyExists
         +- Conflict
         +- ProviderUnavailable
         +- Timeout
         +- ProviderInternal
         +- ConfigurationError
         +- KeystoreCorrupt
         +- Unclassified
         +- PolicyDenied
         +- TenantMismatch
         +- QuorumNotMet
         +- OfflineLimitExceeded

A mismatch of a signature is a result (``valid``), not an error. Programs act on the class or on
``code``, never on the message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final

from kmsplug_protocol import ERROR_FACTS, ErrorCode, Outcome, RetryClass
from msgspec import Struct, structs

if TYPE_CHECKING:
    from kmsplug_protocol import Vendor


class Diagnosis(Struct, frozen=True):
    """What is known about a driver process that failed.

    Attributes:
        command: What was run.
        executable: Where it is, its mode and its owner, or why it cannot be run.
        exit: How the process ended: ``exit status 1``, ``SIGSEGV``, ``still running``.
        stderr: Its last lines, escaped.
    """

    command: tuple[str, ...]
    executable: str
    exit: str
    stderr: tuple[str, ...] = ()


class Attempt(Struct, frozen=True):
    """One try of a call that was tried more than once.

    Attributes:
        code: How it ended.
        elapsed_s: Seconds from the start of the call to its end.
        slept_s: Seconds that were waited after it, before the next one.
    """

    code: ErrorCode
    elapsed_s: float
    slept_s: float = 0.0


class KmsplugError(Exception):
    """Base of everything that this library raises.

    Attributes:
        code: Why, from the closed set of the protocol.
        retry: What may help, by the code.
        outcome: What is known about the effect of the call.
        hint: What could be done about it; what a driver said reads ``driver says: ...``.
        details: Everything else that is known: operation, plugin, driver, keystore, key_id, key_version,
            retry_after_ms, credential_renewed, path, correlation_id, idempotency_key.
        vendor: The provider's own code, message and request id; ``withheld`` says that some of it could
            have been an oracle or quoted a credential, and was left out.
        causes: In the driver, the types of the exceptions behind it, the nearest first. In this process
            ``__cause__`` leads on.
        attempts: The earlier tries of the same call.
        diagnosis: For failures of a process, its state.
    """

    code: ClassVar[ErrorCode]

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome | None = None,
        hint: str | None = None,
        vendor: Vendor | None = None,
        causes: tuple[str, ...] = (),
        attempts: tuple[Attempt, ...] = (),
        diagnosis: Diagnosis | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        fact = ERROR_FACTS[self.code]
        self.retry: RetryClass = fact.retry
        self.outcome = outcome or (Outcome.UNKNOWN if fact.may_have_acted else Outcome.NOT_APPLIED)
        self.hint = hint
        self.vendor = vendor
        self.causes = causes
        self.attempts = attempts
        self.diagnosis = diagnosis
        self.details = {name: value for name, value in details.items() if value is not None}

    def add(self, **details: Any) -> None:
        """Add what a higher layer knows. Never replaces what is there already."""
        for name, value in details.items():
            if value is not None:
                self.details.setdefault(name, value)

    def to_dict(self) -> dict[str, Any]:
        """Return the error and what is behind it as one JSON object, as ``kmsplug --json`` prints it."""
        document = _document(self)
        causes = [{"type": name} for name in self.causes]
        causes += [
            _document(cause) if isinstance(cause, KmsplugError) else {"type": type(cause).__qualname__}
            for cause in _behind(self)
        ]
        if causes:
            document["causes"] = causes
        return document


def _document(error: KmsplugError) -> dict[str, Any]:
    document: dict[str, Any] = {
        "code": error.code.value,
        "message": error.message,
        "retry": error.retry.value,
        "outcome": error.outcome.value,
        **error.details,
    }
    if error.hint:
        document["hint"] = error.hint
    if error.vendor is not None:
        document["vendor"] = error.vendor.model_dump(mode="json", exclude_defaults=True)
    if error.attempts:
        document["attempts"] = [structs.asdict(attempt) for attempt in error.attempts]
    if error.diagnosis is not None:
        document["diagnosis"] = structs.asdict(error.diagnosis)
    return document


def _behind(error: BaseException) -> Iterator[BaseException]:
    """Yield the causes of an exception, the nearest first. A circle ends it."""
    seen = {id(error)}
    while (cause := error.__cause__) is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        error = cause


class PluginError(KmsplugError):
    """The plugin or the host failed: look at the process."""


class KeystoreError(KmsplugError):
    """The keystore said no: look at the request."""


class PluginCrashed(PluginError):
    """The driver process ended with the call in flight; ``diagnosis`` says how."""

    code = ErrorCode.PLUGIN_CRASHED


class PluginUnavailable(PluginError):
    """No driver process is ready, and none became ready before the deadline."""

    code = ErrorCode.PLUGIN_UNAVAILABLE


class ProtocolViolation(PluginError):
    """The driver answered with something that the protocol does not allow."""

    code = ErrorCode.PROTOCOL_VIOLATION


class CircuitOpen(PluginError):
    """The keystore failed too often and is left alone for a while."""

    code = ErrorCode.CIRCUIT_OPEN


class Overloaded(PluginError):
    """Too many calls are in flight."""

    code = ErrorCode.OVERLOADED


class Cancelled(PluginError):
    """The caller cancelled."""

    code = ErrorCode.CANCELLED


class ShimFailed(PluginError):
    """A shim of the host could not do its part."""

    code = ErrorCode.SHIM_FAILED


class InternalError(PluginError):
    """A defect of the driver or the host; the log holds the details."""

    code = ErrorCode.INTERNAL_ERROR


class RateLimitExceeded(KeystoreError):
    """The provider throttles; ``retry_after_ms`` may say how long. ADR-501's ErrRateLimitExceeded."""

    code = ErrorCode.RATE_LIMIT_EXCEEDED


class LimitExceeded(KeystoreError):
    """A hard quota is used up; waiting does not help."""

    code = ErrorCode.LIMIT_EXCEEDED


class KeyNotFound(KeystoreError):
    """No key or version of this id, or the plugin may not know that it exists."""

    code = ErrorCode.KEY_NOT_FOUND


class KeyDisabled(KeystoreError):
    """The key or version is suspended."""

    code = ErrorCode.KEY_DISABLED


class KeyPendingDeletion(KeystoreError):
    """The key is scheduled for deletion; ``cancel_key_deletion`` recovers it."""

    code = ErrorCode.KEY_PENDING_DELETION


class KeyDestroyed(KeystoreError):
    """The key's material is gone."""

    code = ErrorCode.KEY_DESTROYED


class KeyInvalidState(KeystoreError):
    """The key's state does not allow this."""

    code = ErrorCode.KEY_INVALID_STATE


class KeyUsageMismatch(KeystoreError):
    """The key is of another type or usage."""

    code = ErrorCode.KEY_USAGE_MISMATCH


class KeyCompromised(KeystoreError):
    """The key is marked as compromised."""

    code = ErrorCode.KEY_COMPROMISED


class AccessDenied(KeystoreError):
    """Not allowed, or no keystore of the configuration may open this ciphertext."""

    code = ErrorCode.ACCESS_DENIED


class AuthenticationFailed(KeystoreError):
    """The credential was rejected or has expired."""

    code = ErrorCode.AUTHENTICATION_FAILED


class InvalidArgument(KeystoreError):
    """An argument is malformed or out of bounds."""

    code = ErrorCode.INVALID_ARGUMENT


class InvalidCiphertext(KeystoreError):
    """The bytes do not belong to this key and context. Always the same sentence."""

    code = ErrorCode.INVALID_CIPHERTEXT


class IntegrityError(KeystoreError):
    """Data were damaged on the way."""

    code = ErrorCode.INTEGRITY_ERROR


class UnsupportedOperation(KeystoreError):
    """The keystore cannot do this, and no shim may stand in.

    Attributes:
        unknown_method: Whether the driver says that it does not have the operation at all.
    """

    code = ErrorCode.UNSUPPORTED_OPERATION
    unknown_method = False


class AlreadyExists(KeystoreError):
    """The name is taken."""

    code = ErrorCode.ALREADY_EXISTS


class Conflict(KeystoreError):
    """Somebody else changed the same thing at the same time."""

    code = ErrorCode.CONFLICT


class ProviderUnavailable(KeystoreError):
    """The provider cannot be reached or says that it is down."""

    code = ErrorCode.PROVIDER_UNAVAILABLE


class Timeout(KeystoreError):
    """The deadline passed. After a change, ``outcome`` is unknown: the provider may still have acted."""

    code = ErrorCode.TIMEOUT


class ProviderInternal(KeystoreError):
    """The provider failed and does not say why."""

    code = ErrorCode.PROVIDER_INTERNAL


class ConfigurationError(KeystoreError):
    """plugins.toml or a plugin's settings are wrong; the message names file, key and what was expected."""

    code = ErrorCode.CONFIGURATION_ERROR


class KeystoreCorrupt(KeystoreError):
    """The keystore's stored rows are damaged or were tampered with."""

    code = ErrorCode.KEYSTORE_CORRUPT


class Unclassified(KeystoreError):
    """The vendor's error has no row in the driver's table."""

    code = ErrorCode.UNCLASSIFIED


class PolicyDenied(KeystoreError):
    """The host's configuration forbids this."""

    code = ErrorCode.POLICY_DENIED


class TenantMismatch(KeystoreError):
    """The ciphertext belongs to another tenant."""

    code = ErrorCode.TENANT_MISMATCH


class QuorumNotMet(KeystoreError):
    """Reserved."""

    code = ErrorCode.QUORUM_NOT_MET


class OfflineLimitExceeded(KeystoreError):
    """Reserved."""

    code = ErrorCode.OFFLINE_LIMIT_EXCEEDED


_CLASSES: Final[dict[str, type[KmsplugError]]] = {
    subclass.code.value: subclass
    for branch in (PluginError, KeystoreError)
    for subclass in branch.__subclasses__()
}


def error_class(code: str) -> type[KmsplugError]:
    """Return the class of a code; of one that only a newer driver knows, `Unclassified`."""
    return _CLASSES.get(code, Unclassified)
