"""Writes the machine-readable contract: a JSON Schema per message and one OpenRPC document.

``python -m kmsplug_protocol.schema FOLDER`` writes them; a test fails when those checked in are stale.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from .error_facts import ERROR_FACTS
from .messages.base import Model
from .messages.error import ErrorData
from .messages.plugin import CancelParams
from .operations import BY_WIRE, CANCEL, Operation
from .version import PROTOCOL_VERSION

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def message_schema(model: type[Model] | type[ErrorData], mode: str) -> dict[str, Any]:
    """Return the JSON Schema of a message.

    Args:
        model: The message.
        mode: ``validation`` for what is accepted, ``serialization`` for what is sent.
    """
    schema = model.model_json_schema(mode="validation" if mode == "validation" else "serialization")
    return {"$schema": _DIALECT, **schema}


def schemas() -> dict[str, dict[str, Any]]:
    """Return every schema by file name."""
    found = {
        f"{operation.wire}.{part}.json": message_schema(model, "validation")
        for operation in BY_WIRE.values()
        for part, model in (("params", operation.params), ("result", operation.result))
    }
    found[f"{CANCEL}.params.json"] = message_schema(CancelParams, "validation")
    found["error.data.json"] = message_schema(ErrorData, "validation")
    return dict(sorted(found.items()))


def openrpc() -> dict[str, Any]:
    """Return the OpenRPC 1.3 document: params by name, each schema by reference to its file."""
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "kmsplug driver protocol",
            "version": PROTOCOL_VERSION,
            "description": "JSON-RPC 2.0, one object a line, over stdin and stdout. SPEC.md is normative.",
            "license": {"name": "Apache-2.0"},
        },
        "methods": [_method(operation) for operation in BY_WIRE.values()],
        "components": {
            "errors": {
                code.value: {
                    "code": -32000,
                    "message": fact.meaning,
                    "data": {"code": code.value, "retry": fact.retry.value},
                }
                for code, fact in ERROR_FACTS.items()
            }
        },
    }


def _method(operation: Operation) -> dict[str, Any]:
    required = operation.params.model_json_schema().get("required", [])
    return {
        "name": operation.wire,
        "summary": operation.summary,
        "paramStructure": "by-name",
        "params": [
            {
                "name": name,
                "description": field.description or "",
                "required": name in required,
                "schema": {"$ref": f"schemas/{operation.wire}.params.json#/properties/{name}"},
            }
            for name, field in operation.params.model_fields.items()
        ],
        "result": {
            "name": operation.result.__name__,
            "schema": {"$ref": f"schemas/{operation.wire}.result.json"},
        },
    }


def documents() -> dict[str, str]:
    """Return the text of every generated file by its path below the protocol folder."""
    files = {f"schemas/{name}": schema for name, schema in schemas().items()}
    files["openrpc.json"] = openrpc()
    return {path: json.dumps(document, indent=1, sort_keys=True) + "\n" for path, document in files.items()}


def main(folder: str) -> None:
    """Write all documents below *folder*."""
    for path, text in documents().items():
        target = Path(folder) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
