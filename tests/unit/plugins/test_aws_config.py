"""Settings of the AWS driver: one login, named; nothing plain over a network; nothing guessed."""

from typing import Any

import botocore.session
import pytest
from kmsplug_plugins.aws_kms.config import AwsConfig
from kmsplug_plugins.aws_kms.driver import AwsKmsDriver
from kmsplug_protocol import ErrorCode
from kmsplug_sdk import DriverError
from kmsplug_sdk._session import configure

STATIC = {"method": "static", "access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "canary-5e2b"}
GOOD: dict[str, Any] = {"region": "eu-west-1", "account": "111122223333", "login": STATIC}
ROLE = "arn:aws:iam::111122223333:role/app/reader"


@pytest.mark.parametrize(
    "login",
    [
        STATIC,
        {**STATIC, "session_token": "x"},
        {"method": "web_identity", "role_arn": ROLE, "token_file": "/var/token"},
        {"method": "pod_identity", "token_file": "/var/token"},
        {"method": "profile", "profile": "p", "config_file": "/etc/aws/config"},
        {
            "method": "roles_anywhere",
            "role_arn": ROLE,
            "certificate_file": "/c.pem",
            "private_key_file": "/k.pem",
            "trust_anchor_arn": "arn:aws:rolesanywhere:eu-west-1:111122223333:trust-anchor/a",
            "profile_arn": "arn:aws:rolesanywhere:eu-west-1:111122223333:profile/b",
        },
    ],
    ids=lambda login: str(login["method"]),
)
def test_each_way_to_log_in_takes_what_it_needs(login: dict[str, Any]) -> None:
    assert AwsConfig.model_validate({**GOOD, "login": login}).login.method == login["method"]


@pytest.mark.parametrize(
    ("login", "told"),
    [
        ({"method": "web_identity", "role_arn": ROLE}, "web_identity needs token_file"),
        ({"method": "static"}, "static needs access_key_id, secret_access_key"),
        ({**STATIC, "role_arn": ROLE}, "static has nothing to do with role_arn"),
        ({"method": "profile", "profile": "p"}, "config_file or credentials_file"),
        ({"method": "environment"}, "login.method"),
        ({}, "login.method"),
    ],
)
def test_a_login_that_is_not_complete_or_not_one_way_is_refused(login: dict[str, Any], told: str) -> None:
    with pytest.raises(DriverError) as caught:
        configure(AwsKmsDriver(), {**GOOD, "login": login}, dry_run=True)

    assert caught.value.code is ErrorCode.CONFIGURATION_ERROR
    assert told in caught.value.message
    assert "canary" not in caught.value.message


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("region", "eu-west"),
        ("region", "EU-WEST-1"),
        ("region", "eu-west-1.evil.example/"),
        ("account", "11112222333"),
        ("account", "1111-2222-3333"),
        ("endpoint", "http://kms.example.com"),
        ("endpoint", "https://user@kms.example.com"),
        ("endpoint", "ftp://127.0.0.1"),
        ("endpoint", "https://kms.example.com:port"),
        ("sts_endpoint", "http://10.0.0.1"),
        ("ca_bundle_file", "ca.pem"),
        ("without", ["AES_999"]),
        ("assume_role", {"role_arn": "arn:aws:iam::1:role/x"}),
        ("assume_role", {"role_arn": ROLE, "external_id": "a b"}),
        ("no_such_setting", 1),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(member: str, value: Any) -> None:
    with pytest.raises(DriverError) as caught:
        configure(AwsKmsDriver(), {**GOOD, member: value}, dry_run=True)

    assert caught.value.code is ErrorCode.CONFIGURATION_ERROR
    assert str(caught.value.data.path).split(".")[0] == member


def test_secrets_and_paths_are_marked_for_the_host() -> None:
    members = AwsConfig.model_json_schema()["$defs"]["Login"]["properties"]

    secret = {name for name, form in members.items() if form.get("writeOnly")}
    paths = {name for name, form in members.items() if form.get("format") == "path"}
    assert secret == {"secret_access_key", "session_token"}
    assert paths == {name for name in members if name.endswith("_file")}


def test_the_partition_of_every_region_is_the_one_that_the_sdk_knows() -> None:
    session = botocore.session.Session()
    regions = {
        region: partition
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("kms", partition, allow_non_regional=False)
    }

    assert len(regions) > 20
    for region, partition in regions.items():
        assert AwsConfig.model_validate({**GOOD, "region": region}).partition == partition
