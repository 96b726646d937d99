"""The addresses for probes and Prometheus, and what becomes of those who ask in bad faith."""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import Host
from kmsplug_host.errors import ConfigurationError
from kmsplug_host.serve import _http, serve
from support.host import nothing_left, wait_until
from support.looks import DEGRADED, NEVER, Served, three_plugins

ALERTS = Path(__file__).resolve().parents[2] / "examples" / "monitoring" / "alerts.yml"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with three_plugins(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def mock() -> Iterator[Served]:
    with (
        nothing_left(),
        Host.open({"plugins": {"mock": {"driver": "mock"}}}) as host,
        serve(host, "127.0.0.1:0", interval_s=NEVER) as server,
    ):
        yield Served(host, server)


def test_a_keystore_that_a_reload_takes_away_meanwhile_costs_nobody_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugins = {"mock": {"driver": "mock"}, "other": {"driver": "mock"}}
    with (
        Host.open({"plugins": plugins}) as host,
        serve(host, "127.0.0.1:0", interval_s=NEVER) as server,
    ):
        served, stats = Served(host, server), host.stats()
        host.reload({"plugins": {"mock": plugins["mock"]}})
        monkeypatch.setattr(host, "stats", lambda: stats)

        answer = served.get("/health")

    assert [each["name"] for each in json.loads(answer.text)["keystores"]] == ["mock"]


def connect(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.server.port), timeout=30)


def test_alive_is_who_answers_and_ready_is_who_can_work(three: Served) -> None:
    assert three.get("/livez").status == 200
    answer = three.get("/readyz")

    assert answer.status == 503
    assert answer.text.splitlines() == [
        "well: ready, READY", "ill: not ready, DEGRADED", "gone: not ready, QUARANTINED",
    ]  # fmt: skip
    assert three.get("/readyz?plugin=well").status == 200
    assert three.get("/readyz?plugin=ill").status == 503
    assert three.get("/readyz?plugin=nobody").status == 404


def test_health_is_a_document_for_each_plugin(three: Served) -> None:
    answer = three.get("/health")

    found = json.loads(answer.text)
    plugins = {plugin["name"]: plugin for plugin in found["plugins"]}
    assert (answer.status, found["ready"]) == (503, False)
    assert plugins["well"]["ping_ms"] > 0
    assert plugins["ill"]["last_failure"]["vendor"]["code"] == DEGRADED["vendor_code"]
    assert plugins["gone"]["last_process_error"].endswith("exit status 1")
    assert [store["name"] for store in found["keystores"]] == ["well", "ill", "gone"]
    assert json.loads(three.get("/health?plugin=well").text)["ready"]


def test_a_plugin_that_becomes_well_again_is_ready_at_the_next_look(mock: Served) -> None:
    assert mock.get("/readyz").status == 200
    mock.host._plugins["mock"].note_deep_check(healthy=False, reason="a test")
    assert mock.get("/readyz").text == "mock: ready, DEGRADED\n"
    mock.host.health("mock", deep=True)
    assert mock.get("/readyz").text == "mock: ready, READY\n"


def test_metrics_are_what_prometheus_takes(three: Served) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("PROMTOOL NOT CHECKED: install prometheus")

    text = three.get("/metrics").text

    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text.encode(), capture_output=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_the_alerts_fire_when_the_goal_is_missed_and_only_then(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("PROMTOOL NOT CHECKED: install prometheus")
    cases = Path(__file__).with_name("alerts_test.yml").read_text(encoding="utf-8")
    (tmp_path / "test.yml").write_text(cases.replace("ALERTS", str(ALERTS)))

    for command in (["check", "rules", str(ALERTS)], ["test", "rules", str(tmp_path / "test.yml")]):
        done = subprocess.run([promtool, *command], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_the_alerts_ask_for_a_series_and_a_bucket_that_exist(mock: Served) -> None:
    mock.host.keystore("mock").random(8)
    text = mock.get("/metrics").text

    for name in (
        "kmsplug_keystore_call_duration_seconds_bucket",
        "kmsplug_keystore_call_duration_seconds_count",
    ):
        assert name in ALERTS.read_text(encoding="utf-8")
        assert f'{name}{{keystore="mock",operation="crypto.random"' in text
    assert 'operation="crypto.random",le="0.25"} 1\n' in text


def test_only_known_addresses_and_no_changes(mock: Served) -> None:
    assert mock.get("/etc/passwd").status == 404
    assert mock.get("/../style.css").status == 404
    assert mock.get("/", "POST").status == 501
    assert mock.get("/", "DELETE").status == 501
    head = mock.get("/health", "HEAD")
    assert (head.status, head.text) == (200, "")
    assert int(head.headers["Content-Length"]) > 100


@pytest.mark.parametrize("path", ["/", "/health", "/nowhere"])
def test_every_answer_has_the_strict_policy(mock: Served, path: str) -> None:
    headers = mock.get(path).headers

    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self';")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "Python" not in headers["Server"]


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example", "[::1", "", "10.0.0.1:80"])
def test_a_name_that_was_made_to_lead_here_reads_nothing(mock: Served, name: str) -> None:
    answer = mock.get("/health", Host=name)

    assert answer.status == 421
    assert "mock" not in answer.text


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1:9464", "[::1]:80"])
def test_the_machines_own_addresses_are_answered(mock: Served, name: str) -> None:
    assert mock.get("/livez", Host=name).status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", b"431"),
        (b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (b"GET http://[ HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /livez HTTP/9.9\r\n\r\n", b"505"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET /livez?" + b"%00" * 100 + b" HTTP/1.0\r\n\r\n", b"200"),
    ],
)
def test_a_request_that_is_none_is_refused(mock: Served, request_bytes: bytes, status: bytes) -> None:
    with contextlib.closing(connect(mock)) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(request_bytes)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                answer += data

    assert status in answer.split(b"\r\n")[0]
    assert mock.get("/livez").status == 200


def test_who_sends_a_letter_now_and_then_is_sent_away_in_time(
    mock: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http, "HEAD_S", 0.5)
    began = time.monotonic()
    with contextlib.closing(connect(mock)) as connection:
        connection.settimeout(0.05)
        answer = b""
        with contextlib.suppress(OSError):
            while not answer and time.monotonic() - began < 20:
                connection.sendall(b"G")
                with contextlib.suppress(TimeoutError):
                    answer = connection.recv(4096)

    assert b"408" in answer.split(b"\r\n")[0]
    assert time.monotonic() - began < 10


def test_many_silent_connections_shut_nobody_out_and_are_bounded(mock: Served) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as held:
        for _ in range(_http.MAX_CONNECTIONS * 3):
            held.enter_context(contextlib.closing(connect(mock)))
        for _ in range(5):
            assert mock.get("/livez").status == 200
        assert threading.active_count() - before <= 2 * _http.MAX_CONNECTIONS + 1
    wait_until(lambda: threading.active_count() <= before, "threads of connections to end")


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("9464", "expected an address and a port"),
        ("example.org:80", "expected an address and a port"),
        ("127.0.0.1:70000", "expected an address and a port"),
        ("127.0.0.1:", "expected an address and a port"),
        ("0.0.0.0:9464", "can be reached by other machines"),
        ("[::]:9464", "can be reached by other machines"),
    ],
)
def test_it_listens_on_this_machine_only(listen: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        _http.Address.parse(listen)


def test_other_machines_are_let_in_by_who_says_so() -> None:
    assert _http.Address.parse("0.0.0.0:9464", remote=True) == _http.Address("0.0.0.0", 9464)
    assert _http.Address.parse("[::1]:1") == _http.Address("::1", 1)


def test_an_address_that_is_taken_is_an_error_and_leaves_nothing(mock: Served) -> None:
    with pytest.raises(OSError, match="in use"):
        serve(mock.host, f"127.0.0.1:{mock.server.port}")


def test_a_plugin_that_hangs_keeps_no_answer_waiting(tmp_path: Path) -> None:
    slow: dict[str, Any] = {"effect": "delay", "ms": 60_000, "operations": ["plugin.health"]}
    settings = {"plugins": {"mock": {"driver": "mock", "config": {"scenario": {"rule": [slow]}}}}}
    with Host.open(settings) as host, serve(host, "127.0.0.1:0", interval_s=NEVER) as server:
        served = Served(host, server)
        began = time.monotonic()
        answer = served.get("/health")

        assert time.monotonic() - began < 1
        assert answer.status == 503
        assert json.loads(answer.text)["plugins"][0]["healthy"] is False
