"""docs/drivers/mock.md names every setting, effect and member, and its examples are valid."""

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from kmsplug_host.config import load
from kmsplug_plugins.mock.config import MockConfig
from kmsplug_plugins.mock.pytest_plugin import MockProvider
from kmsplug_plugins.mock.scenario import Gap, Match, Rule, Scenario

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "drivers" / "mock.md").read_text(encoding="utf-8")
CONFIGURATION, *SCENARIOS = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
EFFECTS = {kind.model_fields["effect"].annotation.__args__[0]: kind for kind in get_args(get_args(Rule)[0])}


def rows(*names: str) -> str:
    """Return the rows of tables that begin with one of these names."""
    return "\n".join(
        line for line in TEXT.splitlines() if line.startswith(tuple(f"| `{name}`" for name in names))
    )


@pytest.mark.parametrize("name", [*MockConfig.model_fields, *Match.model_fields])
def test_every_setting_and_member_of_a_rule_has_a_row(name: str) -> None:
    assert rows(name)


@pytest.mark.parametrize("effect", EFFECTS)
def test_every_effect_has_a_row_with_its_members(effect: str) -> None:
    members = set(EFFECTS[effect].model_fields) - set(Match.model_fields) - {"effect"}

    assert members <= set(re.findall("`([a-z_]+)`", rows(effect)))


def test_every_member_of_a_gap_has_a_row() -> None:
    assert set(Gap.model_fields) <= set(re.findall("`([a-z_]+)`", rows(*Gap.model_fields)))


def test_the_examples_are_valid() -> None:
    plugin = load(tomllib.loads(CONFIGURATION)).settings.plugins["mock"]

    assert plugin.config.keys() <= MockConfig.model_fields.keys()
    for text in SCENARIOS:
        scenario = Scenario.model_validate(tomllib.loads(text))
        assert scenario.rule or scenario.gap


def test_the_fixture_has_the_members_of_the_table() -> None:
    first_column = re.findall(r"^\| (`[a-z_]+[`(].*?) \|", TEXT, re.MULTILINE)
    named: list[Any] = [name for cell in first_column for name in re.findall(r"`([a-z_]+)", cell)]

    assert {name for name in vars(MockProvider) if not name.startswith("_")} - {"close"} <= set(named)


def test_the_example_of_the_fixture_passes(kmsplug_mock: MockProvider) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {}

    exec(program, names)  # noqa: S102 - what a reader would copy
    (test,) = (value for name, value in names.items() if name.startswith("test_"))
    test(kmsplug_mock)
