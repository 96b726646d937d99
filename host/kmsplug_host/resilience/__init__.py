"""What a keystore does about failures, once for all drivers: wait, ask, repeat, leave alone, refuse.

A call passes the parts in this order; only the first two cost anything while all is well::

    Bulkhead    bounded calls in flight and in the queue, else Overloaded
    Breaker     a keystore that keeps failing is left alone, and calls fail at once: CircuitOpen
    Recovery    after a failure: may the call be repeated, when, and was it carried out after all
    Budget      so many repetitions and no more, however many calls fail

`Resilience` puts them together, one for each keystore. All of them tell the time by one `Clock`.
"""

from .breaker import BreakerState
from .resilience import Resilience
from .stats import KeystoreStats

__all__ = ["BreakerState", "KeystoreStats", "Resilience"]
