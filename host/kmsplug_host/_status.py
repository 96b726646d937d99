"""What is shown of plugins: their states, and snapshots of their processes."""

from dataclasses import dataclass, field
from enum import StrEnum

from ._process import Usage
from .config import Isolation


class PluginState(StrEnum):
    """The state of a plugin or of one of its processes."""

    STARTING = "STARTING"
    READY = "READY"
    DEGRADED = "DEGRADED"
    """Some processes are ready, but fewer than configured."""
    BACKOFF = "BACKOFF"
    """Died or did not start; waits for its next start."""
    QUARANTINED = "QUARANTINED"
    """Refused its settings or its login; not started again."""
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A snapshot of one process.

    Attributes:
        state: Its state.
        pid: Its process id, while there is one.
        restarts: How often it was started again.
        in_flight: Calls that it works on.
        usage: Memory, processor time and threads, while it runs.
    """

    state: PluginState
    pid: int | None
    restarts: int
    in_flight: int
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """A snapshot of a plugin.

    Attributes:
        name: Its name in the configuration.
        state: READY when all its processes are.
        driver: Name and version of the driver, once known.
        identity: Identity of the keystore, once known; escaped.
        replicas: Its processes.
        last_error: Why a process failed last, one line.
        warnings: What the driver wants an operator to know.
        isolation: How far its processes are kept from the rest of the machine; never ``auto``.
    """

    name: str
    state: PluginState
    driver: str | None
    identity: str | None
    replicas: tuple[ReplicaStatus, ...]
    last_error: str | None = None
    warnings: tuple[str, ...] = field(default=())
    isolation: Isolation = Isolation.PROCESS
