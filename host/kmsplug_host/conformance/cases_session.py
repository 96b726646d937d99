"""Cases about phases, settings, cancel, health and the end (SPEC.md sections 3, 9, 10)."""

import signal
import time
from collections.abc import Mapping
from typing import Any, Final

from kmsplug_protocol import CANCEL, KEYSTORE_API, KNOWN_VERSIONS, jsonrpc

from .bench import Bench
from .case import Cases, Need, offers
from .session import HOST, Session, read_result
from .verdict import Skipped, check

SESSION: Final = Cases("session")

_EXIT_S: Final = 5.0
_PARAMS: Final = (jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR)
_EARLY: Final = jsonrpc.INVALID_REQUEST
_UNKNOWN: Final = jsonrpc.METHOD_NOT_FOUND

_UNDECLARED: Final = Need(
    "every operation is declared",
    lambda found: not all(found.offers(operation.wire) for operation in KEYSTORE_API),
)


@SESSION.case("handshake", "3.2-1 3.3-3 2.4-2 1.3-1", hint="everything else needs this")
def handshake(bench: Bench) -> None:
    """The driver initializes with protocol version 1, takes its settings, and answers."""
    bench.discover()
    version = bench.hello.protocol_version
    check(version in KNOWN_VERSIONS, f"the driver chose version {version!r}, which was not offered")
    bench.session.settle()


@SESSION.case(
    "undeclared",
    "5.2-1 7.2-1",
    _UNDECLARED,
    hint="refuse before you look at the params; -32601 is not enough, data.code has to be there",
)
def undeclared(bench: Bench) -> None:
    """Every operation that is not declared is refused with -32601 and UNSUPPORTED_OPERATION."""
    for operation in KEYSTORE_API:
        if not bench.capabilities.offers(operation.wire):
            answer = bench.session.call(operation.wire, {"key_id": "no-such-key"})
            answer.refused("UNSUPPORTED_OPERATION", number=_UNKNOWN)


@SESSION.case(
    "unknown_methods",
    "5.2-1 9-4",
    hint="compare whole method names; answer in the same way as for operations not offered",
)
def unknown_methods(bench: Bench) -> None:
    """A method that does not exist is refused with -32601 and UNSUPPORTED_OPERATION."""
    for method in (
        "no.such",
        "plugin.grease",
        "",
        "crypto.encrypt ",
        "Crypto.Encrypt",
        "__init__",
        "rpc.discover",
    ):
        bench.session.call(method).refused("UNSUPPORTED_OPERATION", number=_UNKNOWN)


@SESSION.case("unknown_members", "9-2 4.2-1", hint="read the members that you know, ignore all others")
def unknown_members(bench: Bench) -> None:
    """Members that the driver does not know are ignored: in the request, in params and in meta."""
    unknown = {"grease": {"a": [1, None]}, "x-y": "z"}
    meta = {"deadline_ms": 60_000, "traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-00", "tenant": "t"}
    metas: tuple[Any, ...] = (
        {},
        {**meta, "actor": "a", "correlation_id": "c-1", "idempotency_key": "i-1"},
        {**meta, **unknown},
    )
    for meta_member in metas:
        bench.session.call("plugin.health", {**unknown, "meta": meta_member}).granted()
        bench.session.call("plugin.ping", {**unknown, "meta": meta_member}).granted()
    session = bench.session
    line = session.frame("plugin.ping", {}, 5)[:-2] + b',"grease":{"a":1},"params2":[]}\n'
    session.exchange(line).under(5).granted()
    with bench.fresh() as session:
        session.initialize(host={**HOST, **unknown}, **unknown)
        session.configure(bench.config, meta=meta, **unknown)


@SESSION.case(
    "cancel",
    "3.5-1 3.5-2 2.5-3",
    hint="look the id up among the requests in progress, and do nothing if it is not there",
)
def cancel(bench: Bench) -> None:
    """A cancel of an unknown, answered or malformed id is ignored."""
    answered = bench.session.request("plugin.ping")
    bench.session.next("plugin.ping").under(answered)
    for params in (
        {"id": 987_654},
        {"id": "no-such"},
        {"id": answered},
        {},
        {"id": None},
        {"id": [1]},
        {"id": 1.5},
    ):
        bench.session.notify(CANCEL, params)
    bench.session.settle()


@SESSION.case(
    "cancelled_is_answered", "3.5-3 2.3-3 2.5-3", hint="a cancelled request still owes its one answer"
)
def cancelled_is_answered(bench: Bench) -> None:
    """A request that is cancelled is still answered exactly once, with its result or CANCELLED."""
    session = bench.session
    ids = [session.request("plugin.health", {"depth": "shallow"}) for _ in range(20)]
    for request_id in ids:
        session.notify(CANCEL, {"id": request_id})
    seen = []
    for _ in ids:
        answer = session.next("a cancelled request")
        seen.append(answer.id)
        if answer.result is None:
            answer.refused("CANCELLED")
    check(sorted(seen) == ids, "not every cancelled request was answered exactly once")
    session.settle()


@SESSION.case(
    "health",
    "10-1 10-3 4.1-3",
    hint="a check that fails is a result with healthy: false; here the keystore should be well",
)
def health(bench: Bench) -> None:
    """Both depths of health are answered, and well; a depth that does not exist is refused."""
    for depth in ("shallow", "deep"):
        result = bench.session.ask("plugin.health", {"depth": depth})
        sick = [check.name for check in result.checks if not check.healthy]
        check(result.healthy and not sick, f"the {depth} check says that the keystore is not well: {sick}")
    answer = bench.session.call("plugin.health", {"depth": "bottomless"})
    answer.refused("INVALID_ARGUMENT", "UNSUPPORTED_OPERATION", number=_PARAMS)


@SESSION.case("health_params", "4.1-1 10-1", hint="shallow is the default; anything else but deep is refused")
def health_params(bench: Bench) -> None:
    """Health without params is the shallow one; depths of other types are refused."""
    bench.session.ask("plugin.health")
    for depth in (7, True, ["deep"], {"deep": 1}, "", "DEEP"):
        answer = bench.session.call("plugin.health", {"depth": depth})
        answer.refused("INVALID_ARGUMENT", "UNSUPPORTED_OPERATION", number=_PARAMS)


@SESSION.case(
    "one_probe_key",
    "10-2",
    offers("key.list", "key.create"),
    hint="look for the probe key before you make one",
)
def one_probe_key(bench: Bench) -> None:
    """Deep checks leave one key behind, or none."""
    before = _key_ids(bench)
    for _ in range(3):
        with bench.ready() as session:
            session.ask("plugin.health", {"depth": "deep"})
            session.ask("plugin.health", {"depth": "deep"})
            after = _key_ids(bench, session)
            check(len(after - before) <= 1, f"{len(after - before)} keys are new after deep checks")


def _key_ids(bench: Bench, session: Session | None = None) -> set[str]:
    session = session or bench.session
    found: set[str] = set()
    cursor: dict[str, str] = {}
    while True:
        page = session.ask("key.list", {"limit": 1000, **cursor})
        found |= {key.key_id for key in page.keys}
        if page.next_cursor is None:
            return found
        cursor = {"cursor": page.next_cursor}


@SESSION.case("frame_limit", "2.4-2 3.2-1", hint="the smaller of what you can and what was offered")
def frame_limit(bench: Bench) -> None:
    """The limit of a line is at most what the host offered, also where that is the least or the most."""
    for offered in (65_536, 100_000, 2**26):
        with bench.initialized(max_frame_bytes=offered) as session:
            session.configure(bench.config)
            session.ask("plugin.ping")


@SESSION.case("favourite", "3.2-1 9-1", hint="the host's order counts, not yours")
def favourite(bench: Bench) -> None:
    """Of the versions offered it takes the first that it speaks, however many it does not know."""
    for offered in (["1", "2", "1"], ["", "one", "1", "2"], [*(f"x-{number}" for number in range(50)), "1"]):
        with bench.fresh() as session:
            chosen = session.initialize(protocol_versions=offered).protocol_version
            check(chosen == "1", f"of {offered[:4]} the driver chose {chosen!r}")


@SESSION.case(
    "secret_not_quoted",
    "3.3-1 7.6-1",
    hint="name the member, never its value; mark secrets writeOnly in the schema",
)
def secret_not_quoted(bench: Bench) -> None:
    """The refusal of wrong settings does not quote the values of secrets."""
    members = bench.hello.config_schema.get("properties", {})
    secrets = [
        name for name, member in members.items() if isinstance(member, dict) and member.get("writeOnly")
    ]
    if not secrets:
        raise Skipped("the schema marks no member writeOnly")
    canary = "canary-9c2e"
    with bench.initialized() as session:
        for name in secrets:
            for value in ({canary: canary}, [canary], f"{canary}\n\0"):
                answer = session.call(
                    "plugin.configure", {"config": {**bench.config, name: value, canary[:6]: 1}}
                )
                text = answer.message + str(answer.data)
                check(canary not in text, f"the refusal quotes the value of {name}")
                if answer.result is not None:
                    return
        session.wire.end_stdin()
        session.ended()
        check(canary.encode() not in bytes(session.wire.stderr), "a secret stands on stderr")


@SESSION.case(
    "cancel_at_work",
    "3.5-3 2.3-3 2.5-3",
    offers("key.create"),
    hint="cancel what waits; what is begun may finish",
)
def cancel_at_work(bench: Bench) -> None:
    """Of requests that are cancelled while they wait for others each is answered once."""
    algorithm, usage = next(bench.capabilities.kinds())
    body = {"algorithm": algorithm, "usage": usage}
    session = bench.session
    ids = [session.request("key.create", body) for _ in range(6)]
    for request_id in ids[::-1]:
        session.notify(CANCEL, {"id": request_id})
    seen = []
    for _ in ids:
        answer = session.next("a cancelled key.create")
        seen.append(answer.id)
        if answer.result is None:
            answer.refused("CANCELLED")
        else:
            bench.will_delete(read_result("key.create", answer.result))
    check(sorted(seen) == ids, "not every cancelled request was answered exactly once")


@SESSION.case("once", "3.1-1", hint="a refused plugin.* request changes nothing")
def once(bench: Bench) -> None:
    """A second initialize and a second configure are refused, and change nothing."""
    session = bench.session
    body = {"protocol_versions": KNOWN_VERSIONS, "host": HOST}
    session.call("plugin.initialize", body).refused("INVALID_ARGUMENT")
    session.call("plugin.configure", {"config": bench.config}).refused("INVALID_ARGUMENT")
    session.ask("plugin.health")


@SESSION.case("phases", "3.1-1 3.1-2", hint="the table of SPEC.md 3.1")
def phases(bench: Bench) -> None:
    """Ping is answered in every phase; operations only after configure; configure only after initialize."""
    offered = [operation.wire for operation in KEYSTORE_API if bench.capabilities.offers(operation.wire)]
    with bench.fresh() as session:
        _too_early(session, offered)
        session.call("plugin.configure", {"config": bench.config}).refused("INVALID_ARGUMENT")
        session.initialize()
        _too_early(session, offered)
        session.configure(bench.config)
        session.ask("plugin.ping")
        session.ask("plugin.health")


def _too_early(session: Session, offered: list[str]) -> None:
    session.ask("plugin.ping")
    for method in ("plugin.health", *offered):
        session.call(method, {}).refused(number=_EARLY)
    session.call("no.such").refused("UNSUPPORTED_OPERATION", number=_UNKNOWN)


@SESSION.case(
    "versions",
    "3.2-1 3.2-2 9-1",
    hint="pick the first version offered that you know; a refusal leaves everything as it was",
)
def versions(bench: Bench) -> None:
    """Without a version in common the driver refuses and names its own; then it takes another offer."""
    with bench.fresh() as session:
        answer = session.call("plugin.initialize", {"protocol_versions": ["999", "1.0"], "host": HOST})
        answer.refused("UNSUPPORTED_OPERATION")
        check(
            KNOWN_VERSIONS[0] in answer.message,
            "the refusal does not name the versions that the driver speaks",
        )
        hello = session.initialize(protocol_versions=["999", *KNOWN_VERSIONS])
        check(hello.protocol_version in KNOWN_VERSIONS, f"the driver chose {hello.protocol_version!r}")


@SESSION.case("initialize_params", "4.1-1 3.1-1", hint="check params before you change the phase")
def initialize_params(bench: Bench) -> None:
    """Malformed params of initialize are refused with -32602, and the session waits for better ones."""
    good: dict[str, Any] = {"protocol_versions": KNOWN_VERSIONS, "host": HOST}
    with bench.fresh() as session:
        for wrong in (
            {},
            {"host": HOST},
            {"protocol_versions": KNOWN_VERSIONS},
            {**good, "protocol_versions": []},
            {**good, "protocol_versions": "1"},
            {**good, "protocol_versions": [1]},
            {**good, "host": "me"},
            {**good, "max_frame_bytes": 1024},
            {**good, "max_frame_bytes": {}},
        ):
            answer = session.call("plugin.initialize", wrong)
            answer.refused("INVALID_ARGUMENT", number=jsonrpc.INVALID_PARAMS)
        session.initialize()


@SESSION.case(
    "config_schema", "3.2-4", hint="give a JSON Schema with type: object, also without any settings"
)
def config_schema(bench: Bench) -> None:
    """The schema of the settings describes an object."""
    schema = bench.hello.config_schema
    check(schema.get("type") == "object", f"its type is {schema.get('type')!r}, not 'object'")
    check(isinstance(schema.get("properties", {}), dict), "its properties are no object")


@SESSION.case(
    "bad_config",
    "3.3-1 4.1-1",
    hint="validate against your own schema, and name the first member that is wrong",
)
def bad_config(bench: Bench) -> None:
    """Wrong settings are refused with CONFIGURATION_ERROR and the member's path; right ones then work."""
    wrong = _wrong_settings(bench.hello.config_schema, bench.config)
    if wrong is None:
        raise Skipped("the schema accepts whatever this case could try")
    name, config = wrong
    with bench.initialized() as session:
        session.call("plugin.configure").refused("INVALID_ARGUMENT", number=jsonrpc.INVALID_PARAMS)
        session.call("plugin.configure", {"config": [1]}).refused(
            "INVALID_ARGUMENT", number=jsonrpc.INVALID_PARAMS
        )
        answer = session.call("plugin.configure", {"config": config}).refused("CONFIGURATION_ERROR")
        path = answer.data.get("path")
        check(
            isinstance(path, str) and path.split(".")[0] == name,
            f"the path is {path!r}, the wrong member {name!r}",
        )
        session.configure(bench.config)


def _wrong_settings(schema: Mapping[str, Any], good: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return settings that the schema refuses for one member, and that member."""
    for name in schema.get("required", ()):
        return name, {key: value for key, value in good.items() if key != name}
    if schema.get("additionalProperties") is False:
        return "no_such_setting", {**good, "no_such_setting": "x"}
    for name, member in schema.get("properties", {}).items():
        match member.get("type"):
            case "string" | "integer" | "number" | "boolean" | "array":
                return name, {**good, name: {"not": "this"}}
            case "object":
                return name, {**good, name: "not this"}
    return None


@SESSION.case("dry_run", "3.3-2 3.3-3", hint="check what you can, answer, and stay before plugin.configure")
def dry_run(bench: Bench) -> None:
    """A dry run answers like the real thing and leaves the session waiting for it."""
    with bench.initialized() as session:
        for _ in range(2):
            session.configure(bench.config, dry_run=True)
            session.call("plugin.health").refused(number=_EARLY)
        session.configure(bench.config)
        session.ask("plugin.health")


@SESSION.case("shutdown", "3.7-1 2.3-3", hint="let what is in progress finish, answer, flush, exit 0")
def shutdown(bench: Bench) -> None:
    """Requests before a shutdown are answered before it; then the process exits with status 0."""
    with bench.ready() as session:
        ids: list[Any] = [f"r{number}" for number in range(8)]
        lines = [session.frame("plugin.health", {"depth": "shallow"}, request_id) for request_id in ids]
        session.send(b"".join([*lines, session.frame("plugin.shutdown", {}, "end")]))
        answers = [session.next("a request before the shutdown") for _ in range(len(ids) + 1)]
        check(answers[-1].id == "end", "the shutdown was answered before requests that came earlier")
        check(
            sorted(answer.id for answer in answers[:-1]) == ids,
            "requests before the shutdown were not answered",
        )
        for answer in answers:
            answer.granted()
        _exits(session, 0)
    for prepare in (_nothing, Session.initialize):
        with bench.fresh() as session:
            prepare(session)
            session.ask("plugin.shutdown")
            _exits(session, 0)


@SESSION.case("end_of_stdin", "3.7-2", hint="a read of zero bytes is the end of the session, in any phase")
def end_of_stdin(bench: Bench) -> None:
    """At the end of its stdin, in any phase, the process exits with status 0."""
    for prepare in (_nothing, Session.initialize, lambda session: _open(session, bench.config)):
        with bench.fresh() as session:
            prepare(session)
            session.ask("plugin.ping")
            session.wire.end_stdin()
            session.ended()
            _exits(session, 0)


@SESSION.case(
    "end_of_stdin_with_requests",
    "3.7-2",
    hint="an end of stdin ends the session also while answers are being written",
)
def end_of_stdin_with_requests(bench: Bench) -> None:
    """The end of stdin right behind requests ends the process too."""
    with bench.ready() as session:
        session.send(b"".join(session.frame("plugin.health", {}, number) for number in range(50)))
        session.wire.end_stdin()
        _exits(session, 0)


@SESSION.case("sigterm", "3.7-3", hint="keep the default action, or exit in a handler that waits for nothing")
def sigterm(bench: Bench) -> None:
    """SIGTERM ends the process."""
    with bench.ready() as session:
        session.wire.signal(signal.SIGTERM)
        session.wire.wait(min(session.deadline, time.monotonic() + _EXIT_S))


def _nothing(_session: Session) -> None:
    """Leave the session as it is."""


def _open(session: Session, config: Mapping[str, Any]) -> None:
    session.initialize()
    session.configure(config)


def _exits(session: Session, wanted: int) -> None:
    status = session.wire.wait(min(session.deadline, time.monotonic() + _EXIT_S))
    check(status == wanted, f"the process ended with status {status}, not {wanted}")
