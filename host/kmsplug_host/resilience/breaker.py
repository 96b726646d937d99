"""The circuit breaker of a keystore: after too many failures in a row it is left alone for a while.

::

    CLOSED --- so many failures in a row ---> OPEN --- after the cool-down, by the next call ---> HALF_OPEN
      ^                                        ^                                                     |
      |                                        +--------------- that call fails ---------------------+
      +---------------------------------------------------------- it is answered --------------------+

While it is HALF_OPEN one call is let through, the probe; all others fail as if it were OPEN.
"""

import copy
import threading
from enum import Enum, StrEnum, auto

from kmsplug_protocol import Outcome

from kmsplug_host.errors import CircuitOpen, KmsplugError

from .clock import Clock


class BreakerState(StrEnum):
    """The state of a keystore's circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Sign(Enum):
    """What the end of an attempt says about the keystore."""

    WELL = auto()
    """It answered, with whatever."""
    ILL = auto()
    """It could not."""
    NONE = auto()
    """Nothing: the caller left, or the driver process ended, for which there is a supervisor."""


class Breaker:
    """Counts failures in a row.

    Args:
        clock: Tells the time.
        failures: How many open it; 0: never.
        cool_down_s: Seconds until the next call is let through.
    """

    def __init__(self, clock: Clock, failures: int, cool_down_s: float) -> None:
        self._clock = clock
        self._limit = failures
        self._cool_down_s = cool_down_s
        self._lock = threading.Lock()
        self._state = BreakerState.CLOSED
        self._in_a_row = 0
        self._opened_at = 0.0
        self._cause: KmsplugError | None = None

    @property
    def state(self) -> BreakerState:
        """Its state."""
        return self._state

    def configure(self, failures: int, cool_down_s: float) -> None:
        """Go on with other limits, closed."""
        with self._lock:
            self._limit, self._cool_down_s = failures, cool_down_s
            self._close()

    def admit(self) -> bool:
        """Let an attempt begin; `report` has to be called at its end.

        Returns:
            Whether it is the probe.

        Raises:
            CircuitOpen: It may not, for ``retry_after_ms``. ``__cause__`` is the last failure.
        """
        if self._state is BreakerState.CLOSED:  # without the lock: a moment earlier, it would have been right
            return False
        with self._lock:
            return self._admit()

    def report(self, sign: Sign, *, probe: bool, error: KmsplugError | None = None) -> None:
        """Take down how an attempt ended."""
        if sign is not Sign.ILL and not probe and not self._in_a_row:
            return
        with self._lock:
            if probe:
                self._judge(sign, error)
            elif self._state is BreakerState.CLOSED:  # what began before it opened says nothing new
                self._count(sign, error)

    def _admit(self) -> bool:
        if self._state is BreakerState.CLOSED:
            return False
        rest_s = self._opened_at + self._cool_down_s - self._clock.now()
        if self._state is BreakerState.OPEN and rest_s <= 0:
            self._state = BreakerState.HALF_OPEN
            return True
        raise CircuitOpen(
            f"the keystore failed {self._limit} times in a row and is left alone",
            outcome=Outcome.NOT_APPLIED,
            hint=f"the last failure: {self._cause}",
            retry_after_ms=max(0, round(rest_s * 1000)),
        ) from self._cause

    def _judge(self, sign: Sign, error: KmsplugError | None) -> None:
        if self._state is not BreakerState.HALF_OPEN:  # closed by a reload meanwhile
            return
        if sign is Sign.WELL:
            self._close()
        elif sign is Sign.ILL:
            self._open(error)
        else:
            self._state = BreakerState.OPEN  # the next call may be the probe

    def _count(self, sign: Sign, error: KmsplugError | None) -> None:
        if sign is Sign.WELL:
            self._in_a_row = 0
        elif sign is Sign.ILL:
            self._in_a_row += 1
            if self._limit and self._in_a_row >= self._limit:
                self._open(error)

    def _open(self, error: KmsplugError | None) -> None:
        self._state = BreakerState.OPEN
        self._opened_at = self._clock.now()
        # A copy, which has no traceback: the frames of that call, plaintext included, would stay for as long.
        self._cause = copy.copy(error)

    def _close(self) -> None:
        self._state, self._in_a_row, self._cause = BreakerState.CLOSED, 0, None
