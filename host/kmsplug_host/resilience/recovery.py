"""After a failure: whether a call is repeated, when, and whether it was carried out after all.

A change whose outcome is unknown is never repeated blindly: the driver is asked first, and where it cannot
tell, the outcome stays unknown.
"""

import random
from typing import Final

from kmsplug_protocol import (
    BY_WIRE,
    EmptyResult,
    ErrorCode,
    Model,
    Operation,
    Outcome,
    Params,
    ReconcileParams,
    ReconcileResult,
    RetryClass,
)

from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import Attempt, KmsplugError

from .breaker import BreakerState
from .guard import Guard

RECONCILE: Final = BY_WIRE["key.reconcile"]

# They come after everything that could be waited for was waited for, or say that nothing will be.
_FINAL: Final = frozenset({ErrorCode.CIRCUIT_OPEN, ErrorCode.PLUGIN_UNAVAILABLE})


class Recovery:
    """One call that has failed once.

    Args:
        guard: Makes the attempts.
        operation: What was called.
        params: With what.
        deadline: When the caller stops waiting; above all else.
        began: When the call began.
        attempt_s: How long its first attempt was allowed to take.
    """

    def __init__(
        self,
        guard: Guard,
        operation: Operation,
        params: Model,
        deadline: Deadline,
        *,
        began: float,
        attempt_s: float | None,
    ) -> None:
        self._guard = guard
        self._operation = operation
        self._params = params
        self._deadline = deadline
        self._began = began
        self._attempt_s = attempt_s
        self._attempts: tuple[Attempt, ...] = ()
        self._reconnects = 0
        self._unsettled = False  # an attempt may have changed something, and nobody knows

    def recover(self, error: KmsplugError) -> Model:
        """Repeat the call until it succeeds, or until that makes no sense any more.

        Raises:
            KmsplugError: The last failure that tells something.
        """
        self._take_down(error)
        while (delay_s := self._delay_s(error)) is not None:
            self._note_attempt(error, delay_s)
            self._guard.pauses.wait(delay_s)
            self._guard.note_retry()
            if self._must_ask:
                answer = self._reconciled(error)
                if answer is not None:
                    return answer
                if self._must_ask:  # still unknown: ask again, maybe
                    continue
            try:
                return self._guard.attempt(self._operation, self._params, self._deadline, self._attempt_s)
            except KmsplugError as failure:
                error = self._telling(failure, error)
                self._take_down(error)
        error.attempts = self._attempts
        raise error

    @property
    def _must_ask(self) -> bool:
        return self._unsettled and not self._operation.repeatable

    def _take_down(self, error: KmsplugError) -> None:
        """Make the outcome honest, whichever error is raised in the end."""
        if self._operation.changes and error.outcome is not Outcome.NOT_APPLIED:
            self._unsettled = True
        elif self._unsettled:  # this attempt did nothing; of the one before it is not known
            error.outcome = Outcome.UNKNOWN
        if error.code is ErrorCode.TIMEOUT and self._attempt_s is not None:
            self._attempt_s *= 2  # a provider that is slow, but works, gets its chance

    def _note_attempt(self, error: KmsplugError, slept_s: float) -> None:
        self._attempts += (Attempt(error.code, self._guard.clock.now() - self._began, slept_s),)

    def _delay_s(self, error: KmsplugError) -> float | None:
        """Return the seconds to wait before the next attempt. None: there is none."""
        guard, retry = self._guard, self._guard.settings.retry
        if len(self._attempts) + 1 >= retry.max_attempts or not self._permits(error):
            return None
        if guard.breaker.state is not BreakerState.CLOSED or guard.target.closed:
            return None
        hint_s = error.details.get("retry_after_ms", 0) / 1000
        longest = min(retry.max_delay_s, retry.first_delay_s * 2.0 ** len(self._attempts))
        if hint_s:  # the provider says when; what is left to do is not to come all at once
            longest = min(longest, max(retry.first_delay_s, hint_s))
        delay_s = random.uniform(0.0, longest)  # noqa: S311 - full jitter: spreads retries, protects nothing
        if error.retry is RetryClass.RECONNECT and self._reconnects == 1:
            delay_s = 0.0  # there may be another process, or a spare
        delay_s += hint_s
        if guard.clock.now() + delay_s >= self._deadline.at:
            return None
        return delay_s if guard.budget.take(guard.bulkhead.calls) else None

    def _permits(self, error: KmsplugError) -> bool:
        """Whether the code, the operation and the outcome allow another attempt."""
        if error.retry is RetryClass.NEVER or error.code in _FINAL:
            return False
        if error.retry is RetryClass.REAUTH:
            renewed = error.details.get("credential_renewed", False)
            return renewed and all(attempt.code is not error.code for attempt in self._attempts)
        if error.retry is RetryClass.RECONNECT:
            if error.diagnosis is None:  # a process that goes on says the same again
                return False
            self._reconnects += 1
            if self._reconnects > self._guard.settings.retry.max_reconnects:
                return False
        return not self._must_ask or self._guard.target.offers(RECONCILE)

    def _reconciled(self, error: KmsplugError) -> Model | None:
        """Ask what became of the change.

        Returns:
            Its result, if it was carried out. None: it was not, or that is still unknown.

        Raises:
            KmsplugError: *error*, because nobody can tell.
        """
        assert isinstance(self._params, Params)  # noqa: S101 - as those of every operation on keys
        question = ReconcileParams(
            method=self._operation.wire,
            idempotency_key=self._params.change_key or "",
            key_id=getattr(self._params, "key_id", None),
        )
        try:
            found = self._guard.attempt(RECONCILE, question, self._deadline, self._attempt_s)
        except KmsplugError as failure:
            if failure.retry is RetryClass.NEVER or failure.code in _FINAL:
                error.attempts = self._attempts
                raise error from failure
            return None
        assert isinstance(found, ReconcileResult)  # noqa: S101 - the facade validated it
        if found.outcome is Outcome.NOT_APPLIED:
            self._unsettled = False
        elif found.outcome is Outcome.APPLIED and self._operation.result is EmptyResult:
            self._guard.note_reconciled()
            return EmptyResult()
        elif found.outcome is Outcome.APPLIED:
            if found.key is None or not isinstance(found.key, self._operation.result):
                error.outcome, error.attempts = Outcome.APPLIED, self._attempts
                raise error
            self._guard.note_reconciled()
            return found.key
        return None

    def _telling(self, failure: KmsplugError, before: KmsplugError) -> KmsplugError:
        """Return which of two failures to go on with: the last one, unless it only says that time is up."""
        late = failure.code is ErrorCode.TIMEOUT and self._guard.clock.now() >= self._deadline.at
        if late and before.code is not ErrorCode.TIMEOUT:
            self._note_attempt(failure, 0.0)
            if failure.outcome is not Outcome.NOT_APPLIED:
                before.outcome = failure.outcome
            return before
        if failure.__cause__ is None:
            failure.__cause__ = before
        return failure
