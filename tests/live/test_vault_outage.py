"""A host over the Vault driver whose server is sealed, down or out of reach, or forgets it: it recovers."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from backends.fault_proxy import Fault, FaultProxy, fault_proxy
from backends.kubernetes import kubernetes
from backends.openbao import OpenBao, Refused, openbao
from kmsplug_host import Host, Keystore
from kmsplug_host.errors import CircuitOpen, KmsplugError, ProviderUnavailable, RateLimitExceeded, Timeout
from support.host import children, wait_until
from support.isolation import require

DOWN = (ProviderUnavailable, CircuitOpen)
BACK_S = 30.0


@dataclass
class Running:
    """A host, the server behind it, and what lies between.

    Attributes:
        bao: The server.
        proxy: What the driver talks to.
        host: The host.
        sealed: What was encrypted before anything happened.
    """

    bao: OpenBao
    proxy: FaultProxy
    host: Host
    sealed: bytes

    @property
    def keystore(self) -> Keystore:
        return self.host.keystore("main")

    @property
    def processes(self) -> list[int | None]:
        return [replica.pid for replica in self.host.plugins()[0].replicas]

    def works(self) -> bool:
        """Tell whether what was encrypted before opens."""
        with contextlib.suppress(*DOWN, Timeout):
            return self.keystore.decrypt(self.sealed, timeout=5).plaintext == b"before"
        return False

    def fails_with(self, *kinds: type[KmsplugError]) -> None:
        """See a call fail, in bounded time, by what it is."""
        began = time.monotonic()
        with pytest.raises(kinds):
            self.keystore.decrypt(self.sealed, timeout=2)
        assert time.monotonic() - began < 10

    def comes_back(self) -> None:
        wait_until(self.works, "the keystore to work again", BACK_S)


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """A server of this module's own: it is sealed and stopped here."""
    with openbao(tmp_path_factory.mktemp("outage")) as server:
        server.policy()
        server.api("POST", "sys/auth/approle", {"type": "approle"})
        server.api("POST", "auth/approle/role/app", {"token_policies": "app"})
        server.api("POST", "transit/keys/before", {"type": "aes256-gcm96"})
        yield server


@contextlib.contextmanager
def running(bao: OpenBao, login: dict[str, Any], **plugin: Any) -> Iterator[Running]:
    """Open a host over a driver that talks to the server through a proxy."""
    with fault_proxy(bao.url) as proxy:
        config = {"address": proxy.url, "login": login}
        settings = {
            "plugins": {"vault": {"driver": "vault", "config": config, **plugin}},
            "keystores": {"main": {"plugin": "vault", "breaker": {"cool_down_s": 0.1}}},
        }
        with Host.open(settings) as host:
            keystore = host.keystore("main")
            sealed = keystore.encrypt("before", b"before").ciphertext
            assert isinstance(sealed, bytes)
            assert [one for one in children() if "vault_transit" in one]
            yield Running(bao, proxy, host, sealed)
        assert not [one for one in children() if "vault_transit" in one]


@pytest.fixture
def app(bao: OpenBao, tmp_path: Path) -> Iterator[Running]:
    role_id = bao.api("GET", "auth/approle/role/app/role-id")["data"]["role_id"]
    secret = tmp_path / "secret-id"
    secret.touch(mode=0o600)
    secret.write_text(bao.api("POST", "auth/approle/role/app/secret-id", {})["data"]["secret_id"])
    login = {"method": "approle", "role_id": role_id, "secret_id": {"file": str(secret)}}
    with running(bao, login) as found:
        before = found.processes
        yield found
        assert found.processes == before  # no process was replaced: the driver itself recovered


def test_a_sealed_server_is_unavailable_until_it_is_unsealed(app: Running) -> None:
    app.bao.seal()
    try:
        app.fails_with(*DOWN)
    finally:
        app.bao.unseal()
    app.comes_back()


def test_a_server_that_is_stopped_is_unavailable_until_it_is_started(app: Running) -> None:
    app.bao.stop()
    try:
        app.fails_with(*DOWN)
    finally:
        app.bao.start()
    app.comes_back()


def test_a_revoked_token_costs_no_call(app: Running) -> None:
    accessors = app.bao.api("LIST", "auth/token/accessors")["data"]["keys"]
    tokens = {one.headers["x-vault-token"] for one in app.proxy.seen if "x-vault-token" in one.headers}
    assert len(accessors) >= 2
    for token in tokens:
        app.bao.api("POST", "auth/token/revoke", {"token": token})

    assert app.keystore.decrypt(app.sealed).plaintext == b"before"


def test_a_cut_network_is_unavailable_until_it_is_back(app: Running) -> None:
    app.proxy.plan = lambda _seen: Fault(reset=True)
    app.fails_with(*DOWN)
    app.proxy.plan = lambda _seen: None
    app.comes_back()


def test_a_server_that_does_not_answer_is_late_and_then_works_again(app: Running) -> None:
    app.proxy.plan = lambda _seen: Fault(stall_s=20)
    app.fails_with(Timeout, *DOWN)
    app.proxy.plan = lambda _seen: None
    app.comes_back()


def test_throttling_is_waited_out_as_the_server_says(app: Running) -> None:
    left = [Fault(status=429, headers={"Retry-After": "0"}, body=b'{"errors":["quota exceeded"]}')] * 3
    lock = threading.Lock()

    def plan(_seen: object) -> Fault | None:
        with lock:
            return left.pop() if left else None

    app.proxy.plan = plan
    assert app.keystore.decrypt(app.sealed).plaintext == b"before"
    assert not left
    app.proxy.plan = lambda _seen: Fault(status=429, body=b'{"errors":["quota exceeded"]}')
    app.fails_with(RateLimitExceeded)


def test_a_change_whose_answer_is_lost_is_made_once_and_said_to_be_unknown(
    app: Running, bao: OpenBao
) -> None:
    bao.policy("app", 'path "transit/*" { capabilities = ["create", "read", "update", "list", "delete"] }')
    try:
        app.proxy.plan = lambda seen: (
            Fault(reset=True, reached=True) if seen.path.endswith("/rotate") else None
        )
        with pytest.raises(ProviderUnavailable) as caught:
            app.keystore.rotate_key("before", timeout=5)
        app.proxy.plan = lambda _seen: None
        assert caught.value.outcome == "unknown"
        assert bao.api("GET", "transit/keys/before")["data"]["latest_version"] == 2
    finally:
        bao.policy()


@pytest.mark.parametrize("isolation", ["process", "landlock"])
def test_with_a_projected_token_that_is_rotated_on_disk_nothing_is_lost(
    bao: OpenBao, tmp_path: Path, isolation: str
) -> None:
    """From the pod's volume to the key and back: login by TokenReview, rotation, revocation, login again."""
    require(isolation)
    volume = tmp_path / "volume"
    volume.mkdir()
    with kubernetes() as cluster:
        with contextlib.suppress(Refused):
            bao.api("POST", "sys/auth/kubernetes", {"type": "kubernetes"})
        cluster.configure(bao, policy="app")
        file = cluster.project(volume)
        login = {"method": "kubernetes", "role": "orders", "jwt_file": str(file)}
        with running(bao, login, isolation=isolation, read_paths=[str(volume)]) as app:
            for _ in range(2):
                cluster.rotate(volume)
                token = [
                    one.headers["x-vault-token"] for one in app.proxy.seen if "x-vault-token" in one.headers
                ][-1]
                bao.api("POST", "auth/token/revoke", {"token": token})
                assert app.keystore.decrypt(app.sealed).plaintext == b"before"
        assert len(cluster.reviewed) == len(set(cluster.reviewed)) == 3
