"""What a keystore's resilience can be watched by."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kmsplug_protocol import ErrorCode

from kmsplug_host._evidence import RowStatus
from kmsplug_host._meter import CallSeries

from .breaker import BreakerState


@dataclass(frozen=True, slots=True)
class KeystoreStats:
    """A snapshot of one keystore. Counts begin when the keystore is opened.

    Attributes:
        keystore: Its name in the configuration.
        calls: Calls by the application.
        retries: Attempts beyond the first of a call.
        reconciled: Changes with a lost answer that were found to have been carried out.
        failures: Attempts that failed or were refused here, by code; also those repeated with success.
        budget: Repetitions that are left.
        breaker: State of the circuit breaker.
        in_flight: Calls in flight, those that wait for their next attempt included.
        queued: Calls that wait for a place.
        data_keys: Data keys that are kept for further messages.
        data_key_hits: How often one was used again.
        data_key_misses: How often there was none to use, where the configuration allows to keep them.
        series: Calls by operation: how long they took, all attempts and waits included, and how they failed.
        rows: How many of the driver's promises are believed how far.
    """

    keystore: str
    calls: int
    retries: int
    reconciled: int
    failures: Mapping[ErrorCode, int]
    budget: float
    breaker: BreakerState
    in_flight: int
    queued: int
    data_keys: int = 0
    data_key_hits: int = 0
    data_key_misses: int = 0
    series: tuple[CallSeries, ...] = ()
    rows: Mapping[RowStatus, int] = field(default_factory=dict)
