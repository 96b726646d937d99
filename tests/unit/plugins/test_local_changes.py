"""A change that was asked for under an idempotency key can be asked about, and is never made twice."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from kmsplug_protocol import decode_base64
from unit.plugins.local_support import Keystore, b64, keystore


def under(change: str) -> dict[str, Any]:
    return {"meta": {"idempotency_key": change}}


def became(session: Keystore, method: str, change: str, **named: str) -> str:
    outcome: str = session.call("key.reconcile", method=method, idempotency_key=change, **named)["outcome"]
    return outcome


def test_a_create_is_found_by_its_idempotency_key(local: Keystore) -> None:
    key = local.call("key.create", algorithm="AES_256_GCM", **under("c1"))

    found = local.call("key.reconcile", method="key.create", idempotency_key="c1")

    assert found["outcome"] == "applied"
    assert found["key"] == key
    assert became(local, "key.create", "c2") == "not_applied"


def test_creates_under_one_idempotency_key_at_the_same_time_make_one_key(folder: Path) -> None:
    with keystore(folder) as one, keystore(folder) as other:
        made: list[str] = []
        threads = [
            threading.Thread(target=lambda each=each: made.append(each.create(**under("c1"))))
            for each in (one, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

        assert len(made) == 2
        assert len(set(made)) == 1
        assert len(one.call("key.list")["keys"]) == 1


def test_an_idempotency_key_is_not_taken_for_another_kind_of_key(local: Keystore) -> None:
    local.create("AES_256_GCM", **under("c1"))

    assert local.code("key.create", algorithm="HMAC_SHA_256", **under("c1")) == "ALREADY_EXISTS"


def test_keys_without_an_idempotency_key_are_as_many_as_were_asked_for(local: Keystore) -> None:
    assert local.create() != local.create()
    assert local.create(**under("")) != local.create(**under(""))


def test_a_repeated_rotate_makes_one_version(local: Keystore) -> None:
    key_id = local.create()

    first = local.call("key.rotate", key_id=key_id, **under("r1"))
    again = local.call("key.rotate", key_id=key_id, **under("r1"))

    assert (first["key_version"], again["key_version"]) == ("2", "2")
    assert became(local, "key.rotate", "r1", key_id=key_id) == "applied"
    assert became(local, "key.rotate", "r2", key_id=key_id) == "not_applied"


def test_a_rotate_is_found_after_later_ones(local: Keystore) -> None:
    key_id = local.create()
    for change in ("r1", "r2", "r3"):
        local.call("key.rotate", key_id=key_id, **under(change))

    assert local.call("key.rotate", key_id=key_id, **under("r1"))["key_version"] == "4"
    assert became(local, "key.rotate", "r1", key_id=key_id) == "applied"


def test_a_repeated_import_is_the_import_that_was(local: Keystore) -> None:
    key_id = local.create(origin="imported", **under("c1"))
    terms = local.call("key.get_import_parameters", key_id=key_id)
    wrapping = load_der_public_key(decode_base64(terms["public_key"]))
    assert isinstance(wrapping, rsa.RSAPublicKey)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    body = {
        "key_id": key_id,
        "wrapping_algorithm": terms["wrapping_algorithm"],
        "import_token": terms["import_token"],
        "wrapped_key": b64(wrapping.encrypt(os.urandom(32), oaep)),
    }
    assert became(local, "key.import", "i1", key_id=key_id) == "not_applied"

    first = local.call("key.import", **body, **under("i1"))

    assert local.call("key.import", **body, **under("i1")) == first
    assert local.code("key.import", **body, **under("i2")) == "KEY_INVALID_STATE"
    assert became(local, "key.import", "i1", key_id=key_id) == "applied"


def test_what_was_done_is_known_after_a_restart_and_after_the_end_of_the_key(folder: Path) -> None:
    with keystore(folder) as session:
        key_id = session.create(**under("c1"))
        session.call("key.rotate", key_id=key_id, **under("r1"))
        session.call("key.schedule_deletion", key_id=key_id)

    with keystore(folder) as session:
        assert became(session, "key.create", "c1") == "applied"
        assert became(session, "key.rotate", "r1", key_id=key_id) == "applied"


@pytest.mark.parametrize(
    ("method", "named"),
    [("key.purge", {"key_id": "k"}), ("key.no_such", {}), ("key.rotate", {}), ("key.import", {})],
)
def test_nothing_certain_is_said_of_what_is_not_kept(
    local: Keystore, method: str, named: dict[str, str]
) -> None:
    assert became(local, method, "x", **named) == "unknown"


def test_a_rotate_of_no_key_is_no_answer(local: Keystore) -> None:
    error = local.error("key.reconcile", method="key.rotate", idempotency_key="r1", key_id="key-none")

    assert error["data"]["code"] == "KEY_NOT_FOUND"


def test_the_same_idempotency_key_names_another_key_in_another_keystore(tmp_path: Path) -> None:
    with keystore(tmp_path / "one") as one, keystore(tmp_path / "two") as other:
        assert one.create(**under("c1")) != other.create(**under("c1"))
