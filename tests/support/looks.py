"""A served host with one plugin of every kind that an operator may see, and a client."""

import contextlib
import http.client
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmsplug_host import Host, KmsplugError
from kmsplug_host.serve import StatusServer, serve
from support.host import wait_until

DEGRADED: dict[str, Any] = {
    "effect": "fail",
    "operations": ["plugin.health"],
    "code": "PROVIDER_UNAVAILABLE",
    "vendor_code": "KMSInternalException",
    "http_status": 503,
    "message": "<script>alert(1)</script> the region is down",
}
GAP = {"operations": ["crypto.reencrypt"]}
NEVER = 3600.0
"""Seconds between looks where the test does the looking."""


@dataclass
class Answer:
    """What an address answered."""

    status: int
    headers: dict[str, str]
    text: str


@dataclass
class Served:
    """A host and its status server."""

    host: Host
    server: StatusServer

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read().decode())

    def look(self, times: int = 1) -> None:
        """Let the server look at the plugins now."""
        for _ in range(times):
            self.server._watch.look()


@contextlib.contextmanager
def three_plugins(folder: Path) -> Iterator[Served]:
    """Serve a healthy, a degraded and a quarantined plugin; the degraded one's deep check says why."""
    settings = {
        "plugins": {
            "well": {"driver": "local", "config": {"path": str(folder / "store")}},
            "ill": {"driver": "mock", "config": {"scenario": {"rule": [DEGRADED], "gap": [GAP]}}},
            "gone": {"command": ["/bin/false"], "isolation": "process", "max_crashes": 0},
        }
    }
    with Host.open(settings, all_ready=False) as host:
        wait_until(lambda: {p.name: p.state for p in host.plugins()}["gone"] == "QUARANTINED", "quarantine")
        with contextlib.suppress(KmsplugError):
            host.health("ill", deep=True)
        with serve(host, "127.0.0.1:0", interval_s=NEVER, deep_s=NEVER) as server:
            yield Served(host, server)
