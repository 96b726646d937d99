"""Cases about changes whose answer was lost (SPEC.md `key.reconcile`)."""

import secrets
from collections.abc import Mapping
from typing import Any, Final

from kmsplug_protocol import Key, Outcome, ReconcileResult, jsonrpc

from .bench import Bench
from .case import Cases, offers
from .session import read_result
from .verdict import check

RECONCILE: Final = Cases("reconcile")

_CREATE: Final = offers("key.create", "key.reconcile")
_ROTATE: Final = offers("key.create", "key.rotate", "key.reconcile")


@RECONCILE.case("create", "4.6-19 4.6-20", _CREATE, hint="write the idempotency key in one step with the key")
def create(bench: Bench) -> None:
    """A create that was carried out is found by its idempotency key, one that never came is not."""
    change = _change()
    key = _create(bench, change)
    found = _ask(bench, "key.create", change)
    check(found.outcome is Outcome.APPLIED, f"a create that was carried out is {found.outcome}")
    check(
        found.key is not None and found.key.key_id == key.key_id,
        "key.reconcile does not describe the key that was made",
    )
    other = _ask(bench, "key.create", _change())
    check(other.outcome is not Outcome.APPLIED, "a create that never came is said to be applied")


@RECONCILE.case("rotate", "4.6-19 4.6-20", _ROTATE, hint="keep which rotate made which version")
def rotate(bench: Bench) -> None:
    """A rotate that was carried out is found, also after another one; one that never came is not."""
    key = _create(bench, _change())
    named = {"key_id": key.key_id}
    change = _change()
    for each in (change, _change()):
        bench.session.ask("key.rotate", {**named, **each})
    found = _ask(bench, "key.rotate", change, named)
    check(found.outcome is Outcome.APPLIED, f"a rotate that was carried out is {found.outcome}")
    check(
        found.key is not None and found.key.key_version != key.key_version,
        "key.reconcile shows the version from before the rotate",
    )
    other = _ask(bench, "key.rotate", _change(), named)
    check(other.outcome is not Outcome.APPLIED, "a rotate that never came is said to be applied")


@RECONCILE.case(
    "in_progress", "4.6-20", _CREATE, hint="answer unknown while it is in progress, or make one key of two"
)
def in_progress(bench: Bench) -> None:
    """What is repeated because it was not_applied has the effect of one, also if it was in progress then."""
    change = _change()
    asked = bench.session.request("key.create", {**_kind(bench), **change})
    bench.session.request("key.reconcile", _question("key.create", change))
    answers = {answer.id: answer for answer in (bench.session.next(), bench.session.next())}
    first: Key = read_result("key.create", answers.pop(asked).granted())
    bench.will_delete(first)
    (answer,) = answers.values()
    found: ReconcileResult = read_result("key.reconcile", answer.granted())
    if found.outcome is Outcome.NOT_APPLIED:
        second = _create(bench, change)
        check(second.key_id == first.key_id, "two creates under one idempotency key made two keys")


@RECONCILE.case("unknown", "4.6-20", offers("key.reconcile"), hint="answer unknown for what you do not keep")
def unknown(bench: Bench) -> None:
    """Nothing certain is said of operations that do not exist."""
    found = _ask(bench, "key.no_such_operation", _change())
    check(
        found.outcome is Outcome.UNKNOWN, f"what became of an operation that does not exist: {found.outcome}"
    )


@RECONCILE.case("other_change", "4.2-3 4.6-22 4.6-20", _CREATE, hint="one idempotency key is one change")
def other_change(bench: Bench) -> None:
    """The idempotency key of a change is not found under another operation, nor another spelling."""
    change = _change()
    _create(bench, change)
    spelled = {"meta": {"idempotency_key": change["meta"]["idempotency_key"].upper() + "!"}}
    for method, name in (("key.create", spelled), ("key.import", change)):
        found = _ask(bench, method, name)
        check(found.outcome is not Outcome.APPLIED, f"a {method} that never came is said to be applied")


@RECONCILE.case(
    "params", "4.1-1", offers("key.reconcile"), hint="both method and idempotency_key are required"
)
def params(bench: Bench) -> None:
    """A question without its idempotency key, or with one out of bounds, is refused with -32602."""
    good = {"method": "key.create", "idempotency_key": "x"}
    for wrong in (
        {"method": "key.create"},
        {**good, "idempotency_key": ""},
        {**good, "idempotency_key": "x" * 129},
    ):
        bench.session.call("key.reconcile", wrong).refused("INVALID_ARGUMENT", number=jsonrpc.INVALID_PARAMS)


def _change() -> dict[str, Any]:
    """Return the meta of a change that nobody asked for yet."""
    return {"meta": {"idempotency_key": secrets.token_hex(16)}}


def _kind(bench: Bench) -> dict[str, Any]:
    algorithm, usage = next(bench.capabilities.kinds())
    return {"algorithm": algorithm, "usage": usage}


def _create(bench: Bench, change: Mapping[str, Any]) -> Key:
    key: Key = bench.session.ask("key.create", {**_kind(bench), **change})
    bench.will_delete(key)
    return key


def _question(
    method: str, change: Mapping[str, Any], named: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return {"method": method, "idempotency_key": change["meta"]["idempotency_key"], **(named or {})}


def _ask(
    bench: Bench, method: str, change: Mapping[str, Any], named: Mapping[str, Any] | None = None
) -> ReconcileResult:
    result: ReconcileResult = bench.session.ask("key.reconcile", _question(method, change, named))
    return result
