"""Scenarios: rules that say which calls go wrong and how, and gaps that say what the provider lacks.

Everything is decided by counting and by a seed, never by a clock: the same calls in the same order get the
same answers, today and tomorrow. Nothing here acts; `player` decides, `driver` carries out.
"""

import hashlib
import math
from fnmatch import fnmatchcase
from statistics import NormalDist
from typing import Annotated, Any, Final, Literal, Self

from kmsplug_protocol import (
    KEYSTORE_API,
    AssociatedData,
    ErrorCode,
    KeyAlgorithm,
    KeyState,
    Mechanism,
    Outcome,
    SignedForm,
)
from pydantic import BaseModel, ConfigDict, Field, model_validator

HEALTH: Final = "plugin.health"
INPUTS: Final = {
    "crypto.encrypt": "plaintext",
    "crypto.wrap_key": "key",
    "crypto.generate_data_key": "length_bytes",
    "crypto.random": "length_bytes",
}
"""Where the size of an operation's input can be seen before it is made."""

_NAMES: Final = (*(operation.wire for operation in KEYSTORE_API), HEALTH)
_SIGNING: Final = frozenset({"crypto.sign", "crypto.verify"})
_P99: Final = NormalDist().inv_cdf(0.99)
_MAX_MS: Final = 3_600_000


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Match(_Table):
    """When a rule has its turn: among the calls of its operations, by number, interval and chance."""

    operations: tuple[str, ...] = Field(
        default=("key.*", "crypto.*", "keystore.*"),
        min_length=1,
        description="Names of operations, or patterns of them as `crypto.*`.",
    )
    after: int = Field(default=0, ge=0, description="So many calls pass first.")
    every: int = Field(default=1, ge=1, description="Then each so-manieth call.")
    times: int | None = Field(default=None, ge=1, description="At most so often; absent: without end.")
    probability: float = Field(default=1.0, gt=0, le=1, description="With this chance, by the seed.")

    @model_validator(mode="after")
    def _names_operations(self) -> Self:
        _check_operations(self.operations)
        return self

    @property
    def ends_call(self) -> bool:
        """Whether the request is not carried out any more, and later rules do not see the call."""
        return False

    def concerns(self, operation: str) -> bool:
        """Tell whether a call of this operation counts."""
        return any(fnmatchcase(operation, pattern) for pattern in self.operations)

    def due(self, seen: int, fired: int, chance: float) -> bool:
        """Tell whether it is its turn.

        Args:
            seen: How many calls counted, with this one.
            fired: How often it had its turn.
            chance: A number from 0 to 1, drawn for this call.
        """
        return (
            seen > self.after
            and (seen - self.after - 1) % self.every == 0
            and (self.times is None or fired < self.times)
            and chance < self.probability
        )


class _BeforeOrAfter(Match):
    """A rule that comes before the request is carried out, in its place, or after it."""

    when: Literal["before", "after"]

    @property
    def ends_call(self) -> bool:
        """Whether it comes in place of the request."""
        return self.when == "before"


class Throttle(Match):
    """The provider says that it was called too often."""

    effect: Literal["throttle"]
    retry_after_ms: int | None = Field(
        default=None, ge=0, le=_MAX_MS, description="Its hint when to come again; absent: none."
    )

    @property
    def ends_call(self) -> bool:
        """Always: a throttled request is not looked at."""
        return True


class Fail(_BeforeOrAfter):
    """The provider fails with a code."""

    effect: Literal["fail"]
    code: ErrorCode = Field(description="Any code of the protocol.")
    when: Literal["before", "after"] = Field(
        default="before", description="`after`: what was asked for was done all the same."
    )
    message: str = Field(default="the scenario said so", max_length=1024, description="The error's message.")
    outcome: Outcome | None = Field(default=None, description="What the driver claims about the effect.")
    retry_after_ms: int | None = Field(default=None, ge=0, le=_MAX_MS, description="The provider's hint.")
    vendor_code: str | None = Field(default=None, max_length=256, description="The provider's own code.")
    http_status: int | None = Field(default=None, ge=100, le=599, description="The provider's HTTP status.")


class Delay(Match):
    """The answer comes late. Exactly one distribution."""

    effect: Literal["delay"]
    ms: float | None = Field(default=None, gt=0, le=_MAX_MS, description="Always so long.")
    uniform_ms: tuple[float, float] | None = Field(default=None, description="From, to; all alike.")
    exponential_ms: float | None = Field(default=None, gt=0, le=_MAX_MS, description="The mean.")
    lognormal_ms: tuple[float, float] | None = Field(
        default=None, description="The median and the 99th percentile, as latencies of services are."
    )

    @model_validator(mode="after")
    def _one_distribution(self) -> Self:
        given = (self.ms, self.uniform_ms, self.exponential_ms, self.lognormal_ms)
        if sum(each is not None for each in given) != 1:
            raise ValueError("give one of ms, uniform_ms, exponential_ms, lognormal_ms")
        for pair in (self.uniform_ms, self.lognormal_ms):
            if pair is not None and not 0 < pair[0] <= pair[1] <= _MAX_MS:
                raise ValueError(f"expected two numbers from 0 to {_MAX_MS}, the smaller one first")
        return self

    def seconds(self, chance: float) -> float:
        """Return how long it takes, for a number from 0 to 1 that was drawn."""
        ms = self.ms or 0.0
        if self.uniform_ms is not None:
            ms = self.uniform_ms[0] + chance * (self.uniform_ms[1] - self.uniform_ms[0])
        elif self.exponential_ms is not None:
            ms = -self.exponential_ms * math.log1p(-chance)
        elif self.lognormal_ms is not None:
            median, p99 = self.lognormal_ms
            sigma = math.log(p99 / median) / _P99
            ms = median * math.exp(sigma * NormalDist().inv_cdf(min(max(chance, 1e-9), 1 - 1e-9)))
        return min(ms, _MAX_MS) / 1000


class LoseReply(_BeforeOrAfter):
    """The answer never comes."""

    effect: Literal["lose_reply"]
    when: Literal["before", "after"] = Field(
        default="after", description="`after` the request was carried out, or `before`."
    )


class AnswerTwice(Match):
    """The answer comes twice."""

    effect: Literal["answer_twice"]


class Crash(_BeforeOrAfter):
    """The driver process is killed."""

    effect: Literal["crash"]
    when: Literal["before", "after"] = Field(
        default="before", description="`before` the request was carried out, or `after`."
    )


class Lag(Match):
    """What the call changes is not seen yet: readers get the key as it was, or KEY_NOT_FOUND."""

    effect: Literal["lag"]
    calls: int = Field(ge=1, description="So many further calls of any kind do not see it.")


class SetState(Match):
    """Somebody else changes the state of the key that the call names, just before it."""

    effect: Literal["set_state"]
    state: Literal[KeyState.ACTIVE, KeyState.SUSPENDED, KeyState.DEACTIVATED, KeyState.COMPROMISED] = Field(
        default=KeyState.SUSPENDED, description="As `key.set_state` takes it; SUSPENDED is disabled."
    )


Rule = Annotated[
    Throttle | Fail | Delay | LoseReply | AnswerTwice | Crash | Lag | SetState, Field(discriminator="effect")
]


class Gap(_Table):
    """Something that the provider lacks. Where it says nothing of what is left: the whole capability."""

    operations: tuple[str, ...] = Field(min_length=1, description="As in a rule.")
    key_algorithm: KeyAlgorithm | None = Field(default=None, description="On these keys; absent: on all.")
    mechanism: Mechanism | None = Field(default=None, description="By this mechanism; absent: by all.")
    associated_data: Literal[AssociatedData.NONE] | None = Field(
        default=None, description="`none`: it works, but authenticates no associated data."
    )
    max_input_bytes: int | None = Field(default=None, ge=1, description="It works, up to so many bytes.")
    signs: SignedForm | None = Field(default=None, description="It works, with this form only.")

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        names = _check_operations(self.operations)
        if self.max_input_bytes is not None and not set(names) <= INPUTS.keys():
            raise ValueError(f"max_input_bytes limits {', '.join(INPUTS)}")
        if self.signs is not None and not set(names) <= _SIGNING:
            raise ValueError(f"signs narrows {', '.join(sorted(_SIGNING))}")
        return self

    @property
    def total(self) -> bool:
        """Whether nothing is left of the capability."""
        return self.associated_data is None and self.max_input_bytes is None and self.signs is None

    def concerns(self, operation: str, algorithm: KeyAlgorithm | None, mechanism: Mechanism | None) -> bool:
        """Tell whether a capability is one of those that it takes away or narrows."""
        return (
            any(fnmatchcase(operation, pattern) for pattern in self.operations)
            and self.key_algorithm in (None, algorithm)
            and self.mechanism in (None, mechanism)
        )


class Scenario(_Table):
    """What goes wrong. Rules apply in their order, each to whatever those before it left of the call."""

    seed: int = Field(default=0, description="Another seed is another course of chances.")
    rule: tuple[Rule, ...] = Field(default=(), description="What goes wrong.")
    gap: tuple[Gap, ...] = Field(
        default=(), description="What the provider lacks. Taken when the driver starts, not later."
    )

    def digest(self) -> str:
        """Return a short name of it: equal scenarios have the same."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=8).hexdigest()

    def draw(self, *place: Any) -> float:
        """Return a number from 0 to 1 that depends on nothing but the seed and *place*."""
        text = "/".join(str(part) for part in (self.seed, *place))
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) / 2**53  # as many bits as a float holds: never quite 1


def _check_operations(patterns: tuple[str, ...]) -> list[str]:
    found = [name for name in _NAMES if any(fnmatchcase(name, pattern) for pattern in patterns)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in _NAMES):
            raise ValueError(f"operations: there is no operation {pattern!r}")
    return found
