"""One place for a process of a plugin, through all its restarts.

The whole machine::

    start                       handshake done
    -----> STARTING ----------------------------------> READY
             ^   |                                        |
             |   | died, or did not become ready          | died, or was given up
     delay   |   v                                        |
     over    |  BACKOFF <---------------------------------+
             |   |                                        |
    release  |   | refused for good, or crashed too often |  retire: replaced, or the host is closed
             |   v                                        v
          QUARANTINED                                  DRAINING -----> STOPPED
                                                                 calls ended

Any state may be retired. A process that is given up is started again when it has ended, which takes the time
between SIGTERM and SIGKILL at most. Processes are started on the supervisor's thread, the handshake is done
on one of its own, and the end is reported on the reading thread of the connection. Nothing is logged on the
supervisor's thread where that can be avoided: an application's handler may take its time.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ._deadline import Deadline
from ._launch import PluginSpec
from ._login import FINAL, Login
from ._observe import Observer
from ._process import DriverProcess, describe_executable
from ._restart import RestartPolicy
from ._status import PluginState, ReplicaRole, ReplicaStatus
from ._supervisor import Supervisor
from ._watchdog import Watchdog
from .errors import (
    Diagnosis,
    InternalError,
    KmsplugError,
    PluginCrashed,
    PluginUnavailable,
    ProtocolViolation,
)

if TYPE_CHECKING:  # loaded while the first process starts
    from ._connection import Connection
    from ._handshake import Opened

START_DEADLINE_S: Final = 30.0  # from the start of a process to its answer to plugin.configure
_START: Final = "plugin.start"
_STOP_S: Final = 4.0  # for a process without calls to end by itself
_REFILL_DELAY_S: Final = 0.1  # a start takes a processor, which the spare that takes over needs now
_NO_THREAD_DELAY_S: Final = 1.0  # before the next try where the system has no thread for us

_CRASHES: Final = (PluginCrashed, ProtocolViolation)
_SERVED: Final = (PluginState.READY, PluginState.BACKOFF)  # the latter where it was given up


class Shared(Struct, frozen=True):
    """What all processes of a plugin under one configuration share.

    Attributes:
        spec: The plugin and its settings.
        login: Opens their sessions.
        supervisor: Starts them.
        changed: Guards their state; notified when it changes.
        report: Called with the reason after a state has changed, while ``changed`` is held.
        covered: Whether enough processes work without the one that is missing.
        observer: Watches the starts.
    """

    spec: PluginSpec
    login: Login
    supervisor: Supervisor
    changed: threading.Condition
    report: Callable[[str], None]
    covered: Callable[[], bool]
    observer: Observer


class Replica:
    """One place for a process. What is not a method is read and written while `Shared.changed` is held.

    Args:
        shared: What it shares with the plugin's others.
        restarts: How often the place had a new process already.
        instead: What it replaces and why, for the log.
    """

    def __init__(self, shared: Shared, *, restarts: int = 0, instead: str | None = None) -> None:
        settings = shared.spec.settings
        self._shared = shared
        self._instead = instead
        self._log = logging.getLogger(f"kmsplug.plugin.{shared.spec.name}")
        self.policy = RestartPolicy(settings.max_crashes, settings.crash_window_s)
        self.state = PluginState.STARTING
        self.connection: Connection | None = None
        self.process: DriverProcess | None = None
        self.opened: Opened | None = None
        self.outstanding = 0
        self.calls = 0
        self.restarts = restarts
        self.ready_since = 0.0
        self.failure: KmsplugError | None = None
        self.last_failure: tuple[float, KmsplugError] | None = None
        self.quarantined_because: str | None = None
        self.retired = False
        self.successor: Replica | None = None

    @property
    def usable(self) -> bool:
        """Whether it can take a call.

        A process that has ended is still called ready until its end is reported, but can answer nothing: a
        call that is repeated because it died must not come back to it.
        """
        return self.state is PluginState.READY and self.connection is not None and not self.connection.ended

    def start(self, delay_s: float = 0.0) -> None:
        """Start a process, now or after a delay."""
        self._shared.supervisor.submit(self._spawn, delay_s)

    def release(self) -> None:
        """Start again what is in quarantine."""
        with self._shared.changed:
            if self.state is not PluginState.QUARANTINED:
                return
            self.policy.forget()
            self.quarantined_because = None
            self.restarts += 1
            self._go(PluginState.STARTING, "released")
        self.start()

    def retire(self, reason: str) -> None:
        """Take no more calls, and end once those in flight have. While `Shared.changed` is held."""
        if self.retired:
            return
        self.retired = True
        self._go(PluginState.DRAINING, reason)
        if not self.outstanding:
            self.put_away()

    def put_away(self) -> None:
        """Stop the process, on a thread of its own: it may take its time."""
        self._shared.supervisor.submit(self._begin_stop)

    def stop(self, deadline: Deadline) -> None:
        """End the process, whatever it does. Bounded by *deadline* and the time from SIGTERM to SIGKILL."""
        if self.connection is not None:
            self.connection.close(deadline)
        with self._shared.changed:
            self.process = None
            if self.state is not PluginState.STOPPED:
                self._go(PluginState.STOPPED, "stopped")

    def status(self, role: ReplicaRole) -> ReplicaStatus:
        """Return a snapshot. `Shared.changed` need not be held: to ask the system takes too long for that."""
        process, connection = self.process, self.connection
        return ReplicaStatus(
            state=self.state,
            pid=process.pid if process else None,
            restarts=self.restarts,
            in_flight=self.outstanding,
            usage=process.usage() if process else None,
            role=role,
            calls=self.calls,
            late_replies=connection.late_replies if connection else 0,
            overdue=len(connection.overdue) if connection else 0,
        )

    def _go(self, state: PluginState, reason: str) -> None:
        """Change the state. While `Shared.changed` is held."""
        self.state = state
        self._shared.report(reason)

    def _begin_stop(self) -> None:
        self._on_a_thread(functools.partial(self.stop, Deadline.after(_STOP_S)), "stop")

    def _on_a_thread(self, job: Callable[[], None], what: str) -> None:
        name = f"kmsplug-{what}-{self._shared.spec.name}"
        try:
            threading.Thread(target=job, name=name, daemon=True).start()
        except RuntimeError:  # no more threads, for now
            retry = functools.partial(self._on_a_thread, job, what)
            self._shared.supervisor.submit(retry, _NO_THREAD_DELAY_S)

    def _spawn(self) -> None:
        """On the supervisor's thread: start the process, and leave the handshake to a thread of its own."""
        spec = self._shared.spec
        with self._shared.changed:
            if self.retired:
                return
            self._go(PluginState.STARTING, "starting")
        process: DriverProcess | None = None
        connection: Connection | None = None
        try:
            process = DriverProcess(spec.name, spec.launch, spec.redactor)
            from ._connection import Connection  # noqa: PLC0415

            connection = Connection(spec.name, process, self._ended)
            if not self._install(process, connection):
                process.kill()  # the start took so long that nobody waited for it
                return
            threading.Thread(
                target=self._bring_up,
                args=(process, connection),
                name=f"kmsplug-start-{spec.name}",
                daemon=True,
            ).start()
        except (OSError, RuntimeError, ValueError) as error:
            # Not only the executable: descriptors, processes and threads may have run out, for now.
            if process is not None:
                process.kill()
                if connection is None:  # nobody reads it
                    process.close_stdout()
            diagnosis = Diagnosis(spec.launch.command, describe_executable(spec.launch.command[0]), "not run")
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            failure = PluginUnavailable(
                f"the driver cannot be run: {reason}", plugin=spec.name, diagnosis=diagnosis
            )
            self._failed(failure, "the driver did not start: %s")

    def _install(self, process: DriverProcess, connection: Connection) -> bool:
        with self._shared.changed:
            if not self.retired:
                self.process, self.connection = process, connection
            return not self.retired

    def _bring_up(self, process: DriverProcess, connection: Connection) -> None:
        try:
            opened = self._shared.observer.watch(
                _START, self._shared.login.open, connection, Deadline.after(START_DEADLINE_S)
            )
        except KmsplugError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whatever it is, callers wait for this process and must be told
            # Without its text, which may quote a value of the configuration.
            trace = "".join(traceback.format_tb(error.__traceback__))
            self._log.error("a defect at the start of the driver: %s\n%s", type(error).__name__, trace)
            failure = InternalError("the host failed while it started the driver; its log holds the details")
        else:
            self._ready(connection, opened)
            return
        failure.add(plugin=self._shared.spec.name)
        if (
            failure.diagnosis is None and failure.code not in FINAL
        ):  # the process is to blame, not the settings
            failure.diagnosis = process.diagnose()
        connection.close(Deadline.after(1.0))
        self._failed(failure, "the driver did not start: %s", crashed=isinstance(failure, _CRASHES))

    def _ready(self, connection: Connection, opened: Opened) -> None:
        for warning in opened.warnings if self.restarts == 0 else ():
            self._log.warning("driver says: %s", warning)
        if opened.not_understood is not None and self.restarts == 0:
            self._log.warning("%s", opened.not_understood)
        if self._instead is not None:
            self._log.info("replaced %s", self._instead)
            self._instead = None
        give_up = functools.partial(self._give_up, connection)
        shared = self._shared
        watchdog = Watchdog(
            connection, shared.supervisor, shared.spec.settings, opened.max_concurrency, give_up
        )
        connection.on_missed = watchdog.missed
        with shared.changed:
            # From here on `_ended` reports an end; one that came before is reported now.
            failure = connection.failure()
            self.opened = opened
            if failure is None and not self.retired:
                self.failure = None
                self.calls = 0
                self.ready_since = time.monotonic()
                self._go(PluginState.READY, "ready")
        if failure is not None:
            self._failed(failure, "right after its start, %s", crashed=True)

    def _give_up(self, connection: Connection, reason: str) -> None:
        """On the supervisor's thread: end a process that does not answer, and send nothing more to it."""
        with self._shared.changed:
            if self.connection is connection and self.state is PluginState.READY:
                self._go(PluginState.BACKOFF, reason)
        self._on_a_thread(functools.partial(connection.give_up, reason), "stop")

    def _ended(self, connection: Connection) -> None:
        """On the reading thread, after the process has ended."""
        with self._shared.changed:
            # One during the handshake is reported by whoever does that.
            served = self.connection is connection and self.state in _SERVED and not self.retired
            lived_s = time.monotonic() - self.ready_since
        failure = connection.failure()
        if served and failure is not None:
            crashed = connection.given_up is None
            answers = connection.answers
            self._failed(
                failure, "%s; it is started again", crashed=crashed, lived_s=lived_s, answers=answers
            )

    def _failed(
        self,
        failure: KmsplugError,
        report: str,
        *,
        crashed: bool = False,
        lived_s: float = 0.0,
        answers: int = 0,
    ) -> None:
        """Note why a process is not there, plan its next start, and log *report*, which names the failure."""
        final = failure.code in FINAL
        with self._shared.changed:
            self.process = None
            self.failure = failure
            self.last_failure = time.monotonic(), failure
            retired = self.retired
            delay = (
                None if final else self.policy.next_delay_s(crashed=crashed, lived_s=lived_s, answers=answers)
            )
            if not retired and delay is not None:
                self.restarts += 1
                self._go(PluginState.BACKOFF, str(failure))
                delay = max(delay, _REFILL_DELAY_S if self._shared.covered() else 0.0)
            elif not retired:
                why = "refuses to work" if final else f"crashed {self.policy.limit}"
                self.quarantined_because = f"the driver {why}"
                self._go(PluginState.QUARANTINED, f"{self.quarantined_because}: {failure}")
        if not retired and delay is not None:
            self.start(delay)
        self._log.error(report, failure)  # last: what a handler does must not delay the next start
