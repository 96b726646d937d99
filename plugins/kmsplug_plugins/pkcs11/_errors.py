"""From the return values of a PKCS#11 module to the codes of the protocol. The rows stand in ``errors.toml``.

python-pkcs11 turns a return value into a class or into a sentence; the value itself is lost. It is found
again here, under the name that the standard gives it.
"""

import re
from typing import Final

from kmsplug_protocol import ErrorCode, Vendor
from kmsplug_sdk import DriverError
from kmsplug_sdk.mapping import ErrorTable, VendorAnswer

from ._ckr import Ckr
from ._client import PKCS11Error

TABLE: Final = ErrorTable(__package__ or "")

# Classes that are not named as the standard names the value.
_NAMES: Final = {
    "AnotherUserAlreadyLoggedIn": "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
    "FunctionCancelled": "CKR_FUNCTION_CANCELED",
    "RandomNoRNG": "CKR_RANDOM_NO_RNG",
    "SessionReadWriteSOExists": "CKR_SESSION_READ_WRITE_SO_EXISTS",
    "SlotIDInvalid": "CKR_SLOT_ID_INVALID",
    "TokenNotRecognised": "CKR_TOKEN_NOT_RECOGNIZED",
}

# Values for which the library has a sentence and no class.
_SENTENCES: Final = {
    "Buffer was too small": "CKR_BUFFER_TOO_SMALL",
    "already initialized": "CKR_CRYPTOKI_ALREADY_INITIALIZED",
    "not initialized": "CKR_CRYPTOKI_NOT_INITIALIZED",
    "Parallel not supported": "CKR_SESSION_PARALLEL_NOT_SUPPORTED",
    "User type invalid": "CKR_USER_TYPE_INVALID",
}

_NUMBER: Final = re.compile(r"Unmapped error code (0x[0-9a-f]+)")
_KNOWN: Final[dict[int, str]] = {member.value: member.name for member in Ckr}

PIN_REJECTED: Final = frozenset(
    {
        "CKR_PIN_INCORRECT", "CKR_PIN_INVALID", "CKR_PIN_LEN_RANGE", "CKR_PIN_EXPIRED", "CKR_PIN_LOCKED",
        "CKR_PIN_TOO_WEAK", "CKR_USER_PIN_NOT_INITIALIZED", "CKR_NEW_PIN_MODE", "CKR_NEXT_OTP",
    }
)  # fmt: skip
"""The credential was looked at and refused: it must not be shown again."""

STALE: Final = frozenset(
    {
        "CKR_KEY_HANDLE_INVALID", "CKR_OBJECT_HANDLE_INVALID", "CKR_WRAPPING_KEY_HANDLE_INVALID",
        "CKR_UNWRAPPING_KEY_HANDLE_INVALID", "CKR_SESSION_HANDLE_INVALID", "CKR_SESSION_CLOSED",
        "CKR_USER_NOT_LOGGED_IN", "CKR_CRYPTOKI_NOT_INITIALIZED",
    }
)  # fmt: skip
"""Nothing was done: we named a session or an object that is no more. To be found again, and asked once."""

GONE: Final = frozenset(
    {
        "CKR_DEVICE_REMOVED", "CKR_TOKEN_NOT_PRESENT", "CKR_TOKEN_NOT_RECOGNIZED", "CKR_SLOT_ID_INVALID",
        "CKR_USER_NOT_LOGGED_IN", "CKR_CRYPTOKI_NOT_INITIALIZED",
    }
)  # fmt: skip
"""The token or the login is gone, and with it every session."""


NOT_NOW: Final = GONE | {
    "CKR_DEVICE_ERROR", "CKR_DEVICE_MEMORY", "CKR_HOST_MEMORY", "CKR_SESSION_CLOSED", "CKR_SESSION_COUNT",
    "CKR_SESSION_HANDLE_INVALID", "CKR_TOKEN_RESOURCE_EXCEEDED",
}  # fmt: skip
"""What is said of the moment, and nothing of what the token can do."""

REFUSED: Final = {
    "crypto.decrypt": "CKR_ENCRYPTED_DATA_INVALID",
    "crypto.unwrap_key": "CKR_WRAPPED_KEY_INVALID",
    "crypto.verify": "CKR_SIGNATURE_INVALID",
}
"""What every module should say of bytes that do not belong to the key."""


def name_of(error: PKCS11Error) -> str:
    """Return the standard's name of the value behind an exception; of an unknown one, the number."""
    kind, text = type(error).__name__, str(error)
    if kind != "PKCS11Error":
        return _NAMES.get(kind) or "CKR_" + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).upper()
    if found := _NUMBER.search(text):
        number = int(found[1], 16)
        return _KNOWN.get(number, hex(number))
    return next((name for sentence, name in _SENTENCES.items() if sentence in text), "CKR_GENERAL_ERROR")


def translated(name: str, operation: str, *, healthy: bool = True) -> DriverError | VendorAnswer:
    """Return what to raise in place of what the module said.

    Args:
        name: As of `name_of`.
        operation: Ours, as ``crypto.decrypt``.
        healthy: Whether the token is well otherwise. Where it is not, an error without a meaning of its own
            is the token's, never the ciphertext's.
    """
    if not healthy and name in ("CKR_GENERAL_ERROR", "CKR_FUNCTION_FAILED"):
        return DriverError(
            ErrorCode.PROVIDER_UNAVAILABLE,
            "the token does not answer any more",
            vendor=Vendor(service=TABLE.service, code=name),
        )
    vendor_defined = name.startswith("0x") and int(name, 16) >= Ckr.CKR_VENDOR_DEFINED
    also = (Ckr.CKR_VENDOR_DEFINED.name,) if vendor_defined else ()
    # Which step refused would be a padding oracle, whatever the mechanism: the answer says one thing for all.
    return TABLE.translate(Vendor(code=name), operation, also=also, withhold=True)
