"""A driver that says one text wherever it may say anything: ``mouthpiece.py answers|refuses FILE``.

FILE holds the text as JSON. What it answers is made from the schemas of the results, so that a member that is
added to the protocol is said here too.
"""

import base64
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kmsplug_protocol import BY_WIRE, KEYSTORE_API

MODE = sys.argv[1]
TEXT: str = json.loads(Path(sys.argv[2]).read_text(encoding="ascii"))
VENDOR = dict.fromkeys(("service", "code", "message", "request_id"), TEXT)


def made(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """Return a document of a schema in which every free text is TEXT."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    if "anyOf" in schema:
        return made(schema["anyOf"][0], definitions)
    kinds: dict[str, Callable[[], Any]] = {
        "object": lambda: made_object(schema, definitions),
        "array": lambda: [made(schema["items"], definitions)] if "items" in schema else [],
        "string": lambda: made_text(schema),
        "boolean": lambda: True,
        "integer": lambda: schema.get("minimum", 1),
    }
    return kinds[schema["type"]]()


def made_object(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "properties" not in schema:
        return {TEXT: TEXT}
    members = schema["properties"].items()
    # A driver that names a shim is refused before anything of it is shown.
    return {name: made(member, definitions) for name, member in members if name != "executed_by"}


def made_text(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return str(schema["enum"][0])
    if "contentEncoding" in schema:
        return base64.b64encode(bytes(32)).decode()
    return "2026-01-31T09:30:00Z" if "pattern" in schema else TEXT


def result_of(method: str, params: dict[str, Any]) -> Any:
    schema = BY_WIRE[method].result.model_json_schema()
    result = made(schema, schema.get("$defs", {}))
    rows = [{"operation": operation.wire} for operation in KEYSTORE_API]
    if method == "plugin.initialize":
        result |= {"protocol_version": "1", "config_schema": {"type": "object"}, "max_frame_bytes": 65536,
                   "capabilities": rows}  # fmt: skip
    if method == "plugin.configure":
        result["capabilities"] = rows
    if method == "crypto.random":
        result["data"] = base64.b64encode(bytes(params["length_bytes"])).decode()
    if "next_cursor" in result:
        result["next_cursor"] = None
    return result


def error() -> dict[str, Any]:
    data = {"code": "ACCESS_DENIED", "hint": TEXT, "path": TEXT, "correlation_id": TEXT, "vendor": VENDOR}
    return {"code": -32000, "message": TEXT, "data": data}


def log() -> None:
    """Say it on stderr, as a record and as text."""
    record = {"level": TEXT, "message": TEXT, "logger": TEXT, "exception": TEXT, TEXT: TEXT}
    os.write(2, json.dumps(record).encode() + b"\n" + TEXT.encode("utf-8", "replace") + b"\n")


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        log()
        refuses = MODE == "refuses" and not request["method"].startswith("plugin.")
        answer = (
            {"error": error()} if refuses else {"result": result_of(request["method"], request["params"])}
        )
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}), flush=True)


main()
