"""A report in the forms that others read: JUnit for a build server, Markdown to be published."""

from collections import defaultdict
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from kmsplug_protocol import KEYSTORE_API, Capability

from .case import Outcome
from .suite import Report


def junit(report: Report) -> str:
    """Return a report as JUnit XML: a test suite for each group, a test case for each case."""
    root = ET.Element("testsuites", name=_name(report))
    groups = defaultdict(list)
    for result in report.cases:
        groups[result.case.group].append(result)
    for group, results in groups.items():
        counts = {outcome: sum(result.outcome is outcome for result in results) for outcome in Outcome}
        suite = ET.SubElement(
            root,
            "testsuite",
            name=group,
            tests=str(len(results)),
            failures=str(counts[Outcome.FAILED]),
            skipped=str(counts[Outcome.SKIPPED]),
            time=f"{sum(result.seconds for result in results):.3f}",
        )
        for result in results:
            case = ET.SubElement(
                suite, "testcase", classname=group, name=result.case.id, time=f"{result.seconds:.3f}"
            )
            if result.outcome is Outcome.FAILED:
                failure = ET.SubElement(case, "failure", message=result.detail)
                clauses = ", ".join(result.case.clauses)
                failure.text = f"{result.case.sentence}\nSPEC.md {clauses}\nhint: {result.case.hint}"
            elif result.outcome is Outcome.SKIPPED:
                ET.SubElement(case, "skipped", message=result.detail)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def markdown(report: Report) -> str:
    """Return what a driver can do, and how it was found to do it, as a page to publish."""
    counts = report.as_json()["summary"]
    verdict = "It conforms." if not report.failed else "**It does not conform.**"
    protocol = report.driver.get("protocol_version", "?")
    told = f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} do not apply to it"
    lines = [
        f"# {_cell(_name(report))}",
        "",
        f"A kmsplug driver, protocol {_cell(protocol)}. {verdict} Of {counts['total']} cases {told}.",
        "",
        "## Operations",
        "",
        "| operation | keys | mechanism | associated data | limits |",
        "| --- | --- | --- | --- | --- |",
        *_operations(report.rows),
        "",
        "Not offered: " + (", ".join(_missing(report.rows)) or "nothing") + ".",
    ]
    if report.failed:
        lines += [
            "",
            "## What failed",
            "",
            "| case | what a driver has to do | what was seen |",
            "| --- | --- | --- |",
        ]
        lines += [
            f"| `{result.case.id}` | {_cell(result.case.sentence)} | {_cell(result.detail)} |"
            for result in report.failed
        ]
    return "\n".join(lines) + "\n"


def _operations(rows: tuple[Capability, ...]) -> Iterator[str]:
    for row in rows:
        limits = row.model_dump(
            mode="json",
            exclude_defaults=True,
            exclude={"operation", "key_algorithm", "mechanism", "associated_data"},
        )
        told = ", ".join(f"{name} {value}" for name, value in limits.items())
        cells = (row.operation, row.key_algorithm or "", row.mechanism or "", row.associated_data, told)
        yield f"| {' | '.join(_cell(str(cell)) for cell in cells)} |"


def _missing(rows: tuple[Capability, ...]) -> list[str]:
    offered = {row.operation for row in rows}
    return [operation.wire for operation in KEYSTORE_API if operation.wire not in offered]


def _name(report: Report) -> str:
    told = (report.driver.get("name", ""), report.driver.get("version", ""))
    return " ".join(told).strip() or "a driver that did not say its name"


def _cell(text: str) -> str:
    """Return a text that may come from a driver, as it stands in a cell: no markup of its own."""
    for mark in ("\\", "|", "<", "`", "[", "*"):
        text = text.replace(mark, f"&#{ord(mark)};")
    return text
