"""``--describe`` and ``--check CONFIG``: what a driver executable answers to a person, with no host."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from ._check import check
from ._log import configure_logging
from ._session import describe
from ._stdio import claim_stdout
from .driver import Driver


def answer(target: str, load: Callable[[str], type[Driver[Any]]], argv: list[str]) -> NoReturn:
    """Write what was asked for as JSON, and exit.

    Args:
        target: Where the driver class is.
        load: Imports it. Called when nothing that it prints can get into the answer.
        argv: The arguments.
    """
    parser = argparse.ArgumentParser(prog="driver", description=f"kmsplug driver {target}")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--describe", action="store_true", help="print capabilities and config schema, and exit"
    )
    group.add_argument("--check", metavar="CONFIG", help="deep health check with this configuration file")
    arguments = parser.parse_args(argv)

    with claim_stdout() as out:
        configure_logging()
        driver = load(target)
        if arguments.describe:
            report = describe(driver).model_dump(mode="json", exclude_none=True)
        else:
            report = check(driver(), arguments.check)
        out.write(json.dumps(report, indent=2) + "\n")
    sys.exit(0 if report.get("healthy", True) else 1)
