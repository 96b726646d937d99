"""Cases about access data, and about keystores made and ended (SPEC.md sections 4.6 and 4.8)."""

from typing import Any, Final

from kmsplug_protocol import jsonrpc

from .bench import Bench, key_name
from .case import Cases, offers
from .session import read_result
from .verdict import Skipped, check

ACCESS: Final = Cases("access")
KEYSTORES: Final = Cases("keystores")

_NONSENSE: Final = {"kmsplug-conformance": "canary-3f2a"}
_SUBJECT: Final = "kmsplug-conformance"
_EITHER: Final = (jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR)


@ACCESS.case(
    "validate", "4.6-16", offers("key.validate_access"), hint="answer valid: false, and name the member only"
)
def validate(bench: Bench) -> None:
    """Access data that make no sense are a result with a reason, which does not quote their values."""
    found = bench.session.ask("key.validate_access", {"access_data": _NONSENSE})
    check(not found.valid and bool(found.reason), "nonsense is said to do, or no reason is given")
    check(_NONSENSE["kmsplug-conformance"] not in found.reason, "the reason quotes a value")


@ACCESS.case(
    "transform",
    "4.6-17",
    offers("key.create", "key.validate_access", "key.transform_access"),
    hint="refuse what validate_access calls invalid",
)
def transform(bench: Bench) -> None:
    """What is invalid is not transformed."""
    algorithm, usage = next(bench.capabilities.kinds())
    key_id = bench.make_key(algorithm, usage).key_id
    answer = bench.session.call("key.transform_access", {"key_id": key_id, "access_data": _NONSENSE})
    answer.refused("INVALID_ARGUMENT", number=_EITHER)


@ACCESS.case(
    "region", "4.6-18", offers("key.create", "key.get_region"), hint="one word, also without regions"
)
def region(bench: Bench) -> None:
    """Every key of a keystore lives somewhere."""
    algorithm, usage = next(bench.capabilities.kinds())
    key_id = bench.make_key(algorithm, usage).key_id
    found = bench.session.ask("key.get_region", {"key_id": key_id}).region
    check(bool(found), "the region is empty")
    again = bench.session.ask("key.get_region", {"key_id": key_id}).region
    check(found == again, "the region changes from call to call")


@ACCESS.case("unknown_key", "4.1-4", offers("key.get_region"), hint="look the key up before answering")
def unknown_key(bench: Bench) -> None:
    """A key that does not exist lives nowhere."""
    (prefix, *_) = bench.opened.key_namespace or ("",)
    bench.session.call("key.get_region", {"key_id": f"{prefix}{key_name()}"}).refused("KEY_NOT_FOUND")


def _provision(bench: Bench, name: str) -> Any:
    answer = bench.session.call("keystore.provision", {"name": name})
    if answer.result is None and answer.code == "INVALID_ARGUMENT":
        raise Skipped("a keystore of this provider needs settings that only its operator knows")
    return read_result("keystore.provision", answer.granted())


@KEYSTORES.case(
    "provision",
    "4.8-1 4.8-2",
    offers("keystore.provision", "keystore.deprovision"),
    hint="a fresh identity each time, and KEY_NOT_FOUND once it is gone",
)
def provision(bench: Bench) -> None:
    """A keystore is made under a name that is then taken, with an identity of its own, and ended once."""
    name = key_name()
    made = _provision(bench, name)
    check(made.identity != bench.opened.identity, "it has the identity of the session's own keystore")
    bench.session.call("keystore.provision", {"name": name}).refused("ALREADY_EXISTS")
    bench.session.ask("keystore.deprovision", {"identity": made.identity})
    bench.session.call("keystore.deprovision", {"identity": made.identity}).refused("KEY_NOT_FOUND")


@KEYSTORES.case(
    "own", "4.8-2", offers("keystore.deprovision"), hint="refuse the identity that plugin.configure told"
)
def own(bench: Bench) -> None:
    """The keystore of the session cannot be ended from within."""
    answer = bench.session.call("keystore.deprovision", {"identity": bench.opened.identity})
    answer.refused("INVALID_ARGUMENT", number=_EITHER)


@KEYSTORES.case(
    "trust",
    "4.8-2 4.8-3",
    offers("keystore.provision", "keystore.deprovision", "keystore.grant_trust", "keystore.remove_trust"),
    hint="both are idempotent; only the keystore has to exist",
)
def trust(bench: Bench) -> None:
    """Trust is granted and removed, each as often as one likes, and only on keystores that exist."""
    identity = _provision(bench, key_name()).identity
    subject = {"identity": identity, "subject": _SUBJECT}
    for operation in ("remove", "grant", "grant", "remove", "remove"):
        bench.session.ask(f"keystore.{operation}_trust", subject)
    bench.session.ask("keystore.deprovision", {"identity": identity})
    for operation in ("grant", "remove"):
        bench.session.call(f"keystore.{operation}_trust", subject).refused("KEY_NOT_FOUND")
