"""Cases about strings that somebody chose to do harm: kept as they are, or refused; never acted upon."""

from typing import Any, Final

from kmsplug_protocol import Key, jsonrpc

from .bench import Bench, key_name
from .case import Cases, offers
from .session import read_result
from .uses import ENCRYPTS, encryptions, uses
from .verdict import check

HOSTILE: Final = Cases("hostile")

_EITHER: Final = (jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR)
_NO_SUCH: Final = ("KEY_NOT_FOUND", "INVALID_ARGUMENT")

# What breaks a shell, a path, a query, a template, a log, a terminal, a table, a C string, a normaliser.
STRINGS: Final = (
    "$(id)",
    "`id`",
    "../../../../etc/passwd",
    "/dev/stdin",
    "' OR '1'='1' --",
    '"; DROP TABLE keys; --',
    "%s%n%x",
    "{0.__class__}",
    "${jndi:ldap://127.0.0.1/a}",
    "a\nERROR: forged line",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egpj.exe",
    "nul\x00byte",
    "e\u0301",
    "\ufeffbom",
    "\U0001f511" * 8,
    " ",
    "*",
    "-rf",
)


@HOSTILE.case(
    "key_ids",
    "4.1-4 7.6-1",
    offers("key.create", "key.get"),
    hint="an id is a name, never a path or a pattern",
)
def key_ids(bench: Bench) -> None:
    """No hostile string is the id of a key, alone or behind the namespace of the keystore."""
    algorithm, usage = next(bench.capabilities.kinds())
    bench.make_key(algorithm, usage)
    prefix = next(iter(bench.opened.key_namespace), "")
    for text in STRINGS:
        for key_id in (text, prefix + text):
            bench.session.call("key.get", {"key_id": key_id}).refused("KEY_NOT_FOUND")


@HOSTILE.case("key_versions", "4.1-6", ENCRYPTS, hint="compare the version with those that exist")
def key_versions(bench: Bench) -> None:
    """No hostile string is a version of a key."""
    codes = (*_NO_SUCH, "UNSUPPORTED_OPERATION")
    for use in uses(bench.capabilities):
        key_id = bench.key(use.target)
        made = use.make(bench.session, key_id)
        for version in STRINGS:
            use.try_make(bench.session, key_id, key_version=version).refused(*codes, number=_EITHER)
            answer = use.try_open(bench.session, key_id, made, key_version=version)
            answer.refused(*codes, "INVALID_CIPHERTEXT", number=_EITHER)


@HOSTILE.case("names", "4.1-2 4.6-3", offers("key.create", "key.get"), hint="store it, or refuse it")
def names(bench: Bench) -> None:
    """A key is made under exactly the name that was asked for, or not at all."""
    algorithm, usage = next(bench.capabilities.kinds())
    for text in STRINGS:
        name = f"{key_name()}{text}"
        answer = bench.session.call("key.create", {"algorithm": algorithm, "usage": usage, "name": name})
        if answer.result is None:
            answer.refused("INVALID_ARGUMENT", "UNSUPPORTED_OPERATION", number=_EITHER)
            continue
        key: Key = read_result("key.create", answer.result)
        bench.will_delete(key)
        for found in (key, bench.session.ask("key.get", {"key_id": key.key_id})):
            said = found.name == name or (found.name is None and name in found.key_id)
            check(said, f"a key was asked for as {name!r} and is called {found.name!r}")


@HOSTILE.case(
    "tags",
    "4.1-2 4.1-7",
    offers("key.create", "key.get", "key.tag"),
    hint="tags are data: escape, do not change",
)
def tags(bench: Bench) -> None:
    """Tags are kept exactly as they were written, or refused."""
    algorithm, usage = next(bench.capabilities.kinds())
    key_id = bench.make_key(algorithm, usage).key_id
    for text in STRINGS:
        answer = bench.session.call("key.tag", {"key_id": key_id, "set": {text: text[::-1]}})
        if answer.result is None:
            answer.refused("INVALID_ARGUMENT", number=_EITHER)
            continue
        found = bench.session.ask("key.get", {"key_id": key_id}).tags
        check(found.get(text) == text[::-1], f"the tag {text!r} came back as {found.get(text)!r}")
        bench.session.ask("key.tag", {"key_id": key_id, "remove": [text]})
    left = bench.session.ask("key.get", {"key_id": key_id}).tags
    check(left == {}, f"{len(left)} tags were removed and are still there")


@HOSTILE.case(
    "aliases",
    "4.1-5",
    offers("key.create", "key.get", "key.set_alias", "key.remove_alias"),
    hint="an alias is compared as it is, without patterns or normalisation",
)
def aliases(bench: Bench) -> None:
    """An alias leads to its key and no other, or is refused."""
    algorithm, usage = next(bench.capabilities.kinds())
    key_id = bench.make_key(algorithm, usage).key_id
    for text in STRINGS:
        alias = f"{key_name()}{text}"
        named = {"key_id": key_id, "alias": alias}
        answer = bench.session.call("key.set_alias", named)
        if answer.result is None:
            answer.refused("INVALID_ARGUMENT", number=_EITHER)
            continue
        check(bench.session.ask("key.get", {"key_id": alias}).key_id == key_id, f"{alias!r} leads elsewhere")
        bench.session.call("key.get", {"key_id": alias + "*"}).refused(*_NO_SUCH, number=_EITHER)
        bench.session.ask("key.remove_alias", named)


@HOSTILE.case("cursors", "4.6-6", offers("key.list"), hint="a cursor is yours only if you can prove it")
def cursors(bench: Bench) -> None:
    """No hostile string is a cursor."""
    for text in STRINGS:
        answer = bench.session.call("key.list", {"cursor": text})
        answer.refused("INVALID_ARGUMENT", number=_EITHER)


@HOSTILE.case(
    "values", "4.1-3", offers("key.create"), hint="look values up in a set; never build a name of one"
)
def values(bench: Bench) -> None:
    """No hostile string is an algorithm, a usage, a protection or an origin."""
    algorithm, usage = next(bench.capabilities.kinds())
    good: dict[str, Any] = {"algorithm": algorithm, "usage": usage}
    for text in STRINGS:
        for member in ("algorithm", "usage", "protection", "origin"):
            answer = bench.session.call("key.create", {**good, member: text})
            answer.refused("INVALID_ARGUMENT", "UNSUPPORTED_OPERATION", number=_EITHER)


@HOSTILE.case("methods", "5.2-1 9-4", hint="look methods up in a table; never build a name of one")
def methods(bench: Bench) -> None:
    """No hostile string is a method, alone or behind a namespace."""
    for text in (*STRINGS, "x" * 10_000):
        for method in (text, f"crypto.{text}"):
            answer = bench.session.call(method)
            answer.refused("UNSUPPORTED_OPERATION", number=jsonrpc.METHOD_NOT_FOUND)


@HOSTILE.case("meta", "4.2-1 4.2-2 8-5", hint="escape what you log; leave out what a header cannot hold")
def meta(bench: Bench) -> None:
    """Hostile strings in meta refuse no request and change no answer, and none begins a line on stderr."""
    forged = "forged-5c0e"
    forging = (f"\n{forged}", f'\r\n{{"level":"CRITICAL","message":"{forged}"}}\n', f"\u2028{forged}\x85")
    use = next(iter(encryptions(bench.capabilities)), None)
    for text in (*STRINGS, *forging, "\ufffe\uffff\ufdd0", "\x7f\x9b31m", ""):
        told = dict.fromkeys(("tenant", "actor", "traceparent", "correlation_id"), text)
        bench.session.call("plugin.health", {"meta": told}).granted()
        bench.session.call("no.such", {"meta": told})  # drivers may write about what they refuse
        if use is not None:
            made = use.make(bench.session, bench.key(use.target), meta=told)
            use.require_open(bench.session, bench.key(use.target), made, meta=told)
    bench.session.settle()
    for line in bytes(bench.session.wire.stderr).decode("utf-8", "replace").splitlines():
        began = line.lstrip().startswith((forged, '{"level":"CRITICAL","message":"' + forged))
        check(not began, "a string that came in meta begins a line of its own on stderr")


@HOSTILE.case("mechanisms", "4.1-3 4.1-8", ENCRYPTS, hint="the mechanism is one of your rows, or refused")
def mechanisms(bench: Bench) -> None:
    """No hostile string is a mechanism, and no mechanism is guessed from one."""
    use = encryptions(bench.capabilities)[0]
    key_id = bench.key(use.target)
    for text in (*STRINGS, "AES", "aes_256_gcm", "AES_256_GCM ", "AES_256_CBC", "RSA_PKCS1_V1_5", "NONE"):
        answer = use.try_make(bench.session, key_id, mechanism=text)
        answer.refused("INVALID_ARGUMENT", "UNSUPPORTED_OPERATION", "KEY_USAGE_MISMATCH", number=_EITHER)
