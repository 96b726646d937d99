"""A server that the tests started ends with them, also when they are killed."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from support.host import wait_until

ROOT = Path(__file__).parents[2]
SUITE = """
import os
import signal
from pathlib import Path
from {module} import {server}

def test_that_is_killed(tmp_path):
    with {server}({arguments}) as running:
        Path({told!r}).write_text(getattr(running, "url", running))
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("module", "server", "arguments"),
    [("backends.openbao", "openbao", "tmp_path"), ("support.postgres", "postgres", "")],
    ids=["a child", "a daemon"],
)
def test_a_server_ends_when_the_tests_are_killed(
    tmp_path: Path, module: str, server: str, arguments: str
) -> None:
    suite, told = tmp_path / "test_suite.py", tmp_path / "told"
    suite.write_text(SUITE.format(module=module, server=server, arguments=arguments, told=str(told)))
    command: list[str | Path] = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml",
        f"--basetemp={tmp_path / 'base'}", suite,
    ]  # fmt: skip

    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    if "skipped" in ended.stdout:
        pytest.skip(f"{server.upper()} NOT CHECKED: {ended.stdout[-200:]}")
    assert ended.returncode == -signal.SIGKILL, ended.stdout + ended.stderr
    wait_until(lambda: not answers(told.read_text()), "the server to end")


def answers(url: str) -> bool:
    parts = urlsplit(url)
    folder = parse_qs(parts.query).get("host")
    with socket.socket(socket.AF_UNIX if folder else socket.AF_INET) as client:
        address = f"{folder[0]}/.s.PGSQL.5432" if folder else (parts.hostname, parts.port)
        return client.connect_ex(address) == 0
