"""Looks at every response of a run, whichever case asked for it: rules that hold for all of them.

What is kept is the first breach of each rule, so a run of any length needs little memory.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kmsplug_protocol import ERROR_FACTS, ErrorCode, decode_base64, jsonrpc

from .verdict import quote

_LARGEST: Final = 2**53 - 1
_DEEPEST: Final = 64
_TYPE_NAME: Final = re.compile(r"[A-Za-z_][\w.:$<>]*")

NUMBERS: Final = frozenset(
    {
        jsonrpc.PARSE_ERROR,
        jsonrpc.INVALID_REQUEST,
        jsonrpc.METHOD_NOT_FOUND,
        jsonrpc.INVALID_PARAMS,
        jsonrpc.INTERNAL_ERROR,
        jsonrpc.KEYSTORE_ERROR,
    }
)

# The code that goes with a number (SPEC.md 7.1); -32000 takes any.
_CODE_OF: Final = {
    jsonrpc.PARSE_ERROR: ErrorCode.INVALID_ARGUMENT,
    jsonrpc.INVALID_REQUEST: ErrorCode.INVALID_ARGUMENT,
    jsonrpc.METHOD_NOT_FOUND: ErrorCode.UNSUPPORTED_OPERATION,
    jsonrpc.INVALID_PARAMS: ErrorCode.INVALID_ARGUMENT,
    jsonrpc.INTERNAL_ERROR: ErrorCode.INTERNAL_ERROR,
}

# What only a host can say (SPEC.md 7.3-2).
_OF_THE_HOST: Final = frozenset(
    {
        ErrorCode.PLUGIN_CRASHED,
        ErrorCode.PLUGIN_UNAVAILABLE,
        ErrorCode.PROTOCOL_VIOLATION,
        ErrorCode.CIRCUIT_OPEN,
        ErrorCode.SHIM_FAILED,
        ErrorCode.POLICY_DENIED,
        ErrorCode.TENANT_MISMATCH,
        ErrorCode.QUORUM_NOT_MET,
        ErrorCode.OFFLINE_LIMIT_EXCEEDED,
    }
)

# The provider failed and said something: its words have to survive.
_OF_THE_PROVIDER: Final = frozenset(
    {ErrorCode.PROVIDER_INTERNAL, ErrorCode.UNCLASSIFIED, ErrorCode.RATE_LIMIT_EXCEEDED}
)

_BYTES: Final = frozenset(
    {
        "ciphertext", "plaintext", "wrapped_key", "key", "signature", "mac", "public_key", "import_token",
        "backup", "shared_secret", "data",
    }
)  # fmt: skip

# Members whose own members are data, or whose shape is somebody else's.
_OPAQUE: Final = frozenset({"config_schema", "config", "tags", "context", "access_data"})


class Audit:
    """Keeps the first breach of each rule.

    Attributes:
        breaches: What was seen, by rule.
        errors: How many errors were looked at.
    """

    def __init__(self) -> None:
        self.breaches: dict[str, str] = {}
        self.errors = 0

    def note(self, message: Mapping[str, Any], to: str) -> None:
        """Look at one response, whose envelope may still be wrong."""
        body = message.get("result", message.get("error"))
        if not isinstance(body, dict):
            return
        for rule, detail in _of_values(body, 1):
            self._keep(rule, to, detail)
        found = _of_result(body) if "result" in message else _of_error(body)
        self.errors += "error" in message
        for rule, detail in found:
            self._keep(rule, to, detail)

    def _keep(self, rule: str, to: str, detail: str) -> None:
        self.breaches.setdefault(rule, f"the answer to {to} {detail}")


def _of_values(value: Any, depth: int, name: str = "") -> Iterator[tuple[str, str]]:
    """Look at the values of a body, whatever they mean; as deep as a sender may nest them."""
    if depth > _DEEPEST:
        yield "depth", f"nests values deeper than {_DEEPEST} levels"
    elif isinstance(value, dict):
        for member, inner in value.items():
            if inner is None:
                yield "nulls", f"has null for {quote(member, 64)}"
            elif member not in _OPAQUE:
                yield from _of_values(inner, depth + 1, member)
    elif isinstance(value, list):
        for inner in value:
            yield from _of_values(inner, depth + 1)
    elif isinstance(value, int) and abs(value) > _LARGEST:
        yield "integers", f"holds the integer {value}"
    elif isinstance(value, str) and name in _BYTES and not _is_base64(value):
        yield "base64", f"has {name} that is no padded standard base64"


def _is_base64(text: str) -> bool:
    try:
        decode_base64(text)
    except ValueError:
        return False
    return True


def _of_result(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if (by := result.get("executed_by", "native")) != "native":
        yield "executed_by", f"says that it was executed by {quote(str(by), 64)}"
    if result.get("protection") == "host":
        yield "protection", "says that the material lives in the host"
    if (enforced_by := result.get("enforced_by", "provider")) not in ("provider", "host"):
        yield "enforced_by", f"says that the state is enforced by {quote(str(enforced_by), 64)}"


def _of_error(error: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    number, data = error.get("code"), error.get("data")
    if number not in NUMBERS:
        yield "numbers", f"is an error with number {quote(str(number), 32)}"
    if not isinstance(data, dict):
        return
    code, vendor = data.get("code"), data.get("vendor")
    fits = _CODE_OF.get(number, code) if isinstance(number, int) else code
    if code != fits:
        yield "numbers", f"is error {number} with code {quote(str(code), 64)}, not {fits}"
    if code in _OF_THE_HOST or code not in ERROR_FACTS:
        yield "codes", f"is an error with code {quote(str(code), 64)}"
    told = isinstance(vendor, dict) and (vendor.get("code") or vendor.get("withheld"))
    if code in _OF_THE_PROVIDER and not told:
        yield "vendor", f"is {code} without the provider's own code"
    if "retry_after_ms" in data and not isinstance(vendor, dict):
        yield "retry_after", "names a time to wait, and no provider that named it"
    if data.get("credential_renewed") and code != ErrorCode.AUTHENTICATION_FAILED:
        yield "renewed", f"says that {quote(str(code), 64)} renewed a credential"
    if data.get("outcome", "unknown") not in ("applied", "not_applied", "unknown"):
        yield "outcome", f"has the outcome {quote(str(data['outcome']), 64)}"
    causes = data.get("causes", [])
    if not isinstance(causes, list) or not all(
        isinstance(cause, str) and _TYPE_NAME.fullmatch(cause) for cause in causes
    ):
        yield "causes", f"has causes that are no names of types: {quote(str(causes))}"


RULES: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("nulls", "1.2-1", "Optional members without a value are left out, never null.",
     "leave absent members out when you write JSON"),
    ("integers", "2.2-4", "Integers lie within 2^53 - 1.",
     "write what may be larger as a string"),
    ("depth", "2.2-6", "No answer nests values deeper than 64 levels.",
     "do not pass on what a provider nested"),
    ("base64", "2.6-1", "Bytes are written as padded standard base64.",
     "many libraries have a URL-safe alphabet too: not that one"),
    ("numbers", "7.1-1", "Errors have the numbers of SPEC.md 7.1 and no others, each with its code.",
     "-32000 is for everything that your provider or your rows refuse"),
    ("codes", "7.3-2", "Errors have codes of the closed set, and none of the host's own.",
     "UNCLASSIFIED is for what you have no row for"),
    ("vendor", "7.2-2 7.3-1", "An error that the provider caused carries the provider's own code.",
     "copy code, request id and message of the provider's error into vendor"),
    ("retry_after", "7.2-3", "A time to wait comes with the provider that named it.",
     "leave retry_after_ms out where the provider said nothing"),
    ("causes", "7.2-4", "Causes are names of types and nothing else.",
     "type(error).__name__, never str(error)"),
    ("renewed", "7.2-5", "Only a refused login says that a credential was renewed.",
     "it is for tokens that you obtain yourself"),
    ("outcome", "7.4-1", "The outcome of an error is one of applied, not_applied and unknown.",
     "leave it out where the table of SPEC.md 7.3 says it already"),
    ("executed_by", "4.3-1", "What a driver did was executed natively.",
     "leave executed_by out: it is for the host's shims"),
    ("protection", "4.3-2", "No driver says that its keys live in the host.",
     "software or hsm, whichever is true"),
    ("enforced_by", "6.5-1", "The state of a key is enforced by the provider or by the host.",
     "say host where another client of your provider is not stopped"),
)  # fmt: skip
"""Name, clauses, sentence and hint of each rule; `cases_audit` makes a case of each."""
