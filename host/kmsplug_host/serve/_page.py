"""The status page: built as a tree, so that whatever a driver says is text and never markup.

No script: the page asks to be loaded again, and a browser needs nothing but the style sheet.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, tostring

from kmsplug_protocol import KEYSTORE_API, untrusted

from ._documents import ready

_REFRESH_S: Final = 5
_WIDTH: Final = 240
_HEIGHT: Final = 40
_DETAIL: Final = 300  # characters of one text

_STATE_CLASS: Final = {
    "READY": "good", "DEGRADED": "warn", "STARTING": "warn", "BACKOFF": "warn", "DRAINING": "warn",
    "QUARANTINED": "bad", "STOPPED": "bad",
}  # fmt: skip


def page(found: dict[str, Any]) -> bytes:
    """Return the page for a document of `_documents`."""
    html = Element("html", lang="en")
    head = SubElement(html, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    SubElement(head, "meta", {"http-equiv": "refresh", "content": str(_REFRESH_S)})
    ill = sum(not ready(plugin) for plugin in found["plugins"])
    _text(head, "title", f"kmsplug: {f'{ill} not ready' if ill else 'all ready'}")
    SubElement(head, "link", rel="stylesheet", href="/style.css")
    body = SubElement(html, "body")
    _header(body, found, ill)
    main = SubElement(body, "main")
    # What needs somebody's eyes comes first.
    for plugin in sorted(found["plugins"], key=lambda plugin: (ready(plugin), plugin["state"] == "READY")):
        _plugin(main, plugin)
    _keystores(main, found["keystores"])
    _operations(main, found["keystores"])
    _withdrawn(main, found["keystores"])
    text: bytes = tostring(html, encoding="us-ascii", method="html")
    return b"<!DOCTYPE html>\n" + text


def _header(body: Element, found: dict[str, Any], ill: int) -> None:
    header = SubElement(body, "header")
    _text(header, "h1", "kmsplug")
    total = len(found["plugins"])
    summary = f"{ill} of {total} plugins not ready" if ill else f"all {total} plugins ready"
    _text(header, "p", summary, id="summary", **{"class": "bad" if ill else "good"})
    _text(header, "time", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")


def _plugin(main: Element, plugin: dict[str, Any]) -> None:
    card = SubElement(
        main, "section", {"class": "plugin", "data-plugin": plugin["name"], "data-state": plugin["state"]}
    )
    head = SubElement(card, "div", {"class": "head"})
    _text(head, "h2", plugin["name"])
    _text(head, "span", plugin["state"], **{"class": f"state {_STATE_CLASS[plugin['state']]}"})
    _sparkline(head, plugin["latency_ms"])
    facts = SubElement(card, "dl")
    for name, value in _facts(plugin):
        _text(facts, "dt", name)
        _text(facts, "dd", value)
    _checks(card, plugin["checks"])
    if "last_process_error" in plugin:
        _note(card, "process", "Last failure of a process", [plugin["last_process_error"]])
    if plugin["state"] == "QUARANTINED":
        release = f"when the cause is gone: kmsplug plugin release {plugin['name']}"
        _note(card, "warning", "It is not started again by itself", [release])
    if "last_failure" in plugin:
        _last_failure(card, plugin["last_failure"])
    for warning in plugin["warnings"]:
        _note(card, "warning", "The driver warns", [warning])


def _facts(plugin: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "driver", plugin.get("driver") or "not known yet"
    yield "keystore", plugin.get("identity") or "not known yet"
    yield "isolation", plugin["isolation"]
    yield "ping", f"{plugin['ping_ms']} ms" if "ping_ms" in plugin else "no answer"
    yield "calls", f"{plugin['calls']}, {plugin['failures']} failed"
    running = [process for process in plugin["processes"] if process["pid"] is not None]
    memory = sum(process["usage"]["rss_bytes"] for process in running if process["usage"])
    yield "processes", f"{len(running)} running, {memory / 2**20:.0f} MiB, {plugin['restarts']} restarts"


def _checks(card: Element, checks: Sequence[dict[str, Any]]) -> None:
    if not checks:
        return
    listed = SubElement(card, "ul", {"class": "checks"})
    for check in checks:
        item = SubElement(listed, "li", {"class": "good" if check["healthy"] else "bad"})
        _text(item, "strong", f"{check['name']}: {'well' if check['healthy'] else 'ill'}")
        _text(item, "span", check.get("detail", ""))


def _last_failure(card: Element, failure: dict[str, Any]) -> None:
    vendor = failure.get("vendor", {})
    provider = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in vendor.items() if name != "withheld"
    )
    lines = [f"{failure['code']} in {failure['operation']}: {failure['message']}"]
    if provider:
        lines.append(f"provider: {provider}")
    elif vendor:
        lines.append("provider: withheld")
    lines.append(f"{failure['when']}, correlation id {failure.get('correlation_id', 'none')}")
    lines.append(f"what to do: {failure['what_to_do']}")
    _note(card, "failure", "Last failed call", lines)


def _note(card: Element, kind: str, title: str, lines: Sequence[str]) -> None:
    note = SubElement(card, "div", {"class": f"note {kind}"})
    _text(note, "h3", title)
    for line in lines:
        _text(note, "p", line)


def _sparkline(parent: Element, latencies_ms: Sequence[float | None]) -> None:
    """Draw the mean times of the last intervals; a gap is an interval in which nothing was answered."""
    known = [value for value in latencies_ms if value is not None]
    figure = SubElement(parent, "figure")
    top = max(known, default=0.0) or 1.0
    svg = SubElement(figure, "svg", {
        "class": "sparkline", "viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img",
        "aria-label": "latency of the last intervals", "preserveAspectRatio": "none",
    })  # fmt: skip
    step = _WIDTH / max(len(latencies_ms) - 1, 1)
    for run in _runs(latencies_ms):
        points = [f"{at * step:.1f},{_HEIGHT - 2 - value / top * (_HEIGHT - 4):.1f}" for at, value in run]
        if len(points) == 1:  # a line of one point is not seen
            points *= 2
        SubElement(svg, "polyline", points=" ".join(points))
    caption = f"{known[-1]:g} ms, at most {max(known):g} ms" if known else "no answer yet"
    _text(figure, "figcaption", caption)


def _runs(values: Sequence[float | None]) -> Iterator[list[tuple[int, float]]]:
    run: list[tuple[int, float]] = []
    for at, value in enumerate(values):
        if value is not None:
            run.append((at, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _keystores(main: Element, keystores: Sequence[dict[str, Any]]) -> None:
    columns = (
        "keystore", "plugin", "breaker", "calls", "retries", "in flight", "queued", "failures", "promises",
    )  # fmt: skip
    rows = [
        (
            store["name"],
            store["plugin"],
            store["breaker"],
            str(store["calls"]),
            str(store["retries"]),
            str(store["in_flight"]),
            str(store["queued"]),
            ", ".join(f"{code} {count}" for code, count in store["failures"].items()),
            ", ".join(f"{count} {status}" for status, count in store["promises"].items()),
        )
        for store in keystores
    ]
    _table(main, "Keystores", "keystores", columns, rows)


def _operations(main: Element, keystores: Sequence[dict[str, Any]]) -> None:
    columns = ("operation", *(store["name"] for store in keystores))
    rows = [
        (operation.wire, *(store["operations"][operation.wire] for store in keystores))
        for operation in KEYSTORE_API
    ]
    _table(
        main, "Who does it: the provider (native), the host (shim), nobody (no)", "operations", columns, rows
    )


def _withdrawn(main: Element, keystores: Sequence[dict[str, Any]]) -> None:
    rows = [
        (store["name"], lost["promise"], lost["reason"]) for store in keystores for lost in store["withdrawn"]
    ]
    if rows:
        title = "Promises of drivers that were not true: nothing relies on them"
        _table(main, title, "withdrawn", ("keystore", "promise", "reason"), rows)


def _table(
    main: Element, title: str, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    section = SubElement(main, "section", {"class": "wide"})
    _text(section, "h2", title)
    table = SubElement(section, "table", id=name)
    header = SubElement(SubElement(table, "thead"), "tr")
    for column in columns:
        _text(header, "th", column)
    body = SubElement(table, "tbody")
    for row in rows:
        line = SubElement(body, "tr")
        for cell in row:
            _text(line, "td", cell, **{"class": cell.partition(":")[0].partition(" ")[0]})


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = untrusted(text, _DETAIL)
