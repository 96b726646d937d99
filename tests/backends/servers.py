"""Starts the servers that stand in for AWS, on the loopback interface, and ends them."""

import contextlib
import http.client
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from backends.environments import python_of
from support.lifeline import running
from support.loopback import free_port

_HERE: Final = Path(__file__).parent
_START_S: Final = 60.0


@contextlib.contextmanager
def localstack() -> Iterator[str]:
    """Run LocalStack's KMS, repaired, and yield its URL.

    Raises:
        UnavailableError: It cannot be had here.
    """
    python, port = python_of("localstack"), free_port()
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
        with _answering(command, settings, port, "kms"):
            yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """Run moto with STS, IAM and KMS, and yield its URL.

    Raises:
        UnavailableError: It cannot be had here.
    """
    python, port = python_of("moto"), free_port()
    with tempfile.TemporaryDirectory(prefix="kmsplug-moto-") as folder:
        command: list[str | Path] = [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with _answering(command, {"HOME": folder}, port, "kms", "sts"):
            yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _answering(
    command: list[str | Path], settings: Mapping[str, str], port: int, *services: str
) -> Iterator[None]:
    environment = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", **settings}
    with (
        tempfile.TemporaryFile() as output,
        running(command, stdout=output, stderr=output, env=environment) as process,
    ):
        if not all(_answers(process, port, service) for service in services):
            output.seek(0)
            text = output.read()[-2000:].decode(errors="replace")
            raise AssertionError(f"the server did not start: status {process.poll()}\n{text}")
        yield


# One harmless call of each service: the servers load a service when first asked for it, which takes seconds.
_CALLS: Final[dict[str, tuple[dict[str, str], str]]] = {
    "kms": (
        {"X-Amz-Target": "TrentService.ListKeys", "Content-Type": "application/x-amz-json-1.1"},
        "{}",
    ),
    "sts": (
        {"Content-Type": "application/x-www-form-urlencoded"},
        "Action=GetCallerIdentity&Version=2011-06-15",
    ),
}


def _answers(process: subprocess.Popen[bytes], port: int, service: str) -> bool:
    headers, body = _CALLS[service]
    scope = f"Credential=AKIAIOSFODNN7EXAMPLE/20260101/eu-west-1/{service}/aws4_request"
    signed = {**headers, "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"}
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_S)
        try:
            connection.request("POST", "/", body, signed)
            if connection.getresponse().status == 200:
                return True
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    return False
