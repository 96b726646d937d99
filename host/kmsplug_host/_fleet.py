"""The processes of a plugin under one configuration: who works, who waits, who is replaced.

Of the places, the first so many that are ready work, in their order; the others are spares. So nobody has to
promote a spare: the moment a working process is lost, the next ready one is among the first.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from kmsplug_protocol import BY_WIRE

from ._deadline import Deadline
from ._evidence import Evidence
from ._launch import PluginSpec
from ._login import Login
from ._observe import Observer
from ._replica import Replica, Shared
from ._rows import Rows
from ._status import PluginState, ReplicaRole
from ._supervisor import Supervisor, run_together
from .errors import KmsplugError, PluginUnavailable

if TYPE_CHECKING:
    from ._handshake import Opened

_SAMPLE_S: Final = 1.0  # between looks at what is due for recycling
_SETTLED_S: Final = 10.0  # a process that is over its memory limit before this would be so again


class Fleet:
    """The processes that are started from one `PluginSpec`.

    Args:
        spec: The plugin and its settings.
        supervisor: Starts the processes.
        changed: Guards everything here; notified when a state changes.
        report: Called with this fleet and the reason after a state has changed, while *changed* is held.
        observer: Watches the starts of processes.
    """

    def __init__(
        self,
        spec: PluginSpec,
        supervisor: Supervisor,
        changed: threading.Condition,
        report: Callable[[Fleet, str], None],
        *,
        observer: Observer,
    ) -> None:
        self.spec = spec
        self._supervisor = supervisor
        self._changed = changed
        self._report = report
        self._login = Login(spec)
        self._shared = Shared(spec, self._login, supervisor, changed, self._moved, self._is_covered, observer)
        self.replicas = [Replica(self._shared) for _ in range(spec.settings.processes + spec.settings.spares)]
        self.working: tuple[Replica, ...] = ()
        self.evidence = Evidence(spec.name)
        self._replaced: list[Replica] = []
        self._awaits_release = False
        self.retired = False

    def start(self) -> None:
        """Begin to start all processes; `wait_ready` tells how it went."""
        for replica in self.replicas:
            replica.start()
        if self.spec.settings.recycle is not None:
            self._supervisor.submit(self._recycle_one, _SAMPLE_S)

    def wait_ready(self, deadline: Deadline) -> None:
        """Wait until every process is ready, spares too.

        Raises:
            KmsplugError: The first start of a process failed, or took too long.
        """
        with self._changed:
            while True:
                failure = self.failure()
                if failure is not None:
                    raise failure
                if self.retired:
                    raise PluginUnavailable("the host is closed", plugin=self.spec.name)
                if all(replica.state is PluginState.READY for replica in self.replicas):
                    return
                if not self._changed.wait(deadline.remaining_s()):
                    raise self.unavailable("the driver did not become ready in time")

    @property
    def opened(self) -> Opened | None:
        """What a handshake told, if there was one."""
        for replica in self.replicas:  # asked several times a call
            if replica.opened is not None:
                return replica.opened
        return None

    @property
    def rows(self) -> Rows | None:
        """What is believed of the driver's promises; None: there was no handshake."""
        for replica in self.replicas:  # as `opened`, for every call asks
            if replica.opened is not None:
                return self.evidence.rows(replica.opened.capabilities)
        return None

    def ask(self, wire: str, deadline: Deadline, **arguments: Any) -> Any:
        """Make one call on a process that is ready, whether the fleet is in use or not.

        Raises:
            KmsplugError: What the driver refused, or what happened instead of an answer.
        """
        ready = next((replica for replica in self.replicas if replica.usable), None)
        if ready is None or ready.opened is None:
            raise self.unavailable("no driver process is ready")
        operation = BY_WIRE[wire]
        return ready.opened.facade.call(operation, operation.params(**arguments), deadline)

    @property
    def lost(self) -> str | None:
        """Why there is no hope for a process, if there is none."""
        if all(replica.state is PluginState.QUARANTINED for replica in self.replicas):
            return self.replicas[0].quarantined_because
        return None

    def states(self) -> list[PluginState]:
        """Return the states of all places."""
        return [replica.state for replica in self.replicas]

    def failure(self) -> KmsplugError | None:
        """Return why a process is missing, if one is."""
        return next((replica.failure for replica in self.replicas if replica.failure), None)

    def last_error(self) -> str | None:
        """Return why a process failed last."""
        failures = [replica.last_failure for replica in self.replicas if replica.last_failure]
        return str(max(failures, key=lambda failure: failure[0])[1]) if failures else None

    def roles(self) -> Iterator[tuple[Replica, ReplicaRole]]:
        """Yield all processes, those included that come and go, and what they are there for."""
        for replica in self.replicas:
            spare = replica.state is PluginState.READY and replica not in self.working
            yield replica, ReplicaRole.SPARE if spare else ReplicaRole.WORKING
            if replica.successor is not None:
                yield replica.successor, ReplicaRole.SUCCESSOR
        for replica in self._replaced:
            if replica.state is not PluginState.STOPPED:
                yield replica, ReplicaRole.RETIRED

    def unavailable(self, message: str, hint: str | None = None) -> PluginUnavailable:
        """Return the error for a call that got no process, with what is known about the last one."""
        failure = self.failure()
        diagnosis = failure.diagnosis if failure else None
        if failure is None:
            waiting = (replica.process for replica in self.replicas if replica.state is PluginState.STARTING)
            diagnosis = next((process.diagnose() for process in waiting if process), None)
        hints = [f"the last failure: {failure}"] if failure else []
        error = PluginUnavailable(
            message,
            plugin=self.spec.name,
            diagnosis=diagnosis,
            hint="; ".join([*hints, *([hint] if hint else [])]) or None,
        )
        error.__cause__ = failure
        return error

    def release(self) -> None:
        """Start again what is in quarantine; a refused login may be tried once more."""
        self._login.release()
        for replica in self._everybody():
            replica.release()

    def retire(self, reason: str) -> None:
        """Take no more calls; each process ends when its calls have. While *changed* is held."""
        self.retired = True
        for replica in self._everybody():
            replica.retire(reason)

    def stop(self, deadline: Deadline) -> None:
        """Stop all processes. Bounded."""
        run_together(
            [functools.partial(replica.stop, deadline) for replica in self._everybody()],
            f"kmsplug-close-{self.spec.name}",
        )

    @property
    def outstanding(self) -> int:
        """How many calls are in flight."""
        return sum(replica.outstanding for replica in self._everybody())

    @property
    def stopped(self) -> bool:
        """Whether nothing is left."""
        return all(replica.state is PluginState.STOPPED for replica in self._everybody())

    def _everybody(self) -> list[Replica]:
        successors = [replica.successor for replica in self.replicas if replica.successor is not None]
        return [*self.replicas, *successors, *self._replaced]

    def _moved(self, reason: str) -> None:
        """After the state of a process has changed."""
        for index, replica in enumerate(self.replicas):
            successor = replica.successor
            if successor is not None and successor.state is PluginState.READY and not self.retired:
                self.replicas[index], replica.successor = successor, None
                self._replaced = [old for old in self._replaced if old.state is not PluginState.STOPPED]
                self._replaced.append(replica)
                self._choose()
                replica.retire("replaced")  # comes here again, with nothing to replace
        self._choose()
        if not self._awaits_release and self.spec.release_file is not None and self._is_quarantined():
            self._awaits_release = True
            self._supervisor.submit(functools.partial(self._look_for_release, time.time_ns()), _SAMPLE_S)
        self._report(self, reason)

    def _look_for_release(self, since_ns: int) -> None:
        """On the supervisor's thread, while a process is in quarantine: see whether an operator ends that."""
        path = self.spec.release_file
        with self._changed:
            self._awaits_release = self._is_quarantined() and not self.retired
            if not self._awaits_release or path is None:
                return
        now_ns = time.time_ns()
        with contextlib.suppress(OSError):  # it is not there
            if path.stat().st_mtime_ns >= since_ns:
                since_ns = now_ns
                self.release()
        self._supervisor.submit(functools.partial(self._look_for_release, since_ns), _SAMPLE_S)

    def _is_quarantined(self) -> bool:
        return any(replica.state is PluginState.QUARANTINED for replica in self._everybody())

    def _is_covered(self) -> bool:
        return len(self.working) >= self.spec.settings.processes

    def _choose(self) -> None:
        ready = [replica for replica in self.replicas if replica.state is PluginState.READY]
        self.working = tuple(ready[: self.spec.settings.processes])

    def _recycle_one(self) -> None:
        """On the supervisor's thread, now and then: begin to replace a process that is due, one at a time."""
        with self._changed:
            if self.retired:
                return
            self._supervisor.submit(self._recycle_one, _SAMPLE_S)
            busy = any(replica.successor is not None for replica in self.replicas)
            candidates = [] if busy else [r for r in self.replicas if r.state is PluginState.READY]
        for replica in candidates:
            if (reason := self._due(replica)) is not None:
                self._replace(replica, reason)
                break

    def _replace(self, replica: Replica, reason: str) -> None:
        with self._changed:
            if self.retired:
                return
            pid = replica.process.pid if replica.process else None
            instead = f"process {pid}: {reason}"
            successor = Replica(self._shared, restarts=replica.restarts + 1, instead=instead)
            replica.successor = successor
        successor.start()

    def _due(self, replica: Replica) -> str | None:
        """Return why a process is to be replaced, if it is."""
        limits = self.spec.settings.recycle
        process = replica.process
        if limits is None or process is None:
            return None
        age_s = time.monotonic() - replica.ready_since
        if limits.calls is not None and replica.calls >= limits.calls:
            return f"it was given {replica.calls} calls"
        if limits.age_s is not None and age_s >= limits.age_s:
            return f"it has run for {age_s:.0f} s"
        if limits.rss_bytes is not None and age_s >= _SETTLED_S:
            usage = process.usage()
            if usage is not None and usage.rss_bytes > limits.rss_bytes:
                return f"it uses {usage.rss_bytes} bytes"
        return None
