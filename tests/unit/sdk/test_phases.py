import json
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from kmsplug_protocol import (
    DEFAULT_FRAME_BYTES,
    ConfigureResult,
    EncryptParams,
    EncryptResult,
    HealthCheck,
    HealthDepth,
    Mechanism,
)
from kmsplug_sdk import Driver, _session, current_call, provides
from kmsplug_sdk.driver import capabilities
from kmsplug_sdk.testing import run_driver
from pydantic import BaseModel, Field
from unit.sdk.drivers import Echo, SlowToOpen, encrypted
from unit.sdk.wire import ENCRYPT, INITIALIZE, code, line


def test_ping_is_answered_in_every_phase() -> None:
    with run_driver(Echo) as client:
        for step in ("plugin.ping", "plugin.initialize", "plugin.ping"):
            assert "result" in client.call(step, INITIALIZE if step == "plugin.initialize" else {})
        assert "result" in client.call("plugin.configure", {"config": {}})
        assert client.call("plugin.ping")["result"] == {}


def test_an_operation_before_configure_is_refused_and_the_session_goes_on() -> None:
    with run_driver(Echo) as client:
        for _ in range(2):
            assert code(client.call("crypto.random", {"length_bytes": 1})) == (-32600, "INVALID_ARGUMENT")
            assert code(client.call("plugin.health")) == (-32600, "INVALID_ARGUMENT")
            client.call("plugin.initialize", INITIALIZE)
        assert "result" in client.call("plugin.configure", {"config": {}})
        assert "result" in client.call("crypto.random", {"length_bytes": 1})


def test_configure_before_initialize_is_refused() -> None:
    with run_driver(Echo) as client:
        assert code(client.call("plugin.configure", {"config": {}})) == (-32000, "INVALID_ARGUMENT")
        assert "result" in client.call("plugin.initialize", INITIALIZE)
        assert "result" in client.call("plugin.configure", {"config": {}})


def test_a_second_initialize_or_configure_is_refused_and_changes_nothing() -> None:
    with run_driver(Echo, {}) as client:
        assert code(client.call("plugin.initialize", INITIALIZE)) == (-32000, "INVALID_ARGUMENT")
        assert code(client.call("plugin.configure", {"config": {}})) == (-32000, "INVALID_ARGUMENT")
        assert "result" in client.call("crypto.random", {"length_bytes": 1})


def test_without_a_version_in_common_the_refusal_says_which_there_are_and_the_host_may_try_again() -> None:
    with run_driver(Echo) as client:
        response = client.call("plugin.initialize", {**INITIALIZE, "protocol_versions": ["2", "3"]})
        assert code(response) == (-32000, "UNSUPPORTED_OPERATION")
        assert "speaks 1" in response["error"]["message"]
        assert response["error"]["data"]["hint"]

        again = client.call("plugin.initialize", {**INITIALIZE, "protocol_versions": ["3", "1"]})
        assert again["result"]["protocol_version"] == "1"


def test_the_version_that_was_chosen_is_the_one_that_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_session, "negotiate", lambda offered: offered[-1])

    with run_driver(Echo) as client:
        answer = client.call("plugin.initialize", {**INITIALIZE, "protocol_versions": ["1", "2"]})

    assert answer["result"]["protocol_version"] == "2"


def test_a_driver_says_what_it_is_and_promises() -> None:
    with run_driver(Echo) as client:
        result = client.call("plugin.initialize", INITIALIZE)["result"]

    assert result["driver"] == {"name": "echo", "version": "1.2.3"}
    assert result["max_concurrency"] == 2
    assert result["config_schema"]["type"] == "object"
    assert [(row["operation"], row["max_input_bytes"]) for row in result["capabilities"]] == [
        ("crypto.encrypt", 4096),
        ("crypto.random", 65536),
    ]


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        (65536, 65536),
        (200_000, 200_000),
        (DEFAULT_FRAME_BYTES, DEFAULT_FRAME_BYTES),
        (2**26, DEFAULT_FRAME_BYTES),
    ],
)
def test_the_frame_limit_is_never_higher_than_what_was_offered(offered: int, answered: int) -> None:
    with run_driver(Echo) as client:
        result = client.call("plugin.initialize", {**INITIALIZE, "max_frame_bytes": offered})["result"]

    assert result["max_frame_bytes"] == answered


class _Pin(BaseModel):
    pin: str = Field(min_length=4)


class _NodeConfig(BaseModel):
    nodes: list[_Pin]


class Strict(Echo):
    Config = _NodeConfig
    configured: ClassVar[list[bool]] = []

    def configure(self, config: Any, *, dry_run: bool) -> ConfigureResult:
        self.configured.append(dry_run)
        return ConfigureResult(identity=f"nodes:{len(config.nodes)}")


def test_settings_that_do_not_fit_are_refused_by_path_without_their_value_and_may_be_sent_again() -> None:
    Strict.configured.clear()
    with run_driver(Strict) as client:
        client.call("plugin.initialize", INITIALIZE)

        bad = {"nodes": [{"pin": "1234"}, {"pin": "c4n"}]}
        response = client.call("plugin.configure", {"config": bad})
        assert code(response) == (-32000, "CONFIGURATION_ERROR")
        assert response["error"]["data"]["path"] == "nodes.1.pin"
        assert "c4n" not in json.dumps(response)
        assert Strict.configured == []

        good = {"nodes": [{"pin": "1234"}]}
        assert client.call("plugin.configure", {"config": good})["result"]["identity"] == "nodes:1"


def test_a_dry_run_leaves_the_phase_as_it_was() -> None:
    Strict.configured.clear()
    with run_driver(Strict) as client:
        client.call("plugin.initialize", INITIALIZE)

        dry = client.call("plugin.configure", {"config": {"nodes": []}, "dry_run": True})
        assert dry["result"]["identity"] == "nodes:0"
        assert code(client.call("crypto.random", {"length_bytes": 1})) == (-32600, "INVALID_ARGUMENT")
        assert "result" in client.call("plugin.configure", {"config": {"nodes": []}})
        assert "result" in client.call("crypto.random", {"length_bytes": 1})

    assert Strict.configured == [True, False]


def test_a_driver_that_is_opening_its_keystore_answers_ping_and_refuses_the_rest(
    slow_to_open: type[SlowToOpen],
) -> None:
    with run_driver(slow_to_open) as client:
        client.call("plugin.initialize", INITIALIZE)
        client.send(line("plugin.configure", "slow", {"config": {}}))
        slow_to_open.wait_begun()

        assert "result" in client.call("plugin.ping")
        assert code(client.call("crypto.random", {"length_bytes": 1})) == (-32600, "INVALID_ARGUMENT")
        assert code(client.call("plugin.initialize", INITIALIZE)) == (-32000, "INVALID_ARGUMENT")
        client.send(line("plugin.configure", "second", {"config": {}}))
        slow_to_open.gate.set()

        first, second = client.receive(), client.receive()
        assert (first["id"], "result" in first) == ("slow", True)
        assert (second["id"], code(second)) == ("second", (-32000, "INVALID_ARGUMENT"))
        assert "result" in client.call("crypto.random", {"length_bytes": 1})


@pytest.mark.parametrize(
    "method", ["key.get", "crypto.sign", "plugin.cancel", "rpc.discover", "", "\u0000", "x" * 999]
)
def test_what_a_driver_does_not_offer_is_no_method_in_any_phase(method: str) -> None:
    with run_driver(Echo) as client:
        for step, params in (
            ("plugin.initialize", INITIALIZE),
            ("plugin.configure", {"config": {}}),
            ("plugin.ping", {}),
        ):
            assert code(client.call(method, {"key_id": "k"})) == (-32601, "UNSUPPORTED_OPERATION")
            assert "result" in client.call(step, params)


def healthy(*checks: bool) -> type[Driver[Any]]:
    class Checked(Echo):
        def health(self, depth: HealthDepth) -> Sequence[HealthCheck]:
            return [HealthCheck(name=depth.value, healthy=check) for check in checks]

    return Checked


@pytest.mark.parametrize(("checks", "whole"), [((), True), ((True, True), True), ((True, False), False)])
def test_a_keystore_is_as_well_as_its_worst_check(checks: tuple[bool, ...], whole: bool) -> None:
    with run_driver(healthy(*checks), {}) as client:
        result = client.call("plugin.health", {"depth": "deep"})["result"]

    assert result["healthy"] is whole
    assert [check["name"] for check in result["checks"]] == ["deep"] * len(checks)


class Narrow(Echo):
    """Its keystore turns out to encrypt, and nothing else."""

    def configure(self, config: Any, *, dry_run: bool) -> ConfigureResult:
        rows = tuple(row for row in capabilities(Echo) if row.operation == "crypto.encrypt")
        return ConfigureResult(identity="narrow", capabilities=rows)


def test_what_the_keystore_turned_out_not_to_have_is_refused_as_what_was_never_offered() -> None:
    with run_driver(Narrow, {}) as client:
        assert code(client.call("crypto.random", {"length_bytes": 1})) == (-32601, "UNSUPPORTED_OPERATION")
        assert "result" in client.call("crypto.encrypt", ENCRYPT)
        assert "result" in client.call("plugin.health")


class Stutters(Echo):
    """Its first answer gets lost, its second one comes twice."""

    max_concurrency = 1  # so that the requests are taken in their order

    def __init__(self) -> None:
        self._answers = iter((0, 2))

    @provides(mechanism=Mechanism.AES_256_GCM)
    def encrypt(self, request: EncryptParams) -> EncryptResult:
        current_call().answers = next(self._answers)
        return encrypted(request)


def test_a_driver_that_plays_a_broken_one_can_lose_its_answer_or_give_it_twice() -> None:
    with run_driver(Stutters, {}) as client:
        for request_id in (1, 2):
            client.send(line("crypto.encrypt", request_id, ENCRYPT))

        assert [client.receive()["id"] for _ in range(2)] == [2, 2]
        assert "result" in client.call("plugin.health")
