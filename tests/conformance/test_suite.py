"""The suite itself: its report, and that no driver makes it hang, grow or leave a process behind."""

import ast
import json
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil
import pytest
from conformance.drivers import PLAIN, failures, skipped, try_file
from kmsplug_host import conformance
from kmsplug_host.conformance import CASES, CaseResult, Outcome, Report, junit, markdown, run

FOLDER = Path(conformance.__file__).parent
SPEC = (Path(__file__).resolve().parents[2] / "protocol" / "SPEC.md").read_text(encoding="utf-8")
OPENS = "session.handshake"


def _try_code(code: str, timeout_s: float = 1.0) -> Report:
    return run([sys.executable, "-c", code], timeout_s=timeout_s)


def test_a_case_has_an_id_of_its_own_a_sentence_and_a_hint() -> None:
    assert [case_id for case_id, count in Counter(case.id for case in CASES).items() if count > 1] == []
    for case in CASES:
        assert case.sentence.endswith("."), case.id
        assert case.hint, case.id
        assert not case.hint.endswith("."), case.id


def test_every_duty_of_a_driver_is_named_by_a_case() -> None:
    """What a host has to do is no case of a driver's: `tests/process` and `tests/unit/host` try it."""
    clauses = re.compile(r"^- \*\*\[([\d.]+-\d+)\]\*\* (.*?)(?=\n\n|\n- \*\*\[)", re.MULTILINE | re.DOTALL)
    rules = dict(clauses.findall(SPEC))
    duties = {name for name, text in rules.items() if "MUST" in text}
    of_the_host = {name for name in duties if rules[name].startswith("A host ")}
    named = {clause for case in CASES for clause in case.clauses}

    assert len(duties) > 130
    assert of_the_host >= {"3.2-5", "3.3-8", "4.6-21", "7.6-4", "8-3", "9-5"}
    assert duties - of_the_host - named == set()
    assert named - rules.keys() == set()


def test_there_are_more_cases_than_anybody_tries_by_hand() -> None:
    assert len(CASES) >= 150


def test_the_cases_import_the_protocol_and_the_standard_library_only() -> None:
    found = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(str(node.module).partition(".")[0])

    assert found - sys.stdlib_module_names == {"kmsplug_protocol", "cryptography"}


def test_a_report_is_json() -> None:
    seen: list[CaseResult] = []

    report = run([sys.executable, str(PLAIN)], on_case=seen.append, only=["session.once", "crypto.random"])

    document = json.loads(json.dumps(report.as_json()))
    assert tuple(seen) == report.cases
    assert document["driver"] == {"name": "plain", "version": "1.0", "protocol_version": "1"}
    assert document["summary"] == {"passed": len(seen), "failed": 0, "skipped": 0, "total": len(seen)}
    assert [case["id"] for case in document["cases"]] == [result.case.id for result in seen]
    assert document["cases"][-1] == {
        "id": "crypto.random",
        "outcome": "passed",
        "sentence": "Random bytes come in every declared length, and never the same twice.",
        "clause": "4.7-9, 5.4-1, 11-7",
        "detail": "",
        "hint": "loop where your provider gives fewer bytes a call than you declare",
    }


def test_a_report_is_junit_too(tmp_path: Path) -> None:
    driver = _changed(tmp_path, "os.urandom(12)", "bytes(12)")

    text = junit(try_file(driver, only=["crypto.never_the_same", "crypto.random", "crypto.batch"]))

    suites = ET.fromstring(text)  # noqa: S314 - it was written here
    assert [(suite.get("name"), suite.get("tests"), suite.get("failures")) for suite in suites] == [
        ("session", "1", "0"),
        ("crypto", "3", "1"),
    ]
    failure = suites.find(".//testcase[@name='crypto.never_the_same']/failure")
    assert failure is not None
    assert "two of 16 ciphertexts are the same" in failure.get("message", "")
    assert "SPEC.md 4.7-2, 4.4-1, 11-7" in (failure.text or "")
    assert suites.find(".//testcase[@name='crypto.batch']/skipped") is not None


def test_a_report_to_publish_tells_operations_gaps_and_failures(tmp_path: Path) -> None:
    driver = _changed(tmp_path, '"name": "plain"', '"name": "pl|<b>ain"')

    text = markdown(try_file(driver, only=["crypto.random"]))

    assert text.startswith("# pl&#124;&#60;b>ain 1.0\n")
    assert "Of 2 cases 2 passed, 0 failed, 0 do not apply" in text
    assert (
        "| crypto.encrypt | AES_256_GCM |  | bytes | max_input_bytes 4096, wrap_algorithm A256GCM |" in text
    )
    assert "Not offered: key.list, key.enable" in text


def test_in_strict_mode_the_case_fails_in_which_something_else_was_printed(tmp_path: Path) -> None:
    driver = _changed(
        tmp_path,
        'if method == "crypto.random":',
        'if method == "crypto.random" and not print("7 bytes", file=wire, flush=True):',
    )
    only = ["crypto.random", "params.deadline", "framing.clean_stdout"]
    command = [sys.executable, str(driver)]

    assert failures(run(command, only=only)).keys() == {"framing.clean_stdout"}
    strict = failures(run(command, only=only, strict=True))
    assert strict.keys() == {*only}
    assert "'7 bytes'" in strict["crypto.random"]


def test_an_answer_that_no_case_foresaw_is_a_failure_and_not_the_end(tmp_path: Path) -> None:
    driver = _changed(tmp_path, '"ciphertext": base64_of(sealed)', '"ciphertext": "not base64"')

    report = try_file(driver, only=["crypto.never_the_same", "crypto.random"])

    assert failures(report).keys() == {"crypto.never_the_same"}


def _changed(folder: Path, old: str, new: str) -> Path:
    """Return the plain driver with something replaced."""
    text = PLAIN.read_text(encoding="utf-8")
    assert old in text
    driver = folder / "driver.py"
    driver.write_text(text.replace(old, new), encoding="utf-8")
    return driver


def test_the_first_case_runs_whatever_was_asked_for() -> None:
    report = try_file(PLAIN, only=["crypto.layout"])

    assert [result.case.id for result in report.cases] == [OPENS, "crypto.layout"]


def test_a_command_that_does_not_exist_is_a_failed_case(tmp_path: Path) -> None:
    report = run([str(tmp_path / "no-such-driver")])

    assert list(failures(report)) == [OPENS]
    assert "cannot be started" in failures(report)[OPENS]
    assert len(skipped(report)) == len(CASES) - 1
    assert report.driver == {}


def test_a_driver_that_ends_at_once_is_told_with_its_last_words() -> None:
    report = _try_code("import sys; sys.stderr.write('no \\x1b[31mlicence\\n'); sys.exit(3)")

    detail = failures(report)[OPENS]
    assert "exit status 3" in detail
    assert "no \\u{1b}[31mlicence" in detail


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.stdin.read()",
        "import time; time.sleep(60)",
        "while True: pass",
        "import os\nwhile True: os.write(1, b'x' * 65536)",
        "import os\nwhile True: os.write(1, b'noise\\n' * 1000)",
        "import os\nwhile True: os.write(2, b'noise\\n' * 1000)",
        'import os\nwhile True: os.write(1, b\'{"jsonrpc":"2.0","id":1,"result":{}}\\n\' * 1000)',
        "import os, time; os.close(1); time.sleep(60)",
        "import os, time; os.close(0); time.sleep(60)",
        "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)",
    ],
)
def test_a_driver_that_never_answers_takes_the_time_of_one_case(code: str) -> None:
    began = time.monotonic()

    report = _try_code(code)

    assert list(failures(report)) == [OPENS]
    assert time.monotonic() - began < 10


def test_no_process_is_left_whatever_its_driver_did(tmp_path: Path) -> None:
    """A grandchild that ignores every polite signal ends with the group."""
    notes = tmp_path / "pids"
    helper = f"""
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"])
open({str(notes)!r}, "a").write(f"{{os.getpid()}} {{child.pid}} ")
"""
    driver = tmp_path / "parent.py"
    driver.write_text(helper + PLAIN.read_text(encoding="utf-8"), encoding="utf-8")

    only = ["session.shutdown", "session.end_of_stdin", "framing.unfinished_line"]
    run([sys.executable, str(driver)], only=only, timeout_s=2)

    pids = [int(pid) for pid in notes.read_text().split()]
    assert len(pids) >= 2 * 5
    assert [pid for pid in pids if not _ends(pid)] == []


def _ends(pid: int) -> bool:
    """Tell whether a process ends by the signal that it was sent; nobody else waits for a grandchild."""
    try:
        process = psutil.Process(pid)
        gone, _ = psutil.wait_procs([process], timeout=5)
        return bool(gone) or process.status() == psutil.STATUS_ZOMBIE  # whoever adopted it may not reap
    except psutil.NoSuchProcess:
        return True


def test_a_driver_that_dies_in_one_case_is_tried_in_the_next(tmp_path: Path) -> None:
    text = PLAIN.read_text(encoding="utf-8")
    deadly = text.replace(
        '    if method == "crypto.random":',
        '    if method == "crypto.random": os.kill(os.getpid(), 9)\n    if 0:',
    )
    assert deadly != text
    driver = tmp_path / "driver.py"
    driver.write_text(deadly, encoding="utf-8")

    report = try_file(driver, only=["crypto"])

    assert list(failures(report)) == ["crypto.random"]
    assert f"exit status -{signal.SIGKILL}" in failures(report)["crypto.random"]
    assert report.cases[-1].outcome is Outcome.PASSED
