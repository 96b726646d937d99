"""Cases about what outlives the process: keys, versions, states, ciphertexts (SPEC.md 3.3-4, 4.4-2)."""

import contextlib
import secrets
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final

from kmsplug_protocol import Key, KeyState, Outcome

from .bench import Bench, key_name
from .case import Cases, offers
from .session import Session, read_result
from .uses import ENCRYPTS, Use, encryptions, uses
from .verdict import Skipped, check

LIFETIME: Final = Cases("lifetime")

_CREATE: Final = offers("key.create", "key.get")
_ROTATE: Final = offers("key.create", "key.rotate")


@contextlib.contextmanager
def _next_process(bench: Bench, identity: str) -> Iterator[Session]:
    """Open the same keystore by another process.

    Raises:
        Skipped: It is not the same keystore.
    """
    with bench.initialized() as session:
        if session.configure(bench.config).identity != identity:
            raise Skipped("each process of this driver has a keystore of its own")
        yield session


def _make(bench: Bench, session: Session, use: Use) -> Key:
    body = {"algorithm": use.algorithm, "usage": use.usage}
    key: Key = read_result("key.create", session.call("key.create", body).granted())
    bench.will_delete(key)
    return key


def _one_of_each(bench: Bench) -> list[Use]:
    """Return one way of using a key for each operation that makes something."""
    found: dict[str, Use] = {}
    for use in uses(bench.capabilities):
        found.setdefault(use.shape.makes, use)
    return list(found.values())


@LIFETIME.case("ciphertexts", "4.4-2 3.3-4", ENCRYPTS, hint="a ciphertext names what is needed to open it")
def ciphertexts(bench: Bench) -> None:
    """What one process made, another one opens or verifies."""
    with bench.initialized() as session:
        identity = session.configure(bench.config).identity
        kept = [
            (use, key := _make(bench, session, use), use.make(session, key.key_id))
            for use in _one_of_each(bench)
        ]
    with _next_process(bench, identity) as session:
        for use, key, made in kept:
            use.require_open(session, key.key_id, made)


@LIFETIME.case(
    "rotations", "6.4-2 4.4-2", _ROTATE, ENCRYPTS, hint="keep every version, not the current one only"
)
def rotations(bench: Bench) -> None:
    """What older versions made opens in another process, and the current version is still current there."""
    use = next(
        (use for use in _one_of_each(bench) if bench.capabilities.covers("key.rotate", use.algorithm)), None
    )
    if use is None:
        raise Skipped("no kind of key can be used and rotated")
    with bench.initialized() as session:
        identity = session.configure(bench.config).identity
        key = _make(bench, session, use)
        made = [use.make(session, key.key_id)]
        new = session.ask("key.rotate", {"key_id": key.key_id}).key_version
        made.append(use.make(session, key.key_id))
    with _next_process(bench, identity) as session:
        for one in made:
            use.require_open(session, key.key_id, one)
        used = use.make(session, key.key_id).result.get("key_version", new)
        check(used == new, f"another process makes things with version {used!r}, not with {new!r}")


@LIFETIME.case(
    "states",
    "6.3-1 3.3-4",
    _CREATE,
    offers("key.disable"),
    ENCRYPTS,
    hint="a state is stored, not remembered",
)
def states(bench: Bench) -> None:
    """A key that one process disabled is disabled for the next."""
    use = next(
        (use for use in _one_of_each(bench) if bench.capabilities.covers("key.disable", use.algorithm)), None
    )
    if use is None:
        raise Skipped("no kind of key can be used and disabled")
    with bench.initialized() as session:
        identity = session.configure(bench.config).identity
        key = _make(bench, session, use)
        session.ask("key.disable", {"key_id": key.key_id})
    with _next_process(bench, identity) as session:
        state = session.ask("key.get", {"key_id": key.key_id}).state
        check(state is KeyState.SUSPENDED, f"another process says that the key is {state}")
        use.try_make(session, key.key_id).refused("KEY_DISABLED")


@LIFETIME.case(
    "labels",
    "4.1-5 4.6-3",
    _CREATE,
    offers("key.set_alias", "key.tag"),
    hint="aliases and tags are stored with the key",
)
def labels(bench: Bench) -> None:
    """Aliases and tags that one process wrote, the next one reads."""
    algorithm, usage = next(bench.capabilities.kinds())
    alias = key_name()
    with bench.initialized() as session:
        identity = session.configure(bench.config).identity
        key = session.ask("key.create", {"algorithm": algorithm, "usage": usage})
        bench.will_delete(key)
        session.ask("key.set_alias", {"key_id": key.key_id, "alias": alias})
        session.ask("key.tag", {"key_id": key.key_id, "set": {"colour": "r\u00f6t"}})
    with _next_process(bench, identity) as session:
        found = session.ask("key.get", {"key_id": alias})
        check(found.key_id == key.key_id, "an alias leads elsewhere in another process")
        check(found.tags.get("colour") == "r\u00f6t", f"the tags are {dict(found.tags)} in another process")


def _kill(session: Session) -> None:
    session.wire.signal(signal.SIGKILL)
    session.wire.wait(session.deadline)


def _leave(session: Session) -> None:
    session.ask("plugin.shutdown")
    session.wire.wait(session.deadline)


@LIFETIME.case("killed", "4.6-4 3.3-4", _CREATE, hint="write it down, and only then answer")
def killed(bench: Bench) -> None:
    """A change that was answered survives whatever ends the process right after."""
    algorithm, usage = next(bench.capabilities.kinds())
    ends: tuple[Callable[[Session], None], ...] = (_kill, _leave)
    for end in ends:
        with bench.initialized() as session:
            identity = session.configure(bench.config).identity
            key = session.ask("key.create", {"algorithm": algorithm, "usage": usage})
            bench.will_delete(key)
            end(session)
        with _next_process(bench, identity) as session:
            check(
                session.ask("key.get", {"key_id": key.key_id}).key_id == key.key_id, "another key came back"
            )


@LIFETIME.case(
    "reconciled",
    "4.6-19 4.6-20 4.2-3",
    offers("key.create", "key.reconcile"),
    hint="store the idempotency key with the change",
)
def reconciled(bench: Bench) -> None:
    """What became of a change is known to the next process too."""
    algorithm, usage = next(bench.capabilities.kinds())
    change: dict[str, Any] = {"meta": {"idempotency_key": secrets.token_hex(16)}}
    question = {"method": "key.create", "idempotency_key": change["meta"]["idempotency_key"]}
    with bench.initialized() as session:
        identity = session.configure(bench.config).identity
        key = session.ask("key.create", {"algorithm": algorithm, "usage": usage, **change})
        bench.will_delete(key)
    with _next_process(bench, identity) as session:
        found = session.ask("key.reconcile", question)
        check(found.outcome is Outcome.APPLIED, f"a create of the process before is {found.outcome}")
        check(found.key is not None and found.key.key_id == key.key_id, "it names another key")


@LIFETIME.case(
    "identity", "3.3-4 3.3-2", hint="derive it from the keystore, never from the process or the time"
)
def identity(bench: Bench) -> None:
    """A dry run names the same identity and namespace as the real thing."""
    with bench.initialized() as session:
        dry = session.configure(bench.config, dry_run=True)
        real = session.configure(bench.config)
    if real.identity != bench.opened.identity:
        raise Skipped("each process of this driver has a keystore of its own")
    check(dry.identity == real.identity, f"a dry run says {dry.identity!r}, the real one {real.identity!r}")
    check(dry.key_namespace == real.key_namespace, "a dry run says another namespace")


@LIFETIME.case(
    "own_ids", "3.3-5 4.1-5", _CREATE, ENCRYPTS, hint="answer with the canonical id, whatever was asked with"
)
def own_ids(bench: Bench) -> None:
    """Every result names the key by the id that its creation told."""
    for use in encryptions(bench.capabilities):
        key_id = bench.key(use.target)
        made = use.make(bench.session, key_id)
        opened = use.require_open(bench.session, key_id, made)
        for result in (made.result, opened):
            check(
                result["key_id"] == key_id, f"{use}: the key is called {result['key_id']!r}, not {key_id!r}"
            )
