"""Cases about key states, rotation and deletion (SPEC.md section 6)."""

from collections.abc import Iterator
from typing import Any, Final

from kmsplug_protocol import Key, KeyAlgorithm, KeyState, KeyVersion, jsonrpc

from .bench import Bench
from .case import Cases, offers
from .session import read_result
from .uses import Use, uses
from .verdict import Skipped, check

STATES: Final = Cases("states")

_EITHER: Final = (jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR)
_DISABLE: Final = offers("key.create", "key.get", "key.disable", "key.enable")
_ROTATE: Final = offers("key.create", "key.rotate")


def each(bench: Bench, operation: str) -> Iterator[tuple[Use, Key]]:
    """Yield every use of every kind of key for which *operation* is offered, each with a new key.

    One mechanism of each is enough: states and versions are the key's, and some keys take seconds to make.

    Raises:
        Skipped: There is none.
    """
    kinds: dict[tuple[str, KeyAlgorithm], Use] = {}
    for use in uses(bench.capabilities):
        if bench.capabilities.covers(operation, use.algorithm):
            kinds.setdefault((use.shape.makes, use.algorithm), use)
    found = list(kinds.values())
    if not found:
        raise Skipped(f"no kind of key can be made, used and given to {operation}")
    for use in found:
        yield use, bench.make_key(use.algorithm, use.usage)


def _state(bench: Bench, key: Key) -> KeyState:
    found: Key = bench.session.ask("key.get", {"key_id": key.key_id})
    return found.state


@STATES.case("disable", "6.3-1 6.2-1", _DISABLE, hint="some providers still encrypt: look at the state first")
def disable(bench: Bench) -> None:
    """With a disabled key nothing works: neither making nor opening; enabled again, everything does."""
    for use, key in each(bench, "key.disable"):
        made = use.make(bench.session, key.key_id)
        found = bench.session.ask("key.disable", {"key_id": key.key_id})
        check(found.state is KeyState.SUSPENDED, f"key.disable answers with a key that is {found.state}")
        check(_state(bench, key) is KeyState.SUSPENDED, "key.get does not say SUSPENDED")
        use.try_make(bench.session, key.key_id).refused("KEY_DISABLED")
        use.try_open(bench.session, key.key_id, made).refused("KEY_DISABLED")
        found = bench.session.ask("key.enable", {"key_id": key.key_id})
        check(found.state is KeyState.ACTIVE, f"key.enable answers with a key that is {found.state}")
        use.require_open(bench.session, key.key_id, made)
        use.require_open(bench.session, key.key_id, use.make(bench.session, key.key_id))


@STATES.case(
    "twice",
    "6.3-1 6.3-2 4.1-7",
    _DISABLE,
    hint="look at the state first; your provider may call the second time an error",
)
def twice(bench: Bench) -> None:
    """Disabling a disabled key and enabling an enabled one succeed and change nothing."""
    _, key = next(each(bench, "key.disable"))
    for operation, wanted in (
        ("key.enable", KeyState.ACTIVE),
        ("key.disable", KeyState.SUSPENDED),
        ("key.disable", KeyState.SUSPENDED),
        ("key.enable", KeyState.ACTIVE),
        ("key.enable", KeyState.ACTIVE),
    ):
        found = bench.session.ask(operation, {"key_id": key.key_id})
        check(found.state is wanted, f"after {operation} the key is {found.state}")


@STATES.case(
    "rotate",
    "6.4-1 6.4-2 4.3-4 4.4-2",
    _ROTATE,
    hint="try the version that the bytes name, else each usable one, newest first",
)
def rotate(bench: Bench) -> None:
    """After a rotation new things are made with the new version, and what older ones made still opens."""
    for use, key in each(bench, "key.rotate"):
        made = [use.make(bench.session, key.key_id)]
        names = [key.key_version]
        for _ in range(2):
            new = bench.session.ask("key.rotate", {"key_id": key.key_id}).key_version
            check(new not in names, f"key.rotate of a {use.algorithm} key made no new version")
            names.append(new)
            made.append(use.make(bench.session, key.key_id))
        for name, one in zip(names, made, strict=True):
            used = one.result.get("key_version", name)
            check(used == name, f"{use} says version {used!r}, the current one was {name!r}")
            opened = use.require_open(bench.session, key.key_id, one).get("key_version", name)
            check(opened == name, f"opening what version {name!r} made says version {opened!r}")


@STATES.case(
    "versions", "4.6-11 6.4-3", _ROTATE, offers("key.list_versions"), hint="exactly one version is current"
)
def versions(bench: Bench) -> None:
    """The versions are listed, oldest first, with the last one alone as the current one."""
    _, key = next(each(bench, "key.rotate"))
    names = [key.key_version]
    names += [bench.session.ask("key.rotate", {"key_id": key.key_id}).key_version for _ in range(2)]
    for limit in (1000, 1):
        found = list_versions(bench, key, limit)
        listed = [version.key_version for version in found]
        check(listed == names, f"the list of versions, by {limit}, is {listed}, not {names}")
        check(
            [version.current for version in found] == [False, False, True],
            "not exactly the newest is current",
        )
        check(found[-1].state is KeyState.ACTIVE, f"the current version is {found[-1].state}")
        old = {version.state for version in found[:-1]}
        check(old <= {KeyState.ACTIVE, KeyState.DEACTIVATED}, f"rotation left versions {sorted(old)}")


def list_versions(bench: Bench, key: Key, limit: int = 1000) -> list[KeyVersion]:
    """Return all versions of a key, by pages of *limit*."""
    found: list[KeyVersion] = []
    cursor: dict[str, str] = {}
    while True:
        page = bench.session.ask("key.list_versions", {"key_id": key.key_id, "limit": limit, **cursor})
        check(len(page.versions) <= limit, f"a page of at most {limit} versions holds {len(page.versions)}")
        found += page.versions
        if page.next_cursor is None:
            return found
        check(page.next_cursor != cursor.get("cursor"), "next_cursor does not move")
        cursor = {"cursor": page.next_cursor}


@STATES.case(
    "enable_restores",
    "6.3-1",
    _ROTATE,
    _DISABLE,
    offers("key.list_versions"),
    hint="keep, for each version, the state that it had before",
)
def enable_restores(bench: Bench) -> None:
    """Disabling stops every version of a rotated key, and enabling gives each its own state back."""
    use, key = next(each(bench, "key.rotate"))
    made = use.make(bench.session, key.key_id)
    bench.session.ask("key.rotate", {"key_id": key.key_id})
    before = list_versions(bench, key)
    bench.session.ask("key.disable", {"key_id": key.key_id})
    states = {version.state for version in list_versions(bench, key)}
    check(states == {KeyState.SUSPENDED}, f"versions of a disabled key are {sorted(states)}")
    use.try_open(bench.session, key.key_id, made).refused("KEY_DISABLED")
    bench.session.ask("key.enable", {"key_id": key.key_id})
    check(list_versions(bench, key) == before, "key.enable did not give each version its state back")
    use.require_open(bench.session, key.key_id, made)


@STATES.case(
    "named_versions",
    "4.1-6 6.2-1 5.1-1",
    _ROTATE,
    hint="use the version that was named, or refuse; never another one",
)
def named_versions(bench: Bench) -> None:
    """A version can be named where the row says so; one that does not exist is KEY_NOT_FOUND."""
    for use, key in each(bench, "key.rotate"):
        made = use.make(bench.session, key.key_id)
        new = bench.session.ask("key.rotate", {"key_id": key.key_id}).key_version
        use.require_open(bench.session, key.key_id, use.make(bench.session, key.key_id, key_version=new))
        addressable = use.row.versions_addressable
        absent = ("KEY_NOT_FOUND",) if addressable else ("KEY_NOT_FOUND", "UNSUPPORTED_OPERATION")
        use.try_make(bench.session, key.key_id, key_version="no-such-version").refused(*absent)
        if "key_version" in made.result:
            use.require_open(bench.session, key.key_id, made, key_version=made.result["key_version"])
        old = use.try_make(bench.session, key.key_id, key_version=key.key_version)
        if not addressable:
            old.refused("UNSUPPORTED_OPERATION", "KEY_NOT_FOUND", "KEY_INVALID_STATE")
        elif old.result is None:
            old.refused("KEY_INVALID_STATE")
        else:
            check(old.result.get("key_version") == key.key_version, "the version that was named was not used")


@STATES.case(
    "set_state",
    "6.2-1 6.3-3 4.6-7",
    offers("key.create", "key.get", "key.set_state"),
    hint="the table of SPEC.md 6.2 gives the code for each state",
)
def set_state(bench: Bench) -> None:
    """A deactivated key opens and makes nothing; a compromised one does neither, whatever one tries.

    A state that the provider cannot keep is refused.
    """
    session = bench.session
    for use, key in each(bench, "key.set_state"):
        name = {"key_id": key.key_id}
        made = use.make(session, key.key_id)
        kept: set[str] = set()
        for state, make, opens in (
            ("DEACTIVATED", "KEY_INVALID_STATE", ""),
            ("SUSPENDED", "KEY_DISABLED", "KEY_DISABLED"),
            ("ACTIVE", "", ""),
            ("COMPROMISED", "KEY_COMPROMISED", "KEY_COMPROMISED"),
        ):
            answer = session.call("key.set_state", {**name, "state": state})
            if answer.result is None:
                answer.refused("UNSUPPORTED_OPERATION")  # the provider cannot keep this state
                continue
            kept.add(state)
            found = read_result("key.set_state", answer.result)
            check(found.state == state, f"key.set_state {state} answers with a key that is {found.state}")
            for answer, code in (
                (use.try_make(session, key.key_id), make),
                (use.try_open(session, key.key_id, made), opens),
            ):
                answer.refused(code) if code else answer.granted()
        check(len(kept - {"ACTIVE"}) > 0, "key.set_state is offered and sets no state")
        for state in ("PRE_ACTIVE", "DESTROY_SCHEDULED", "DESTROYED"):
            session.call("key.set_state", {**name, "state": state}).refused(
                "INVALID_ARGUMENT", number=_EITHER
            )
        if "COMPROMISED" in kept:
            _stays_compromised(bench, key)


def _stays_compromised(bench: Bench, key: Key) -> None:
    name = {"key_id": key.key_id}
    bench.session.call("key.set_state", {**name, "state": "ACTIVE"}).refused(
        "KEY_COMPROMISED", "KEY_INVALID_STATE"
    )
    if bench.capabilities.offers("key.enable"):
        bench.session.call("key.enable", name).refused("KEY_COMPROMISED", "KEY_INVALID_STATE")
    check(_state(bench, key) is KeyState.COMPROMISED, "a compromised key came back")


_DELETE: Final = offers("key.create", "key.get", "key.schedule_deletion")


def _window(bench: Bench) -> tuple[int, int] | None:
    return next((row.deletion_window_days for row in bench.capabilities.of("key.schedule_deletion")), None)


@STATES.case("deletion", "6.2-1 4.6-8 5.4-2", _DELETE, hint="check the window before anything changes")
def deletion(bench: Bench) -> None:
    """A key whose deletion is scheduled refuses everything; windows outside the row's are refused."""
    use, key = next(each(bench, "key.schedule_deletion"))
    made = use.make(bench.session, key.key_id)
    least, most = _window(bench) or (None, 3650)
    for window in {-1, most + 1, 3651} | (set() if least is None else {least - 1}):
        answer = bench.session.call("key.schedule_deletion", {"key_id": key.key_id, "window_days": window})
        answer.refused("INVALID_ARGUMENT", number=_EITHER)
    use.require_open(bench.session, key.key_id, made)
    body: dict[str, Any] = {"key_id": key.key_id} | ({} if least is None else {"window_days": most})
    found = bench.session.ask("key.schedule_deletion", body)
    check(found.state is KeyState.DESTROY_SCHEDULED, f"the key is {found.state}")
    check(_state(bench, key) is KeyState.DESTROY_SCHEDULED, "key.get does not say DESTROY_SCHEDULED")
    use.try_make(bench.session, key.key_id).refused("KEY_PENDING_DELETION")
    use.try_open(bench.session, key.key_id, made).refused("KEY_PENDING_DELETION")
    if bench.capabilities.offers("key.enable"):
        bench.session.call("key.enable", {"key_id": key.key_id}).refused(
            "KEY_PENDING_DELETION", "KEY_INVALID_STATE"
        )


@STATES.case(
    "cancel_deletion",
    "6.3-4 4.6-9",
    _DELETE,
    offers("key.cancel_deletion", "key.enable"),
    hint="a cancelled deletion leaves the key SUSPENDED, whatever your provider does",
)
def cancel_deletion(bench: Bench) -> None:
    """A key whose deletion was cancelled works again after key.enable, and not before."""
    use, key = next(each(bench, "key.schedule_deletion"))
    name = {"key_id": key.key_id}
    made = use.make(bench.session, key.key_id)
    idle = bench.session.call("key.cancel_deletion", name)
    if idle.result is None:
        idle.refused("KEY_INVALID_STATE")
    use.require_open(bench.session, key.key_id, made)
    bench.session.ask("key.schedule_deletion", name)
    found = bench.session.ask("key.cancel_deletion", name)
    check(found.state is KeyState.SUSPENDED, f"after key.cancel_deletion the key is {found.state}")
    use.try_open(bench.session, key.key_id, made).refused("KEY_DISABLED")
    bench.session.ask("key.enable", name)
    use.require_open(bench.session, key.key_id, made)
    use.require_open(bench.session, key.key_id, use.make(bench.session, key.key_id))


@STATES.case(
    "purge",
    "4.6-10 6.2-2",
    offers("key.create", "key.get", "key.purge"),
    hint="purge is the end of a scheduled deletion, not a short cut around it",
)
def purge(bench: Bench) -> None:
    """Only a key whose deletion is scheduled can be purged, if the driver keeps windows; then it is gone."""
    use, key = next(each(bench, "key.purge"))
    name = {"key_id": key.key_id}
    made = use.make(bench.session, key.key_id)
    if bench.capabilities.offers("key.schedule_deletion"):
        bench.session.call("key.purge", name).refused("KEY_INVALID_STATE")
        use.require_open(bench.session, key.key_id, made)
        bench.session.ask("key.schedule_deletion", name)
    bench.session.ask("key.purge", name)
    for answer in (use.try_make(bench.session, key.key_id), use.try_open(bench.session, key.key_id, made)):
        answer.refused("KEY_DESTROYED", "KEY_NOT_FOUND")
    for operation in ("key.enable", "key.cancel_deletion"):
        if bench.capabilities.offers(operation):
            answer = bench.session.call(operation, name)
            answer.refused("KEY_DESTROYED", "KEY_NOT_FOUND", "KEY_INVALID_STATE")
