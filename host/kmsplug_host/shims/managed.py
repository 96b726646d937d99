"""Operations on the keys of a keystore whose provider leaves something to the catalog.

Names are resolved first, so that every spelling of a key and every alias meets the same state; then the
operation is the catalog's, or goes to the version that is meant, or to the provider.
"""

import contextlib
import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from kmsplug_protocol import (
    BY_WIRE,
    EmptyResult,
    Enforcement,
    Key,
    KeyState,
    KeyVersion,
    ListKeysResult,
    ListVersionsResult,
    Operation,
    Result,
)

from kmsplug_host._deadline import Deadline
from kmsplug_host.catalog import Catalog, CatalogHandle, Entry
from kmsplug_host.errors import (
    AlreadyExists,
    InvalidArgument,
    InvalidCiphertext,
    KeyCompromised,
    KeyDestroyed,
    KeyDisabled,
    KeyInvalidState,
    KeyNotFound,
    KeyPendingDeletion,
    KeystoreCorrupt,
    KmsplugError,
    UnsupportedOperation,
)

from . import lifecycle, versioning
from . import records as kinds
from .auto_destroy import AutoDestroyer, Reading
from .destruction import Destroyer, Destruction, native_plan
from .keeper import ALIAS, LIFECYCLE, TAGS, VERSIONING, Keeper
from .lifecycle import NO_WINDOW
from .records import Body, Records, Target
from .routing import MAKING, OPENING, Below, Router
from .shim import Provider
from .states import refuse

Stands = Callable[[str, Key | None], Keeper | None]
"""Tells which keeper stands in for an operation, with a key or with any; None: the provider does it."""

_MAY_BE_STALE: Final = (
    InvalidCiphertext, KeyNotFound, KeyDisabled, KeyInvalidState, KeyPendingDeletion, KeyCompromised,
)  # fmt: skip

_SCHEDULE: Final = "key.schedule_deletion"
_ONE_VERSION: Final = frozenset({"key.backup", "key.get_import_parameters", "key.import"})


class Managed:
    """Carries out operations of one keystore with its catalog.

    Args:
        provider: The keystore.
        handle: Opens the catalog.
        below: Carries out an operation with a key of the provider.
        stands: Tells which keeper stands in.
    """

    def __init__(self, provider: Provider, handle: CatalogHandle, below: Below, stands: Stands) -> None:
        self._provider = provider
        self._below = below
        self._stands = stands
        self._records = Records(provider, handle)
        self._router = Router(provider, self._records, below)
        self._destroyer = Destroyer(provider, self._records, below)
        self._auto = AutoDestroyer(provider, self._records, self._destroyer)
        self._handlers: dict[str, Callable[[Any, Deadline], Result]] = {
            "key.create": self._create,
            "key.get": self._get,
            "key.list": self._list,
            "key.list_versions": self._list_versions,
            "key.rotate": self._rotate,
            "key.enable": self._enable,
            "key.disable": self._disable,
            "key.set_state": self._set_state,
            "key.schedule_deletion": self._schedule,
            "key.cancel_deletion": self._cancel,
            "key.purge": self._purge,
            "key.set_alias": self._set_alias,
            "key.remove_alias": self._remove_alias,
            "key.tag": self._tag,
            "key.get_public_key": self._get_public_key,
            "crypto.batch": self._batch,
        }

    def call(self, operation: Operation, params: Any, deadline: Deadline) -> Any:
        """Carry out an operation, and return its result."""
        handler = self._handlers.get(operation.wire)
        if handler is not None:
            return handler(params, deadline)
        key_id = getattr(params, "key_id", None)
        if key_id is None:
            return self._below(operation, params, deadline)
        target = self._records.find(key_id, deadline)
        if operation.wire in MAKING or operation.wire in OPENING:
            return self._use(operation, params, target, deadline)
        if (reason := self.withheld(operation.wire, key_id, deadline)) is not None:
            raise UnsupportedOperation(reason, hint="the versions are keys of their own at the provider")
        return self._natively(operation.wire, params, target, deadline)

    def _use(self, operation: Operation, params: Any, target: Target, deadline: Deadline) -> Any:
        """Use a key; where that fails by what is known of it, and that has changed since, once more.

        Another host may have rotated or enabled the key a moment ago. What failed so was not carried out.
        """
        try:
            answer: Any = self._routed(operation, params, target, deadline)
        except _MAY_BE_STALE:
            if not self._has_changed(params, target, deadline):
                raise
        else:
            if getattr(answer, "valid", True) or not self._has_changed(params, target, deadline):
                return answer
        return self._routed(operation, params, self._records.find(params.key_id, deadline), deadline)

    def _routed(self, operation: Operation, params: Any, target: Target, deadline: Deadline) -> Result:
        counts = target.key.algorithm.endswith("_GCM") and self._by(VERSIONING, "key.rotate", target)
        return self._router.use(operation, params, target, deadline, counts=counts)

    def _has_changed(self, params: Any, target: Target, deadline: Deadline) -> bool:
        """Read anew what is known of a key, and of the one that a ciphertext comes from."""
        source_id = getattr(params, "source_key_id", None)
        known = None if source_id is None else self._records.find(source_id, deadline)
        now = self._records.find(params.key_id, deadline, fresh=True)
        source = None if source_id is None else self._records.find(source_id, deadline, fresh=True)
        return now != target or source != known

    def describe(self, key_id: str, deadline: Deadline) -> Key:
        """Return what never changes about the key that an id or alias names."""
        return self._records.find(key_id, deadline).key

    def check(self, key_id: str, allowed: frozenset[KeyState], deadline: Deadline) -> None:
        """See whether the state that the host keeps allows something, at most 5 s old.

        Raises:
            KmsplugError: The error of its state.
        """
        body = self._records.find(key_id, deadline).body
        version = None if body is None else body.get("current")
        refuse(lifecycle.state_of(body, version), allowed)

    def withheld(self, wire: str, key_id: str, deadline: Deadline) -> str | None:
        """Tell why an operation that the provider does is refused for this key; None: it is not."""
        body = self._records.find(key_id, deadline).body
        if wire in _ONE_VERSION and body and "versions" in body:
            return f"{wire} would be of one version, and the key has several"
        return None

    def forget(self) -> None:
        """Read everything anew."""
        self._records.forget()

    def _by(self, keeper: Keeper, wire: str, target: Target) -> bool:
        return self._stands(wire, target.key) is keeper

    def _natively(self, wire: str, params: Any, target: Target, deadline: Deadline) -> Any:
        sent = params.model_copy(update={"key_id": target.key_id})
        return self._below(BY_WIRE[wire], sent, deadline)

    def _key(self, target: Target, deadline: Deadline, body: Body | None, label: str) -> Key:
        """Return the whole description of a key, as ``key.get`` would, done by a shim."""
        key = self._provider.ask("key.get", deadline, key_id=target.key_id)
        whole = self._completed(key, self._records.owned([target.key_id]), body)
        return whole.model_copy(update={"executed_by": label})

    def _completed(self, key: Key, owned: list[Entry], body: Body | None) -> Key:
        """Return a key as the provider describes it, with what the catalog knows of it."""
        update: dict[str, Any] = {}
        aliases = [each.name for each in owned if each.kind == kinds.ALIAS and each.body]
        if aliases:
            update["aliases"] = tuple(sorted({*key.aliases, *aliases}))
        if body and body.get("tags"):
            update["tags"] = {**key.tags, **body["tags"]}
        if body and "versions" in body:
            update["key_version"] = body["current"]
        state = lifecycle.state_of(body, update.get("key_version", key.key_version))
        strict = lifecycle.stricter(key.state, state)
        if strict is not key.state:
            update |= {"state": strict, "enforced_by": Enforcement.HOST, "enforced_in": self._scope()}
        if body and body.get("deletion"):
            update["deletion_at"] = body["deletion"]
        return key.model_copy(update=update) if update else key

    def _scope(self) -> str:
        return "hosts with the same catalog" if self._records.catalog.shared else "this host"

    def _create(self, params: Any, deadline: Deadline) -> Key:
        tags = dict(params.tags) if self._stands("key.tag", None) is TAGS else {}
        sent = params.model_copy(update={"tags": {}}) if tags else params
        key: Any = self._below(BY_WIRE["key.create"], sent, deadline)
        if not tags:
            return key  # type: ignore[no-any-return]
        self._records.change(key.key_id, lambda body: {**body, "tags": tags})
        return key.model_copy(update={"tags": tags})  # type: ignore[no-any-return]

    def _get(self, params: Any, deadline: Deadline) -> Key:
        target = self._records.find(params.key_id, deadline, fresh=True)
        key = self._natively("key.get", params, target, deadline)
        return self._completed(key, self._records.owned([target.key_id]), target.body)

    def _list(self, params: Any, deadline: Deadline) -> ListKeysResult:
        page: Any = self._below(BY_WIRE["key.list"], params, deadline)
        ids = [key.key_id for key in page.keys]
        parts, owned = self._records.parts(ids), self._records.owned(ids)
        bodies = {entry.name: entry.body for entry in owned if entry.kind == kinds.KEY}
        keys = tuple(
            self._completed(key, [each for each in owned if each.owner == key.key_id], bodies.get(key.key_id))
            for key in page.keys
            if key.key_id not in parts
        )
        return page.model_copy(update={"keys": keys})  # type: ignore[no-any-return]

    def _list_versions(self, params: Any, deadline: Deadline) -> ListVersionsResult:
        target = self._records.find(params.key_id, deadline, fresh=True)
        if not self._by(VERSIONING, "key.list_versions", target):
            page: Any = self._natively("key.list_versions", params, target, deadline)
            versions = tuple(
                each.model_copy(
                    update={
                        "state": lifecycle.stricter(
                            each.state, lifecycle.state_of(target.body, each.key_version)
                        )
                    }
                )
                for each in page.versions
            )
            return page.model_copy(update={"versions": versions})  # type: ignore[no-any-return]
        return self._kept_versions(params, target, deadline)

    def _kept_versions(self, params: Any, target: Target, deadline: Deadline) -> ListVersionsResult:
        key = self._provider.ask("key.get", deadline, key_id=target.key_id)
        body = target.body or {}
        names = versioning.newest_first(body)[::-1] if "versions" in body else [key.key_version]
        begin = 0
        if params.cursor is not None:
            if params.cursor not in names:
                raise InvalidArgument("the cursor is none that was returned here", path="cursor")
            begin = names.index(params.cursor) + 1
        page = names[begin : begin + params.limit]
        current = body.get("current", key.key_version)
        versions = tuple(
            KeyVersion(
                key_version=name,
                state=lifecycle.stricter(key.state, lifecycle.state_of(body, name)),
                current=name == current,
                created_at=body["versions"][name]["at"] if "versions" in body else key.created_at,
            )
            for name in page
        )
        more = begin + len(page) < len(names)
        return ListVersionsResult(
            key_id=target.key_id,
            versions=versions,
            next_cursor=page[-1] if more and page else None,
            executed_by=VERSIONING.label,
            protection=key.protection,
        )

    def _rotate(self, params: Any, deadline: Deadline) -> Key:
        target = self._records.find(params.key_id, deadline, fresh=True)
        current = (target.body or {}).get("current")
        refuse(lifecycle.state_of(target.body, current), frozenset({KeyState.ACTIVE, KeyState.DEACTIVATED}))
        if not self._by(VERSIONING, "key.rotate", target):
            return self._natively("key.rotate", params, target, deadline)  # type: ignore[no-any-return]
        first = self._provider.ask("key.get", deadline, key_id=target.key_id)
        refuse(first.state, frozenset({KeyState.ACTIVE, KeyState.DEACTIVATED}))
        pinned = target.body is not None and "versions" in target.body
        proof = {} if pinned else versioning.prove(self._provider, first, deadline)
        number = 0

        def burn(body: Body) -> Body:
            nonlocal number
            lifecycle.refuse_ending(body)
            after, number = versioning.burnt(body, first, proof)
            return after

        self._records.change(target.key_id, burn)
        made = self._provider.ask(
            "key.create",
            deadline,
            algorithm=first.algorithm,
            usage=first.usage,
            name=versioning.name_of(first, number),
            protection=first.protection,
        )
        if made.exportable and not first.exportable:
            raise KeystoreCorrupt("the provider made a version whose material may leave it")
        mark = versioning.prove(self._provider, made, deadline)

        def add(body: Body) -> Body:
            if body.get("destroying") or body.get("destroyed"):
                raise KeyDestroyed("the key was destroyed while it was rotated")
            return versioning.added(body, number, made, mark)

        try:
            body = self._records.add_part(target.key_id, made.key_id, str(number), add)
        except KeyDestroyed:
            with contextlib.suppress(KmsplugError):  # nobody will ever use it
                self._destroyer.finish(made.key_id, {}, deadline)
            raise
        return self._key(target, deadline, body, VERSIONING.label)

    def _enable(self, params: Any, deadline: Deadline) -> Key:
        target = self._records.find(params.key_id, deadline, fresh=True)
        by_host = self._by(LIFECYCLE, "key.enable", target)
        key = self._provider.ask("key.get", deadline, key_id=target.key_id)
        natively = self._provider.rows.find("key.enable", target.key.algorithm)
        if natively and (not by_host or key.state is KeyState.SUSPENDED):
            whole = self._on_every_part("key.enable", params, target, deadline)
            if not by_host and not (target.body or {}).get("states"):
                return whole

        def enabled(body: Body) -> Body:
            return lifecycle.enabled(body, body.get("current", key.key_version))

        body = self._records.change(target.key_id, enabled)
        label = LIFECYCLE.label if by_host else "native"
        return self._key(target, deadline, body, label)

    def _disable(self, params: Any, deadline: Deadline) -> Key:
        target = self._records.find(params.key_id, deadline, fresh=True)
        if not self._by(LIFECYCLE, "key.disable", target):
            return self._on_every_part("key.disable", params, target, deadline)
        return self._changed(target, deadline, lifecycle.disabled)

    def _set_state(self, params: Any, deadline: Deadline) -> Key:
        target = self._records.find(params.key_id, deadline, fresh=True)
        wanted = params.key_version
        if wanted is not None and "versions" in (target.body or {}):
            versioning.part(target.body or {}, wanted)
        if self._by(LIFECYCLE, "key.set_state", target):
            return self._changed(target, deadline, lambda body: lifecycle.moved(body, params.state, wanted))
        if wanted is None or "versions" not in (target.body or {}):
            return self._on_every_part("key.set_state", params, target, deadline)
        body = self._records.change(target.key_id, lambda body: lifecycle.moved(body, params.state, wanted))
        part_id = versioning.part(body, wanted)["key"]
        sent = params.model_copy(update={"key_id": part_id, "key_version": None})
        self._below(BY_WIRE["key.set_state"], sent, deadline)
        return self._key(target, deadline, body, "native")

    def _schedule(self, params: Any, deadline: Deadline) -> Key:
        target = self._records.find(params.key_id, deadline, fresh=True)
        if not self._by(LIFECYCLE, "key.schedule_deletion", target):
            return self._on_every_part("key.schedule_deletion", params, target, deadline)
        # Of two clocks the later one: nobody's deletion is due too soon.
        now = max(datetime.now(UTC), self._records.catalog.now())
        return self._changed(
            target, deadline, lambda body: lifecycle.scheduled(body, params.window_days, now)
        )

    def _cancel(self, params: Any, deadline: Deadline) -> Key:
        target = self._records.find(params.key_id, deadline, fresh=True)
        if not self._by(LIFECYCLE, "key.cancel_deletion", target):
            return self._on_every_part("key.cancel_deletion", params, target, deadline)
        return self._changed(target, deadline, lifecycle.cancelled)

    def _changed(self, target: Target, deadline: Deadline, to: Callable[[Body], Body]) -> Key:
        body = self._records.change(target.key_id, to)
        return self._key(target, deadline, body, LIFECYCLE.label)

    def _on_every_part(self, wire: str, params: Any, target: Target, deadline: Deadline) -> Key:
        """Do natively what concerns a whole key: with each of its versions' keys, the first one last."""
        *others, _ = reversed(versioning.keys_of(target.key_id, target.body or {}).values())
        for part_id in others:
            self._below(BY_WIRE[wire], params.model_copy(update={"key_id": part_id}), deadline)
        key = self._natively(wire, params, target, deadline)
        return self._completed(key, self._records.owned([target.key_id]), target.body)

    def _purge(self, params: Any, deadline: Deadline) -> EmptyResult:
        if self._keeps_deletion(params.key_id, deadline):
            return self._destroyer.destroy(params.key_id, deadline)
        target = self._records.find(params.key_id, deadline, fresh=True)
        if self._provider.rows.find(_SCHEDULE, target.key.algorithm) is None:
            raise UnsupportedOperation(NO_WINDOW)
        return self._destroyer.finish(target.key_id, target.body or {}, deadline)

    def destruction(self, key_id: str, deadline: Deadline) -> Destruction:
        """Tell what goes with a key whose deletion is due.

        Raises:
            KeyInvalidState: It is not due.
        """
        if self._keeps_deletion(key_id, deadline):
            return self._destroyer.plan(key_id, deadline)
        target = self._records.find(key_id, deadline, fresh=True)
        found = native_plan(self._provider, target.key_id, deadline)
        if target.body and "versions" in target.body:
            found = replace(found, versions=versioning.keys_of(target.key_id, target.body))
        return found

    def destroy_due(self, deadline: Deadline, read: Callable[[Catalog], Reading]) -> list[str]:
        """Destroy what is due and need not wait for an operator; see `auto_destroy`."""
        if not self._provider.rows.of("key.purge"):
            return []
        return self._auto.look(read(self._records.catalog), deadline)

    def _keeps_deletion(self, key_id: str, deadline: Deadline) -> bool:
        try:
            return self._by(LIFECYCLE, _SCHEDULE, self._records.find(key_id, deadline))
        except KeyDestroyed:
            return True  # else its row would not tell

    def _set_alias(self, params: Any, deadline: Deadline) -> EmptyResult:
        target = self._records.find(params.key_id, deadline, fresh=True)
        if not self._by(ALIAS, "key.set_alias", target):
            return self._natively("key.set_alias", params, target, deadline)  # type: ignore[no-any-return]
        try:
            taken = self._provider.ask("key.get", deadline, key_id=params.alias)
        except KeyNotFound:
            taken = None
        if taken is not None:
            raise AlreadyExists(f"there is a key that is called {params.alias!r} itself")
        self._records.set_alias(params.alias, target.key_id)
        return EmptyResult(executed_by=ALIAS.label)

    def _remove_alias(self, params: Any, deadline: Deadline) -> EmptyResult:
        target = self._records.find(params.key_id, deadline, fresh=True)
        if not self._by(ALIAS, "key.remove_alias", target):
            return self._natively("key.remove_alias", params, target, deadline)  # type: ignore[no-any-return]
        self._records.remove_alias(params.alias, target.key_id)
        return EmptyResult(executed_by=ALIAS.label)

    def _tag(self, params: Any, deadline: Deadline) -> Key:
        target = self._records.find(params.key_id, deadline, fresh=True)
        if not self._by(TAGS, "key.tag", target):
            return self._natively("key.tag", params, target, deadline)  # type: ignore[no-any-return]

        def tagged(body: Body) -> Body:
            after = copy.deepcopy(body)
            tags = {**after.get("tags", {}), **params.set}
            after["tags"] = {name: value for name, value in tags.items() if name not in params.remove}
            return after

        return self._key(target, deadline, self._records.change(target.key_id, tagged), TAGS.label)

    def _get_public_key(self, params: Any, deadline: Deadline) -> Result:
        target = self._records.find(params.key_id, deadline)
        body = target.body
        if body is None or "versions" not in body:
            return self._natively("key.get_public_key", params, target, deadline)  # type: ignore[no-any-return]
        name = params.key_version or body["current"]
        sent = params.model_copy(update={"key_id": versioning.part(body, name)["key"], "key_version": None})
        answer: Any = self._below(BY_WIRE["key.get_public_key"], sent, deadline)
        update = {"key_id": target.key_id, "key_version": name}
        return answer.model_copy(update=update)  # type: ignore[no-any-return]

    def _batch(self, params: Any, deadline: Deadline) -> Result:
        """Hand a batch on, unless it would pass by what the catalog keeps of one of its keys."""
        for call in params.calls:
            for member in ("key_id", "source_key_id"):
                named = call.params.get(member)
                if isinstance(named, str) and not self._is_plain(named, deadline):
                    raise UnsupportedOperation(
                        f"a batch would pass by what the catalog keeps of {named}",
                        hint="make the calls one by one",
                    )
        answer: Result = self._below(BY_WIRE["crypto.batch"], params, deadline)  # type: ignore[assignment]
        return answer

    def _is_plain(self, named: str, deadline: Deadline) -> bool:
        try:
            target = self._records.find(named, deadline)
        except KeyNotFound:
            return True  # as the answer to the call will say
        kept = target.body or {}
        return not (kept.keys() & {"states", "deletion", "versions", "destroyed"}) and (
            named == target.key_id or not self._records.is_alias(named)
        )
