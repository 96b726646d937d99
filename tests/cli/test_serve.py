"""``kmsplug serve`` as a service manager runs it."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from support.cli import CONFIG, SCRIPT, Cli
from support.host import wait_until
from support.lifeline import running

GONE = '\n[plugins.gone]\ncommand = ["/bin/false"]\nisolation = "process"\nmax_crashes = 0\n'


@pytest.fixture
def served(cli: Cli) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    (cli.folder / "plugins.toml").write_text(CONFIG + GONE)
    command = [SCRIPT, "--json", "serve", "--listen", "127.0.0.1:0"]
    with running(command, cwd=cli.folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        text = b""
        while not text.endswith(b"}\n"):
            line = process.stdout.readline()
            assert line
            text += line
        yield process, json.loads(text)["listening"]


def status(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_it_answers_reloads_and_ends_in_order(
    cli: Cli, served: tuple["subprocess.Popen[bytes]", str]
) -> None:
    process, address = served

    assert status(f"{address}readyz?plugin=local") == 200
    assert status(f"{address}readyz") == 503
    (cli.folder / "plugins.toml").write_text(CONFIG)
    os.kill(process.pid, signal.SIGHUP)
    wait_until(lambda: status(f"{address}readyz") == 200, "the reload")
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(30) == 0


def test_an_address_that_is_none_is_wrong_usage(cli: Cli) -> None:
    assert "127.0.0.1:9464" in cli.error("serve", "--listen", "here", code=2)["message"]
    assert "proxy" in cli.error("serve", "--listen", "0.0.0.0:0", code=2)["hint"]
