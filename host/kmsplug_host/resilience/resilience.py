"""`Resilience`: all of it put together, for one keystore, around the calls of its plugin."""

from kmsplug_protocol import Model, Nature, Operation

from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import KmsplugError

from .guard import ATTEMPTS_IN_A_DEADLINE, Guard
from .recovery import RECONCILE, Recovery


class Resilience(Guard):
    """Calls one keystore's plugin, and deals with its failures."""

    def call(self, operation: Operation, params: Model, deadline: Deadline) -> Model:
        """Make a call: one attempt, and after a failure what makes sense.

        Raises:
            KmsplugError: The last failure, with the earlier ones as ``attempts``.
        """
        self.target.refuse_forked()  # before any lock: a thread that the child does not have may hold it
        return self.observer.watch(operation.wire, self._call, operation, params, deadline)

    def _call(self, operation: Operation, params: Model, deadline: Deadline) -> Model:
        try:
            self.bulkhead.enter(deadline)
        except KmsplugError as error:
            self.count(error)
            raise
        try:
            began = self.clock.now()
            attempt_s = self._attempt_s(operation, deadline.at - began)
            try:
                return self.attempt(operation, params, deadline, attempt_s)
            except KmsplugError as error:
                failure = error
            return Recovery(self, operation, params, deadline, began=began, attempt_s=attempt_s).recover(
                failure
            )
        finally:
            self.bulkhead.leave()

    def _attempt_s(self, operation: Operation, left_s: float) -> float | None:
        """Return the seconds for the first attempt. None: all, because there could be no second one."""
        if operation.nature is Nature.MUTATION and not self.target.offers(RECONCILE):
            return None
        return self.settings.attempt_timeout_s or left_s / ATTEMPTS_IN_A_DEADLINE
