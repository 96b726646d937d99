"""``kmsplug doctor``: a whole installation, and what to do about what is found."""

from dataclasses import asdict
from typing import Annotated

import typer

from kmsplug_host.doctor import Verdict, examine

from . import _output
from ._config import Options, find_config


def doctor(
    context: typer.Context,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only what something is to be done about.")
    ] = False,
) -> None:
    """Examine the installation: configuration, executables, clock, providers, keys; say what to do.

    Every plugin is started, and encrypts and decrypts with a key that is there. Exit status 1 when something
    is wrong; advice alone is 0.

    Example: kmsplug doctor
    """
    options: Options = context.obj
    found = list(examine(find_config(options)))
    shown = [finding for finding in found if not quiet or finding.verdict is not Verdict.WELL]
    counts = {verdict.value: sum(finding.verdict is verdict for finding in found) for verdict in Verdict}
    if options.json:
        members = [
            {name: value for name, value in asdict(finding).items() if value is not None} for finding in shown
        ]
        _output.print_json({"summary": counts, "findings": members})
    else:
        columns = ["", "CHECK", "OF", "FOUND", "WHAT TO DO"]
        rows = [(item.verdict.value, item.check, item.subject, item.text, item.advice) for item in shown]
        _output.print_table("", columns, rows)
        _output.note(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    if counts[Verdict.WRONG]:
        raise typer.Exit(1)
