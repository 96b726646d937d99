"""``kmsplug conformance``: does an executable keep to SPEC.md?"""

import contextlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from kmsplug_host.errors import ConfigurationError

from . import _output
from ._config import Options


def conformance(
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="The driver and its arguments.")
    ],
    config: Annotated[
        Path | None, typer.Option("--config", help="The driver's settings: a TOML or JSON file.")
    ] = None,
    provider: Annotated[
        Path | None,
        typer.Option("--provider", help="Settings with {address} in them: what a sick provider does to it."),
    ] = None,
    wrong_login: Annotated[
        Path | None,
        typer.Option("--wrong-login", help="Settings whose login the provider rejects; it is tried once."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", help="A variable that a vendor's library needs; may be repeated."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A case, or a group of them; may be repeated.")
    ] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML here.")] = None,
    report_file: Annotated[
        Path | None, typer.Option("--report", help="Write what it can do here, as Markdown to publish.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail each case in which stdout has anything but responses.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that one case may take.", min=0.1)] = 30.0,
) -> None:
    """Drive an executable over the wire and report case by case. Exit status 0 only when none failed.

    It makes keys in the keystore that the settings name: use one for tests.

    Example: kmsplug conformance --config driver.toml -- ./kmsplug-driver-acme
    """
    # Imported here: the cases are of no use to any other command.
    from kmsplug_host.conformance import CASES, CaseResult, Outcome, junit, markdown, run, selected  # noqa: PLC0415

    options: Options = context.obj
    settings, sick, wrong = (
        None if path is None else read_settings(path) for path in (config, provider, wrong_login)
    )
    known = {case.id for case in CASES} | {case.group for case in CASES}
    if unknown := {*(only or ())} - known:
        raise ConfigurationError(
            f"no case or group {', '.join(sorted(unknown))}", hint="see docs/conformance.md"
        )
    with _progress(len(selected(only)), shown=sys.stderr.isatty()) as advance:

        def tell(result: CaseResult) -> None:
            advance()
            if options.json or result.outcome is Outcome.SKIPPED:
                return
            _print_case(result.outcome.value, result.case.id, result.case.sentence)
            if result.outcome is Outcome.FAILED:
                clause = ", ".join(result.case.clauses)
                _print_detail(f"saw: {result.detail}", f"SPEC.md {clause}", f"hint: {result.case.hint}")

        report = run(
            command,
            settings,
            on_case=tell,
            timeout_s=timeout,
            only=only,
            provider=sick,
            wrong_login=wrong,
            variables=env or (),
            strict=strict,
        )
    for path, form in ((junit_file, junit), (report_file, markdown)):
        if path is not None:
            _write(path, form(report))
    document = report.as_json()
    if options.json:
        _output.print_json(document)
    else:
        summary = document["summary"]
        name = " ".join(report.driver.get(part, "") for part in ("name", "version")).strip() or command[0]
        _print_detail(
            "",
            f"{name}: {summary['passed']} passed, {summary['failed']} failed, "
            f"{summary['skipped']} skipped because the driver does not offer what they need",
        )
    if report.failed:
        raise typer.Exit(1)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a driver from a file, TOML or JSON."""
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}: expected a table")
    return document


_MARKS = {"passed": "ok  ", "failed": "FAIL"}
_COLOURS = {"passed": "\x1b[32m", "failed": "\x1b[31m"}


def _print_case(outcome: str, case_id: str, sentence: str) -> None:
    mark = _MARKS[outcome]
    if sys.stdout.isatty():
        mark = f"{_COLOURS[outcome]}{mark}\x1b[0m"
    sys.stdout.write(f"{mark}  {case_id}: {_output.safe(sentence)}\n")


def _print_detail(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(f"      {_output.safe(line)}\n" if line else "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def _progress(total: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """Show a bar while the cases run, below the lines that they print."""
    if not shown:
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415 - 50 ms that only a terminal needs
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (TextColumn("cases"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
