"""What the states of SPEC.md 6 allow, for the shims that must know."""

from typing import Final, NoReturn

from kmsplug_protocol import KeyState

from kmsplug_host.errors import (
    KeyCompromised,
    KeyDestroyed,
    KeyDisabled,
    KeyInvalidState,
    KeyPendingDeletion,
    KmsplugError,
)

MAKES: Final = frozenset({KeyState.ACTIVE})
"""States in which a version encrypts and signs."""

OPENS: Final = frozenset({KeyState.ACTIVE, KeyState.DEACTIVATED})
"""States in which it decrypts and verifies."""

_ERRORS: Final[dict[KeyState, type[KmsplugError]]] = {
    KeyState.SUSPENDED: KeyDisabled,
    KeyState.COMPROMISED: KeyCompromised,
    KeyState.DESTROY_SCHEDULED: KeyPendingDeletion,
    KeyState.DESTROYED: KeyDestroyed,
}


def refuse(state: KeyState, allowed: frozenset[KeyState]) -> None:
    """Raise the error of a state, unless it is one of the allowed."""
    if state not in allowed:
        raise_for(state)


def raise_for(state: KeyState) -> NoReturn:
    """Raise the error of a state."""
    raise _ERRORS.get(state, KeyInvalidState)(f"the key is {state}")
