"""Shim ``lifecycle@1``: the states of SPEC.md 6, kept by the host. Pure functions over a key's row.

``states`` maps a version to its state and, while it is SUSPENDED, to the one before; ``*`` stands for every
version that is not named, so that one which the provider makes by itself is in no better state than the key.
"""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kmsplug_protocol import KeyState

from kmsplug_host.errors import InvalidArgument, KeyInvalidState, KeyPendingDeletion

from .states import raise_for

Body = dict[str, Any]

ALL: Final = "*"
_DEFAULT_WINDOW_DAYS: Final = 30
NO_WINDOW: Final = "the provider destroys at once, and nothing here keeps a deletion window"
_AGAIN: Final = "kmsplug key destroy finishes it"

_FROM: Final = {
    KeyState.SUSPENDED: {KeyState.ACTIVE, KeyState.DEACTIVATED},
    KeyState.DEACTIVATED: {KeyState.ACTIVE, KeyState.SUSPENDED},
    KeyState.ACTIVE: {KeyState.SUSPENDED, KeyState.DEACTIVATED},
    KeyState.COMPROMISED: {KeyState.ACTIVE, KeyState.SUSPENDED, KeyState.DEACTIVATED},
}

_ORDER: Final = (
    KeyState.ACTIVE, KeyState.DEACTIVATED, KeyState.PRE_ACTIVE, KeyState.SUSPENDED, KeyState.COMPROMISED,
    KeyState.DESTROY_SCHEDULED, KeyState.DESTROYED,
)  # fmt: skip


def state_of(body: Body | None, version: str | None) -> KeyState:
    """Return the state that the host keeps for a version; ACTIVE where it keeps none."""
    if body is None:
        return KeyState.ACTIVE
    if body.get("destroyed"):
        return KeyState.DESTROYED
    if body.get("deletion"):
        return KeyState.DESTROY_SCHEDULED
    states = body.get("states", {})
    found = states.get(version) or states.get(ALL) or [KeyState.ACTIVE, None]
    return KeyState(found[0])


def all_states(body: Body | None) -> set[KeyState]:
    """Return every state in which a version may be."""
    return {state_of(body, version) for version in ({} if body is None else body.get("states", {})) or {ALL}}


def stricter(one: KeyState, other: KeyState) -> KeyState:
    """Return the state of the two that allows less."""
    return max(one, other, key=_ORDER.index)


def disabled(body: Body) -> Body:
    """``key.disable``."""
    return _moved(body, KeyState.SUSPENDED, None, quiet=True)


def enabled(body: Body, current: str) -> Body:
    """``key.enable``: everything SUSPENDED is again what it was."""
    refuse_ending(body)
    state = state_of(body, current)
    if state is KeyState.COMPROMISED:
        raise_for(state)
    after = _with_states(body)
    for version, (state_now, before) in after["states"].items():
        if state_now == KeyState.SUSPENDED:
            after["states"][version] = [before or KeyState.ACTIVE, None]
    return after


def moved(body: Body, to: KeyState, version: str | None) -> Body:
    """``key.set_state``, of one version or of all that can move.

    Raises:
        InvalidArgument: There is an operation of its own that leads to this state.
        KmsplugError: The error of the present state: no version can move.
    """
    if to not in _FROM:
        raise InvalidArgument(f"no key is moved to {to} by key.set_state", path="state")
    refuse_ending(body)
    return _moved(body, to, version, quiet=False)


def scheduled(body: Body, window_days: int | None, now: datetime) -> Body:
    """``key.schedule_deletion``. When it is due it waits for an operator: nothing happens by the clock."""
    refuse_ending(body)
    days = _DEFAULT_WINDOW_DAYS if window_days is None else window_days
    after = copy.deepcopy(body)
    after["deletion"] = _text(now + timedelta(days=days))
    after["window_days"] = days
    return after


def cancelled(body: Body) -> Body:
    """``key.cancel_deletion``: everything is SUSPENDED afterwards."""
    if body.get("destroyed"):
        raise_for(KeyState.DESTROYED)
    if not body.get("deletion"):
        raise KeyInvalidState("the key is not scheduled for deletion")
    if body.get("destroying"):
        raise KeyPendingDeletion("the destruction of the key has begun: nothing brings it back", hint=_AGAIN)
    after = copy.deepcopy(body)
    after["deletion"] = None
    return disabled(after)


def is_due(body: Body, now: datetime) -> bool:
    """Tell whether a deletion waits for nothing but somebody who wants it."""
    deletion: str | None = body.get("deletion")
    return deletion is not None and not body.get("destroyed") and deletion <= _text(now)


def require_due(body: Body, now: datetime) -> None:
    """See that the window of a deletion is over.

    Raises:
        KeyInvalidState: It is not, or there is none.
        KeyDestroyed: The key is destroyed.
    """
    if body.get("destroyed"):
        raise_for(KeyState.DESTROYED)
    if not body.get("deletion"):
        raise KeyInvalidState("the key is not scheduled for deletion", hint="schedule it first")
    if not is_due(body, now):
        raise KeyInvalidState(f"the deletion is not due before {body['deletion']}")


def destroying(body: Body, now: datetime) -> Body:
    """``key.purge`` begins, or goes on: from now on nothing brings the key back.

    ``destroying`` counts who began, so that the one who was alone can tell (`spared`).
    """
    require_due(body, now)
    return {**body, "destroying": body.get("destroying", 0) + 1}


def spared(body: Body) -> Body:
    """The one who began was refused before anything was destroyed: the deletion is due as before.

    Unless somebody else has begun as well, of whom nobody knows how far he is.
    """
    if body.get("destroying") != 1:
        return body
    return {name: value for name, value in body.items() if name != "destroying"}


def destroyed(body: Body, now: datetime) -> Body:
    """``key.purge`` has ended: nothing of the key is left."""
    kept = {name: value for name, value in body.items() if name != "destroying"}
    return {**kept, "deletion": None, "destroyed": _text(now)}


def refuse_ending(body: Body) -> None:
    """Refuse what is of no use to a key whose deletion is scheduled, or that is destroyed.

    Raises:
        KmsplugError: The error of that state.
    """
    state = state_of(body, ALL)
    if state in (KeyState.DESTROYED, KeyState.DESTROY_SCHEDULED):
        raise_for(state)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moved(body: Body, to: KeyState, version: str | None, *, quiet: bool) -> Body:
    after = _with_states(body)
    states = after["states"]
    if version is not None:
        states.setdefault(version, list(states[ALL]))
    chosen = list(states) if version is None else [version]
    if not quiet and not any(states[each][0] in _FROM[to] or states[each][0] == to for each in chosen):
        raise_for(KeyState(states[chosen[-1]][0]))
    for each in chosen:
        state, _ = states[each]
        if state in _FROM[to]:
            states[each] = [to.value, state if to is KeyState.SUSPENDED else None]
    return after


def _with_states(body: Body) -> Body:
    after = copy.deepcopy(body)
    after.setdefault("states", {}).setdefault(ALL, [KeyState.ACTIVE.value, None])
    return after
