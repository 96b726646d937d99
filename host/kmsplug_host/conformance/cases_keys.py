"""Cases about making, reading and listing keys (SPEC.md sections 4.1, 4.6)."""

import secrets
from collections.abc import Iterator
from typing import Any, Final

from kmsplug_protocol import (
    Key,
    KeyAlgorithm,
    KeyState,
    Origin,
    Protection,
    encode_base64,
    jsonrpc,
)

from . import reference
from .bench import Bench, key_name
from .capabilities import ASYMMETRIC, RSA, natural_usages
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
    """A kind of key that no row promises is refused with UNSUPPORTED_OPERATION."""
    for algorithm in KeyAlgorithm:
        if not bench.capabilities.covers("key.create", algorithm):
            body = {"algorithm": algorithm, "usage": natural_usages(algorithm)[0]}
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
        elif natural is natural_usages(algorithm)[0]:
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
    "tag_bounds", "4.1-1", offers("key.create", "key.get", "key.tag"), hint="at most 50 at once, texts only"
)
def tag_bounds(bench: Bench) -> None:
    """Tags that are no texts, or too many, are refused, and none of them is written."""
    algorithm, usage = next(bench.capabilities.kinds())
    name = {"key_id": bench.make_key(algorithm, usage).key_id}
    many = {f"t{number}": "x" for number in range(51)}
    for wrong in (
        {"set": {"a": 1}},
        {"set": {"a": None}},
        {"set": ["a"]},
        {"remove": "a"},
        {"remove": [1]},
        {"set": many},
    ):
        answer = bench.session.call("key.tag", {**name, **wrong})
        answer.refused("INVALID_ARGUMENT", number=_PARAMS)
    found = bench.session.ask("key.get", name).tags
    check(found == {}, f"refused tags were written: {sorted(found)[:3]}")


@KEYS.case(
    "alias_at_work",
    "4.1-5",
    offers("key.create", "key.set_alias", "crypto.encrypt", "crypto.decrypt"),
    hint="resolve the alias, then answer with the key's own id",
)
def alias_at_work(bench: Bench) -> None:
    """An alias encrypts and decrypts as its key's id does, and the results name the id."""
    target = next(iter(bench.capabilities.targets("crypto.encrypt")), None)
    if target is None:
        raise Skipped("no kind of key can be made and encrypts")
    key_id = bench.make_key(target.algorithm, target.usage).key_id
    name = key_name()
    bench.session.ask("key.set_alias", {"key_id": key_id, "alias": name})
    made = bench.session.ask("crypto.encrypt", {"key_id": name, "plaintext": b"x"})
    opened = bench.session.ask("crypto.decrypt", {"key_id": name, "ciphertext": made.ciphertext})
    check(opened.plaintext == b"x", "what was encrypted by an alias does not come back")
    for result in (made, opened):
        check(result.key_id == key_id, f"the result names {result.key_id!r}, not the key's own id")


@KEYS.case(
    "alias_of_nobody",
    "4.1-4 4.1-7",
    offers("key.set_alias", "key.remove_alias"),
    hint="look the key up first",
)
def alias_of_nobody(bench: Bench) -> None:
    """A key that does not exist gets no alias, and none is taken from it."""
    alias = key_name()
    prefix = next(iter(bench.opened.key_namespace), "")
    for operation in ("key.set_alias", "key.remove_alias"):
        answer = bench.session.call(operation, {"key_id": f"{prefix}{key_name()}", "alias": alias})
        if operation == "key.set_alias" or answer.result is None:
            answer.refused("KEY_NOT_FOUND")
    if bench.capabilities.offers("key.get"):
        bench.session.call("key.get", {"key_id": alias}).refused("KEY_NOT_FOUND")


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


@KEYS.case(
    "alias",
    "4.1-5 4.1-7",
    offers("key.create", "key.get", "key.set_alias", "key.remove_alias"),
    hint="resolve aliases in the one function that finds a key",
)
def alias(bench: Bench) -> None:
    """An alias stands for its key wherever an id does, can be pointed elsewhere, and can be taken away."""
    algorithm, usage = next(bench.capabilities.kinds())
    first, second = (bench.make_key(algorithm, usage).key_id for _ in range(2))
    name = key_name()
    for owner in (first, second, second):
        bench.session.ask("key.set_alias", {"key_id": owner, "alias": name})
        found = bench.session.ask("key.get", {"key_id": name})
        check(found.key_id == owner, "key.get by an alias does not show the key's own id")
        check(name in found.aliases, "the key does not list its alias")
    check(
        name not in bench.session.ask("key.get", {"key_id": first}).aliases,
        "an alias that moved is still listed",
    )
    bench.session.ask("key.remove_alias", {"key_id": second, "alias": name})
    bench.session.call("key.get", {"key_id": name}).refused("KEY_NOT_FOUND")


@KEYS.case(
    "tags",
    "4.1-7",
    offers("key.create", "key.get", "key.tag"),
    hint="apply set, then remove; both may be repeated",
)
def tags(bench: Bench) -> None:
    """Tags are written, overwritten, removed and read back."""
    algorithm, usage = next(bench.capabilities.kinds())
    key_id = bench.make_key(algorithm, usage).key_id
    for change, wanted in (
        ({"set": {"a": "1", "b": ""}}, {"a": "1", "b": ""}),
        ({"set": {"a": "2"}, "remove": ["b"]}, {"a": "2"}),
        ({"set": {"a": "2"}, "remove": ["b"]}, {"a": "2"}),
        ({"remove": ["a"]}, {}),
    ):
        bench.session.ask("key.tag", {"key_id": key_id, **change})
        found = bench.session.ask("key.get", {"key_id": key_id}).tags
        check(found == wanted, f"the tags are {found}, not {wanted}")


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


_IMPORT: Final = offers(
    "key.create", "key.get_import_parameters", "key.import", "crypto.encrypt", "crypto.decrypt"
)


@KEYS.case(
    "import",
    "4.6-12 4.6-13 4.4-1",
    _IMPORT,
    hint="the imported bytes are the key, unchanged; bad ones are INVALID_ARGUMENT, in one sentence",
)
def import_key(bench: Bench) -> None:
    """Imported material becomes the key: what is encrypted with it opens here; before, nothing worked."""
    reference.require_library()
    formats = {name for row in bench.capabilities.rows for name in row.import_formats}
    kind = (KeyAlgorithm.AES_256_GCM, natural_usages(KeyAlgorithm.AES_256_GCM)[0])
    if "RSA_OAEP_SHA_256" not in formats or not bench.capabilities.makes(*kind):
        raise Skipped("this case imports AES_256_GCM keys under RSA_OAEP_SHA_256")
    session = bench.session
    key = bench.make_key(*kind, origin=Origin.IMPORTED)
    name = {"key_id": key.key_id}
    check(key.state is KeyState.PRE_ACTIVE, f"without its material the key is {key.state}")
    session.call("crypto.encrypt", {**name, "plaintext": b"x"}).refused("KEY_INVALID_STATE")
    terms = session.ask("key.get_import_parameters", name)
    material = bytes(range(32))
    wrapping = reference.any_public_key(terms.public_key)
    body = {**name, "wrapping_algorithm": terms.wrapping_algorithm, "import_token": terms.import_token}
    session.call("key.import", {**body, "wrapped_key": bytes(384)}).refused(
        "INVALID_ARGUMENT", number=_EITHER
    )
    wrapped = reference.oaep(wrapping, terms.wrapping_algorithm, material)
    done = session.ask("key.import", {**body, "wrapped_key": wrapped})
    check(
        (done.state, done.origin) == (KeyState.ACTIVE, Origin.IMPORTED), f"after it the key is {done.state}"
    )
    row = next(row for row in bench.capabilities.of("crypto.encrypt") if row.key_algorithm in (None, kind[0]))
    sealed = session.ask("crypto.encrypt", {**name, "plaintext": b"x"}).ciphertext
    opened = session.ask("crypto.decrypt", {**name, "ciphertext": sealed}).plaintext
    if row.wrap_algorithm == "A256GCM":
        opened = reference.open_gcm(material, sealed)
    check(opened == b"x", "what the imported key encrypted does not open")


@KEYS.case(
    "material_stays", "11-6 7.6-1", _IMPORT, hint="no result but a data key and a backup holds material"
)
def material_stays(bench: Bench) -> None:
    """Material that was imported is in no description, list, backup, error or log."""
    reference.require_library()
    kind = (KeyAlgorithm.AES_256_GCM, natural_usages(KeyAlgorithm.AES_256_GCM)[0])
    formats = {name for row in bench.capabilities.rows for name in row.import_formats}
    if "RSA_OAEP_SHA_256" not in formats or not bench.capabilities.makes(*kind):
        raise Skipped("this case imports AES_256_GCM keys under RSA_OAEP_SHA_256")
    session = bench.session
    name = {"key_id": bench.make_key(*kind, origin=Origin.IMPORTED).key_id}
    material = secrets.token_bytes(32)
    terms = session.ask("key.get_import_parameters", name)
    wrapped = reference.oaep(reference.any_public_key(terms.public_key), terms.wrapping_algorithm, material)
    body = {**name, "wrapping_algorithm": terms.wrapping_algorithm, "import_token": terms.import_token}
    session.ask("key.import", {**body, "wrapped_key": wrapped})
    told = []
    for operation in ("key.get", "key.list_versions", "key.backup", "key.get_public_key"):
        if bench.capabilities.offers(operation):
            answer = session.call(operation, name)
            told.append(str(answer.result or answer.data) + answer.message)
            if answer.result is not None and operation == "key.backup":
                backup = read_result(operation, answer.result).backup
                check(material not in backup, "the backup holds the material as it is")
    for shown in (encode_base64(material)[:-2], material.hex()):
        check(shown not in "".join(told), "an answer holds the material of a key")
        check(shown.encode() not in bytes(session.wire.stderr), "the material of a key stands on stderr")
