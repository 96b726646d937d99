"""Sees operations done, or refused, as `Keystore.can_do` says."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import pytest
from kmsplug_host import KeyAlgorithm, Keystore, KeyUsage
from kmsplug_host.errors import (
    InvalidArgument,
    KeyInvalidState,
    KeyNotFound,
    KeyUsageMismatch,
    KmsplugError,
    PolicyDenied,
    UnsupportedOperation,
)
from kmsplug_protocol import Key, Outcome, Result

REFUSALS: Final = (UnsupportedOperation, PolicyDenied, KeyUsageMismatch)
"""How an operation is refused that nobody does. The last one only by drivers, of a key for something else."""

Seen = dict[str, set[str]]
Make = Callable[[KeyAlgorithm, KeyUsage], Key]

T = TypeVar("T", bound=Result)


class Witness:
    """Calls a keystore, and takes down who did what."""

    def __init__(self, keystore: Keystore, make: Make) -> None:
        assert keystore.settings.allow_raw, "the portable check needs allow_raw = true"
        self.keystore = keystore
        self.make = make
        self.seen: defaultdict[str, set[str]] = defaultdict(set)

    def done(self, wire: str, key: Key | None, call: Callable[[], T]) -> T | None:
        """Make a call and see it done by whom `can_do` named; or refused, and return None."""
        offer = self.keystore.can_do(wire, None if key is None else key.key_id)
        if not offer:
            with pytest.raises(REFUSALS) as caught:
                call()
            refusal = caught.value
            assert refusal.hint or isinstance(refusal, KeyUsageMismatch), f"{wire}: nothing says why not"
            assert offer.reason
            assert refusal.outcome is Outcome.NOT_APPLIED
            self.seen[wire].add("refused")
            return None
        try:
            answer = call()
        except KeyUsageMismatch:
            if self.keystore.can_do("key.get"):
                raise
            self.seen[wire].add("refused")  # which key it is could not be known before
            return None
        self.took(wire, answer)
        assert answer.executed_by == offer.how, f"{wire}: {answer.executed_by}, and {offer.how} was named"
        return answer

    def got(self, key_id: str, member: str) -> Any:
        """Return a member of a key's description; None where keys are not described."""
        return getattr(self.keystore.get_key(key_id), member) if self.keystore.can_do("key.get") else None

    def took(self, wire: str, answer: Result) -> None:
        """Take down who did it."""
        self.seen[wire].add(answer.executed_by)

    @contextmanager
    def may_fail(self, may: bool = True) -> Iterator[None]:
        """Let a provider refuse what it is asked without the arguments that only it knows."""
        try:
            yield
        except (InvalidArgument, UnsupportedOperation, KeyNotFound, KeyInvalidState, KmsplugError):
            if not may:
                raise
