"""docs/errors.md against the codes."""

import re
import subprocess
import sys
from pathlib import Path

from kmsplug_protocol import ERROR_FACTS, error_docs

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "errors.md"


def test_the_document_is_fresh() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")

    assert text == error_docs.render(), "stale: run `make docs`"


def test_every_code_has_its_own_section_that_says_what_to_do() -> None:
    sections = re.split(r"^### ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    named = {section.split("\n", 1)[0]: section for section in sections}

    assert named.keys() == {code.value for code in ERROR_FACTS}
    assert all("**What to do:** " in section for section in named.values())


def test_the_document_is_written_where_asked(tmp_path: Path) -> None:
    target = tmp_path / "errors.md"

    subprocess.run([sys.executable, "-m", "kmsplug_protocol.error_docs", str(target)], check=True)

    assert target.read_text(encoding="utf-8") == DOCUMENT.read_text(encoding="utf-8")
