"""Cases about making, reading and listing keys (SPEC.md sections 4.1, 4.6)."""

from collections.abc import Iterator
from typing import Any, Final

from kmsplug_protocol import (
    Key,
    KeyAlgorithm,
    KeyState,
    Origin,
    Protection,
    jsonrpc,
)
from kmsplug_protocol.kinds import ASYMMETRIC, RSA, usages_of

from . import reference
from .bench import Bench, key_name
from .case import Cases, offers
from .session import Session, read_result
from .verdict import Skipped, check

KEYS: Final = Cases("keys")

_PARAMS: Final = jsonrpc.INVALID_PARAMS
_EITHER: Final = (jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR)
_MANY_KEYS: Final = 40  # more than these are not walked one by one

_CREATE: Final = offers("key.create")

# The least that each operation on an existing key needs beside the key.
_SAMPLES: Final[dict[str, dict[str, Any]]] = {
    "key.get": {},
    "key.enable": {},
    "key.disable": {},
    "key.set_state": {"state": "SUSPENDED"},
    "key.schedule_deletion": {},
    "key.backup": {},
    "key.rotate": {},
    "key.list_versions": {},
    "key.get_public_key": {},
    "key.set_alias": {"alias": "kmsplug-conformance"},
    "key.tag": {"set": {"a": "b"}},
    "crypto.encrypt": {"plaintext": b"x"},
    "crypto.generate_data_key": {},
    "crypto.wrap_key": {"key": bytes(32)},
    "crypto.sign": {"message": b"x"},
    "crypto.verify": {"message": b"x", "signature": bytes(64)},
    "crypto.mac": {"message": b"x"},
    "crypto.verify_mac": {"message": b"x", "mac": bytes(32)},
    "crypto.encapsulate": {},
    # Nobody can have made these bytes, so that is a reason to refuse as well.
    "crypto.decrypt": {"ciphertext": bytes(64)},
    "crypto.unwrap_key": {"wrapped_key": bytes(40)},
}
_OPENING: Final = frozenset({"crypto.decrypt", "crypto.unwrap_key"})


@KEYS.case(
    "create",
    "4.6-4 5.1-1 4.3-1",
    _CREATE,
    hint="describe a key in one place, for key.create and key.get alike",
)
def create(bench: Bench) -> None:
    """A key of every declared kind can be made, is ACTIVE, and is what was asked for."""
    for algorithm, usage in bench.capabilities.kinds():
        key = bench.make_key(algorithm, usage)
        seen = (key.algorithm, key.usage, key.state, key.origin, key.exportable, key.executed_by)
        wanted = (algorithm, usage, KeyState.ACTIVE, Origin.GENERATED, False, "native")
        check(seen == wanted, f"a new {algorithm} key for {usage} came back as {', '.join(map(str, seen))}")
        if bench.capabilities.offers("key.get"):
            read = bench.session.ask("key.get", {"key_id": key.key_id})
            read = read.model_copy(update={"vendor": key.vendor})  # another request: another request id
            check(read == key, f"key.get describes the new {algorithm} key otherwise than key.create did")


@KEYS.case("ids", "4.1-5 3.3-5", _CREATE, hint="key_namespace holds prefixes; the empty one fits all")
def ids(bench: Bench) -> None:
    """Each key has an id of its own, in the namespace that configure named."""
    algorithm, usage = next(bench.capabilities.kinds())
    found = [bench.make_key(algorithm, usage).key_id for _ in range(2)]
    check(found[0] != found[1], "two keys have the same id")
    for key_id in found:
        inside = any(key_id.startswith(prefix) for prefix in bench.opened.key_namespace)
        check(inside, f"the id {key_id!r} starts with none of key_namespace")


@KEYS.case("undeclared_kinds", "4.6-1 5.2-2", _CREATE, hint="compare with your own rows, then refuse")
def undeclared_kinds(bench: Bench) -> None:
    """A kind of key that no row promises, or not for that usage, is refused with UNSUPPORTED_OPERATION."""
    for algorithm in KeyAlgorithm:
        for usage in usages_of(algorithm):
            if not bench.capabilities.makes(algorithm, usage):
                body = {"algorithm": algorithm, "usage": usage}
                bench.session.call("key.create", body).refused("UNSUPPORTED_OPERATION")


@KEYS.case("unknown_values", "4.1-3 4.1-1", _CREATE, hint="check the type before you look a value up")
def unknown_values(bench: Bench) -> None:
    """Values that are in no set, and members of the wrong type, are refused; nothing is made."""
    algorithm, usage = next(bench.capabilities.kinds())
    good = {"algorithm": algorithm, "usage": usage}
    unknown = {"algorithm": "AES_999", "usage": "NONSENSE", "protection": "paper", "origin": "found"}
    malformed = {"algorithm": ["AES_256_GCM"], "exportable": {}, "name": "", "tags": [], "usage": 7}
    for name, value in [*unknown.items(), *malformed.items()]:
        answer = bench.session.call("key.create", {**good, name: value})
        answer.refused("INVALID_ARGUMENT", "UNSUPPORTED_OPERATION", number=_EITHER)
    bench.session.call("key.create", {}).refused("INVALID_ARGUMENT", number=_PARAMS)


@KEYS.case(
    "usage", "4.6-2", _CREATE, hint="an RSA key can have three usages: which one, the caller has to say"
)
def usage(bench: Bench) -> None:
    """Without a usage RSA keys are refused, and others get their natural one."""
    for algorithm, natural in bench.capabilities.kinds():
        answer = bench.session.call("key.create", {"algorithm": algorithm})
        if algorithm in RSA:
            answer.refused("INVALID_ARGUMENT", number=_EITHER)
        elif natural is usages_of(algorithm)[0]:
            key = read_result("key.create", answer.granted())
            bench.will_delete(key)
            check(key.usage is natural, f"a {algorithm} key was made for {key.usage}")


@KEYS.case("demands", "4.1-2 4.6-3 11-8", _CREATE, hint="refuse what you cannot give; never make less")
def demands(bench: Bench) -> None:
    """Protection, exportability, origin, name and tags are met, or refused with UNSUPPORTED_OPERATION."""
    asked: list[dict[str, Any]] = [{"protection": protection} for protection in Protection]
    asked += [{"exportable": True}, {"tags": {"colour": "r\u00f6t"}}, {"name": key_name()}]
    if not bench.capabilities.offers("key.import"):
        asked.append({"origin": Origin.IMPORTED})
    algorithm, usage = next(bench.capabilities.kinds())
    for members in asked:
        answer = bench.session.call("key.create", {"algorithm": algorithm, "usage": usage, **members})
        if answer.result is None:
            answer.refused("UNSUPPORTED_OPERATION")
            continue
        key: Key = read_result("key.create", answer.result)
        bench.will_delete(key)
        check("origin" not in members, "a key was made for material that can never be imported")
        for name, value in members.items():
            met = getattr(key, name) == value or (name == "name" and value in key.key_id)
            check(met, f"{name} {value!r} was asked for, {getattr(key, name)!r} was made")


@KEYS.case("key_id", "4.1-1", offers("key.get"), hint="check the params of every operation against its table")
def key_id(bench: Bench) -> None:
    """A key id that is missing, no string, empty or over 2,048 characters is refused with -32602."""
    bench.session.call("key.get", {}).refused("INVALID_ARGUMENT", number=_PARAMS)
    wrong: tuple[Any, ...] = (7, ["x"], {}, True, "", "x" * 2049)
    for value in wrong:
        bench.session.call("key.get", {"key_id": value}).refused("INVALID_ARGUMENT", number=_PARAMS)


@KEYS.case("not_found", "4.1-4", _CREATE, hint="map whatever your provider says about strange ids")
def not_found(bench: Bench) -> None:
    """Every operation refuses an id that names no key with KEY_NOT_FOUND, however strange the id."""
    algorithm, usage = next(bench.capabilities.kinds())
    real = bench.make_key(algorithm, usage).key_id
    prefix = bench.opened.key_namespace[0]
    strange = (
        f"{prefix}no-such-key",
        real + "0",
        real[:-1],
        prefix + "\u00e9/..",
        "../../etc/passwd",
        "x" * 2048,
    )
    for operation, sample in _SAMPLES.items():
        if bench.capabilities.offers(operation):
            codes = ["KEY_NOT_FOUND"] + ["INVALID_CIPHERTEXT"] * (operation in _OPENING)
            for name in strange:
                bench.session.call(operation, {"key_id": name, **sample}).refused(*codes)


@KEYS.case(
    "list",
    "4.6-5",
    offers("key.create", "key.list"),
    hint="a page that ends exactly at the last key has no next_cursor",
)
def list_keys(bench: Bench) -> None:
    """The pages of a list hold every key once, and none more than was asked for."""
    algorithm, usage = next(bench.capabilities.kinds())
    made = {bench.make_key(algorithm, usage).key_id for _ in range(3)}
    found = [key.key_id for key in _walk(bench.session, 1000)]
    check(made <= set(found), f"{len(made - set(found))} of 3 new keys are not in the list")
    check(len(found) == len(set(found)), "a key is in the list twice")
    if len(found) <= _MANY_KEYS:
        for limit in (1, 2):
            again = [key.key_id for key in _walk(bench.session, limit)]
            check(
                sorted(again) == sorted(found),
                f"pages of {limit} do not hold the same keys as one large page",
            )


def _walk(session: Session, limit: int) -> Iterator[Key]:
    cursor: dict[str, str] = {}
    while True:
        page = session.ask("key.list", {"limit": limit, **cursor})
        check(len(page.keys) <= limit, f"a page of at most {limit} keys holds {len(page.keys)}")
        yield from page.keys
        if page.next_cursor is None:
            return
        check(page.next_cursor != cursor.get("cursor"), "next_cursor does not move")
        cursor = {"cursor": page.next_cursor}


@KEYS.case(
    "list_bounds", "4.6-6 4.1-1", offers("key.list"), hint="make cursors that you can recognise as yours"
)
def list_bounds(bench: Bench) -> None:
    """Page sizes outside 1 to 1,000 and cursors that the driver did not make are refused."""
    for limit in (0, -1, 1001, "many", [1]):
        bench.session.call("key.list", {"limit": limit}).refused("INVALID_ARGUMENT", number=_PARAMS)
    for cursor in ("no-such-cursor", "\u00e9", "x" * 4096):
        bench.session.call("key.list", {"cursor": cursor}).refused("INVALID_ARGUMENT", number=_EITHER)


@KEYS.case(
    "refused_makes_nothing",
    "7.4-1 4.1-1",
    offers("key.create", "key.list"),
    hint="check everything, then begin; say outcome unknown where you cannot tell",
)
def refused_makes_nothing(bench: Bench) -> None:
    """A create that was refused, and not said to be applied, made no key."""
    algorithm, usage = next(bench.capabilities.kinds())
    good = {"algorithm": algorithm, "usage": usage}
    before = {key.key_id for key in _walk(bench.session, 1000)}
    for wrong in (
        {**good, "tags": {"a": 1}},
        {**good, "tags": {f"t{number}": "x" for number in range(51)}},
        {**good, "name": "x" * 257},
        {**good, "exportable": "no"},
        {**good, "protection": "paper"},
        {**good, "origin": "found"},
        {"algorithm": algorithm, "usage": "NONSENSE"},
    ):
        answer = bench.session.call("key.create", wrong)
        answer.refused("INVALID_ARGUMENT", "UNSUPPORTED_OPERATION", "LIMIT_EXCEEDED", number=_EITHER)
        check(answer.data.get("outcome") in (None, "not_applied"), "a refused create is said to be applied")
    after = {key.key_id for key in _walk(bench.session, 1000)}
    check(after <= before, f"refused requests made {len(after - before)} keys")


@KEYS.case(
    "many", "4.6-5 4.6-4", offers("key.create", "key.list"), hint="make ids at random, or count under a lock"
)
def many(bench: Bench) -> None:
    """Keys that are asked for at the same time are as many different keys, and all are listed."""
    algorithm, usage = next(bench.capabilities.kinds())
    session = bench.session
    count = 8
    line = [
        session.frame("key.create", {"algorithm": algorithm, "usage": usage}, number)
        for number in range(count)
    ]
    session.send(b"".join(line))
    made = [read_result("key.create", session.next("key.create").granted()) for _ in line]
    for key in made:
        bench.will_delete(key)
    ids = {key.key_id for key in made}
    check(len(ids) == count, f"{count} creates made {len(ids)} keys")
    listed = {key.key_id for key in _walk(session, 1000)}
    check(ids <= listed, f"{len(ids - listed)} of {count} new keys are not in the list")


@KEYS.case(
    "public_key",
    "4.4-1 4.6-14",
    offers("key.create", "key.get_public_key"),
    hint="DER, not PEM; SubjectPublicKeyInfo, not the bare key",
)
def public_key(bench: Bench) -> None:
    """Public keys are DER SubjectPublicKeyInfo of the key's kind; symmetric keys have none."""
    reference.require_library()
    for algorithm, usage in bench.capabilities.kinds():
        key = bench.make_key(algorithm, usage)
        answer = bench.session.call("key.get_public_key", {"key_id": key.key_id})
        if algorithm not in ASYMMETRIC:
            answer.refused("KEY_USAGE_MISMATCH", "UNSUPPORTED_OPERATION")
        elif bench.capabilities.covers("key.get_public_key", algorithm):
            result = read_result("key.get_public_key", answer.granted())
            reference.public_key(algorithm, result.public_key)
            check(result.algorithm is algorithm, f"the public key of {algorithm} says {result.algorithm}")


@KEYS.case("validate", "4.6-15", offers("key.create", "key.validate"), hint="answer valid: false and say why")
def validate(bench: Bench) -> None:
    """What does not fit is a result with a reason, not an error."""
    algorithm, usage = next(bench.capabilities.kinds())
    real = bench.make_key(algorithm, usage).key_id
    other = next(one for one in KeyAlgorithm if one is not algorithm)
    good = bench.session.ask("key.validate", {"key_id": real, "algorithm": algorithm})
    check(good.valid, f"a key of this driver is said not to do: {good.reason!r}")
    for params in ({"key_id": real, "algorithm": other}, {"key_id": real + "0"}):
        bad = bench.session.ask("key.validate", params)
        check(
            not bad.valid and bool(bad.reason), "a key that does not fit is said to do, or no reason is given"
        )


@KEYS.case(
    "backup",
    "5.1-1",
    offers("key.create", "key.backup", "key.restore"),
    hint="ALREADY_EXISTS if the key is still there",
)
def backup(bench: Bench) -> None:
    """A backup is restored to the same kind of key, unless that key is still there."""
    algorithm, usage = next(bench.capabilities.kinds())
    key = bench.make_key(algorithm, usage)
    copy = bench.session.ask("key.backup", {"key_id": key.key_id}).backup
    answer = bench.session.call("key.restore", {"backup": copy})
    if answer.result is None:
        answer.refused("ALREADY_EXISTS")
    else:
        restored = read_result("key.restore", answer.result)
        bench.will_delete(restored)
        check(
            (restored.algorithm, restored.usage) == (algorithm, usage), "the restored key is of another kind"
        )


@KEYS.case(
    "same_keystore",
    "3.3-4 4.3-3 4.4-2",
    offers("key.create", "key.get"),
    hint="a key is stored before it is answered",
)
def same_keystore(bench: Bench) -> None:
    """A key outlives the process that made it, however that ended, in the keystore of the same identity."""
    algorithm, usage = next(bench.capabilities.kinds())
    with bench.initialized() as session:
        identity = session.configure(bench.config).identity
        key = session.ask("key.create", {"algorithm": algorithm, "usage": usage})
        bench.will_delete(key)
    with bench.initialized() as session:
        if session.configure(bench.config).identity != identity:
            raise Skipped("each process of this driver has a keystore of its own")
        again = session.ask("key.get", {"key_id": key.key_id})
        again = again.model_copy(update={"vendor": key.vendor})  # another request: another request id
        check(again == key, "another process describes the key otherwise")
