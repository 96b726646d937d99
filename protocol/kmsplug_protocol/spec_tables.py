"""Writes the tables of SPEC.md from the models, so that the text and the code cannot disagree.

``python -m kmsplug_protocol.spec_tables protocol/SPEC.md`` rewrites what stands between
``<!-- generated:NAME -->`` and ``<!-- /generated -->``; a test fails when a table is stale.
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from .capabilities import Capability
from .error_facts import ERROR_FACTS
from .errors import Outcome, RetryClass
from .messages.base import Meta, Params, Result, Vendor
from .messages.crypto import BatchCall, BatchItem
from .messages.error import ErrorData
from .messages.keys import Key, KeyVersion
from .messages.plugin import CancelParams, HealthCheck, Peer
from .operations import BY_WIRE, CANCEL, Nature, Operation
from .types import (
    AssociatedData,
    Enforcement,
    HealthDepth,
    KeyAlgorithm,
    KeyState,
    KeyUsage,
    Mechanism,
    Origin,
    Probe,
    Protection,
    SignedForm,
)

_MODELS: Final[tuple[type[BaseModel], ...]] = (
    Key,
    KeyVersion,
    Capability,
    Meta,
    Result,
    Vendor,
    ErrorData,
    Peer,
    HealthCheck,
    BatchCall,
    BatchItem,
)
_ENUMS: Final[tuple[type[StrEnum], ...]] = (
    KeyState,
    KeyAlgorithm,
    KeyUsage,
    Mechanism,
    Origin,
    Protection,
    Enforcement,
    AssociatedData,
    SignedForm,
    Probe,
    HealthDepth,
    Nature,
    Outcome,
    RetryClass,
)
_SHARED: Final = {model.__name__ for model in _MODELS}

_BLOCK: Final = re.compile(
    r"(?P<open><!-- generated:(?P<name>[\w.]+) -->\n).*?(?P<close><!-- /generated -->)", re.DOTALL
)


def blocks() -> dict[str, str]:
    """Return the text of every generated block by its name."""
    found = {operation.wire: "\n".join(_operation(operation)) for operation in BY_WIRE.values()}
    found[CANCEL] = "\n".join(_members("Params", CancelParams, ()))
    found |= {f"model.{model.__name__}": "\n".join(_table(_rows(model, ()))) for model in _MODELS}
    found |= {f"enum.{enum.__name__}": "\n".join(_enum(enum)) for enum in _ENUMS}
    found["errors"] = "\n".join(_errors())
    found["operations"] = "\n".join(_overview())
    found["names"] = "\n".join(_names())
    return found


def render(text: str) -> str:
    """Return *text* with every generated block rewritten.

    Raises:
        ValueError: A block has an unknown name, or one that has to be there is missing.
    """
    known = blocks()
    present: set[str] = set()

    def rewrite(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in known:
            raise ValueError(f"nothing generates a block {name!r}")
        present.add(name)
        return f"{match['open']}\n{known[name]}\n\n{match['close']}"

    rewritten = _BLOCK.sub(rewrite, text)
    if missing := known.keys() - present:
        raise ValueError(f"blocks are missing: {', '.join(sorted(missing))}")
    return rewritten


def _operation(operation: Operation) -> Iterator[str]:
    yield f"{operation.summary} Nature: {operation.nature.value}. API name: `{operation.api}`."
    yield ""
    yield from _members("Params", operation.params, tuple(Params.model_fields))
    yield ""
    yield from _members("Result", operation.result, tuple(Result.model_fields))


def _members(title: str, model: type[BaseModel], common: Sequence[str]) -> Iterator[str]:
    """Yield the table of a message; members that all messages share are not repeated."""
    if model.__name__ in _SHARED:
        yield f"{title}: a `{model.__name__}`."
    elif rows := _rows(model, common):
        yield f"{title}:"
        yield ""
        yield from _table(rows)
    else:
        yield f"{title}: no members of its own."


def _rows(model: type[BaseModel], common: Sequence[str]) -> list[tuple[str, ...]]:
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return [
        (
            f"`{name}`",
            _type(schema["properties"][name]),
            "yes" if name in required else _absent(schema["properties"][name]),
            field.description or "",
        )
        for name, field in model.model_fields.items()
        if name not in common or model.__name__ in _SHARED
    ]


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield "| member | type | required | meaning |"
    yield "| --- | --- | --- | --- |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _absent(schema: dict[str, Any]) -> str:
    """Say what the absence of an optional member means, where it has a default."""
    default = schema.get("default")
    if default in (None, [], ()):
        return "no"
    return f"no, `{str(default).lower() if isinstance(default, bool) else default}`"


def _type(schema: dict[str, Any]) -> str:
    """Describe a member's type in words and bounds."""
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    describe = _DESCRIBED.get(schema["type"])
    return schema["type"] if describe is None else describe(schema)


def _array(schema: dict[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"array [{', '.join(_type(item) for item in schema['prefixItems'])}]"
    return f"array of {_type(schema['items'])}{_bounds(schema, 'minItems', 'maxItems')}"


def _object(schema: dict[str, Any]) -> str:
    values = schema.get("additionalProperties")
    if not isinstance(values, dict):
        return "object"
    return f"map of string to {_type(values)}{_bounds(schema, 'minProperties', 'maxProperties')}"


def _integer(schema: dict[str, Any]) -> str:
    return f"integer{_bounds(schema, 'minimum', 'maximum')}"


def _string(schema: dict[str, Any]) -> str:
    if schema.get("contentEncoding") == "base64":
        return "secret bytes" if schema.get("writeOnly") else "bytes"
    if "pattern" in schema:
        return "timestamp"
    bounds = _bounds(schema, "minLength", "maxLength")
    return f"string{bounds} characters" if bounds else "string"


_DESCRIBED: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "string": _string,
    "integer": _integer,
    "array": _array,
    "object": _object,
}


def _bounds(schema: dict[str, Any], low: str, high: str) -> str:
    match schema.get(low), schema.get(high):
        case None, None:
            return ""
        case None, most:
            return f", at most {most}"
        case least, None:
            return f", at least {least}"
        case least, most:
            return f", {least} to {most}"


def _enum(enum: type[StrEnum]) -> Iterator[str]:
    meanings = _meanings(enum)
    if not meanings:
        yield ", ".join(f"`{member.value}`" for member in enum)
        return
    yield f"| `{enum.__name__}` | meaning |"
    yield "| --- | --- |"
    for member in enum:
        yield f"| `{member.value}` | {meanings[member.name]} |"


def _meanings(enum: type[StrEnum]) -> dict[str, str]:
    """Read the literal docstring under each member from the source; Python itself keeps none."""
    (definition,) = ast.parse(inspect.getsource(enum)).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - the source of a class is a class
    found: dict[str, str] = {}
    for one, following in zip(definition.body, definition.body[1:], strict=False):
        match one, following:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = text
    return found


def _errors() -> Iterator[str]:
    yield "| code | meaning | retry | effect, if `outcome` is absent | who failed | gRPC |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for code, fact in ERROR_FACTS.items():
        outcome = Outcome.UNKNOWN if fact.may_have_acted else Outcome.NOT_APPLIED
        who = "plugin or host" if fact.from_plugin else "keystore"
        cells = (f"`{code.value}`", fact.meaning, fact.retry.value, outcome.value, who, fact.grpc)
        yield f"| {' | '.join(cells)} |"


def _overview() -> Iterator[str]:
    yield "| operation | nature | what it does |"
    yield "| --- | --- | --- |"
    for operation in BY_WIRE.values():
        yield f"| `{operation.wire}` | {operation.nature.value} | {operation.summary} |"


def _names() -> Iterator[str]:
    yield "| on the wire | in the API |"
    yield "| --- | --- |"
    for operation in BY_WIRE.values():
        yield f"| `{operation.wire}` | `{operation.api}` |"


def main(path: str) -> None:
    """Rewrite the tables of the file at *path*."""
    target = Path(path)
    target.write_text(render(target.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
