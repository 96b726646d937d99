"""What broken drivers say or hear otherwise, by the case that has to notice it.

Standard library only: a mutant is a process that starts often. Each entry breaks one rule and as little else
as can be, so that cases of other rules go on passing.
"""

import json
from collections.abc import Callable
from typing import Any, Final

Message = dict[str, Any]
Answers = dict[str, Callable[[Message, Message], None]]

KEY: Final = {
    "key_id": "k/made-up", "key_version": "1", "algorithm": "AES_256_GCM", "usage": "ENCRYPT_DECRYPT",
    "state": "ACTIVE", "protection": "software",
}  # fmt: skip
CANARY: Final = "canary-5e1d"


def params(request: Message) -> Message:
    found = request.get("params")
    return found if isinstance(found, dict) else {}


def meta(found: Message) -> Message:
    told = found.get("meta")
    return told if isinstance(told, dict) else {}


def grants(
    method: str, when: Callable[[Message], bool], result: Message, *, number: int | None = None
) -> Callable[[Message, Message], None]:
    """Answer with a result where the driver refuses, with *number* if that is named."""

    def change(request: Message, message: Message) -> None:
        refused = "error" in message and number in (None, message["error"]["code"])
        if request["method"] == method and refused and when(params(request)):
            del message["error"]
            message["result"] = result

    return change


def refuses(
    method: str, when: Callable[[Message], bool], number: int, code: str
) -> Callable[[Message, Message], None]:
    """Answer with another refusal than the driver does, or in place of a result."""

    def change(request: Message, message: Message) -> None:
        if request["method"] == method and when(params(request)):
            message.pop("result", None)
            message["error"] = {"code": number, "message": "no", "data": {"code": code}}

    return change


def says(method: str, change_result: Callable[[Message, Message], Any]) -> Callable[[Message, Message], None]:
    """Change what a result says: given the params of the request, and the result."""

    def change(request: Message, message: Message) -> None:
        if request["method"] == method and "result" in message:
            change_result(params(request), message["result"])

    return change


def declares(**row: Any) -> Callable[[Message, Message], None]:
    """Declare one row more."""
    return says("plugin.initialize", lambda _, result: result["capabilities"].append(row))


def errors(number: int | None = None, **data: Any) -> Callable[[Message, Message], None]:
    """Change the errors that answer the strangest requests, of which no case minds the code."""

    def change(request: Message, message: Message) -> None:
        if "error" in message and CANARY in json.dumps(params(request)):
            message["error"]["code"] = number or message["error"]["code"]
            message["error"]["data"].update(data)

    return change


def has(name: str, value: Any) -> Callable[[Message], bool]:
    return lambda found: found.get(name) == value and type(found.get(name)) is type(value)


def _quotes(request: Message, message: Message) -> None:
    if "error" in message and CANARY in json.dumps(params(request)):
        message["error"]["message"] += CANARY


def _row_without_kind(request: Message, message: Message) -> None:
    if request["method"] == "plugin.initialize" and "result" in message:
        for row in message["result"]["capabilities"]:
            if row["operation"] == "crypto.mac":
                del row["key_algorithm"]


def _signs_in_any_way(request: Message, message: Message) -> None:
    """Sign with a mechanism that the rows have for other keys."""
    code, told = message.get("error", {}).get("data", {}).get("code"), params(request)
    asked = (request["method"], told.get("mechanism"), told.get("message"))
    refused = code in ("KEY_USAGE_MISMATCH", "UNSUPPORTED_OPERATION")
    if refused and asked == ("crypto.sign", "ECDSA_SHA_256", "bQ=="):
        del message["error"]
        message["result"] = {"key_id": told["key_id"], "mechanism": "ECDSA_SHA_256", "signature": "AAAA"}


def _deep() -> Any:
    value: Any = "x"
    for _ in range(80):
        value = [value]
    return value


ANSWERS: Final[Answers] = {
    "session.handshake": says("plugin.initialize", lambda _, result: result.update(protocol_version="999")),
    "session.health": says("plugin.health", lambda p, r: r.update(healthy=p.get("depth") != "deep")),
    "session.health_params": grants("plugin.health", has("depth", "DEEP"), {"healthy": True}),
    "session.frame_limit": says(
        "plugin.initialize",
        lambda p, r: r.update(max_frame_bytes=2**26) if p.get("max_frame_bytes") == 100_000 else None,
    ),
    "session.favourite": says(
        "plugin.initialize",
        lambda p, r: r.update(protocol_version="x-0") if len(p["protocol_versions"]) > 10 else None,
    ),
    "session.config_schema": says("plugin.initialize", lambda _, r: r["config_schema"].pop("type")),
    "rows.key_algorithm": _row_without_kind,
    "rows.usage": declares(operation="key.create", key_algorithm="HMAC_SHA_384", usage="WRAP_UNWRAP"),
    "rows.mechanism": declares(operation="crypto.derive", key_algorithm="ED25519", mechanism="ECDSA_SHA_256"),
    "rows.opened": says(
        "plugin.initialize",
        lambda _, r: [
            row.update(associated_data="bytes")
            for row in r["capabilities"]
            if row["operation"] == "crypto.decrypt" and row["key_algorithm"] == "RSA_2048"
        ],
    ),
    "rows.associated_data": declares(operation="key.tag", associated_data="bytes"),
    "crypto.left_out": _signs_in_any_way,
    "rows.wrap_algorithm": declares(operation="key.tag", wrap_algorithm="mine"),
    "rows.deletion_window": declares(operation="key.purge", deletion_window_days=[9, 2]),
    "keys.create": says("key.get", lambda _, r: r.update(region="x") if r["algorithm"] == "X25519" else None),
    "keys.ids": says("plugin.configure", lambda _, r: r.update(key_namespace=["z/"])),
    "keys.undeclared_kinds": grants("key.create", has("algorithm", "ED25519"), KEY),
    "keys.unknown_values": grants("key.create", has("algorithm", "AES_999"), KEY),
    "keys.usage": grants("key.create", lambda p: p.get("algorithm") == "RSA_2048" and "usage" not in p, KEY),
    "keys.key_id": grants("key.get", has("key_id", 7), KEY),
    "keys.list_bounds": grants("key.list", has("limit", 1001), {"keys": []}),
    "keys.alias_of_nobody": grants(
        "key.set_alias", lambda p: "kmsplug-conformance-" in str(p.get("key_id")), {}
    ),
    "keys.public_key": says(
        "key.get_public_key",
        lambda _, r: r.update(public_key=r["public_key"][:-4]) if r["algorithm"] == "ML_KEM_768" else None,
    ),
    "keys.validate": says("key.validate", lambda _, r: r.update(valid=True)),
    "keys.backup": refuses(
        "key.restore", lambda p: isinstance(p.get("backup"), str) and p["backup"] != "", -32000, "CONFLICT"
    ),
    "params.missing": grants("key.get", lambda p: p == {}, KEY, number=-32602),
    "params.null": grants("crypto.random", lambda p: p == {"length_bytes": None}, {"data": ""}),
    "params.wrong_types": grants("crypto.random", has("length_bytes", -1.5), {"data": ""}),
    "params.too_long": grants("key.tag", lambda p: len(str(p.get("key_id"))) == 2049, KEY),
    "params.empty": grants("key.tag", has("key_id", ""), KEY),
    "params.unknown_members": refuses("crypto.mac", lambda p: "x-future" in p, -32602, "INVALID_ARGUMENT"),
    "params.meta": refuses("key.get", lambda p: meta(p).get("tenant") == "other", -32000, "ACCESS_DENIED"),
    "params.deadline": refuses(
        "crypto.random", lambda p: meta(p).get("deadline_ms") == 0, -32000, "CONFLICT"
    ),
    "hostile.key_ids": grants("key.get", has("key_id", "*"), KEY),
    "hostile.key_versions": grants(
        "crypto.mac",
        has("key_version", "*"),
        {"key_id": "k/1", "key_version": "*", "mechanism": "HMAC_SHA_384", "mac": ""},
    ),
    "hostile.names": grants(
        "key.create", lambda p: "DROP TABLE" in str(p.get("name")), {**KEY, "name": "keys"}
    ),
    "hostile.tags": says(
        "key.get",
        lambda _, r: r.update(tags={name.strip(): value for name, value in r.get("tags", {}).items()}),
    ),
    "hostile.cursors": grants("key.list", has("cursor", "*"), {"keys": []}),
    "hostile.values": grants("key.create", has("usage", "*"), KEY),
    "hostile.methods": lambda q, m: (
        m.pop("error") and m.update(result={}) if q["method"] == "crypto.*" else None
    ),
    "hostile.mechanisms": grants(
        "crypto.encrypt",
        has("mechanism", "AES"),
        {"key_id": "k/1", "mechanism": "AES_256_GCM", "ciphertext": "AAAA"},
    ),
    "reconcile.other_change": says(
        "key.reconcile",
        lambda p, r: r.update(outcome="applied", key=KEY) if p["method"] == "key.import" else None,
    ),
    "reconcile.params": grants("key.reconcile", has("idempotency_key", ""), {"outcome": "unknown"}),
    "versions.bounds": grants("key.list_versions", has("limit", 1001), {"key_id": "k/1", "versions": []}),
    "versions.public_key": says(
        "key.get_public_key", lambda p, r: r.update(key_version="9") if p.get("key_version") else None
    ),
    "crypto.batch_bounds": says(
        "crypto.batch", lambda p, r: r["items"].pop() if len(p["calls"]) == 100 else None
    ),
    "crypto.data_key_lengths": says(
        "crypto.generate_data_key",
        lambda p, r: r.update(plaintext="AAAA") if p.get("length_bytes") == 31 else None,
    ),
    "lifetime.own_ids": says(
        "crypto.encrypt",
        lambda p, r: r.update(key_id="k/other") if p.get("plaintext") == "MDEyMzQ1Njc4OWFiY2RlZg==" else None,
    ),
    "signing.over_the_limit": grants(
        "crypto.sign",
        lambda p: len(str(p.get("message"))) > 5400,
        {"key_id": "k/1", "mechanism": "ECDSA_SHA_256", "signature": "AAAA"},
    ),
    "audit.fixed_sentence": _quotes,
    "audit.nulls": says("plugin.ping", lambda _, r: r.update(note=None)),
    "audit.integers": says("plugin.ping", lambda _, r: r.update(count=2**60)),
    "audit.depth": says("plugin.ping", lambda _, r: r.update(nested=_deep())),
    "audit.base64": says("plugin.ping", lambda _, r: r.update(ciphertext="-__-")),
    "audit.executed_by": says("plugin.ping", lambda _, r: r.update(executed_by="shim:mine@1")),
    "audit.protection": says("plugin.ping", lambda _, r: r.update(protection="host")),
    "audit.enforced_by": says("plugin.ping", lambda _, r: r.update(enforced_by="nobody")),
    "audit.numbers": errors(-32099),
    "audit.codes": errors(-32000, code="CIRCUIT_OPEN"),
    "audit.vendor": errors(-32000, code="PROVIDER_INTERNAL"),
    "audit.retry_after": errors(retry_after_ms=5),
    "audit.causes": errors(causes=["it failed: no route to 10.0.0.1"]),
    "audit.renewed": errors(credential_renewed=True),
    "audit.outcome": errors(outcome="maybe"),
}
"""What is said otherwise: given a request and its answer, the answer is changed in place."""

REQUESTS: Final[dict[str, Callable[[Message], None]]] = {}
"""What is heard otherwise: a request is changed in place before the driver sees it."""


def hears(case: str, method: str, change: Callable[[Message], Any]) -> None:
    def heard(request: Message) -> None:
        if request.get("method") == method:
            change(params(request))

    REQUESTS[case] = heard


hears("session.initialize_params", "plugin.initialize", lambda p: p.update(max_frame_bytes=65_536)
      if p.get("max_frame_bytes") == 1024 else None)  # fmt: skip
hears("keys.tags", "key.tag", lambda p: p.update(set={"a": "1"}) if p.get("set") == {"a": "2"} else None)
hears(
    "params.configure", "plugin.configure", lambda p: p.update(config={}) if p.get("config") == [1] else None
)
hears("versions.unknown", "key.set_state", lambda p: p.pop("key_version")
      if p.get("key_version") == "no-such-version" else None)  # fmt: skip
hears("versions.one_version", "key.set_state", lambda p: p.pop("key_version", None)
      if p.get("state") == "COMPROMISED" else None)  # fmt: skip
hears("binding.nothing_bound", "crypto.encrypt", lambda p: p.update(associated_data="eA==")
      if p.get("associated_data") == "" else None)  # fmt: skip
hears(
    "crypto.round_trip",
    "crypto.encrypt",
    lambda p: p.update(plaintext="AA==") if p.get("plaintext") == "Cg==" else None,
)
hears("params.null_options", "crypto.encrypt", lambda p: p.update(associated_data="eA==")
      if "associated_data" in p and p["associated_data"] is None else None)  # fmt: skip
hears(
    "signing.round_trip",
    "crypto.sign",
    lambda p: p.update(message="AQ==") if p.get("message") == "AA==" else None,
)
