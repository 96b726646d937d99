"""What a shim is: a named way to do in the host what a provider lacks, made of what it has.

One module a shim. Each says what it needs, what it guarantees and what it costs; `resolver` decides when one
stands in, and every result says so (``executed_by``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from kmsplug_protocol import Capability, Key, KeyAlgorithm, KeyUsage, Mechanism, Result

from kmsplug_host._deadline import Deadline
from kmsplug_host._evidence import Evidence
from kmsplug_host._rows import Rows


class Provider(Protocol):
    """What a shim may use: the keystore's operations as the driver does them, and what is known of it."""

    name: str

    @property
    def identity(self) -> str:
        """Stable identity of the keystore."""

    @property
    def rows(self) -> Rows:
        """What the driver promises."""

    @property
    def evidence(self) -> Evidence:
        """What is known of these promises."""

    def describe(self, key_id: str, deadline: Deadline) -> Key:
        """Return what never changes about a key."""

    def ask(self, wire: str, deadline: Deadline, **arguments: Any) -> Any:
        """Make one call with these members of its params, and return its result."""


class Run(Protocol):
    """Does an operation in the driver's place."""

    def __call__(self, provider: Provider, params: Any, deadline: Deadline) -> Result:
        """Return what the driver would have answered."""


def _never(known: Any, params: Any) -> bool:
    del known, params
    return False


@dataclass(frozen=True, slots=True)
class Shim:
    """One shim.

    Attributes:
        name: As in ``shim:NAME@VERSION`` and in ``shims = [...]`` of a keystore.
        operations: What it can do, by wire name.
        algorithms: Of the keys that it can do it with; None: no key is involved.
        usage: What such a key has to be for; None: no key is involved.
        needs: What it is made of, in one sentence.
        guarantees: What holds for its results.
        costs: What it takes, and what it gives up.
        run: Does it.
        lacking: Why it cannot, with these rows and such a key and mechanism; None: it can.
        matters: Whether it could take over a request, whichever key it names; quick, for every call asks.
        takes_over: Whether it does a request although a row promises the operation.
        version: Of its formats.
    """

    name: str
    operations: tuple[str, ...]
    algorithms: frozenset[KeyAlgorithm] | None
    usage: KeyUsage | None
    needs: str
    guarantees: str
    costs: str
    run: Run
    lacking: Callable[[Rows, KeyAlgorithm | None, Mechanism | None], str | None]
    matters: Callable[[Rows, Any], bool] = _never
    takes_over: Callable[[Capability, Any], bool] = _never
    version: int = 1

    @property
    def label(self) -> str:
        """What ``executed_by`` says."""
        return f"shim:{self.name}@{self.version}"
