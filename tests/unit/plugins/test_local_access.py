import pytest
from unit.plugins.local_support import Keystore


def test_a_key_that_fits_is_valid_and_what_does_not_is_told(local: Keystore) -> None:
    key_id = local.create()

    for expected in ({}, {"algorithm": "AES_256_GCM"}, {"region": "local"}):
        assert local.call("key.validate", key_id=key_id, **expected)["valid"]
    for expected, reason in (
        ({"algorithm": "RSA_3072"}, "the key is AES_256_GCM, not RSA_3072"),
        ({"region": "eu-central-1"}, "the key lives in 'local'"),
    ):
        found = local.call("key.validate", key_id=key_id, **expected)
        assert (found["valid"], found["reason"]) == (False, reason)
    assert not local.call("key.validate", key_id=f"{key_id}0")["valid"]


@pytest.mark.parametrize("state", ["SUSPENDED", "COMPROMISED"])
def test_a_key_that_cannot_be_used_is_not_valid(local: Keystore, state: str) -> None:
    key_id = local.create()
    local.call("key.set_state", key_id=key_id, state=state)

    assert local.call("key.validate", key_id=key_id)["reason"] == f"the key is {state}"


def test_a_key_that_only_decrypts_is_valid(local: Keystore) -> None:
    key_id = local.create()
    local.call("key.set_state", key_id=key_id, state="DEACTIVATED")

    assert local.call("key.validate", key_id=key_id)["valid"]


def test_access_data_are_empty_and_the_region_is_here(local: Keystore) -> None:
    key_id = local.create()

    assert local.call("key.validate_access", access_data={})["valid"]
    assert local.call("key.transform_access", key_id=key_id, access_data={})["access_data"] == {}
    assert local.call("key.get_region", key_id=key_id)["region"] == "local"


def test_access_data_that_nobody_needs_are_refused_and_not_quoted(local: Keystore) -> None:
    key_id = local.create()
    found = local.call("key.validate_access", access_data={"token": "canary"})

    assert not found["valid"]
    assert "canary" not in found["reason"]
    for method in ("key.transform_access", "key.get_region"):
        assert local.code(method, key_id=key_id, access_data={"token": "canary"}) == "INVALID_ARGUMENT"
        assert local.code(method, key_id="key-0", access_data={}) == "KEY_NOT_FOUND"
