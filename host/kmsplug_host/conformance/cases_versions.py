"""Cases about versions and states in every corner: each operation, state and version (SPEC.md section 6)."""

from collections.abc import Iterator
from typing import Any, Final

from kmsplug_protocol import Key, KeyState, KeyVersion, jsonrpc

from .bench import Bench
from .capabilities import Capabilities
from .case import Cases, offers
from .cases_states import each, list_versions
from .uses import ENCRYPTS, Use, uses
from .verdict import Skipped, check

VERSIONS: Final = Cases("versions")

_EITHER: Final = (jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR)
_DISABLE: Final = offers("key.create", "key.get", "key.disable", "key.enable")
_ROTATE: Final = offers("key.create", "key.rotate")
_LIST: Final = offers("key.list_versions")
_DELETE: Final = offers("key.create", "key.get", "key.schedule_deletion")

# What makes something with a key, beside those that `uses` pairs, and the least that each needs.
_OTHERS: Final[dict[str, dict[str, Any]]] = {
    "crypto.generate_data_key": {},
    "crypto.encapsulate": {},
    "crypto.derive": {"peer_public_key": b""},
    "crypto.decapsulate": {"ciphertext": bytes(1088)},
}


def _other_targets(found: Capabilities) -> Iterator[tuple[str, Any]]:
    for operation in _OTHERS:
        for target in found.targets(operation):
            if found.covers("key.disable", target.algorithm):
                yield operation, target


@VERSIONS.case(
    "disabled_for_all", "6.2-1 6.3-1", _DISABLE, hint="one function that hands out usable versions, for all"
)
def disabled_for_all(bench: Bench) -> None:
    """With a disabled key no operation works: data keys, encapsulation and agreement included."""
    tried = 0
    for operation, target in _other_targets(bench.capabilities):
        key = bench.make_key(target.algorithm, target.usage)
        bench.session.ask("key.disable", {"key_id": key.key_id})
        answer = bench.session.call(operation, {"key_id": key.key_id, **_OTHERS[operation]})
        # Where the peer's key is wrong as well, the driver chooses what it says.
        codes = ("KEY_DISABLED", "INVALID_ARGUMENT") if operation == "crypto.derive" else ("KEY_DISABLED",)
        answer.refused(*codes, number=_EITHER)
        tried += 1
    if not tried:
        raise Skipped("no such operation on a key that can be disabled")


@VERSIONS.case(
    "disabled_by_name", "6.2-1 6.3-1", _DISABLE, _ROTATE, hint="look at the state of the version that is used"
)
def disabled_by_name(bench: Bench) -> None:
    """A version of a disabled key does not work either when it is named."""
    use, key = next(each(bench, "key.rotate"))
    name = {"key_id": key.key_id}
    made = use.make(bench.session, key.key_id)
    new = bench.session.ask("key.rotate", name).key_version
    bench.session.ask("key.disable", name)
    for version in (key.key_version, new):
        answer = use.try_make(bench.session, key.key_id, key_version=version)
        answer.refused("KEY_DISABLED", "UNSUPPORTED_OPERATION")
    use.try_open(bench.session, key.key_id, made, key_version=key.key_version).refused("KEY_DISABLED")


@VERSIONS.case(
    "readable",
    "6.2-1 6.5-1",
    _DISABLE,
    _DELETE,
    hint="reading works in every state, also shortly before the end",
)
def readable(bench: Bench) -> None:
    """A key can be read and is listed in each of its states, and the list says the same state."""
    use, key = next(each(bench, "key.schedule_deletion"))
    name = {"key_id": key.key_id}
    for operation, wanted in (
        ("key.get", KeyState.ACTIVE),
        ("key.disable", KeyState.SUSPENDED),
        ("key.enable", KeyState.ACTIVE),
        ("key.schedule_deletion", KeyState.DESTROY_SCHEDULED),
    ):
        bench.session.ask(operation, name)
        found = bench.session.ask("key.get", name)
        check(found.state is wanted, f"after {operation} key.get says {found.state}")
        if bench.capabilities.offers("key.list_versions"):
            states = {version.state for version in list_versions(bench, key)}
            check(states == {wanted}, f"after {operation} the versions are {sorted(states)}")
        if bench.capabilities.offers("key.list"):
            listed = [one for one in _all_keys(bench) if one.key_id == key.key_id]
            check(
                [one.state for one in listed] == [wanted],
                f"after {operation} the list says {listed and listed[0].state}",
            )
    use.try_make(bench.session, key.key_id).refused("KEY_PENDING_DELETION")


def _all_keys(bench: Bench) -> Iterator[Key]:
    cursor: dict[str, str] = {}
    while True:
        page = bench.session.ask("key.list", {"limit": 1000, **cursor})
        yield from page.keys
        if page.next_cursor is None:
            return
        cursor = {"cursor": page.next_cursor}


@VERSIONS.case("no_rotation", "6.2-1", _ROTATE, hint="look at the state before you make a version")
def no_rotation(bench: Bench) -> None:
    """A key that is disabled or about to be destroyed is not rotated, and has no new version afterwards."""
    _, key = next(each(bench, "key.rotate"))
    name = {"key_id": key.key_id}
    refusals = {"key.disable": "KEY_DISABLED", "key.schedule_deletion": "KEY_PENDING_DELETION"}
    tried = [operation for operation in refusals if bench.capabilities.offers(operation)]
    if not tried:
        raise Skipped("no key can be disabled, and none deleted")
    for operation in tried:
        bench.session.ask(operation, name)
        bench.session.call("key.rotate", name).refused(refusals[operation])
    if bench.capabilities.offers("key.get"):
        found = bench.session.ask("key.get", name)
        check(found.key_version == key.key_version, "a refused rotation made a version all the same")


@VERSIONS.case("bounds", "4.1-1 4.6-11", _LIST, offers("key.create"), hint="as for key.list")
def bounds(bench: Bench) -> None:
    """Page sizes of versions outside 1 to 1,000 and foreign cursors are refused."""
    algorithm, usage = next(bench.capabilities.kinds())
    name = {"key_id": bench.make_key(algorithm, usage).key_id}
    for limit in (0, -1, 1001, "many"):
        answer = bench.session.call("key.list_versions", {**name, "limit": limit})
        answer.refused("INVALID_ARGUMENT", number=jsonrpc.INVALID_PARAMS)
    for cursor in ("no-such-cursor", "\u00e9", "x" * 4096):
        answer = bench.session.call("key.list_versions", {**name, "cursor": cursor})
        answer.refused("INVALID_ARGUMENT", number=_EITHER)


@VERSIONS.case("first", "4.6-11", _LIST, offers("key.create"), hint="the first version is a version")
def first(bench: Bench) -> None:
    """A new key has one version, the one that its creation told, and it is the current one."""
    for algorithm, usage in bench.capabilities.kinds():
        key = bench.make_key(algorithm, usage)
        found: list[KeyVersion] = list_versions(bench, key)
        seen = [(version.key_version, version.current, version.state) for version in found]
        check(seen == [(key.key_version, True, key.state)], f"the versions of a new key are {seen}")


@VERSIONS.case(
    "completed",
    "6.3-5 6.3-1 4.1-7",
    _DISABLE,
    _ROTATE,
    _LIST,
    hint="move what is left to be moved, each time",
)
def completed(bench: Bench) -> None:
    """Disabling again a key of several versions leaves each of them suspended; enabling again, none."""
    _, key = next(each(bench, "key.rotate"))
    name = {"key_id": key.key_id}
    bench.session.ask("key.rotate", name)
    before = [version.state for version in list_versions(bench, key)]
    for operation in ("key.disable", "key.disable", "key.enable", "key.enable"):
        bench.session.ask(operation, name)
        states = [version.state for version in list_versions(bench, key)]
        wanted = [KeyState.SUSPENDED] * 2 if operation == "key.disable" else before
        check(states == wanted, f"after {operation} the versions are {[state.value for state in states]}")


@VERSIONS.case(
    "one_version",
    "6.2-1 4.1-6",
    _ROTATE,
    _LIST,
    offers("key.set_state"),
    ENCRYPTS,
    hint="each version has a state of its own",
)
def one_version(bench: Bench) -> None:
    """The state of one version is changed, and that of the others is not."""
    use, key = next(each(bench, "key.rotate"))
    name = {"key_id": key.key_id}
    old = use.make(bench.session, key.key_id)
    bench.session.ask("key.rotate", name)
    new = use.make(bench.session, key.key_id)
    body = {**name, "key_version": key.key_version, "state": KeyState.COMPROMISED}
    answer = bench.session.call("key.set_state", body)
    if answer.result is None:
        answer.refused("UNSUPPORTED_OPERATION")
        raise Skipped("states of single versions cannot be set here")
    states = [version.state for version in list_versions(bench, key)]
    check(
        states == [KeyState.COMPROMISED, KeyState.ACTIVE],
        f"the versions are {[state.value for state in states]}",
    )
    use.require_open(bench.session, key.key_id, new)
    answer = use.try_open(bench.session, key.key_id, old, key_version=key.key_version)
    answer.refused("KEY_COMPROMISED")


@VERSIONS.case(
    "unknown", "4.1-6", _ROTATE, offers("key.set_state"), hint="a version of another key is none of this one"
)
def unknown(bench: Bench) -> None:
    """A version that does not exist has no state to be set, and nothing is moved in its place."""
    _, key = next(each(bench, "key.rotate"))
    body = {"key_id": key.key_id, "key_version": "no-such-version", "state": KeyState.SUSPENDED}
    bench.session.call("key.set_state", body).refused("KEY_NOT_FOUND", "UNSUPPORTED_OPERATION")
    if bench.capabilities.offers("key.get"):
        state = bench.session.ask("key.get", {"key_id": key.key_id}).state
        check(state is KeyState.ACTIVE, f"the key is {state} now")


@VERSIONS.case(
    "cancelled_deactivated",
    "6.3-4 6.3-1",
    _ROTATE,
    _LIST,
    _DELETE,
    offers("key.cancel_deletion", "key.enable"),
    hint="keep the state that a version had before the deletion",
)
def cancelled_deactivated(bench: Bench) -> None:
    """A rotated key whose deletion was cancelled has, once enabled, the states that it had before."""
    deletable = (
        (use, key)
        for use, key in each(bench, "key.rotate")
        if bench.capabilities.covers("key.schedule_deletion", use.algorithm)
    )
    if (found := next(deletable, None)) is None:
        raise Skipped("no kind of key can be rotated and deleted")
    use, key = found
    name = {"key_id": key.key_id}
    made = use.make(bench.session, key.key_id)
    bench.session.ask("key.rotate", name)
    before = [version.state for version in list_versions(bench, key)]
    for operation in ("key.schedule_deletion", "key.cancel_deletion", "key.enable"):
        bench.session.ask(operation, name)
    states = [version.state for version in list_versions(bench, key)]
    check(states == before, f"the versions are {[state.value for state in states]}")
    use.require_open(bench.session, key.key_id, made)


@VERSIONS.case("deletion_twice", "6.2-1 6.3-5", _DELETE, hint="a window that runs is not begun anew")
def deletion_twice(bench: Bench) -> None:
    """Scheduling a deletion again is refused or changes nothing; the key stays DESTROY_SCHEDULED."""
    _, key = next(each(bench, "key.schedule_deletion"))
    name = {"key_id": key.key_id}
    due = bench.session.ask("key.schedule_deletion", name).deletion_at
    answer = bench.session.call("key.schedule_deletion", name)
    if answer.result is None:
        answer.refused("KEY_PENDING_DELETION", "KEY_INVALID_STATE")
    found = bench.session.ask("key.get", name)
    check(found.state is KeyState.DESTROY_SCHEDULED, f"the key is {found.state}")
    check(due is None or found.deletion_at is not None, "the date of its destruction is no longer told")


@VERSIONS.case(
    "labels_stay", "6.2-4 6.3-1", _DISABLE, offers("key.tag"), hint="tags are not a use of the key"
)
def labels_stay(bench: Bench) -> None:
    """A disabled key can be tagged, or refuses that with the code of its state."""
    _, key = next(each(bench, "key.disable"))
    name = {"key_id": key.key_id}
    bench.session.ask("key.disable", name)
    answer = bench.session.call("key.tag", {**name, "set": {"a": "b"}})
    if answer.result is None:
        answer.refused("KEY_DISABLED")
        return
    found = bench.session.ask("key.get", name)
    check(
        (found.tags.get("a"), found.state) == ("b", KeyState.SUSPENDED),
        "tagging changed something else, or nothing",
    )


@VERSIONS.case(
    "public_key",
    "6.4-1 4.6-14",
    _ROTATE,
    offers("key.get_public_key"),
    hint="each version has its own public half",
)
def public_key(bench: Bench) -> None:
    """After a rotation the published key is another one, and the old one is still found by its version."""
    for use in _rotatable_signers(bench):
        key = bench.make_key(use.algorithm, use.usage)
        name = {"key_id": key.key_id}
        old = bench.session.ask("key.get_public_key", name)
        bench.session.ask("key.rotate", name)
        new = bench.session.ask("key.get_public_key", name)
        check(old.public_key != new.public_key, f"after a rotation {use.algorithm} publishes the same key")
        check(old.key_version != new.key_version, "after a rotation the published key has the same version")
        answer = bench.session.call("key.get_public_key", {**name, "key_version": old.key_version})
        if answer.result is None:
            answer.refused("UNSUPPORTED_OPERATION", "KEY_NOT_FOUND", "KEY_INVALID_STATE")
        else:
            again = answer.result.get("public_key")
            check(again is not None, "there is no key in the answer")
            check(
                answer.result.get("key_version") == old.key_version,
                "another version was published than was named",
            )


def _rotatable_signers(bench: Bench) -> list[Use]:
    found = {
        use.algorithm: use
        for use in uses(bench.capabilities)
        if use.shape.makes == "crypto.sign"
        and bench.capabilities.covers("key.rotate", use.algorithm)
        and bench.capabilities.covers("key.get_public_key", use.algorithm)
    }
    if not found:
        raise Skipped("no kind of key signs, rotates and is published")
    return list(found.values())
