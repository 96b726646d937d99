"""A provider in virtual time, behind the interface by which a keystore calls its plugin."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kmsplug_host._deadline import Deadline
from kmsplug_host.config import BreakerSettings, KeystoreSettings, PluginSettings, RetrySettings
from kmsplug_host.errors import KmsplugError, Timeout
from kmsplug_host.resilience import Resilience
from kmsplug_protocol import BY_WIRE, Meta, Model, Operation, PingResult
from support.virtual_time import VirtualTime

Answer = Model | KmsplugError | float
"""What comes of an attempt: a result, a failure, or silence for so many seconds before a result."""


@dataclass
class Provider:
    """Answers from a list, then as usual.

    Attributes:
        time: Its clock.
        answers: What comes of the next attempts.
        usual: What comes of those after them.
        asked: Each attempt: moment, operation, params, and the seconds it was given.
    """

    time: VirtualTime
    answers: list[Answer] = field(default_factory=list)
    usual: Callable[[], Answer] = PingResult
    asked: list[tuple[float, str, Model, float]] = field(default_factory=list)
    reconciles: bool = False
    closed: bool = False
    settings: PluginSettings = field(default_factory=lambda: PluginSettings(driver="virtual", deadline_s=9))

    @property
    def wires(self) -> list[str]:
        """The operations that were attempted."""
        return [wire for _, wire, _, _ in self.asked]

    def refuse_forked(self) -> None:
        """Nobody forks here."""

    def offers(self, operation: Operation) -> bool:
        """Tell whether it can be asked what became of a change."""
        return self.reconciles and operation.wire == "key.reconcile"

    def call(
        self, operation: Operation, params: Model, deadline: Deadline, attempt_s: float | None = None
    ) -> Model:
        """Make an attempt; without an answer in time it ends as one over a wire does."""
        left_s = deadline.at - self.time.now()
        allowed_s = left_s if attempt_s is None else min(left_s, attempt_s)
        self.asked.append((self.time.now(), operation.wire, params, allowed_s))
        answer = self.answers.pop(0) if self.answers else self.usual()
        if isinstance(answer, float):
            self.time.sleep(min(answer, allowed_s))
            if answer > allowed_s:
                raise Timeout("no answer before the deadline")
            return PingResult()
        if isinstance(answer, KmsplugError):
            raise answer
        return answer


class Bench:
    """A keystore's resilience, its provider and their time."""

    def __init__(
        self,
        *answers: Answer,
        reconciles: bool = False,
        retry: dict[str, Any] | None = None,
        breaker: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.time = VirtualTime()
        self.provider = Provider(self.time, list(answers), reconciles=reconciles)
        self.resilience = Resilience(
            "main",
            KeystoreSettings(
                plugin="p",
                retry=RetrySettings(**retry or {}),
                breaker=BreakerSettings(**breaker or {}),
                **settings,
            ),
            self.provider,
            self.time,
        )

    def call(self, wire: str = "crypto.encrypt", *, timeout: float = 9.0, **params: Any) -> Model:
        """Make a call on this thread."""
        operation = BY_WIRE[wire]
        body = operation.params.model_construct(meta=Meta(idempotency_key="i1"), **params)
        return self.resilience.call(operation, body, Deadline(self.time.now() + timeout))

    def run(self, *, callers: int = 1, **arguments: Any) -> list[Any]:
        """Make the same call from several callers at once, and return results and errors."""
        ended = self.time.run(*[lambda: self.call(**arguments)] * callers)
        return [future.exception() or future.result() for future in ended]

    def one(self, wire: str = "crypto.encrypt", **arguments: Any) -> Any:
        """Make one call, and return its result or its error."""
        return self.run(wire=wire, **arguments)[0]
