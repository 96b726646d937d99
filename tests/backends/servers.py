"""Starts the servers that stand in for AWS, on the loopback interface, and ends them."""

import contextlib
import http.client
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest
from backends.environments import UnavailableError, python_of
from support.loopback import free_port

_HERE: Final = Path(__file__).parent
_START_S: Final = 60.0
_END_S: Final = 10.0


@contextlib.contextmanager
def localstack() -> Iterator[str]:
    """Run LocalStack's KMS, repaired, and yield its URL; skip the test where it cannot be had."""
    python, port = _python("localstack", "LOCALSTACK"), free_port()
    with tempfile.TemporaryDirectory(prefix="kmsplug-localstack-") as folder:
        settings = {
            "HOME": folder,
            "FILESYSTEM_ROOT": folder,
            "GATEWAY_LISTEN": f"127.0.0.1:{port}",
            # The usual server listens on every interface, whatever GATEWAY_LISTEN says.
            "GATEWAY_SERVER": "hypercorn",
            "LOCALSTACK_HOST": f"localhost:{port}",
            "SERVICES": "kms",
            "STRICT_SERVICE_LOADING": "1",
            "EAGER_SERVICE_LOADING": "1",
            "DISABLE_EVENTS": "1",  # no telemetry
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "SKIP_INFRA_DOWNLOADS": "1",
            "DNS_ADDRESS": "0",
            "OVERRIDE_IN_DOCKER": "0",
            "LS_LOG": "error",
        }
        command: list[str | Path] = [python, _HERE / "localstack_server.py"]
        with _running(command, settings, port, "/_localstack/health"):
            yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """Run moto with STS, IAM and KMS, and yield its URL; skip the test where it cannot be had."""
    python, port = _python("moto", "MOTO"), free_port()
    with tempfile.TemporaryDirectory(prefix="kmsplug-moto-") as folder:
        command: list[str | Path] = [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with _running(command, {"HOME": folder}, port, "/moto-api/"):
            yield f"http://127.0.0.1:{port}"


def _python(name: str, title: str) -> Path:
    try:
        return python_of(name)
    except UnavailableError as error:
        pytest.skip(f"{title} NOT CHECKED: {error}")


@contextlib.contextmanager
def _running(
    command: Sequence[str | Path], settings: Mapping[str, str], port: int, path: str
) -> Iterator[None]:
    environment = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", **settings}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            if not _answers(process, port, path):
                output.seek(0)
                text = output.read()[-2000:].decode(errors="replace")
                raise AssertionError(f"the server did not start: status {process.poll()}\n{text}")
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_END_S)
                    break


def _answers(process: subprocess.Popen[bytes], port: int, path: str) -> bool:
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status < 500:
                return True
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
        finally:
            connection.close()
    return False
