"""What a version answers in a state that does not allow what was asked (SPEC.md 6.2)."""

from collections.abc import Mapping
from typing import Final

from kmsplug_protocol import ErrorCode, KeyState

_S = KeyState

REFUSALS: Final[Mapping[KeyState, tuple[ErrorCode, str]]] = {
    _S.PRE_ACTIVE: (ErrorCode.KEY_INVALID_STATE, "has no material yet: import it"),
    _S.ACTIVE: (ErrorCode.KEY_INVALID_STATE, "is active"),
    _S.SUSPENDED: (ErrorCode.KEY_DISABLED, "is disabled: enable it first"),
    _S.DEACTIVATED: (ErrorCode.KEY_INVALID_STATE, "is deactivated: it makes nothing new"),
    _S.COMPROMISED: (ErrorCode.KEY_COMPROMISED, "is marked as compromised"),
    _S.DESTROY_SCHEDULED: (ErrorCode.KEY_PENDING_DELETION, "is scheduled for deletion"),
    _S.DESTROYED: (ErrorCode.KEY_DESTROYED, "is destroyed"),
}
