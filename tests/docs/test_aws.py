"""docs/drivers/aws_kms.md names every setting and login, and its policy every call that the driver makes."""

import re
import tomllib
from pathlib import Path
from typing import get_args

from kmsplug_host.config import load
from kmsplug_plugins.aws_kms._client import Api
from kmsplug_plugins.aws_kms.config import AwsConfig, Login

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "drivers" / "aws_kms.md").read_text(encoding="utf-8")


def test_every_setting_and_every_way_to_log_in_is_documented() -> None:
    for name in (*AwsConfig.model_fields, *Login.model_fields, *Login.WAYS):
        assert f"`{name}`" in TEXT, name


def test_the_policy_allows_what_the_driver_calls_and_nothing_else() -> None:
    called = {name.title().replace("_", "") for name in get_args(Api)} - {"ReEncrypt"}

    policy = TEXT.partition("```json")[2].partition("```")[0]

    assert set(re.findall(r'"kms:(\w+)"', policy)) == called | {"ReEncryptFrom", "ReEncryptTo"}


def test_the_example_is_a_valid_configuration() -> None:
    example = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert example is not None

    settings = load(tomllib.loads(example[1])).settings

    assert AwsConfig.model_validate(settings.plugins["aws"].config).partition == "aws"
