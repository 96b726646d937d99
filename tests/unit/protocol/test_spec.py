"""SPEC.md against the code: its tables, its clause ids, its transcript, and what refers to it."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host.conformance import CASES
from kmsplug_protocol import (
    BY_WIRE,
    CANCEL,
    ERROR_FACTS,
    INVALID_CIPHERTEXT_MESSAGE,
    ErrorData,
    KeyState,
    jsonrpc,
    spec_tables,
)

ROOT = Path(__file__).resolve().parents[3]
SPEC = (ROOT / "protocol" / "SPEC.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^#{2,3} (\d+(?:\.\d+)?) ", SPEC, re.MULTILINE)
CLAUSES = re.findall(r"^- \*\*\[(\d+(?:\.\d+)?-\d+)\]\*\*", SPEC, re.MULTILINE)
TRANSCRIPT = [
    line
    for line in SPEC[SPEC.index("## Appendix A") : SPEC.index("## Appendix B")].splitlines()
    if line.startswith(("> ", "< "))
]


def test_the_generated_tables_are_fresh() -> None:
    fresh = spec_tables.render(SPEC)

    assert fresh == SPEC, "stale: run `python -m kmsplug_protocol.spec_tables protocol/SPEC.md`"


def test_the_tables_are_rewritten_in_place(tmp_path: Path) -> None:
    target = tmp_path / "SPEC.md"
    target.write_text(SPEC.replace("Makes a key.", "Bakes a cake."), encoding="utf-8")

    subprocess.run([sys.executable, "-m", "kmsplug_protocol.spec_tables", str(target)], check=True)

    assert target.read_text(encoding="utf-8") == SPEC


def test_a_block_that_nothing_generates_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'no\.such'"):
        spec_tables.render(f"{SPEC}\n<!-- generated:no.such -->\n<!-- /generated -->\n")


def test_a_block_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"key\.rotate"):
        spec_tables.render(SPEC.replace("<!-- generated:key.rotate -->", ""))


def test_every_member_that_a_table_describes_has_a_description() -> None:
    empty = [line for line in SPEC.splitlines() if re.match(r"^\| `\w+` \|.*\|\s*\|$", line)]

    assert empty == []


def test_clause_ids_are_unique_and_numbered_without_gaps_in_their_sections() -> None:
    assert [clause for clause, count in Counter(CLAUSES).items() if count > 1] == []
    for section, numbers in _by_section(CLAUSES).items():
        assert section in HEADINGS
        assert numbers == list(range(1, len(numbers) + 1)), f"section {section}"


def test_a_clause_stands_in_its_own_section() -> None:
    section = ""
    for line in SPEC.splitlines():
        if heading := re.match(r"^#{2,3} (\d+(?:\.\d+)?) ", line):
            section = heading[1]
        elif clause := re.match(r"^- \*\*\[(\d+(?:\.\d+)?)-\d+\]\*\*", line):
            assert clause[1] == section


def test_every_must_is_addressable() -> None:
    """Outside of clauses the words of RFC 2119 stand only where they are explained."""
    prose = re.sub(r"^- \*\*\[.*?(?=\n(?:- |\n|\||#|<))", "", SPEC, flags=re.MULTILINE | re.DOTALL)
    stray = [line for line in prose.splitlines() if re.search(r"\b(MUST|SHOULD)\b", line)]

    assert len(stray) == 1
    assert stray[0].startswith("MUST, MUST NOT, SHOULD, SHOULD NOT and MAY are to be read as in RFC 2119")


def test_references_inside_lead_somewhere() -> None:
    referred = set(re.findall(r"(?<!\*)\[(\d+(?:\.\d+)?-\d+)\]", SPEC))
    sections = set(
        re.findall(r"\bsections? (\d+(?:\.\d+)?)(?! ?\.\d)", SPEC.replace("RFC 4648\n  section 4", ""))
    )

    assert referred - {*CLAUSES} == set()
    assert sections - {*HEADINGS} <= {"4"}  # the one of RFC 4648


@pytest.mark.parametrize("folder", ["host", "plugins", "protocol", "sdk", "tests", "examples"])
def test_references_in_the_code_lead_somewhere(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for clause in re.findall(r"SPEC\.md,? \[(\d+(?:\.\d+)?-\d+)\]", text):
            assert clause in CLAUSES, f"{path}: {clause}"
        for section in re.findall(r"SPEC\.md,? (?:sections? )?(\d+(?:\.\d+)?)", text):
            assert section in HEADINGS, f"{path}: {section}"


def test_every_operation_has_its_reference() -> None:
    headings = re.findall(r"^#### `([\w.]+)`", SPEC, re.MULTILINE)

    assert sorted(headings) == sorted([*BY_WIRE, CANCEL])


@pytest.mark.parametrize("code", ERROR_FACTS)
def test_every_code_that_a_driver_may_not_send_is_listed(code: str) -> None:
    clause = SPEC[SPEC.index("**[7.3-2]**") : SPEC.index("### 7.4")]
    hosts_own = (
        "PLUGIN_",
        "PROTOCOL_VIOLATION",
        "CIRCUIT_OPEN",
        "SHIM_FAILED",
        "POLICY_DENIED",
        "TENANT_MISMATCH",
    )

    assert (f"`{code}`" in clause) == code.startswith(hosts_own)


@pytest.mark.parametrize("state", KeyState)
def test_every_state_has_a_row_in_both_tables_of_states(state: KeyState) -> None:
    assert len(re.findall(rf"^\| {state} \|", SPEC, re.MULTILINE)) == 2


def test_the_sentence_about_ciphertexts_is_that_of_the_code() -> None:
    assert INVALID_CIPHERTEXT_MESSAGE in " ".join(SPEC.split())


def test_openkcms_calls_are_mapped_to_operations_that_exist() -> None:
    appendix = SPEC[SPEC.index("## Appendix B") : SPEC.index("## Appendix C")]
    rows = re.findall(r"^\| ([A-Z]\w+) \| `([\w.]+)` \|", appendix, re.MULTILINE)

    assert len(rows) == 16
    assert {ours for _, ours in rows} <= BY_WIRE.keys()
    assert len({ours for _, ours in rows}) == 16


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_conformance_case_names_clauses_that_exist(case: Any) -> None:
    assert case.clauses
    assert [clause for clause in case.clauses if clause not in CLAUSES] == []


def test_the_transcript_is_one_of_the_protocol() -> None:
    """Every line is JSON but the one that is answered with a parse error, and fits its model."""
    methods: dict[Any, str] = {}
    for position, line in enumerate(TRANSCRIPT):
        try:
            message = json.loads(line[2:])
        except ValueError:
            assert json.loads(TRANSCRIPT[position + 1][2:])["error"]["code"] == jsonrpc.PARSE_ERROR
            continue
        assert message["jsonrpc"] == "2.0"
        if line.startswith("> "):
            if "id" in message:
                methods[message["id"]] = message["method"]
                if message.get("method") in BY_WIRE:
                    _params(message)
        elif "result" in message:
            model = BY_WIRE[methods.pop(message["id"])].result
            model.model_validate_json(json.dumps(message["result"]), strict=True)
        else:
            methods.pop(message["id"], None)
            ErrorData.model_validate(message["error"]["data"])
            assert message["error"]["data"]["code"] in list(ERROR_FACTS)
    assert methods == {}


def _params(message: dict[str, Any]) -> None:
    """The one request of the transcript with malformed params is answered so."""
    model = BY_WIRE[message["method"]].params
    try:
        model.model_validate_json(json.dumps(message["params"]), strict=True)
    except ValueError:
        (answer,) = [
            json.loads(line[2:])
            for line in TRANSCRIPT
            if line.startswith(f'< {{"jsonrpc": "2.0", "id": {message["id"]},')
        ]
        assert answer["error"]["code"] == jsonrpc.INVALID_PARAMS


def test_the_transcript_shows_every_number_that_a_good_driver_sends() -> None:
    numbers = {json.loads(line[2:]).get("error", {}).get("code") for line in TRANSCRIPT if line[0] == "<"}

    assert {
        jsonrpc.PARSE_ERROR,
        jsonrpc.METHOD_NOT_FOUND,
        jsonrpc.INVALID_PARAMS,
        jsonrpc.KEYSTORE_ERROR,
    } < numbers


def _by_section(clauses: list[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for clause in clauses:
        section, _, number = clause.partition("-")
        found.setdefault(section, []).append(int(number))
    return found
