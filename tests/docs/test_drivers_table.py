"""README's table of drivers and operations is what the installed drivers declare, and who stands in."""

import json
import subprocess
import sys
from pathlib import Path

from kmsplug_host._launch import available_drivers
from kmsplug_protocol import KEYSTORE_API
from support.tables import published

SCRIPT = Path(sys.executable).with_name("kmsplug")


def described() -> dict[str, dict[str, str]]:
    """Return who does each operation, by operation and driver."""
    done = subprocess.run(
        [SCRIPT, "--json", "plugin", "describe", "--drivers"], capture_output=True, timeout=120, check=True
    )
    drivers = json.loads(done.stdout)["drivers"]
    table: dict[str, dict[str, str]] = {}
    for driver in drivers:
        for row in driver["operations"]:
            cells = table.setdefault(f"`{row['operation']}`", {})
            cells[f"`{driver['name']}`"] = (row["executed_by"] or "no").partition("@")[0]
    return table


def test_the_table_is_fresh_and_has_every_driver_and_operation() -> None:
    table = described()

    shown = published("drivers", table)

    assert shown == table, "stale: run `make docs`, or only this test with KMSPLUG_WRITE_TABLES=1"
    assert table.keys() == {f"`{operation.wire}`" for operation in KEYSTORE_API}
    assert table["`crypto.encrypt`"].keys() == {f"`{name}`" for name in available_drivers()}
