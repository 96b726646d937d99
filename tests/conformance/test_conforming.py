"""Drivers that keep to SPEC.md pass the whole suite, and skip nothing but what they do not offer."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from conformance.broken import UNBROKEN, try_behind, zygote
from conformance.drivers import (
    KEYSTORES,
    MANAGING,
    PLAIN,
    WITHOUT_PROVIDER,
    failures,
    not_offered,
    skipped,
    try_file,
    untried,
)
from kmsplug_host.conformance import run

# Skipped for what a driver is rather than for what it offers.
IN_MEMORY = {"keys.same_keystore", "lifetime.ciphertexts", "lifetime.identity", "lifetime.killed"}
NO_MAPS = {"binding.order"}
NO_SECRETS = {"session.secret_not_quoted"}
ONE_WAY = {"relabelled.swapped", "relabelled.withheld"}
LONG_MESSAGES = {"signing.over_the_limit"}
QUICK = {"process.ping_at_work"}

SPEC = Path(__file__).resolve().parents[2] / "protocol" / "SPEC.md"


def test_the_plain_driver_conforms() -> None:
    report = try_file(PLAIN)

    assert failures(report) == {}
    assert untried(report) == IN_MEMORY | NO_MAPS | WITHOUT_PROVIDER | NO_SECRETS | ONE_WAY | QUICK


def test_two_drivers_with_every_operation_conform_and_leave_no_case_untried(tmp_path: Path) -> None:
    with zygote():
        everything = try_behind(UNBROKEN, tmp_path, None, timeout_s=30)
    managing = try_file(MANAGING)

    assert failures(everything) == {}
    assert failures(managing) == {}
    assert skipped(everything).keys() & skipped(managing).keys() == set()


def test_the_local_driver_conforms(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kmsplug_plugins.local"]

    report = run(command, {"path": str(tmp_path / "store")}, timeout_s=60)

    assert failures(report) == {}
    assert not_offered(report) == KEYSTORES
    assert untried(report) == NO_MAPS | WITHOUT_PROVIDER | LONG_MESSAGES


def test_the_plain_driver_is_short_and_uses_nothing_of_ours() -> None:
    text = PLAIN.read_text(encoding="utf-8")
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert len(text.splitlines()) < 100
    assert imported == {"base64", "json", "os", "resource", "sys", "cryptography"}


def test_the_session_of_the_appendix_is_what_the_plain_driver_answers() -> None:
    """Fresh random values apart: those are taken over into the lines that follow."""
    appendix = SPEC.read_text(encoding="utf-8").partition("## Appendix A")[2].partition("## Appendix B")[0]
    fresh: dict[str, str] = {}

    with subprocess.Popen([sys.executable, PLAIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        for line in appendix.splitlines():
            if line.startswith("> "):
                for recorded, now in fresh.items():
                    line = line.replace(recorded, now)  # noqa: PLW2901 - the line as it has to be today
                driver.stdin.write(line[2:].encode() + b"\n")
                driver.stdin.flush()
            elif line.startswith("< "):
                fresh |= _differences(json.loads(line[2:]), json.loads(driver.stdout.readline()))
        driver.stdin.close()
        assert driver.wait(10) == 0
    assert len(fresh) == 3  # identity, ciphertext, random bytes


def _differences(recorded: Any, now: Any, name: str = "") -> dict[str, str]:
    """Return the strings that differ where they may; fail where they may not."""
    if isinstance(recorded, dict):
        assert recorded.keys() == now.keys()
        return {k: v for key in recorded for k, v in _differences(recorded[key], now[key], key).items()}
    if recorded != now:
        assert name in ("identity", "ciphertext", "data")
        return {recorded: now}
    return {}
