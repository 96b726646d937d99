"""Sends the uses of a key to the version that is meant, where the host keeps versions or states.

A version that the state forbids is never used; an answer that a forbidden version gave is thrown away.
"""

import threading
from collections.abc import Callable
from typing import Any, Final

from kmsplug_protocol import KeyState, Model, Operation, Result

from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import InvalidArgument, InvalidCiphertext, LimitExceeded

from . import versioning
from .lifecycle import ALL, all_states, state_of
from .records import Records, Target
from .shim import Provider
from .states import MAKES, OPENS, raise_for, refuse

Below = Callable[[Operation, Model, Deadline], Model]
"""Carries out an operation with a key of the provider: natively or by a shim that keeps nothing."""

MAKING: Final = frozenset({
    "crypto.encrypt", "crypto.generate_data_key", "crypto.wrap_key", "crypto.sign", "crypto.mac",
    "crypto.encapsulate", "crypto.derive", "crypto.reencrypt",
})  # fmt: skip
OPENING: Final = frozenset({
    "crypto.decrypt", "crypto.unwrap_key", "crypto.verify", "crypto.verify_mac", "crypto.decapsulate",
})  # fmt: skip

_UNDER_RANDOM_IVS: Final = frozenset({
    "crypto.encrypt", "crypto.generate_data_key", "crypto.wrap_key", "crypto.reencrypt"
})  # fmt: skip
_MOST_USES: Final = 2**32  # NIST SP 800-38D 8.3, of random 96-bit IVs
_FIRST_LEASE: Final = 2**10
_LARGEST_LEASE: Final = 2**20


class Router:
    """Uses keys of one keystore.

    Args:
        provider: The keystore.
        records: What the catalog knows of its keys.
        below: Carries out an operation with a key of the provider.
    """

    def __init__(self, provider: Provider, records: Records, below: Below) -> None:
        self._provider = provider
        self._records = records
        self._below = below
        self._checked: set[str] = set()
        self._lock = threading.Lock()
        self._leases: dict[tuple[str, str], tuple[int, int]] = {}  # what is left, and the next lease

    def use(
        self, operation: Operation, params: Any, target: Target, deadline: Deadline, *, counts: bool
    ) -> Result:
        """Carry out ``crypto.*`` with the version that is meant.

        Args:
            operation: What.
            params: Its params.
            target: The key.
            deadline: For all of it.
            counts: Whether encryptions of this key are to be counted.
        """
        if operation.wire == "crypto.reencrypt":
            return self._reencrypt(operation, params, target, deadline, counts=counts)
        if operation.wire in MAKING:
            return self._make(operation, params, target, deadline, counts=counts)
        return self._open(operation, params, target, deadline)

    def _make(
        self, operation: Operation, params: Any, target: Target, deadline: Deadline, *, counts: bool
    ) -> Result:
        key_id, version = self._making(target, params.key_version, deadline)
        if counts and operation.wire in _UNDER_RANDOM_IVS:
            self._count(target, version or ALL)
        routed = version is not None
        sent = params.model_copy(
            update={"key_id": key_id, "key_version": None if routed else params.key_version}
        )
        answer = self._below(operation, sent, deadline)
        return _told(answer, target, version)

    def _open(self, operation: Operation, params: Any, target: Target, deadline: Deadline) -> Result:
        body = target.body
        if body is None or "versions" not in body:
            _refuse_opening(target, params.key_version)
            answer: Any = self._below(
                operation, params.model_copy(update={"key_id": target.key_id}), deadline
            )
            _refuse_answer(target, answer.key_version)
            return answer  # type: ignore[no-any-return]
        names = self._opening(target, params.key_version)
        if operation.wire == "crypto.decapsulate" and len(names) > 1:
            # An encapsulation for another version opens too, to a secret that nobody else has.
            raise InvalidArgument("name the key_version that encapsulated", path="key_version")
        return self._first(operation, params, target, names, deadline)

    def _first(
        self, operation: Operation, params: Any, target: Target, names: list[str], deadline: Deadline
    ) -> Result:
        """Return the answer of the first version that opens it, or of the last that was tried."""
        assert target.body is not None  # noqa: S101 - it has versions
        for place, name in enumerate(names):
            key_id = self._part(target, name, deadline)
            sent = params.model_copy(update={"key_id": key_id, "key_version": None})
            last = place == len(names) - 1
            try:
                answer: Any = self._below(operation, sent, deadline)
            except InvalidCiphertext:
                if last:
                    raise
                continue
            if getattr(answer, "valid", True):
                return _told(answer, target, name)
            if last:
                return _told(answer, target, params.key_version)
        raise AssertionError("there is a version")

    def _reencrypt(
        self, operation: Operation, params: Any, target: Target, deadline: Deadline, *, counts: bool
    ) -> Result:
        source = self._records.find(params.source_key_id, deadline)
        key_id, version = self._making(target, params.key_version, deadline)
        if counts:
            self._count(target, version or ALL)
        update = {"key_id": key_id, "key_version": None if version else params.key_version}
        if source.body is None or "versions" not in source.body:
            _refuse_opening(source, params.source_key_version)
            sent = params.model_copy(update={**update, "source_key_id": source.key_id})
            answer: Any = self._below(operation, sent, deadline)
            _refuse_answer(source, answer.source_key_version)
            return _told(answer, target, version)
        names = self._opening(source, params.source_key_version)
        for place, name in enumerate(names):
            update |= {"source_key_id": self._part(source, name, deadline), "source_key_version": None}
            try:
                answer = self._below(operation, params.model_copy(update=update), deadline)
            except InvalidCiphertext:
                if place == len(names) - 1:
                    raise
                continue
            told = _told(answer, target, version)
            return told.model_copy(update={"source_key_version": name})
        raise AssertionError("there is a version")

    def _making(self, target: Target, wanted: str | None, deadline: Deadline) -> tuple[str, str | None]:
        """Return the provider's key that is to make something, and its version where the host keeps those."""
        body = target.body
        if body is not None and "versions" in body:
            name = wanted or body["current"]
            versioning.part(body, name)
            refuse(state_of(body, name), MAKES)
            return self._part(target, name, deadline), name
        version = wanted
        if version is None and len((body or {}).get("states", {})) > 1:
            version = self._provider.ask("key.get", deadline, key_id=target.key_id).key_version
        refuse(state_of(body, version), MAKES)
        return target.key_id, None

    def _opening(self, target: Target, wanted: str | None) -> list[str]:
        """Return the versions that may open something, newest first."""
        body = target.body
        assert body is not None  # noqa: S101 - it has versions
        if wanted is not None:
            versioning.part(body, wanted)
            refuse(state_of(body, wanted), OPENS)
            return [wanted]
        names = versioning.newest_first(body)
        usable = [name for name in names if state_of(body, name) in OPENS]
        if not usable:
            raise_for(state_of(body, names[0]))
        return usable

    def _part(self, target: Target, version: str, deadline: Deadline) -> str:
        """Return the provider's key of a version, which is the one that was pinned."""
        assert target.body is not None  # noqa: S101 - it has versions
        found = versioning.part(target.body, version)
        key_id: str = found["key"]
        if key_id not in self._checked:
            key = self._provider.describe(key_id, deadline)
            versioning.check(self._provider, key, found["proof"], deadline)
            self._checked.add(key_id)
        return key_id

    def _count(self, target: Target, version: str) -> None:
        """Take one of the encryptions that this host has leased; lease more where none is left.

        Raises:
            LimitExceeded: The version has encrypted as often as random IVs allow.
        """
        place = target.key_id, version
        with self._lock:
            left, lease = self._leases.get(place, (0, _FIRST_LEASE))
            if left == 0:
                self._records.change(target.key_id, lambda body: _leased(body, version, lease))
                left, lease = lease, min(2 * lease, _LARGEST_LEASE)
            self._leases[place] = left - 1, lease


def _leased(body: dict[str, Any], version: str, lease: int) -> dict[str, Any]:
    uses = dict(body.get("uses", {}))
    uses[version] = uses.get(version, 0) + lease
    if uses[version] > _MOST_USES:
        raise LimitExceeded(
            f"version {version} has encrypted 2^32 times, as often as random IVs allow", hint="rotate the key"
        )
    return {**body, "uses": uses}


def _refuse_opening(target: Target, version: str | None) -> None:
    if version is not None:
        refuse(state_of(target.body, version), OPENS)
        return
    states = all_states(target.body)
    if not states & OPENS:
        raise_for(state_of(target.body, ALL))


def _refuse_answer(target: Target, version: str | None) -> None:
    """Throw an answer away that a version gave which must not open anything."""
    if version is not None:
        refuse(state_of(target.body, version), OPENS)
        return
    closed = all_states(target.body) - OPENS
    if closed:  # the provider does not tell which version it was
        raise_for(max(closed, key=list(KeyState).index))


def _told(answer: Any, target: Target, version: str | None) -> Result:
    """Return an answer with the key and version that the caller knows."""
    update = {} if version is None else {"key_id": target.key_id, "key_version": version}
    told: Result = answer.model_copy(update=update)
    return told
