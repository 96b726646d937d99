"""The bundled mock driver: a keystore that can do everything, until a scenario says otherwise.

For tests: of applications, of the host's resilience, and of its shims. Its operations are those of every
software keystore (`kmsplug_plugins._software`) over a store in memory, so that without a scenario it passes
the same conformance as a driver in use; each is wrapped, so that a scenario can do to any call what
providers, networks and vendor libraries do. It protects nothing: never give it a key that matters.
"""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar, Final, TypeVar, cast

from kmsplug_protocol import ConfigureResult, ErrorCode, HealthCheck, HealthDepth, Operation, Outcome, Vendor
from kmsplug_sdk import Driver, DriverError, current_call
from kmsplug_sdk.driver import CapabilityRow, capabilities, operations, provides_each

from kmsplug_plugins._software.keystore import SoftwareKeystore
from kmsplug_plugins._software.lifecycle import KEY_NAMESPACE, moment
from kmsplug_plugins._software.states import moved, scheduled

from ._gaps import Gaps
from ._journal import Journal
from ._management import Keystores, ManagementOperations
from ._player import Play, Player
from ._store import MemoryStore, NoLeases
from .config import MockConfig, ScenarioSource
from .scenario import (
    HEALTH,
    AnswerTwice,
    Crash,
    Delay,
    Fail,
    Lag,
    LoseReply,
    SetState,
    Throttle,
)

_SERVICE: Final = "mock"
_PURGE: Final = "key.purge"
_SCHEDULE: Final = "key.schedule_deletion"
_ENDS: Final = (
    "the scenario crashes the driver, and without a state_file the keystore ends with it: "
    "a host takes no other in its place"
)

_Mock = TypeVar("_Mock", bound=type[Driver[Any]])


def _played(driver: _Mock) -> _Mock:
    """Wrap each operation of a driver, so that the scenario has its say in every call."""
    rows = capabilities(driver)
    for operation, _ in list(operations(driver)):
        # None is inline: any of them may be made to wait.
        declare = provides_each(
            cast(CapabilityRow, row.model_dump(exclude={"operation"}, exclude_unset=True))
            for row in rows
            if row.operation == operation.wire
        )
        setattr(driver, operation.api, declare(_wrapped(operation, getattr(driver, operation.api))))
    return driver


def _wrapped(operation: Operation, method: Callable[..., Any]) -> Callable[..., Any]:
    def play(self: "MockDriver", request: Any) -> Any:
        return self._perform(operation.wire, request, method)

    return play


@_played
class MockDriver(ManagementOperations, SoftwareKeystore, Driver[MockConfig]):
    """A keystore for tests."""

    name: ClassVar[str] = "mock"
    version: ClassVar[str] = "0.1.0"
    Config = MockConfig
    max_concurrency: ClassVar[int] = 32  # a call that waits holds up no other

    _store: MemoryStore

    def __init__(self) -> None:
        self._closing = ExitStack()

    def configure(self, config: MockConfig, *, dry_run: bool) -> ConfigureResult:
        """Take in the scenario and what the state file holds."""
        source = ScenarioSource(config)
        scenario = source.current()
        self._gaps = Gaps(capabilities(type(self)), scenario.gap)
        identity = "mock:new"
        if not dry_run:
            journal = Journal(config.state_file)
            self._store, self._leases = MemoryStore(journal), NoLeases()
            self._keystores = Keystores(journal)
            self._player = Player(source.current, journal)
            self._closing.callback(journal.close)
            journal.open()
            self._store.begin()
            identity = self._store.identity
        ends = config.state_file is None and any(isinstance(rule, Crash) for rule in scenario.rule)
        return ConfigureResult(
            identity=identity,
            key_namespace=(KEY_NAMESPACE,),
            capabilities=self._gaps.left if scenario.gap else None,
            warnings=(_ENDS,) if ends else (),
        )

    def health(self, depth: HealthDepth) -> Sequence[HealthCheck]:
        """Report the calls so far. A rule that names `plugin.health` makes it fail, at any depth."""
        del depth  # there is no provider to spare
        play = self._player.play(HEALTH)
        self._before(play, None)
        calls = ", ".join(f"{name} {count}" for name, count in sorted(self._player.calls.items()))
        return [HealthCheck(name="calls", healthy=True, detail=calls[:1000])]

    def close(self) -> None:
        """Close the state file."""
        self._closing.close()

    def _perform(self, operation: str, request: Any, method: Callable[..., Any]) -> Any:
        """Carry out a request as the scenario wants it."""
        play = self._player.play(operation)
        self._before(play, getattr(request, "key_id", None))
        request = self._gaps.fit(operation, request, self._algorithm(request))
        lag = max((step.rule.calls for step in play.steps if isinstance(step.rule, Lag)), default=0)
        if operation == _PURGE and not self._gaps.leave(_SCHEDULE):
            self._store.update(request.key_id, lambda key: scheduled(key, moment()))
        with self._store.lagging(lag):
            result = method(self, request)
        self._after(play)
        return result.model_copy(update={"vendor": Vendor(service=_SERVICE, request_id=_request_id(play))})

    def _before(self, play: Play, key_id: str | None) -> None:
        """Do what happens before a request is carried out, or in its place."""
        for rule, chance in play.steps:
            match rule:
                case Delay():
                    _wait(rule.seconds(chance))
                case SetState() if key_id is not None:
                    self._store.update(key_id, lambda key, to=rule.state: moved(key, to, None))  # type: ignore[misc]
                case Throttle():
                    raise _throttled(rule, play)
                case Fail(when="before"):
                    raise _failure(rule, play)
                case Crash(when="before"):
                    _crash()
                case LoseReply(when="before"):
                    current_call().answers = 0
                    raise DriverError(ErrorCode.TIMEOUT, "nobody reads this", outcome=Outcome.NOT_APPLIED)

    def _after(self, play: Play) -> None:
        """Do what happens once a request was carried out."""
        for rule, _ in play.steps:
            match rule:
                case Fail(when="after"):
                    raise _failure(rule, play)
                case Crash(when="after"):
                    _crash()
                case LoseReply(when="after"):
                    current_call().answers = 0
                case AnswerTwice():
                    current_call().answers = 2

    def _algorithm(self, request: Any) -> Any:
        """Return the algorithm of the key that a request wishes for, or else of the one that it names."""
        wished = getattr(request, "algorithm", None)
        if wished is not None or getattr(request, "key_id", None) is None:
            return wished
        try:
            return self._store.key(request.key_id).algorithm
        except DriverError:
            return None  # the operation itself says what is wrong


def _throttled(rule: Throttle, play: Play) -> DriverError:
    return DriverError(
        ErrorCode.RATE_LIMIT_EXCEEDED,
        "too many calls",
        outcome=Outcome.NOT_APPLIED,
        retry_after_ms=rule.retry_after_ms,
        vendor=Vendor(service=_SERVICE, code="Throttling", http_status=429, request_id=_request_id(play)),
    )


def _failure(rule: Fail, play: Play) -> DriverError:
    return DriverError(
        rule.code,
        rule.message,
        outcome=rule.outcome,
        retry_after_ms=rule.retry_after_ms,
        vendor=Vendor(
            service=_SERVICE,
            code=rule.vendor_code,
            http_status=rule.http_status,
            request_id=_request_id(play),
        ),
    )


def _request_id(play: Play) -> str:
    return f"mock-{play.number:06}"


def _wait(seconds: float) -> None:
    """Wait, unless the caller leaves meanwhile."""
    if current_call().cancelled.wait(seconds):
        raise DriverError(ErrorCode.CANCELLED, "cancelled while it waited", outcome=Outcome.NOT_APPLIED)


def _crash() -> None:
    """End this process as a fault in a vendor's library would: at once, and with nothing said."""
    os.kill(os.getpid(), signal.SIGKILL)
