"""A plugin: the processes of one configured driver, restarted when they die, called when they are ready.

A call either gets an answer, or a typed error with an honest outcome; what may be repeated is repeated
once on another process when the first one died.
"""

import contextlib
import functools
import logging
import os
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from kmsplug_protocol import ErrorCode, Model, Operation, Outcome

from ._connection import Connection
from ._deadline import Deadline
from ._handshake import Opened, open_session
from ._launch import PluginSpec
from ._process import DriverProcess, describe_executable
from ._status import PluginState, PluginStatus, ReplicaStatus
from ._supervisor import Supervisor, run_together
from .errors import (
    Attempt,
    Diagnosis,
    InternalError,
    KmsplugError,
    PluginCrashed,
    PluginUnavailable,
    ProtocolViolation,
)

START_DEADLINE_S: Final = 30.0  # from the start of a process to its answer to plugin.configure
_FIRST_DELAY_S: Final = 0.1  # before the second restart in a row; the first one is immediate
_LONGEST_DELAY_S: Final = 30.0
_PROVEN_AFTER_S: Final = 10.0  # a process that lived this long begins its backoff anew
_MAX_CRASH_REPLAYS: Final = 1

# Trying again cannot help and may harm: an HSM locks after a few wrong PINs.
_FINAL: Final = frozenset(
    {ErrorCode.CONFIGURATION_ERROR, ErrorCode.AUTHENTICATION_FAILED, ErrorCode.KEYSTORE_CORRUPT}
)


@dataclass(slots=True, eq=False)
class Replica:
    """One of a plugin's processes, through all its restarts."""

    index: int
    state: PluginState = PluginState.STARTING
    connection: Connection | None = None
    process: DriverProcess | None = None
    opened: Opened | None = None
    outstanding: int = 0
    restarts: int = 0
    failures: int = 0  # in a row
    ready_since: float = 0.0
    failure: KmsplugError | None = None


class Plugin:
    """The processes behind one ``[plugins.NAME]``.

    Args:
        spec: The plugin and its settings.
        version: Version of the host.
        supervisor: Starts its processes.
    """

    def __init__(self, spec: PluginSpec, version: str, supervisor: Supervisor) -> None:
        self._spec = spec
        self._launch = spec.launch
        self.name = spec.name
        self.settings = spec.settings
        self.redactor = spec.redactor
        self._version = version
        self._supervisor = supervisor
        self._log = logging.getLogger(f"kmsplug.plugin.{spec.name}")
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._replicas = [Replica(index) for index in range(spec.settings.processes)]
        self._handshaking = threading.Lock()
        self._refused: KmsplugError | None = None
        self._identity: str | None = None
        self._last_error: str | None = None

    def start(self) -> None:
        """Begin to start all processes; `wait_ready` tells how it went."""
        for replica in self._replicas:
            self._supervisor.submit(self._starter(replica))

    def wait_ready(self, deadline: Deadline) -> None:
        """Wait until every process is ready.

        Raises:
            KmsplugError: The first start of a process failed, or took too long.
        """
        with self._changed:
            while True:
                for replica in self._replicas:
                    if replica.failure is not None:
                        raise replica.failure
                if all(replica.state is PluginState.READY for replica in self._replicas):
                    return
                if not self._changed.wait(deadline.remaining_s()):
                    raise self._unavailable("the driver did not become ready in time")

    @property
    def opened(self) -> Opened:
        """What the handshake told; the same for all processes, since `wait_ready` has returned.

        Raises:
            PluginUnavailable: The plugin never became ready.
        """
        for replica in self._replicas:
            if replica.opened is not None:
                return replica.opened
        raise PluginUnavailable("the driver has never been ready", plugin=self.name)

    def call(self, operation: Operation, params: Model, deadline: Deadline) -> Model:
        """Make a call on the least busy process.

        Raises:
            KmsplugError: What the driver refused, or what happened instead of an answer.
        """
        self._refuse_forked()
        began = time.monotonic()
        attempts: tuple[Attempt, ...] = ()
        may_be_applied = False
        while True:
            try:
                with self._replica(deadline) as opened:
                    return opened.facade.call(operation, params, deadline)
            except KmsplugError as error:
                error.attempts = attempts
                if may_be_applied and error.outcome is Outcome.NOT_APPLIED:
                    error.outcome = Outcome.UNKNOWN  # this attempt did nothing; the one before is not known
                if not self._may_repeat(error, operation, len(attempts), deadline):
                    raise
                may_be_applied = error.outcome is not Outcome.NOT_APPLIED
                attempts = (*attempts, Attempt(error.code, time.monotonic() - began))

    def status(self) -> PluginStatus:
        """Return a snapshot."""
        self._refuse_forked()
        with self._changed:
            replicas = tuple(
                ReplicaStatus(
                    state=replica.state,
                    pid=replica.process.pid if replica.process else None,
                    restarts=replica.restarts,
                    in_flight=replica.outstanding,
                    usage=replica.process.usage() if replica.process else None,
                )
                for replica in self._replicas
            )
            opened = next((replica.opened for replica in self._replicas if replica.opened), None)
        return PluginStatus(
            name=self.name,
            state=_overall([replica.state for replica in replicas]),
            driver=f"{opened.driver.name} {opened.driver.version}" if opened else None,
            identity=self.redactor.clean(opened.identity) if opened else None,
            replicas=replicas,
            last_error=self._last_error,
            warnings=opened.warnings if opened else (),
        )

    def close(self, deadline: Deadline) -> None:
        """Let calls in flight end, then stop all processes. Bounded."""
        with self._changed:
            self._closing.set()
            for replica in self._replicas:
                if replica.state is not PluginState.STOPPED:
                    replica.state = PluginState.DRAINING
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: not any(replica.outstanding for replica in self._replicas), deadline.remaining_s()
            )
        run_together(
            [functools.partial(self._stop, replica, deadline) for replica in self._replicas],
            f"kmsplug-close-{self.name}",
        )

    def _stop(self, replica: Replica, deadline: Deadline) -> None:
        if replica.connection is not None:
            replica.connection.close(deadline)
        with self._changed:
            replica.state = PluginState.STOPPED
            replica.process = None

    def _refuse_forked(self) -> None:
        # Before any lock: one may be held for ever by a thread that the child does not have. And the child's
        # requests would carry the ids of the parent's, which would then read the answers.
        if os.getpid() != self._pid:
            raise PluginUnavailable(
                "the host was opened in another process", hint="open one in each child after the fork"
            )

    def _may_repeat(
        self, error: KmsplugError, operation: Operation, attempts: int, deadline: Deadline
    ) -> bool:
        """Whether a call whose process died may go to another one."""
        died = isinstance(error, (PluginCrashed, ProtocolViolation)) and error.diagnosis is not None
        safe = operation.repeatable or error.outcome is Outcome.NOT_APPLIED
        return (
            died
            and safe
            and attempts < _MAX_CRASH_REPLAYS
            and not (deadline.passed or self._closing.is_set())
        )

    @contextlib.contextmanager
    def _replica(self, deadline: Deadline) -> Iterator[Opened]:
        """Choose the least busy ready process; wait for one while there is hope."""
        with self._changed:
            while True:
                if self._closing.is_set():
                    raise PluginUnavailable("the host is closed", plugin=self.name)
                replica = self._least_busy()
                if replica is not None:
                    break
                if all(replica.state is PluginState.QUARANTINED for replica in self._replicas):
                    raise self._unavailable("the driver refuses to work and is not started again")
                if not self._changed.wait(deadline.remaining_s()):
                    raise self._unavailable("no driver process became ready before the deadline")
            opened = replica.opened
            assert opened is not None  # noqa: S101 - chosen for it
            replica.outstanding += 1
        try:
            yield opened
        finally:
            with self._changed:
                replica.outstanding -= 1
                if self._closing.is_set():
                    self._changed.notify_all()

    def _least_busy(self) -> Replica | None:
        """Return the ready process with the fewest calls.

        One that has ended is still called ready until its end is reported, but can answer nothing: a call
        that is repeated because it died must not come back to it.
        """
        ready = [
            replica
            for replica in self._replicas
            if replica.state is PluginState.READY
            and replica.opened is not None
            and not replica.opened.facade.connection.ended
        ]
        return min(ready, key=lambda replica: replica.outstanding, default=None)

    def _unavailable(self, message: str) -> PluginUnavailable:
        failure = next((replica.failure for replica in self._replicas if replica.failure), None)
        diagnosis = failure.diagnosis if failure else None
        if failure is None:
            waiting = (replica.process for replica in self._replicas if replica.state is PluginState.STARTING)
            diagnosis = next((process.diagnose() for process in waiting if process), None)
        error = PluginUnavailable(
            message,
            plugin=self.name,
            diagnosis=diagnosis,
            hint=f"the last failure: {failure}" if failure else None,
        )
        error.__cause__ = failure
        return error

    def _starter(self, replica: Replica) -> Callable[[], None]:
        return functools.partial(self._spawn, replica)

    def _spawn(self, replica: Replica) -> None:
        """On the supervisor's thread: start the process, and leave the handshake to a thread of its own."""
        with self._changed:
            if self._closing.is_set():
                return
            replica.state = PluginState.STARTING
        process: DriverProcess | None = None
        connection: Connection | None = None
        try:
            process = DriverProcess(self.name, self._launch, self.redactor)
            connection = Connection(self.name, process, functools.partial(self._ended, replica))
            with self._changed:
                closing = self._closing.is_set()
                if not closing:
                    replica.process, replica.connection = process, connection
            if closing:  # the start took so long that nobody waited for it
                process.kill()
                return
            threading.Thread(
                target=self._bring_up,
                args=(replica, connection),
                name=f"kmsplug-start-{self.name}",
                daemon=True,
            ).start()
        except (OSError, RuntimeError, ValueError) as error:
            # Not only the executable: descriptors, processes and threads may have run out, for now.
            if process is not None:
                process.kill()
                if connection is None:  # nobody reads it
                    process.close_stdout()
            diagnosis = Diagnosis(
                self._launch.command, describe_executable(self._launch.command[0]), "not run"
            )
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            failure = PluginUnavailable(
                f"the driver cannot be run: {reason}", plugin=self.name, diagnosis=diagnosis
            )
            self._failed(replica, failure, "the driver did not start: %s")

    def _bring_up(self, replica: Replica, connection: Connection) -> None:
        try:
            opened = self._open_session(connection, Deadline.after(START_DEADLINE_S))
        except KmsplugError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whatever it is, callers wait for this process and must be told
            # Without its text, which may quote a value of the configuration.
            trace = "".join(traceback.format_tb(error.__traceback__))
            self._log.error("a defect at the start of the driver: %s\n%s", type(error).__name__, trace)
            failure = InternalError("the host failed while it started the driver; its log holds the details")
        else:
            self._ready(replica, connection, opened)
            return
        failure.add(plugin=self.name)
        connection.close(Deadline.after(1.0))
        self._failed(replica, failure, "the driver did not start: %s")

    def _open_session(self, connection: Connection, deadline: Deadline) -> Opened:
        """Do the handshake, for one process at a time: what one was refused, the others do not try.

        Raises:
            KmsplugError: It failed, or another one has failed for good.
        """
        if not self._handshaking.acquire(timeout=deadline.remaining_s()):
            raise PluginUnavailable("another process of this plugin did not become ready in time")
        try:
            if self._refused is not None:
                raise self._refused
            opened = open_session(connection, self._spec, self._version, deadline)
            if self._identity is not None and opened.identity != self._identity:
                raise ProtocolViolation("the driver came back with the identity of another keystore")
            self._identity = opened.identity
        except KmsplugError as error:
            if error.code in _FINAL:
                self._refused = error
            raise
        finally:
            self._handshaking.release()
        return opened

    def _ready(self, replica: Replica, connection: Connection, opened: Opened) -> None:
        for warning in opened.warnings if replica.restarts == 0 else ():
            self._log.warning("driver says: %s", warning)
        with self._changed:
            # From here on `_ended` reports an end; one that came before is reported now.
            failure = connection.failure()
            replica.opened = opened
            if failure is None and not self._closing.is_set():
                replica.failure = None
                replica.ready_since = time.monotonic()
                replica.state = PluginState.READY
            self._changed.notify_all()
        if failure is not None:
            self._failed(replica, failure, "right after its start, %s")

    def _ended(self, replica: Replica, connection: Connection) -> None:
        """On the reading thread, after the process has ended."""
        with self._changed:
            was_ready = replica.connection is connection and replica.state is PluginState.READY
            if was_ready and time.monotonic() - replica.ready_since >= _PROVEN_AFTER_S:
                replica.failures = 0
        failure = connection.failure()
        if was_ready and failure is not None:  # one during the handshake is reported by whoever does that
            self._failed(replica, failure, "%s; it is started again")

    def _failed(self, replica: Replica, failure: KmsplugError, report: str) -> None:
        """Note why a process is not there, plan its next start, and log *report*, which names the failure."""
        final = failure.code in _FINAL
        with self._changed:
            replica.process = None
            replica.failure = failure
            self._last_error = str(failure)
            closing = self._closing.is_set()
            delay = backoff_s(replica.failures)
            if not closing:
                replica.state = PluginState.QUARANTINED if final else PluginState.BACKOFF
                replica.failures += 1
                replica.restarts += not final
            self._changed.notify_all()
        if not closing and not final:
            self._supervisor.submit(self._starter(replica), delay)
        self._log.error(report, failure)  # last: what a handler does must not delay the next start


def backoff_s(failures: int) -> float:
    """Return the seconds to wait before a start, after so many failures in a row: full jitter."""
    if failures == 0:
        return 0.0
    longest = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(failures - 1, 20))
    return random.uniform(longest / 2, longest)  # noqa: S311 - spreads restarts, protects nothing


def _overall(states: list[PluginState]) -> PluginState:
    if len(set(states)) == 1:
        return states[0]
    return PluginState.DEGRADED if PluginState.READY in states else min(states)
