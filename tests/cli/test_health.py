"""``kmsplug health`` and ``plugin check`` as Kubernetes and Nagios call them: in time, by exit status."""

import json
import re
import sys
import time
from pathlib import Path

import pytest
from support.cli import CONFIG, Cli
from support.host import wait_until

HANGS = f"""
[plugins.hangs]
command = ["{sys.executable}", "-c", "import time; time.sleep(600)"]
isolation = "process"
"""
ILL = """
[plugins.ill]
driver = "mock"
[[plugins.ill.config.scenario.rule]]
effect = "fail"
code = "PROVIDER_UNAVAILABLE"
operations = ["plugin.health"]
"""


def nagios(cli: Cli, code: int, *arguments: str) -> str:
    """Return the one line."""
    (line,) = cli(*arguments, "--nagios", code=code).stdout.decode().splitlines()
    return line


def test_nagios_is_told_in_one_line_with_figures(cli: Cli) -> None:
    line = nagios(cli, 0, "health")

    assert re.fullmatch(r"KMSPLUG OK: 1 plugins healthy \| 'local ping'=0\.\d{6}s", line)
    assert nagios(cli, 0, "plugin", "check", "local").startswith("KMSPLUG OK")


def test_nagios_is_told_who_is_ill_and_why(cli: Cli) -> None:
    (cli.folder / "plugins.toml").write_text(CONFIG + ILL)

    line = nagios(cli, 2, "health")

    assert line.startswith("KMSPLUG CRITICAL: 1 of 2 plugins ill: ill PROVIDER_UNAVAILABLE, ")
    assert line.count("|") == 1


def test_nagios_is_told_when_nothing_can_be_found_out(cli: Cli) -> None:
    assert nagios(cli, 3, "plugin", "check", "nobody").startswith("KMSPLUG UNKNOWN: no plugin 'nobody'")
    (cli.folder / "plugins.toml").unlink()
    assert nagios(cli, 3, "health").startswith("KMSPLUG UNKNOWN: no configuration found")


def test_what_a_driver_says_stays_in_the_line_and_out_of_the_figures(cli: Cli) -> None:
    said = r'message = "a | b=1\n\u001b[2J"'
    (cli.folder / "plugins.toml").write_text(f"{ILL}{said}\n")

    line = nagios(cli, 2, "health")

    assert "\x1b" not in line
    assert line.count("|") == 1


def test_who_hangs_is_ill_after_the_time_and_the_others_are_told(cli: Cli) -> None:
    (cli.folder / "plugins.toml").write_text(CONFIG + HANGS)
    began = time.monotonic()

    done = cli("--json", "health", "--timeout", "8", code=1)

    assert time.monotonic() - began < 20
    found = {item["name"]: item for item in json.loads(done.stdout)["plugins"]}
    assert found["local"]["state"] == "healthy"
    assert found["hangs"]["state"] == "FAILED"
    assert found["hangs"]["error"]["message"] == "it did not start and answer within 8 s"


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_nothing_is_left_of_a_driver_that_hung(cli: Cli, tmp_path: Path) -> None:
    mark = str(tmp_path / "a path that only this driver has")
    program = f"import time; time.sleep(600) # {mark}"
    (cli.folder / "plugins.toml").write_text(
        f'[plugins.hangs]\ncommand = ["{sys.executable}", "-c", "{program}"]\nisolation = "process"\n'
    )

    nagios(cli, 2, "health", "--timeout", "3")

    wait_until(lambda: not running(mark), "the end of the driver")


def running(mark: str) -> bool:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in process.read_bytes():
                return True
        except OSError:
            continue
    return False


def test_shallow_asks_no_provider(cli: Cli) -> None:
    (cli.folder / "plugins.toml").write_text(CONFIG)

    (deep,) = cli.json("plugin", "check", "local", "--deep")["plugins"]
    (shallow,) = cli.json("plugin", "check", "local", "--shallow")["plugins"]

    assert {check["name"] for check in shallow["checks"]} < {check["name"] for check in deep["checks"]}
