import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from kmsplug_protocol import BY_WIRE, ErrorCode
from kmsplug_protocol.schema import documents, main, openrpc, schemas

FOLDER = Path(__file__).resolve().parents[3] / "protocol"
DOCUMENTS = documents()
SCHEMAS = schemas()
REWRITE = "stale: run `python -m kmsplug_protocol.schema protocol`"


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_generated_file_that_is_checked_in_is_fresh(path: str) -> None:
    assert (FOLDER / path).read_text(encoding="utf-8") == DOCUMENTS[path], REWRITE


def test_no_schema_is_checked_in_that_nothing_generates() -> None:
    found = {f"schemas/{path.name}" for path in (FOLDER / "schemas").iterdir()}

    assert found == {path for path in DOCUMENTS if path.startswith("schemas/")}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_a_schema(name: str) -> None:
    schema = SCHEMAS[name]

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["type"] == "object"
    assert "additionalProperties" not in schema  # unknown members are ignored
    for member in schema.get("properties", {}).values():
        # A member that would say what its own type says refers to that only.
        assert "description" in member or "description" in schema["$defs"][member["$ref"].split("/")[-1]]


def resolved(reference: str) -> Any:
    file, _, pointer = reference.partition("#")
    document: Any = json.loads(DOCUMENTS[file])
    for part in pointer.split("/")[1:]:
        document = document[part]
    return document


def test_the_openrpc_document_names_every_operation_and_its_schemas() -> None:
    document = openrpc()

    assert [method["name"] for method in document["methods"]] == list(BY_WIRE)
    for method in document["methods"]:
        required = set(resolved(f"schemas/{method['name']}.params.json").get("required", []))
        assert {param["name"] for param in method["params"] if param["required"]} == required
        for param in method["params"]:
            assert resolved(param["schema"]["$ref"])["description"]
            assert param["description"]
        assert resolved(method["result"]["schema"]["$ref"])["type"] == "object"


def test_the_openrpc_document_names_every_error_code() -> None:
    errors = openrpc()["components"]["errors"]

    assert list(errors) == [code.value for code in ErrorCode]
    assert {error["code"] for error in errors.values()} == {-32000}
    assert all(error["data"]["code"] == name for name, error in errors.items())


def test_generated_files_do_not_depend_on_the_run(tmp_path: Path) -> None:
    main(str(tmp_path))
    again = tmp_path / "again"
    subprocess.run([sys.executable, "-m", "kmsplug_protocol.schema", again], check=True, timeout=60)

    for path in DOCUMENTS:
        assert (tmp_path / path).read_bytes() == (again / path).read_bytes()
        assert (tmp_path / path).read_bytes().endswith(b"}\n")


def test_no_file_tells_who_made_it_where() -> None:
    for path, text in DOCUMENTS.items():
        assert not re.search(r"/(home|root|work|tmp|Users)/", text), path
