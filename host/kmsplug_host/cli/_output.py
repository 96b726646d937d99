"""What a command shows: a table for people, plain text in a pipe, one JSON document for programs.

Everything that came from a driver is escaped here once more before a terminal sees it.
"""

import base64
import json
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kmsplug_protocol import Model, untrusted

from kmsplug_host.errors import KmsplugError

from ._parameters import KeyFormat


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=True, default=str) + "\n")


def plain(model: Model) -> dict[str, Any]:
    """Return a wire model as a JSON object without absent members."""
    return model.model_dump(mode="json", exclude_none=True)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows: as a table on a terminal, tab-separated with a header line in a pipe.

    A cell that is a list has its items on lines of their own, in a pipe with semicolons between them.
    """
    if sys.stdout.isatty():
        _draw(title, columns, [[_cell(cell, "\n") for cell in row] for row in rows])
        return
    for line in [list(columns), *([_cell(cell, "; ").replace("\t", " ") for cell in row] for row in rows)]:
        sys.stdout.write("\t".join(line) + "\n")


def _cell(cell: object, between: str) -> str:
    items = cell if isinstance(cell, list) else ["" if cell is None else cell]
    return between.join(untrusted(str(item), 512) for item in items)


def _draw(title: str, columns: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
    """Draw a table on the terminal; without columns, one without a header."""
    from rich.console import Console  # noqa: PLC0415 - 50 ms that only a terminal needs
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        show_header=columns is not None,
    )
    for column in columns or ("", ""):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    Console(highlight=False, emoji=False, markup=False).print(table)


def print_fields(title: str, fields: Iterable[tuple[str, object]]) -> None:
    """Print one object, a member a line; absent ones are left out."""
    present = [(name, safe(_text(value))) for name, value in fields if value not in (None, "", (), {}, [])]
    if sys.stdout.isatty():
        _draw(title, None, present)
        return
    for name, text in present:
        spaced = text.replace("\t", " ")  # a tab of a driver is no border of a column
        sys.stdout.write(f"{name}\t{spaced}\n")


def _text(value: object) -> str:
    """Return a member for people to read; programs read JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return str(value)


def public_key_text(der: bytes, form: KeyFormat) -> bytes:
    """Return a DER SubjectPublicKeyInfo in the wanted form.

    It is not parsed: a key of a kind that no library here knows is as good as any other.
    """
    if form is KeyFormat.DER:
        return der
    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode("ascii"), 64))
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n".encode("ascii")


def safe(text: str) -> str:
    """Return a text that may come from a driver, escaped for a terminal."""
    return untrusted(text, 2048)


def note(text: str) -> None:
    """Tell a person something, on stderr."""
    sys.stderr.write(untrusted(text) + "\n")


def named(document: Mapping[str, Any], *names: str) -> str:
    """Return some members of a document with their names, without those that are absent."""
    present = (name for name in names if document.get(name) is not None)
    return ", ".join(f"{name.replace('_', ' ')} {document[name]}" for name in present)


def vendor_text(vendor: Any) -> str | None:
    """Return a provider's own words, from an error's document."""
    if not isinstance(vendor, dict):
        return None
    text = named(vendor, "service", "code", "http_status", "request_id", "message")
    if not vendor.get("withheld"):
        return text
    return f"{text}, the rest is withheld".removeprefix(", ")


def report_error(error: KmsplugError, *, as_json: bool) -> None:
    """Tell how a command failed, on stderr: one clear line and what to do, or one JSON document."""
    if as_json:
        sys.stderr.write(json.dumps(error.to_dict(), ensure_ascii=True, default=str) + "\n")
        return
    for line in error.message.split("\n"):
        sys.stderr.write(f"kmsplug: {error.code.value}: {untrusted(line)}\n")
    if error.hint:
        sys.stderr.write(f"  {untrusted(error.hint)}\n")
    if vendor := vendor_text(error.to_dict().get("vendor")):
        sys.stderr.write(f"  provider: {untrusted(vendor)}\n")
    if error.diagnosis is not None:
        sys.stderr.write(f"  process: {error.diagnosis.exit}; {untrusted(error.diagnosis.executable)}\n")
        for text in error.diagnosis.stderr[-5:]:
            sys.stderr.write(f"  driver says: {untrusted(text, 512)}\n")


_STYLES = {
    "READY": "green", "ACTIVE": "green", "healthy": "green", "yes": "green", "well": "green",
    "native": "green", "advice": "yellow", "wrong": "red",
    "STARTING": "yellow", "BACKOFF": "yellow", "DEGRADED": "yellow",
    "SUSPENDED": "yellow", "DEACTIVATED": "cyan",
    "DUE": "red",
    "QUARANTINED": "red", "COMPROMISED": "red", "DESTROYED": "red", "unhealthy": "red", "FAILED": "red",
}  # fmt: skip


def _style(cell: str) -> str:
    return _STYLES.get(cell, "")
