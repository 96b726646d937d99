"""The fixture kmsplug_mock: a host and a mock for one test, of which nothing is left after it."""

import subprocess
import sys
from pathlib import Path

import pytest
from kmsplug_host import Host
from kmsplug_host.errors import AccessDenied
from kmsplug_plugins.mock.pytest_plugin import MockProvider
from support.host import nothing_left

HEAVY = ("pydantic", "orjson", "cryptography", "kmsplug_host", "kmsplug_sdk", "kmsplug_protocol")


def test_loading_it_brings_nothing_but_pytest() -> None:
    program = "import sys, kmsplug_plugins.mock.pytest_plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)

    loaded = done.stdout.decode().split()
    assert "pytest" in loaded
    assert [name for name in loaded if name.partition(".")[0] in HEAVY] == []


def test_every_test_has_it_without_asking_for_a_plugin(pytestconfig: pytest.Config) -> None:
    names = [
        distribution.metadata["Name"] for _, distribution in pytestconfig.pluginmanager.list_plugin_distinfo()
    ]

    assert "kmsplug" in names


def test_what_goes_wrong_changes_with_the_next_call_and_calls_are_counted(kmsplug_mock: MockProvider) -> None:
    keystore = kmsplug_mock.keystore
    assert keystore.random(16)
    kmsplug_mock.play({"effect": "fail", "code": "ACCESS_DENIED"})
    with pytest.raises(AccessDenied):
        keystore.random(16)
    kmsplug_mock.play()
    assert keystore.random(16)

    assert kmsplug_mock.calls() == kmsplug_mock.calls("crypto.random") == kmsplug_mock.calls("crypto.*") == 3
    assert kmsplug_mock.calls("key.*") == 0


def test_a_rule_without_meaning_fails_the_test_and_not_a_call(kmsplug_mock: MockProvider) -> None:
    with pytest.raises(ValueError, match=r"rule\.0\.throttle\.sometimes"):
        kmsplug_mock.play({"effect": "throttle", "sometimes": True})


def test_an_application_that_opens_its_own_host_meets_the_same_provider(kmsplug_mock: MockProvider) -> None:
    key_id = kmsplug_mock.keystore.create_key("AES_256_GCM").key_id

    with Host.open(kmsplug_mock.config) as host:
        assert host.keystore("mock").get_key(key_id).key_id == key_id


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    with nothing_left():
        provider = MockProvider(tmp_path)
        assert provider.keystore.random(16)
        provider.close()
