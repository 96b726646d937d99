"""Decides for each operation who does it: the provider, a named shim, or nobody, and then says why.

A row that holds for the key and mechanism is native. Without one, the first shim that can stands in, unless
the keystore forbids it. What neither does goes to the driver all the same, whose refusal is the root cause,
and the reason why no shim stood in is added to it.
"""

import functools
from collections.abc import Mapping
from typing import Any, Final

from kmsplug_protocol import (
    BY_WIRE,
    AssociatedData,
    Capability,
    EncryptResult,
    Key,
    KeyAlgorithm,
    KeyState,
    KeyUsage,
    Mechanism,
    Model,
    Operation,
)
from kmsplug_protocol.kinds import USED_AS

from ._deadline import Deadline
from ._native import Native
from ._offers import NO, Offer, is_allowed, keeper_for, leaves_any, may_be_native, offer, serves
from ._rows import Rows
from .catalog import CatalogHandle
from .config import KeystoreSettings
from .errors import KmsplugError, PluginUnavailable, PolicyDenied, UnsupportedOperation
from .shims import registry
from .shims.binding import prove
from .shims.destruction import Destruction, native_plan
from .shims.keeper import Keeper
from .shims.lifecycle import NO_WINDOW
from .shims.managed import Managed
from .shims.shim import Shim

_PURGE: Final = "key.purge"
_NEEDS_CATALOG: Final = "the shim lifecycle keeps one: see [catalog] in docs/configuration.md"


class Resolver:
    """Carries out the operations of one keystore.

    Args:
        native: The keystore as its driver does it.
    """

    def __init__(self, native: Native, handle: CatalogHandle | None = None) -> None:
        self._native = native
        self._plans: _Plans | None = None
        self.bind(handle)

    def bind(self, handle: CatalogHandle | None) -> None:
        """Go on with another catalog, or with none."""
        self._handle = handle
        self._managed = None if handle is None else Managed(self._native, handle, self._below, self._keeper)
        self._keeps: tuple[Rows, bool] | None = None

    @property
    def managed(self) -> Managed | None:
        """What the catalog's shims do; None: the provider leaves nothing to them, or there is no catalog."""
        if self._managed is None:
            return None
        try:
            rows = self._native.rows
        except PluginUnavailable:
            return None
        known = self._keeps
        if known is None or known[0] is not rows:
            known = self._keeps = rows, leaves_any(rows, self._native.settings)
        return self._managed if known[1] else None

    def _keeper(self, wire: str, key: Key | None) -> Keeper | None:
        algorithm = None if key is None else key.algorithm
        return keeper_for(self._native.rows, self._native.settings, wire, algorithm)

    def describe(self, key_id: str, deadline: Deadline) -> Key:
        """Return what never changes about the key that an id or alias names."""
        managed = self.managed
        return (self._native if managed is None else managed).describe(key_id, deadline)

    def check(self, key_id: str, allowed: frozenset[KeyState]) -> None:
        """See whether the state that the host keeps allows something; for what is done without a call.

        Raises:
            KmsplugError: The error of its state.
        """
        managed = self.managed
        if managed is not None:
            managed.check(key_id, allowed, Deadline.after(self._native.plugin.settings.deadline_s))

    def forget(self) -> None:
        """Learn anew what the keys are and in which state."""
        self._native.forget_descriptions()
        if self._managed is not None:
            self._managed.forget()

    def prove_binding(
        self,
        made: EncryptResult,
        associated_data: bytes | None,
        context: Mapping[str, str] | None,
        deadline: Deadline,
    ) -> None:
        """See once that a provider binds associated data, before a raw ciphertext with such is handed out.

        Raises:
            ProtocolViolation: It does not. The promise is withdrawn.
        """
        try:
            rows = self._native.rows
        except PluginUnavailable:
            return
        if not rows.of("key.get") or not rows.of("crypto.decrypt"):
            return
        algorithm = self.describe(made.key_id, deadline).algorithm
        row = rows.find("crypto.encrypt", algorithm, made.mechanism)
        if row is None or row.associated_data is AssociatedData.NONE:
            return
        bound = {"associated_data": associated_data} if associated_data else {"context": context}
        decrypt = functools.partial(
            self._ask,
            "crypto.decrypt",
            deadline,
            key_id=made.key_id,
            key_version=made.key_version,
            mechanism=row.mechanism,
            ciphertext=made.ciphertext,
        )
        prove(self._native.evidence, row, bound, decrypt)

    def _ask(self, wire: str, deadline: Deadline, **arguments: Any) -> Any:
        operation = BY_WIRE[wire]
        return self.call(operation, operation.params(**arguments), deadline)

    def call(self, operation: Operation, params: Model, deadline: Deadline) -> Model:
        """Carry out an operation.

        Raises:
            UnsupportedOperation: Neither the provider nor a shim does it; ``hint`` says why.
            PolicyDenied: A shim could, and this keystore forbids it.
            KmsplugError: Anything else that went wrong.
        """
        if self._managed is not None and (managed := self.managed) is not None:
            answer: Model = managed.call(operation, params, deadline)
            return answer
        if operation.wire == _PURGE and self._purges_at_once():
            raise UnsupportedOperation(NO_WINDOW, hint=_NEEDS_CATALOG)
        return self._below(operation, params, deadline)

    def destruction(self, key_id: str, deadline: Deadline) -> Destruction:
        """Tell what goes with a key whose deletion is due.

        Raises:
            KeyInvalidState: It is not due.
        """
        managed = self.managed
        if managed is not None:
            return managed.destruction(key_id, deadline)
        return native_plan(self._native, key_id, deadline)

    def _purges_at_once(self) -> bool:
        """Tell whether the driver leaves the deletion window to the host, and nothing keeps it."""
        rows = self._rows()
        return rows is not None and bool(rows.of(_PURGE)) and not rows.of("key.schedule_deletion")

    def _rows(self) -> Rows | None:
        """What is believed of the driver's promises; None: it was never ready, as any call on it says."""
        try:
            return self._native.plugin.rows
        except PluginUnavailable:
            return None

    def _below(self, operation: Operation, params: Model, deadline: Deadline) -> Model:
        """Carry out an operation that needs no catalog."""
        wire = operation.wire
        rows = self._rows()
        shim = None if rows is None else self._chosen(rows, wire, params, deadline)
        if shim is None:
            if rows is not None and wire in rows.lost_operations:
                self._refuse_withdrawn(rows, wire, params, deadline)
            try:
                return self._native.call(operation, params, deadline)
            except UnsupportedOperation as error:
                error.hint = error.hint or registry.reason(wire)
                if error.unknown_method:
                    self._disbelieve(wire)
                    shim = self._chosen(self._native.rows, wire, params, deadline)
                if shim is None:
                    raise
        check_allowed(self._native.settings, shim.name, wire, self._native.name)
        try:
            answer = shim.run(self._native, params, deadline)
        except KmsplugError as error:
            error.add(shim=shim.label)
            raise
        return answer.model_copy(update={"executed_by": shim.label})

    def _disbelieve(self, wire: str) -> None:
        """Withdraw the promise of an operation whose method the driver says it does not have."""
        rows = self._native.rows.of(wire)
        self._native.evidence.withdraw(rows, "the driver answers that it has no such method")

    def _refuse_withdrawn(self, rows: Rows, wire: str, params: Any, deadline: Deadline) -> None:
        """Refuse what the driver would do by a promise that is not believed.

        Raises:
            UnsupportedOperation: With the reason.
        """
        algorithm = getattr(params, "algorithm", None)  # that a new key is to have
        key_id = getattr(params, "key_id", None)
        if key_id is not None and rows.of("key.get"):
            algorithm = self._native.describe(key_id, deadline).algorithm
        usage = getattr(params, "usage", None)
        reason = rows.lost(wire, algorithm, getattr(params, "mechanism", None), usage)
        if reason is not None:
            raise UnsupportedOperation(
                f"the driver's promise of {wire} was withdrawn: {reason}", hint=registry.reason(wire)
            )

    def _chosen(self, rows: Rows, wire: str, params: Any, deadline: Deadline) -> Shim | None:
        shims = registry.shims_of(wire)
        if not shims:
            return None
        mechanism = getattr(params, "mechanism", None)
        plans = self._plans_for(rows)
        if not plans.needs_a_key(wire, mechanism):
            for shim in shims:  # `any` of them would take as long as all the rest here
                if shim.matters(rows, params):
                    break
            else:
                return None
        algorithm, usage = None, None
        key_id = getattr(params, "key_id", None)
        if key_id is not None:
            if not rows.of("key.get"):
                return None
            key = self._native.describe(key_id, deadline)
            algorithm, usage = key.algorithm, key.usage
        row, able = plans.plan(wire, algorithm, mechanism, usage)
        for shim in able:
            if row is None or shim.takes_over(row, params):
                return shim
        return None

    def _plans_for(self, rows: Rows) -> "_Plans":
        if self._plans is None or self._plans.rows is not rows:
            self._plans = _Plans(rows)
        return self._plans

    def can_do(self, wire: str, key_id: str, deadline: Deadline) -> Offer:
        """Tell who does an operation with a key."""
        if not self._native.rows.of("key.get"):
            return self.offer(wire)  # which key it is cannot be known
        managed = self.managed
        key = self.describe(key_id, deadline)
        found = self.offer(wire, key.algorithm, key.usage)
        withheld = None if managed is None else managed.withheld(wire, key_id, deadline)
        return found if withheld is None else Offer(wire, NO, withheld)

    def offer(self, wire: str, algorithm: KeyAlgorithm | None = None, usage: KeyUsage | None = None) -> Offer:
        """Tell who does an operation, with keys of an algorithm and for a usage, or with any."""
        catalog = self._handle is not None
        return offer(self._native.rows, self._native.settings, wire, algorithm, usage, catalog=catalog)


def check_allowed(settings: KeystoreSettings, shim: str, wire: str, keystore: str) -> None:
    """Refuse a shim that a keystore's configuration forbids.

    Raises:
        PolicyDenied: It does.
    """
    if not is_allowed(settings, shim):
        raise PolicyDenied(
            f"the provider does not do {wire} itself, and this keystore forbids the shim {shim!r}",
            keystore=keystore,
            hint=f"see shims in [keystores.{keystore}]",
        )


class _Plans:
    """Who does what with which keys, worked out once for the rows of a keystore.

    Args:
        rows: What the provider does.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._needs: dict[tuple[str, Mechanism | None], bool] = {}
        self._plans: dict[
            tuple[str, KeyAlgorithm | None, Mechanism | None, KeyUsage | None],
            tuple[Capability | None, tuple[Shim, ...]],
        ] = {}

    def needs_a_key(self, wire: str, mechanism: Mechanism | None) -> bool:
        """Tell whether a shim stands in with some keys, so that it depends on which it is."""
        asked = wire, mechanism
        found = self._needs.get(asked)
        if found is None:
            found = self._needs[asked] = not self.rows.of(wire) or any(
                shim.algorithms is not None
                and not (
                    shim.usage is USED_AS.get(wire) and self.rows.covers(wire, shim.algorithms, mechanism)
                )
                and shim.lacking(self.rows, None, mechanism) is None
                for shim in registry.shims_of(wire)
            )
        return found

    def plan(
        self,
        wire: str,
        algorithm: KeyAlgorithm | None,
        mechanism: Mechanism | None,
        usage: KeyUsage | None,
    ) -> tuple[Capability | None, tuple[Shim, ...]]:
        """Return the row that holds, and the shims that could do it, or would say why such a key cannot."""
        asked = wire, algorithm, mechanism, usage
        found = self._plans.get(asked)
        if found is None:
            able = tuple(
                shim
                for shim in registry.shims_of(wire)
                if (shim.algorithms is None or algorithm in shim.algorithms)
                and not shim.lacking(self.rows, algorithm, mechanism)
            )
            native = may_be_native(wire, algorithm, usage)
            row = self.rows.find(wire, algorithm, mechanism) if native else None
            fitting = tuple(shim for shim in able if serves(usage, shim.usage))
            found = self._plans[asked] = row, fitting or (able if row is None else ())
        return found
