"""docs/configuration.md names every key of the configuration, and its example is valid."""

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from kmsplug_host import PluginState, config
from kmsplug_host.config import (
    BreakerSettings,
    CatalogSettings,
    DataKeySettings,
    KeystoreSettings,
    PluginSettings,
    RecycleSettings,
    RetrySettings,
    load,
)
from kmsplug_host.shims import registry
from msgspec import Struct, structs

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
_MODELS = [
    PluginSettings, KeystoreSettings, CatalogSettings, RetrySettings, BreakerSettings, DataKeySettings,
]  # fmt: skip


@pytest.mark.parametrize("model", _MODELS)
def test_every_key_is_documented(model: type[Struct]) -> None:
    documented = set(re.findall(r"^\| `([a-z0-9_]+)`", TEXT, re.MULTILINE))

    assert {field.name for field in structs.fields(model)} <= documented


def test_every_limit_of_recycling_and_every_state_is_documented() -> None:
    for name in (*RecycleSettings.__struct_fields__, *PluginState):
        assert f"`{name}`" in TEXT


def test_the_example_is_a_valid_configuration() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)

    settings = load(tomllib.loads(example)).settings

    assert set(settings.all_keystores()) == {"local", "main"}


def test_the_defaults_of_a_keystore_are_those_that_are_documented() -> None:
    defaults = {
        field.name: field.default
        for model in (KeystoreSettings, RetrySettings, BreakerSettings, DataKeySettings)
        for field in structs.fields(model)
        if isinstance(field.default, (int, float)) and not isinstance(field.default, bool)
    }
    written = dict(re.findall(r"^\| `(\w+)` \| [^|]*\| `([\d.]+)` \|", TEXT, re.MULTILINE))

    assert len(defaults) > 8
    assert {name: float(written[name]) for name in defaults} == defaults


def test_every_shim_is_described() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "shims.md").read_text(encoding="utf-8")

    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(registry.NAMES)
    assert set(get_args(config._ShimName)) == set(registry.NAMES)
