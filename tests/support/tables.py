"""Tables of README.md that tests measure: compared, or with KMSPLUG_WRITE_TABLES=1 written."""

import os
import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def writing() -> bool:
    """Tell whether the tables are being written."""
    return bool(os.environ.get("KMSPLUG_WRITE_TABLES"))


def published(name: str, measured: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Return what README.md says, as rows by name and cells by column.

    Args:
        name: Of the table: it stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``.
        measured: What was measured; written first where KMSPLUG_WRITE_TABLES is set.
    """
    text = README.read_text(encoding="utf-8")
    between = re.compile(f"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
    if writing() and measured:
        text = between.sub(lambda _: _render(measured), text)
        README.write_text(text, encoding="utf-8")
    found = between.search(text)
    assert found, f"README.md has no table {name}"
    lines = found[0].splitlines()
    if not lines:
        return {}
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def _render(table: dict[str, dict[str, str]]) -> str:
    columns = list(next(iter(table.values())))
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    lines += [[name, *(row[column] for column in columns)] for name, row in table.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
