from dataclasses import replace
from pathlib import Path

import pytest
from kmsplug_plugins._software.leases import LIMIT, Leases
from kmsplug_sdk import DriverError
from unit.plugins.local_support import Keystore, keystore, opened


def set_leased(folder: Path, key_id: str, leased: int) -> None:
    with opened(folder) as store:
        store.update(key_id, lambda key: key.with_version(replace(key.current, leased=leased)))


def leased(folder: Path, key_id: str) -> int:
    with opened(folder) as store:
        return store.key(key_id).current.leased


def test_a_key_whose_ivs_are_used_up_refuses_to_encrypt_until_it_is_rotated(
    local: Keystore, folder: Path
) -> None:
    key_id = local.create()
    set_leased(folder, key_id, LIMIT - 3)

    ciphertexts = [local.encrypt(key_id, b"data") for _ in range(3)]

    error = local.error("crypto.encrypt", key_id=key_id, plaintext="")
    assert error["data"]["code"] == "LIMIT_EXCEEDED"
    assert "rotate" in error["message"]
    assert local.code("crypto.generate_data_key", key_id=key_id) == "LIMIT_EXCEEDED"
    assert leased(folder, key_id) == LIMIT
    assert local.decrypt(key_id, ciphertexts[0]) == b"data"
    local.call("key.rotate", key_id=key_id)
    assert local.decrypt(key_id, local.encrypt(key_id, b"more")) == b"more"


def test_the_budget_is_shared_by_all_processes(folder: Path) -> None:
    with keystore(folder) as one, keystore(folder) as other:
        key_id = one.create()
        set_leased(folder, key_id, LIMIT - 20)
        one.encrypt(key_id, b"")  # leases 16 of the 20
        for _ in range(4):
            other.encrypt(key_id, b"")

        assert other.code("crypto.encrypt", key_id=key_id, plaintext="") == "LIMIT_EXCEEDED"
        for _ in range(15):
            one.encrypt(key_id, b"")
        assert one.code("crypto.encrypt", key_id=key_id, plaintext="") == "LIMIT_EXCEEDED"


def test_encryptions_are_leased_in_doubling_blocks_before_they_are_made(
    local: Keystore, folder: Path
) -> None:
    key_id = local.create()

    seen = [leased(folder, key_id)]
    for _ in range(50):
        local.encrypt(key_id, b"")
        if (now := leased(folder, key_id)) != seen[-1]:
            seen.append(now)

    assert seen == [0, 16, 48, 112]


def test_decrypting_signing_and_rsa_cost_no_budget(local: Keystore, folder: Path) -> None:
    key_id = local.create("RSA_3072", usage="ENCRYPT_DECRYPT")

    local.decrypt(key_id, local.encrypt(key_id, b""))

    assert leased(folder, key_id) == 0


def test_a_disabled_key_is_refused_even_where_a_lease_is_left(folder: Path) -> None:
    with keystore(folder) as one, keystore(folder) as other:
        key_id = one.create()
        one.encrypt(key_id, b"")

        other.call("key.disable", key_id=key_id)

        assert one.code("crypto.encrypt", key_id=key_id, plaintext="") == "KEY_DISABLED"


def test_a_block_is_not_leased_for_a_key_that_was_disabled_meanwhile(local: Keystore, folder: Path) -> None:
    key_id = local.create()
    local.call("key.disable", key_id=key_id)

    with opened(folder) as store, pytest.raises(DriverError) as caught:
        Leases(store).spend(key_id, 1)

    assert caught.value.code == "KEY_DISABLED"
    assert leased(folder, key_id) == 0
