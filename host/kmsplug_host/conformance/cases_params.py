"""Cases about params that do not fit their tables, for every operation alike (SPEC.md 4.1, 4.2)."""

from collections.abc import Iterator
from typing import Any, Final

from kmsplug_protocol import BY_WIRE, KEYSTORE_API, Operation, jsonrpc

from .bench import Bench
from .case import Cases, offers
from .session import read_result
from .uses import ENCRYPTS, SAMPLE, Made, encryptions, uses
from .verdict import check

PARAMS: Final = Cases("params")

_PARAMS: Final = jsonrpc.INVALID_PARAMS
_EITHER: Final = (jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR)

# None of these is a legal value of any member that takes a string, a number, an array or a map.
_WRONG: Final[tuple[Any, ...]] = ({"a": {"b": []}}, [[1]], True, -1.5, -(2**53) + 1)


def _offered(bench: Bench) -> Iterator[Operation]:
    return (operation for operation in KEYSTORE_API if bench.capabilities.offers(operation.wire))


def _required(operation: Operation) -> list[str]:
    return [name for name, member in operation.params.model_fields.items() if member.is_required()]


@PARAMS.case("missing", "4.1-1", hint="check params against their table before anything else")
def missing(bench: Bench) -> None:
    """Without its required members every operation is refused with -32602."""
    for operation in _offered(bench):
        if _required(operation):
            answer = bench.session.call(operation.wire, {})
            answer.refused("INVALID_ARGUMENT", number=_PARAMS)


@PARAMS.case("null", "4.1-1 1.2-1", hint="null is no string: do not make the text of it")
def null(bench: Bench) -> None:
    """Null for a required member is refused with -32602, for every operation."""
    for operation in _offered(bench):
        if required := _required(operation):
            answer = bench.session.call(operation.wire, dict.fromkeys(required))
            answer.refused("INVALID_ARGUMENT", number=_PARAMS)


@PARAMS.case("wrong_types", "4.1-1 4.1-9", hint="one check of all params, driven by a table, misses none")
def wrong_types(bench: Bench) -> None:
    """Members of the wrong type are refused in an orderly way, whichever it is and whatever it holds."""
    for operation in _offered(bench):
        required = _required(operation)
        for name in operation.params.model_fields if required else ():
            for value in _WRONG:
                answer = bench.session.call(operation.wire, {name: value})
                answer.refused(number=_EITHER)


@PARAMS.case("too_long", "4.1-1 11-4", hint="compare lengths with the table before you look a name up")
def too_long(bench: Bench) -> None:
    """A key id of more than 2,048 characters is refused with -32602, by every operation that takes one."""
    for operation in _offered(bench):
        if "key_id" in _required(operation):
            answer = bench.session.call(operation.wire, {"key_id": "x" * 2049})
            answer.refused("INVALID_ARGUMENT", number=_PARAMS)


@PARAMS.case("empty", "4.1-1", hint="an empty id is not the first key")
def empty(bench: Bench) -> None:
    """An empty key id is refused with -32602, by every operation that takes one."""
    for operation in _offered(bench):
        if "key_id" in _required(operation):
            bench.session.call(operation.wire, {"key_id": ""}).refused("INVALID_ARGUMENT", number=_PARAMS)


@PARAMS.case("configure", "4.1-1 3.1-1", hint="check the params of plugin.* like any others")
def configure(bench: Bench) -> None:
    """Malformed params of plugin.configure are refused with -32602, and right ones then work."""
    with bench.initialized() as session:
        for wrong in ({}, {"config": None}, {"config": [1]}, {"config": "x"}, {"config": 7}):
            session.call("plugin.configure", wrong).refused("INVALID_ARGUMENT", number=_PARAMS)
        session.configure(bench.config)


@PARAMS.case("unknown_members", "9-2", ENCRYPTS, hint="read what you know, ignore all else")
def unknown_members(bench: Bench) -> None:
    """Members that the driver does not know change nothing of any use of a key."""
    unknown: dict[str, Any] = {"grease": {"a": [None, 1]}, "x-future": "y", "": ""}
    for use in uses(bench.capabilities):
        key_id = bench.key(use.target)
        made = use.make(bench.session, key_id, **unknown)
        use.require_open(bench.session, key_id, made, **unknown)


@PARAMS.case("null_options", "1.2-1", ENCRYPTS, hint="take null for an optional member as its absence")
def null_options(bench: Bench) -> None:
    """Null for an optional member is refused, or taken as its absence."""
    for use in encryptions(bench.capabilities):
        key_id = bench.key(use.target)
        for name in ("key_version", "associated_data", "context"):
            nothing: dict[str, Any] = {name: None}
            answer = use.try_make(bench.session, key_id, **nothing)
            if answer.result is None:
                answer.refused(number=_EITHER)
            else:
                read_result("crypto.encrypt", answer.result)
                use.require_open(bench.session, key_id, Made(SAMPLE, {}, answer.result))


@PARAMS.case("meta", "4.2-1 4.2-2", offers("key.create", "key.get"), hint="meta decides nothing")
def meta(bench: Bench) -> None:
    """Whatever tenant, actor or trace a request names, a key is the same key."""
    algorithm, usage = next(bench.capabilities.kinds())
    key = bench.make_key(algorithm, usage, meta={"tenant": "a", "actor": "b"})
    read = BY_WIRE["key.get"].result
    for told in (
        {},
        {"tenant": "other", "actor": "\u202eelse\n", "traceparent": "no trace", "correlation_id": "\0"},
        {"tenant": "t" * 256, "deadline_ms": 2**53 - 1},
        {"tenant": "../../etc", "grease": {"a": 1}},
    ):
        answer = bench.session.call("key.get", {"key_id": key.key_id, "meta": told})
        found = read_result("key.get", answer.granted())
        check(isinstance(found, read), "key.get answers with something else")
        check(found.key_id == key.key_id, f"with meta {told} another key came back")


@PARAMS.case("deadline", "3.6-1 4.2-1", offers("crypto.random"), hint="TIMEOUT is an answer, silence is none")
def deadline(bench: Bench) -> None:
    """A request whose time is over or nearly so is answered once: with its result, or with TIMEOUT."""
    for left in (0, 1, 5, 60_000):
        body = {"length_bytes": 8, "meta": {"deadline_ms": left}}
        answer = bench.session.call("crypto.random", body)
        if answer.result is None:
            answer.refused("TIMEOUT", "CANCELLED")
    bench.session.settle()
