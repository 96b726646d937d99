"""Cases about what keys are called: aliases and tags (SPEC.md sections 4.1, 4.6)."""

from typing import Final

from kmsplug_protocol import (
    jsonrpc,
)

from .bench import Bench, key_name
from .case import Cases, offers
from .verdict import Skipped, check

LABELS: Final = Cases("keys")

_PARAMS: Final = jsonrpc.INVALID_PARAMS
_EITHER: Final = (jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR)


@LABELS.case(
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


@LABELS.case(
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


@LABELS.case(
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


@LABELS.case(
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


@LABELS.case(
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
