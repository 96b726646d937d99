"""What is shown of plugins: their states, and snapshots of their processes."""

from collections.abc import Collection
from enum import StrEnum
from typing import Final

from msgspec import Struct

from ._meter import CallFailure, CallSeries
from ._process import Usage
from .config import Isolation
from .errors import Diagnosis


class PluginState(StrEnum):
    """The state of a plugin or of one of its processes."""

    STARTING = "STARTING"
    READY = "READY"
    DEGRADED = "DEGRADED"
    """Works, but with fewer processes than configured, or its last deep check failed. Of plugins only."""
    BACKOFF = "BACKOFF"
    """Died or did not start; waits for its next start."""
    QUARANTINED = "QUARANTINED"
    """Refused its settings or its login, or crashed again and again; not started again before a release."""
    DRAINING = "DRAINING"
    """Gets no new calls; ends when those in flight have ended."""
    STOPPED = "STOPPED"


class ReplicaRole(StrEnum):
    """What a process is there for."""

    WORKING = "WORKING"
    SPARE = "SPARE"
    """Configured and idle; takes over at once when a working one dies."""
    SUCCESSOR = "SUCCESSOR"
    """Being started to replace one that is due for recycling."""
    RETIRED = "RETIRED"
    """Replaced; still finishes its calls."""


# Of a plugin without a ready process, the first of these that one of its processes is in.
_BY_HOPE: Final = (
    PluginState.DRAINING,
    PluginState.BACKOFF,
    PluginState.STARTING,
    PluginState.QUARANTINED,
    PluginState.STOPPED,
)


class ReplicaStatus(Struct, frozen=True):
    """A snapshot of one process.

    Attributes:
        state: Its state.
        pid: Its process id, while there is one.
        restarts: How often it was started again.
        in_flight: Calls that it works on.
        usage: Memory, processor time and threads, while it runs.
        role: What it is there for.
        calls: Calls that this process was given.
        late_replies: Its messages that nobody waited for: answers after the deadline, or to nothing.
        overdue: Calls that were given up and that it has still not answered.
    """

    state: PluginState
    pid: int | None
    restarts: int
    in_flight: int
    usage: Usage | None
    role: ReplicaRole = ReplicaRole.WORKING
    calls: int = 0
    late_replies: int = 0
    overdue: int = 0


class PluginStatus(Struct, frozen=True):
    """A snapshot of a plugin.

    Attributes:
        name: Its name in the configuration.
        state: READY when as many processes are as are configured to work.
        driver: Name and version of the driver, once known.
        identity: Identity of the keystore, once known; escaped.
        replicas: Its processes.
        last_error: Why a process failed last, one line.
        warnings: What the driver wants an operator to know, and what of its promises was not understood.
        diagnosis: What is known about the process that failed, while one is missing.
        isolation: How far its processes are kept from the rest of the machine; never ``auto``.
        calls: Attempts of calls, by operation: how long they took, and how they failed.
        last_failure: The last of them that failed.
    """

    name: str
    state: PluginState
    driver: str | None
    identity: str | None
    replicas: tuple[ReplicaStatus, ...]
    last_error: str | None = None
    warnings: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None
    isolation: Isolation = Isolation.PROCESS
    calls: tuple[CallSeries, ...] = ()
    last_failure: CallFailure | None = None


def overall_state(states: Collection[PluginState], wanted: int, *, ill: bool = False) -> PluginState:
    """Return the state of a plugin, which follows from those of its processes.

    Args:
        states: Of its processes, spares included.
        wanted: How many of them are to work.
        ill: Whether the last deep check failed.
    """
    ready = sum(state is PluginState.READY for state in states)
    if ready >= wanted and not ill:
        return PluginState.READY
    if ready:
        return PluginState.DEGRADED
    return next(state for state in _BY_HOPE if state in states)
