"""The documentation site builds without a warning, has every page, and loads nothing from elsewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WANTED = (
    "index", "quickstart", "concepts", "operating", "configuration", "cli", "spec", "errors", "envelope",
    "security", "changelog", "contributing",
)  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert "WARNING" not in said
    return folder


def pages(site: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(site.rglob("*.html")):
        yield path.relative_to(site).as_posix(), path.read_text(encoding="utf-8")


def test_every_document_of_the_repository_is_a_page(site: Path) -> None:
    expected = {f"{name}.html" for name in WANTED}
    expected |= {
        f"{path.relative_to(ROOT / 'docs').with_suffix('')}.html" for path in ROOT.glob("docs/**/*.md")
    }

    assert expected <= {name for name, _ in pages(site)}


def test_every_decision_and_every_driver_stands_in_the_navigation(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")

    for path in [*ROOT.glob("docs/decisions/*.md"), *ROOT.glob("docs/drivers/*.md")]:
        assert f'href="{path.parent.name}/{path.stem}.html"' in index, path


class Loads(HTMLParser):
    """Collects what a browser would load for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.found.append(given.get("src") or "")
        if tag == "link":
            self.found.append(given.get("href") or "")


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for name, text in pages(site):
        loads = Loads()
        loads.feed(text)
        assert [address for address in loads.found if re.match(r"(https?:)?//", address)] == [], name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\((['\"]?)(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_the_page_of_the_protocol_leads_to_its_neighbours(site: Path) -> None:
    text = (site / "cli.html").read_text(encoding="utf-8")

    assert re.search(r'href="spec\.html#410-shared-models-and-sets"', text)
    assert "protocol/SPEC.md" not in text
