"""What mkdocs is told beyond docs/: pages that stand elsewhere in the repository, the navigation, the links.

A page is written for the repository, where its links are followed too; nothing is written twice for the site.
"""

import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"

# Pages outside of docs/, and where they stand on the site.
ELSEWHERE: Final = {
    ROOT / "protocol" / "SPEC.md": "spec.md",
    ROOT / "SECURITY.md": "security.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
}

_GUIDES: Final = ("quickstart", "concepts", "configuration", "operating", "cli")
_AUTHORS: Final = ("authoring", "conformance", "spec")
_REFERENCE: Final = ("errors", "envelope")
_PROJECT: Final = ("security", "changelog", "contributing")

_LINK: Final = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Write the navigation; what is in no list of ours is found in its folder."""
    named = {"index", *_GUIDES, *_AUTHORS, *_REFERENCE, *_PROJECT}
    more = sorted(path.stem for path in DOCS.glob("*.md") if path.stem not in named)
    config.nav = [
        {"kmsplug": "index.md"},
        {"Guides": _pages((*_GUIDES, *more))},
        {"Writing a driver": _pages(_AUTHORS)},
        {"Drivers": _folder("drivers")},
        {"Reference": _pages(_REFERENCE)},
        {"Project": _pages(_PROJECT)},
        {"Decisions": _folder("decisions")},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand elsewhere."""
    for path, uri in ELSEWHERE.items():
        files.append(File.generated(config, uri, content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where things stand on the site; what is not there is named only."""
    del config, files
    here = page.file.src_uri
    origin = next((path for path, uri in ELSEWHERE.items() if uri == here), DOCS / here)

    def lead(match: "re.Match[str]") -> str:
        image, text, target, anchor = match.groups()
        if not target or "://" in target or target.startswith("mailto:"):
            return match.group()
        path = (origin.parent / target).resolve()
        uri = ELSEWHERE.get(path)
        if uri is None and path.is_relative_to(DOCS) and path.is_file():
            uri = path.relative_to(DOCS).as_posix()
        if uri is None:
            return text if text.strip("`") == path.name else f"{text} (`{path.relative_to(ROOT)}`)"
        up = "../" * here.count("/")
        return f"{image}[{text}]({up}{uri}{anchor or ''})"

    return _outside_code(markdown, lambda part: _LINK.sub(lead, part))


def _outside_code(markdown: str, change: Any) -> str:
    """Change what stands outside of fenced code."""
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if index % 2 else change(part) for index, part in enumerate(parts))


def _pages(names: tuple[str, ...]) -> list[str]:
    there = {uri.removesuffix(".md") for uri in ELSEWHERE.values()} | {
        path.stem for path in DOCS.glob("*.md")
    }
    return [f"{name}.md" for name in names if name in there]


def _folder(name: str) -> list[str]:
    return sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / name).glob("*.md"))
