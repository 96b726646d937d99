"""A plugin: one name of the configuration, called on whichever of its processes is ready.

A call either gets an answer, or a typed error with an honest outcome; whether it is repeated is decided
above, in `resilience`. The processes themselves are a `Fleet`'s; a reload puts another one in its place, and
calls never notice.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kmsplug_protocol import Operation

from . import _fork as fork
from ._deadline import Deadline
from ._events import Events
from ._evidence import Evidence
from ._fleet import Fleet
from ._launch import PluginSpec
from ._observe import Observer
from ._redaction import Redactor
from ._replica import Replica
from ._rows import Rows
from ._status import PluginState, PluginStatus, ReplicaRole, overall_state
from ._supervisor import Supervisor
from .errors import PluginUnavailable

if TYPE_CHECKING:
    from kmsplug_protocol import Model

    from ._handshake import Opened


class Plugin:
    """What stands behind one ``[plugins.NAME]``.

    Args:
        spec: The plugin and its settings.
        supervisor: Starts its processes.
        events: Told when the plugin's state changes.

    Attributes:
        observer: Watches the attempts, and the starts of processes.
    """

    def __init__(self, spec: PluginSpec, supervisor: Supervisor, events: Events | None = None) -> None:
        self.name = spec.name
        self.settings = spec.settings
        self.observer = Observer("plugin", spec.name)
        self._supervisor = supervisor
        self._events = events or Events()
        self._forks = fork.count
        self._lock = threading.RLock()  # alone, it takes half the time of the condition
        self._changed = threading.Condition(self._lock)
        self._closed: str | None = None
        self._state = PluginState.STARTING
        self._ill = False
        self._fleet = Fleet(spec, supervisor, self._changed, self._moved, observer=self.observer)
        self._others: list[Fleet] = []  # that come or go by a reload

    def start(self) -> None:
        """Begin to start all processes; `wait_ready` tells how it went."""
        self._fleet.start()

    def wait_ready(self, deadline: Deadline) -> None:
        """Wait until every process is ready.

        Raises:
            KmsplugError: The first start of a process failed, or took too long.
        """
        self._fleet.wait_ready(deadline)

    @property
    def closed(self) -> bool:
        """Whether it takes no calls any more."""
        return self._closed is not None

    @property
    def redactor(self) -> Redactor:
        """Takes secrets out of what its drivers say."""
        return self._fleet.spec.redactor

    @property
    def stopped(self) -> bool:
        """Whether nothing is left of it."""
        with self._changed:
            return all(fleet.stopped for fleet in (self._fleet, *self._others))

    @property
    def opened(self) -> Opened:
        """What the handshake told; the same for all processes, since `wait_ready` has returned.

        Raises:
            PluginUnavailable: The plugin never became ready.
        """
        opened = self._fleet.opened
        if opened is None:
            raise PluginUnavailable(self._closed or "the driver has never been ready", plugin=self.name)
        return opened

    @property
    def fleet(self) -> Fleet:
        """The processes that do the work."""
        return self._fleet

    @property
    def evidence(self) -> Evidence:
        """What is known of the driver's promises."""
        return self._fleet.evidence

    @property
    def rows(self) -> Rows:
        """What is believed of the driver's promises.

        Raises:
            PluginUnavailable: The plugin never became ready.
        """
        rows = self._fleet.rows
        if rows is None:
            raise PluginUnavailable(self._closed or "the driver has never been ready", plugin=self.name)
        return rows

    def offers(self, operation: Operation) -> bool:
        """Tell whether the driver promises an operation, as far as it is believed."""
        rows = self._fleet.rows
        return rows is not None and bool(rows.of(operation.wire))

    def call(
        self, operation: Operation, params: Model, deadline: Deadline, attempt_s: float | None = None
    ) -> Model:
        """Make one attempt of a call on the least busy process.

        Args:
            operation: What to call.
            params: With what.
            deadline: Until when to wait for a process, and for the answer.
            attempt_s: Seconds to wait for the answer, if the deadline is later; default: until then.

        Raises:
            KmsplugError: What the driver refused, or what happened instead of an answer.
        """
        self.refuse_forked()
        return self.observer.watch(operation.wire, self._attempt, operation, params, deadline, attempt_s)

    def _attempt(
        self, operation: Operation, params: Model, deadline: Deadline, attempt_s: float | None
    ) -> Model:
        replica = self._take(deadline)
        try:
            opened = replica.opened
            assert opened is not None  # noqa: S101 - chosen for it
            limit = deadline if attempt_s is None else deadline.within(attempt_s)
            return opened.facade.call(operation, params, limit)
        finally:
            self._give_back(replica)

    def refuse_forked(self) -> None:
        """Raise `PluginUnavailable` in a process other than the one that opened the host."""
        # Before any lock: one may be held for ever by a thread that the child does not have. And the child's
        # requests would carry the ids of the parent's, which would then read the answers.
        if fork.count != self._forks:
            raise PluginUnavailable(
                "the host was opened in another process", hint="open one in each child after the fork"
            )

    def status(self) -> PluginStatus:
        """Return a snapshot."""
        self.refuse_forked()
        with self._changed:
            processes = list(self._processes())
            state, fleet = self._state, self._fleet
            opened, failure, last_error = fleet.opened, fleet.failure(), fleet.last_error()
        return PluginStatus(
            name=self.name,
            state=state,
            driver=f"{opened.driver.name} {opened.driver.version}" if opened else None,
            identity=self.redactor.clean(opened.identity) if opened else None,
            replicas=tuple(replica.status(role) for replica, role in processes),
            last_error=last_error,
            warnings=_warnings(opened),
            diagnosis=failure.diagnosis if failure else None,
            isolation=fleet.spec.launch.isolation,
            calls=self.observer.meter.series(),
            last_failure=self.observer.meter.last_failure,
        )

    def release(self) -> None:
        """Start again what is in quarantine, whatever the reason was."""
        self.refuse_forked()
        self._fleet.release()

    def note_deep_check(self, *, healthy: bool, reason: str) -> None:
        """Take down what a deep health check found; it is a part of the plugin's state."""
        with self._changed:
            self._ill = not healthy
            self._show(reason)

    def prepare(self, spec: PluginSpec) -> Fleet:
        """Start processes under another configuration, beside those that work.

        Raises:
            PluginUnavailable: The host is closed.
        """
        with self._changed:
            if self._closed is not None:
                raise PluginUnavailable(self._closed, plugin=self.name)
            fleet = Fleet(spec, self._supervisor, self._changed, self._moved, observer=self.observer)
            self._others.append(fleet)
        fleet.start()
        return fleet

    def adopt(self, fleet: Fleet) -> None:
        """Let prepared processes do the work from now on; the others end when their calls have."""
        with self._changed:
            self._others = [other for other in self._others if other is not fleet and not other.stopped]
            self._others.append(self._fleet)
            old, self._fleet = self._fleet, fleet
            self.settings = fleet.spec.settings
            self._ill = False
            old.retire("replaced by a reload")
            self._show("reloaded")
            self._changed.notify_all()  # calls that wait for a process of the others

    def drop(self, fleet: Fleet, deadline: Deadline) -> None:
        """Stop prepared processes that are not wanted after all. Bounded."""
        with self._changed:
            fleet.retire("the reload failed")
        fleet.stop(deadline)
        with self._changed:
            self._others.remove(fleet)

    def refusing(self, reason: str) -> Plugin:
        """Return one of the same name that has no processes and refuses every call with *reason*."""
        refusing = Plugin(self._fleet.spec, self._supervisor)
        refusing.dismiss(reason)
        return refusing

    def dismiss(self, reason: str) -> None:
        """Refuse all calls from now on with *reason*; each process ends when its calls have."""
        with self._changed:
            self._closed = self._closed or reason
            for fleet in (self._fleet, *self._others):
                fleet.retire(reason)
            self._changed.notify_all()

    def close(self, deadline: Deadline) -> None:
        """Let calls in flight end, then stop all processes. Bounded."""
        self.dismiss("the host is closed")
        with self._changed:
            fleets = [self._fleet, *self._others]
            self._changed.wait_for(
                lambda: not any(fleet.outstanding for fleet in fleets), deadline.remaining_s()
            )
        for fleet in fleets:
            fleet.stop(deadline)

    def _take(self, deadline: Deadline) -> Replica:
        """Choose the least busy working process; wait for one while there is hope."""
        with self._lock:
            while True:
                if self._closed is not None:
                    raise PluginUnavailable(self._closed, plugin=self.name)
                fleet = self._fleet
                chosen: Replica | None = None
                for replica in fleet.working:
                    if replica.usable and (chosen is None or replica.outstanding < chosen.outstanding):
                        chosen = replica
                if chosen is not None:
                    chosen.outstanding += 1
                    chosen.calls += 1
                    return chosen
                if fleet.lost is not None:
                    release = f"host.release({self.name!r}) or host.reload() starts it again"
                    raise fleet.unavailable(f"{fleet.lost} and is not started again", release)
                if not self._changed.wait(deadline.remaining_s()):
                    raise fleet.unavailable("no driver process became ready before the deadline")

    def _give_back(self, replica: Replica) -> None:
        with self._lock:
            replica.outstanding -= 1
            if replica.retired and not replica.outstanding:
                replica.put_away()
                self._changed.notify_all()

    def _processes(self) -> Iterator[tuple[Replica, ReplicaRole]]:
        yield from self._fleet.roles()
        for fleet in self._others:
            role = ReplicaRole.RETIRED if fleet.retired else ReplicaRole.SUCCESSOR
            for replica, _ in fleet.roles():
                if replica.state is not PluginState.STOPPED:
                    yield replica, role

    def _moved(self, fleet: Fleet, reason: str) -> None:
        """After the state of a process has changed, while the lock is held."""
        self._changed.notify_all()
        if fleet is self._fleet:
            self._show(reason)

    def _show(self, reason: str) -> None:
        """Tell the world where the plugin's state has changed."""
        new = overall_state(self._fleet.states(), self.settings.processes, ill=self._ill)
        if new is not self._state:
            old, self._state = self._state, new
            self._events.publish(self.name, old, new, reason)


def _warnings(opened: Opened | None) -> tuple[str, ...]:
    if opened is None:
        return ()
    return opened.warnings if opened.not_understood is None else (*opened.warnings, opened.not_understood)
