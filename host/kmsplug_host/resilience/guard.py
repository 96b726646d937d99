"""`Guard`: what stands around every attempt of a keystore's calls, and counts them."""

import threading
from collections import Counter
from typing import Final, Protocol

from kmsplug_protocol import ErrorCode, Model, Operation

from kmsplug_host._deadline import Deadline
from kmsplug_host._observe import Observer, is_wanted
from kmsplug_host.config import KeystoreSettings, PluginSettings
from kmsplug_host.errors import KmsplugError, PluginError

from .breaker import Breaker, Sign
from .budget import Budget
from .bulkhead import Bulkhead
from .clock import Clock, MonotonicClock, Pauses
from .stats import KeystoreStats

ATTEMPTS_IN_A_DEADLINE: Final = 3  # so that a lost answer is noticed while something can be done about it

_NEARLY: Final = 0.9  # time passes between the caller's clock and ours

# Not the caller's fault, not a busy provider's either.
_ILL: Final = frozenset({ErrorCode.PROVIDER_UNAVAILABLE, ErrorCode.PROVIDER_INTERNAL})
# That, too, if the provider says so, or if the caller was as patient as the operator thinks is right.
_LATE: Final = frozenset({ErrorCode.TIMEOUT, ErrorCode.PLUGIN_UNAVAILABLE})


class Target(Protocol):
    """What is called: a `Plugin`."""

    settings: PluginSettings

    @property
    def closed(self) -> bool:
        """Whether it takes no calls any more."""

    def refuse_forked(self) -> None:
        """Raise in a process that is not its own."""

    def offers(self, operation: Operation) -> bool:
        """Tell whether the driver offers an operation."""

    def call(
        self, operation: Operation, params: Model, deadline: Deadline, attempt_s: float | None = None
    ) -> Model:
        """Make one attempt, of so many seconds from when a process is found for it."""


class Guard:
    """Makes attempts on one keystore's plugin, where breaker and settings let it.

    Args:
        name: The keystore.
        settings: Its table.
        target: The plugin behind it.
        clock: Tells the time.

    Attributes:
        observer: Watches the calls, whatever number of attempts each took.
    """

    def __init__(
        self, name: str, settings: KeystoreSettings, target: Target, clock: Clock | None = None
    ) -> None:
        self._name = name
        self.clock = clock or MonotonicClock()
        self.settings = settings
        self.target = target
        self.observer = Observer("keystore", name, self.clock.now)
        self.pauses = Pauses(self.clock)
        self.bulkhead = Bulkhead(self.clock, settings.max_in_flight, settings.max_queued)
        self.breaker = Breaker(self.clock, settings.breaker.failures, settings.breaker.cool_down_s)
        self.budget = Budget(settings.retry.budget, settings.retry.budget_per_call)
        self._counting = threading.Lock()
        self._failures: Counter[ErrorCode] = Counter()
        self._retries = 0
        self._reconciled = 0

    def rebind(self, settings: KeystoreSettings, target: Target) -> None:
        """Go on under other settings, maybe with another plugin."""
        self.settings, self.target = settings, target
        self.bulkhead.configure(settings.max_in_flight, settings.max_queued)
        self.breaker.configure(settings.breaker.failures, settings.breaker.cool_down_s)
        self.budget.configure(settings.retry.budget, settings.retry.budget_per_call)

    def close(self) -> None:
        """Let calls that pause learn at once that the target takes none any more."""
        self.pauses.end()

    def attempt(
        self, operation: Operation, params: Model, deadline: Deadline, attempt_s: float | None
    ) -> Model:
        """Make one attempt, if the breaker lets it through.

        Raises:
            CircuitOpen: It does not.
            KmsplugError: The attempt failed.
        """
        try:
            probe = self.breaker.admit()
        except KmsplugError as error:
            self.count(error)
            raise
        began = self.clock.now()
        try:
            answer = self.target.call(operation, params, deadline, attempt_s)
        except KmsplugError as error:
            self.breaker.report(self._sign(error, self.clock.now() - began), probe=probe, error=error)
            self.count(error)
            raise
        except BaseException:
            self.breaker.report(Sign.NONE, probe=probe)
            raise
        self.breaker.report(Sign.WELL, probe=probe)
        return answer

    def note_retry(self) -> None:
        """Count an attempt beyond the first of a call."""
        with self._counting:
            self._retries += 1

    def note_reconciled(self) -> None:
        """Count a change that was carried out, though its answer was lost."""
        with self._counting:
            self._reconciled += 1

    def stats(self) -> KeystoreStats:
        """Return a snapshot."""
        with self._counting:
            failures, retries, reconciled = dict(self._failures), self._retries, self._reconciled
        return KeystoreStats(
            keystore=self._name,
            calls=self.bulkhead.calls,
            retries=retries,
            reconciled=reconciled,
            failures=failures,
            budget=self.budget.left(self.bulkhead.calls),
            breaker=self.breaker.state,
            in_flight=self.bulkhead.in_flight,
            queued=self.bulkhead.queued,
            series=self.observer.meter.series(),
        )

    def count(self, error: KmsplugError) -> None:
        """Count a failure, if it is one."""
        if is_wanted(error):
            return
        with self._counting:
            self._failures[error.code] += 1

    def _sign(self, error: KmsplugError, waited_s: float) -> Sign:
        if error.code in _ILL:
            return Sign.ILL
        if error.code in _LATE:
            usual_s = self.target.settings.deadline_s / ATTEMPTS_IN_A_DEADLINE
            patience_s = (self.settings.attempt_timeout_s or usual_s) * _NEARLY
            return Sign.ILL if waited_s >= patience_s or error.vendor is not None else Sign.NONE
        return Sign.NONE if isinstance(error, PluginError) else Sign.WELL
