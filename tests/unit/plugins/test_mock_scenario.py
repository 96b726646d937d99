"""What scenarios can say, when each rule has its turn, and that chance is nothing but the seed."""

from typing import Any

import pytest
from kmsplug_plugins.mock.driver import MockDriver
from kmsplug_plugins.mock.scenario import Delay, Scenario
from kmsplug_sdk.testing import run_driver
from unit.plugins.mock_support import Table, codes, mock

THROTTLE = {"effect": "throttle", "operations": ["crypto.random"]}


def refused(scenario: Table) -> dict[str, Any]:
    """Return the error with which the driver refuses a scenario."""
    with run_driver(MockDriver) as client:
        host = {"name": "test", "version": "0"}
        client.call("plugin.initialize", {"protocol_versions": ["1"], "host": host})
        answer = client.call("plugin.configure", {"config": {"scenario": scenario}})
    error: dict[str, Any] = answer["error"]
    return error


@pytest.mark.parametrize(
    ("scenario", "member"),
    [
        ({"rules": []}, "scenario.rules"),
        ({"rule": [{}]}, "scenario.rule.0"),
        ({"rule": [{"effect": "explode"}]}, "scenario.rule.0"),
        ({"rule": [THROTTLE, {"effect": "throttle", "every": 0}]}, "scenario.rule.1.throttle.every"),
        ({"rule": [{"effect": "throttle", "probability": 30}]}, "scenario.rule.0.throttle.probability"),
        ({"rule": [{"effect": "throttle", "operations": []}]}, "scenario.rule.0.throttle.operations"),
        ({"rule": [{"effect": "throttle", "operations": ["encrypt"]}]}, "scenario.rule.0.throttle"),
        ({"rule": [{"effect": "throttle", "retry_after_s": 1}]}, "scenario.rule.0.throttle.retry_after_s"),
        ({"rule": [{"effect": "fail"}]}, "scenario.rule.0.fail.code"),
        ({"rule": [{"effect": "fail", "code": "TEAPOT"}]}, "scenario.rule.0.fail.code"),
        ({"rule": [{"effect": "delay"}]}, "scenario.rule.0.delay"),
        ({"rule": [{"effect": "delay", "ms": 1, "exponential_ms": 1}]}, "scenario.rule.0.delay"),
        ({"rule": [{"effect": "delay", "uniform_ms": [2, 1]}]}, "scenario.rule.0.delay"),
        ({"rule": [{"effect": "lag"}]}, "scenario.rule.0.lag.calls"),
        ({"rule": [{"effect": "set_state", "state": "DESTROYED"}]}, "scenario.rule.0.set_state.state"),
        ({"gap": [{}]}, "scenario.gap.0.operations"),
        ({"gap": [{"operations": ["key.*"], "max_input_bytes": 9}]}, "scenario.gap.0"),
    ],
)
def test_a_scenario_without_meaning_is_refused_with_the_name_of_its_member(
    scenario: Table, member: str
) -> None:
    error = refused(scenario)

    assert error["data"]["code"] == "CONFIGURATION_ERROR"
    assert error["data"]["path"] == member


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({}, "RRRRRRRR"),
        ({"times": 3}, "RRR....."),
        ({"after": 5}, ".....RRR"),
        ({"every": 3}, "R..R..R."),
        ({"after": 1, "every": 2, "times": 2}, ".R.R...."),
        ({"operations": ["crypto.encrypt"]}, "........"),
        ({"operations": ["key.*", "crypto.r*"]}, "RRRRRRRR"),
    ],
)
def test_a_rule_has_its_turn_by_number_interval_and_operation(match: Table, expected: str) -> None:
    with mock({**THROTTLE, **match}) as keystore:
        assert codes(keystore, 8) == expected


def test_calls_of_other_operations_do_not_count() -> None:
    with mock({**THROTTLE, "after": 1}) as keystore:
        keystore.call("key.list")

        assert codes(keystore, 2) == ".R"


def test_the_first_rule_that_ends_a_call_hides_it_from_those_after_it() -> None:
    denied = {"effect": "fail", "code": "ACCESS_DENIED", "operations": ["crypto.random"], "times": 2}

    with mock({**THROTTLE, "every": 2}, denied) as keystore:
        assert codes(keystore, 6) == "RARAR."


def test_the_same_seed_and_calls_have_the_same_course_and_another_seed_another() -> None:
    courses = []
    for seed in (7, 7, 8):
        with mock({**THROTTLE, "probability": 0.5}, seed=seed) as keystore:
            courses.append(codes(keystore, 64))

    assert courses[0] == courses[1] != courses[2]
    assert 10 < courses[0].count("R") < 54


@pytest.mark.parametrize(
    ("distribution", "median_ms", "p99_ms"),
    [
        ({"ms": 20}, 20, 20),
        ({"uniform_ms": [10, 30]}, 20, 29.8),
        ({"exponential_ms": 100}, 69.3, 460.5),
        ({"lognormal_ms": [5, 80]}, 5, 80),
    ],
)
def test_latencies_follow_their_distribution(distribution: Table, median_ms: float, p99_ms: float) -> None:
    rule = Delay.model_validate({"effect": "delay", **distribution})
    scenario = Scenario(seed=3)

    drawn = sorted(rule.seconds(scenario.draw(0, number, "size")) * 1000 for number in range(20_000))

    assert drawn[10_000] == pytest.approx(median_ms, rel=0.05)
    assert drawn[19_800] == pytest.approx(p99_ms, rel=0.1)
    assert rule.seconds(0.5) * 1000 == pytest.approx(median_ms, rel=0.01)
    assert rule.seconds(0.99) * 1000 == pytest.approx(p99_ms, rel=0.01)
