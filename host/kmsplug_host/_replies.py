"""Which requests of a connection are owed an answer: those that somebody waits for, and those given up.

Callers, whoever cancels a call, and the reading thread meet here at any moment, without a lock: a request is
always in one of the tables, and only who has taken a call out of the first one releases it, so nobody does
that twice.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from .errors import KmsplugError

Failure = Callable[[bool], KmsplugError]
"""Makes the error for a call, given whether its request was written."""


class Pending:
    """A call that waits for its reply. The lock is held until there is one."""

    __slots__ = ("answered", "error", "response", "written")

    def __init__(self) -> None:
        self.answered = threading.Lock()
        self.answered.acquire()
        self.response: dict[str, Any] | None = None
        self.error: Failure | None = None
        self.written = False


class Replies:
    """The requests of one connection.

    Attributes:
        waiting: Those that somebody waits for. Only to look at.
        answers: Requests answered so far, pings included.
        overdue: Requests that were given up and not answered: their ids, and the moments of their deadlines.
    """

    def __init__(self) -> None:
        self.waiting: dict[int, Pending] = {}
        self._answered: deque[Pending] = deque()
        self._ping_id = 0
        self.answers = 0
        self.overdue: dict[int, float] = {}

    def expect(self, request_id: int) -> Pending:
        """Begin to wait for an answer."""
        pending = self.waiting[request_id] = Pending()
        return pending

    def expect_ping(self, request_id: int) -> None:
        """Count the answer to a ping, for which nobody waits."""
        self._ping_id = request_id

    def forget(self, request_id: int) -> None:
        """Stop to wait; the request was not sent, or has been answered."""
        self.waiting.pop(request_id, None)

    def give_up(self, request_id: int, deadline_at: float) -> bool:
        """Stop to wait for an answer, which is still owed; return False where it has come, and counts."""
        # First into the other table: the reading thread must find it in one of them, or it is owed for ever.
        self.overdue[request_id] = deadline_at
        if self.waiting.pop(request_id, None) is None:
            self.overdue.pop(request_id, None)
            return False
        return True

    def take(self, request_id: Any, response: dict[str, Any]) -> bool:
        """Hand an answer to whom it belongs; return False where nobody waits for it."""
        if type(request_id) is not int:
            return False
        pending = self.waiting.get(request_id)
        if pending is None:
            return self._note(request_id)
        pending.response = response
        if self.waiting.pop(request_id, None) is not None:
            self.answers += 1
            self._answered.append(pending)
        return True

    def wake(self) -> None:
        """Let those go on whose answers were taken.

        Not one by one: who is woken needs the interpreter, and waits for it once more while it is in use.
        """
        while self._answered:
            self._answered.popleft().answered.release()

    def fail(self, request_id: int, error: Failure) -> bool:
        """End the wait for an answer that cannot be had; return False where nobody waits for it."""
        pending = self.waiting.get(request_id)
        if pending is None:
            return self._note(request_id)
        pending.error = error
        self._release(request_id, pending)
        return True

    def fail_all(self, error: Failure) -> None:
        """End every wait: no answer will come any more."""
        for request_id in list(self.waiting):
            self.fail(request_id, error)

    def _note(self, request_id: int) -> bool:
        """Note what answers a ping, or a call that was given up; return whether it is the ping's."""
        is_ping = request_id == self._ping_id
        if is_ping:
            self._ping_id = 0  # one answer is owed to it, and no flood of them
        if is_ping or self.overdue.pop(request_id, None) is not None:
            self.answers += 1
        return is_ping

    def _release(self, request_id: int, pending: Pending) -> None:
        if self.waiting.pop(request_id, None) is not None:
            self.answers += 1
            pending.answered.release()
