"""How many repetitions a keystore may cause: a share of its calls, lest a sick provider be stampeded."""

import threading


class Budget:
    """A bucket of tokens. Each repetition takes one, each new call puts a part of one in.

    Calls that go well cost nothing here: what they put in is counted when something is taken.

    Args:
        capacity: What it holds at most, and at first.
        per_call: What a new call puts in.
    """

    def __init__(self, capacity: float, per_call: float) -> None:
        self._lock = threading.Lock()
        self._capacity = capacity
        self._per_call = per_call
        self._tokens = capacity
        self._calls = 0

    def configure(self, capacity: float, per_call: float) -> None:
        """Go on with other limits."""
        with self._lock:
            self._capacity, self._per_call = capacity, per_call
            self._tokens = min(self._tokens, capacity)

    def take(self, calls: int) -> bool:
        """Take a token, if there is one.

        Args:
            calls: How many calls there have been so far.
        """
        with self._lock:
            self._fill(calls)
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def left(self, calls: int) -> float:
        """Return how many tokens there are."""
        with self._lock:
            self._fill(calls)
            return self._tokens

    def _fill(self, calls: int) -> None:
        new = max(0, calls - self._calls)
        self._calls += new
        self._tokens = min(self._capacity, self._tokens + new * self._per_call)
