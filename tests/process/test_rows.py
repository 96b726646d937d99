"""Promises that are not kept: a driver that lies in its rows is found out, and the host does without them."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import Host, KeyAlgorithm, Keystore, RowReport, RowStatus
from kmsplug_host.doctor import Verdict, examine
from kmsplug_host.errors import (
    ConfigurationError,
    KeyNotFound,
    PolicyDenied,
    UnsupportedOperation,
)
from kmsplug_host.serve._documents import document
from kmsplug_host.serve._metrics import render
from support.host import DRIVERS, logged

KEPT = {
    "AES_256_GCM": None,
    "AES_256_KW": None,
    "RSA_2048": "SIGN_VERIFY",
    "EC_P256": "SIGN_VERIFY",
    "X25519": None,
    "HMAC_SHA_256": None,
    "ML_KEM_768": None,
}
"""Kinds of keys by which every use is tried."""


def settings(state: Path, lies: dict[str, Any], **keystore: Any) -> dict[str, Any]:
    plugin = {
        "command": [sys.executable, "-I", str(DRIVERS / "liar.py")],
        "isolation": "process",
        "config": {"state_file": str(state)},
        "set_env": {"LIES": json.dumps(lies)},
    }
    return {"plugins": {"liar": plugin}, "keystores": {"main": {"plugin": "liar", **keystore}}}


@contextmanager
def lying(state: Path, lies: dict[str, Any], **keystore: Any) -> Iterator[Keystore]:
    with Host.open(settings(state, lies, **keystore)) as host:
        yield host.keystore("main")


def withdrawn(keystore: Keystore) -> dict[str, RowReport]:
    return {each.row.operation: each for each in keystore.rows() if each.status is RowStatus.WITHDRAWN}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A state file with a key of each kind, and their ids."""
    file = tmp_path_factory.mktemp("liar") / "state"
    with lying(file, {}) as keystore:
        yield file, {kind: keystore.create_key(kind, usage=usage).key_id for kind, usage in KEPT.items()}


def test_honest_rows_hold_and_are_told_as_probed_with_the_key(state: tuple[Path, dict[str, str]]) -> None:
    file, keys = state
    with lying(file, {}, probe_keys=list(keys.values())) as keystore:
        found = keystore.rows()
        described = keystore.get_key(keys["EC_P256"])

    assert not [each for each in found if each.status is RowStatus.WITHDRAWN]
    probed = {each.row.operation for each in found if each.status is RowStatus.PROBED}
    assert probed >= {
        "crypto.encrypt", "crypto.decrypt", "crypto.generate_data_key", "crypto.reencrypt", "crypto.wrap_key",
        "crypto.unwrap_key", "crypto.sign", "crypto.verify", "crypto.mac", "crypto.verify_mac",
        "crypto.derive", "crypto.encapsulate", "crypto.decapsulate", "crypto.random", "key.get",
        "key.get_public_key", "key.list_versions",
    }  # fmt: skip
    signed = next(
        each for each in found if each.row.operation == "crypto.sign" and each.row.key_algorithm == "EC_P256"
    )
    assert signed.reason == f"by the host, with {described.key_id}"


@pytest.mark.parametrize(
    ("operation", "how", "kind", "lost"),
    [
        ("crypto.encrypt", "damaged", "AES_256_GCM", {"crypto.encrypt", "crypto.decrypt"}),
        ("crypto.encrypt", "constant", "AES_256_GCM", {"crypto.encrypt"}),
        ("crypto.encrypt", "refused", "AES_256_GCM", {"crypto.encrypt"}),
        ("crypto.decrypt", "damaged", "AES_256_GCM", {"crypto.encrypt", "crypto.decrypt"}),
        ("crypto.generate_data_key", "damaged", "AES_256_GCM", {"crypto.generate_data_key"}),
        ("crypto.reencrypt", "damaged", "AES_256_GCM", {"crypto.reencrypt"}),
        ("crypto.unwrap_key", "damaged", "AES_256_KW", {"crypto.wrap_key", "crypto.unwrap_key"}),
        ("crypto.sign", "damaged", "EC_P256", {"crypto.sign"}),
        ("crypto.verify", "valid", "RSA_2048", {"crypto.verify"}),
        ("crypto.mac", "constant", "HMAC_SHA_256", {"crypto.mac"}),
        ("crypto.verify_mac", "valid", "HMAC_SHA_256", {"crypto.mac", "crypto.verify_mac"}),
        ("crypto.derive", "damaged", "X25519", {"crypto.derive"}),
        ("crypto.decapsulate", "damaged", "ML_KEM_768", {"crypto.encapsulate", "crypto.decapsulate"}),
        ("crypto.encapsulate", "constant", "ML_KEM_768", {"crypto.encapsulate"}),
        ("key.get_public_key", "constant", "EC_P256", {"key.get_public_key"}),
        ("crypto.random", "constant", None, {"crypto.random"}),
    ],
)
def test_a_row_that_fails_its_probe_is_withdrawn_with_one_warning(
    operation: str, how: str, kind: str | None, lost: set[str], state: tuple[Path, dict[str, str]]
) -> None:
    file, keys = state
    named = [] if kind is None else [keys[kind]]
    with logged() as log, lying(file, {"spoilt": {operation: how}}) as keystore:
        before = withdrawn(keystore)
        keystore.probe(named)
        keystore.probe(named)
        found = withdrawn(keystore)
        offers = {wire: keystore.can_do(wire, *named) for wire in lost}

    assert not before
    # Several rows of one operation may cover the key, and fail alike.
    assert {wire for wire in found if wire != "key.get_public_key" or wire in lost} == lost
    assert all(each.reason and "tried" in each.reason for each in found.values())
    warnings = [message for message in log.messages if "withdrawn" in message]
    assert len(warnings) == len(set(warnings))
    assert any(operation in message for message in warnings)
    assert all(offer.how != "native" for offer in offers.values())


def test_what_was_withdrawn_is_done_by_a_shim_or_refused_and_the_driver_is_not_asked(
    state: tuple[Path, dict[str, str]],
) -> None:
    file, keys = state
    lies = {"spoilt": {"crypto.verify": "valid", "crypto.mac": "constant", "crypto.random": "constant"}}
    named = [keys["EC_P256"], keys["HMAC_SHA_256"]]
    with lying(file, lies, probe_keys=named) as keystore:
        signed = keystore.sign(keys["EC_P256"], b"message")
        wrong = keystore.verify(keys["EC_P256"], b"another", signed.signature)
        random = keystore.random(32)
        with pytest.raises(UnsupportedOperation, match="withdrawn") as refused:
            keystore.mac(keys["HMAC_SHA_256"], b"message")

    assert (wrong.valid, wrong.executed_by) == (False, "shim:verify@1")
    assert (random.executed_by, any(random.data)) == ("shim:random@1", True)
    assert "never shimmed" in str(refused.value.hint)


def test_what_is_required_and_was_withdrawn_is_told_at_open(state: tuple[Path, dict[str, str]]) -> None:
    file, keys = state
    spoilt = {"spoilt": {"crypto.mac": "constant", "crypto.random": "constant"}}

    of_the_key = ["crypto.mac:HMAC_SHA_256"]
    with pytest.raises(ConfigurationError, match=r"crypto\.mac:HMAC_SHA_256 is not offered.*withdrawn"):
        Host.open(settings(file, spoilt, require=of_the_key, probe_keys=[keys["HMAC_SHA_256"]]))
    with lying(file, spoilt, require=of_the_key):
        pass  # nobody asked for more than the declaration
    # What needs no key is tried where it is required; here a shim stands in, there none may.
    with lying(file, spoilt, require=["crypto.random"]) as keystore:
        assert keystore.can_do("crypto.random").how == "shim:random@1"
    with pytest.raises(ConfigurationError, match=r"crypto\.random is not offered"):
        Host.open(settings(file, spoilt, require=["crypto.random"], shims="forbid"))


def test_nothing_is_tried_unless_somebody_asks(state: tuple[Path, dict[str, str]]) -> None:
    file, _ = state
    with lying(file, {"spoilt": {"crypto.random": "constant"}}) as keystore:
        assert not withdrawn(keystore)
        assert {each.status for each in keystore.rows()} == {RowStatus.DECLARED}


def test_a_reload_to_a_driver_that_lies_changes_nothing(state: tuple[Path, dict[str, str]]) -> None:
    file, keys = state
    named = {"require": ["crypto.sign:EC_P256"], "probe_keys": [keys["EC_P256"]]}
    with Host.open(settings(file, {}, **named)) as host:
        before = host.plugins()[0].replicas[0].pid

        with pytest.raises(ConfigurationError, match="withdrawn"):
            host.reload(settings(file, {"spoilt": {"crypto.sign": "damaged"}}, **named))

        assert host.plugins()[0].replicas[0].pid == before
        assert host.keystore("main").sign(keys["EC_P256"], b"message").signature
        assert not withdrawn(host.keystore("main"))


def test_a_probe_key_that_is_not_there_is_told_at_open(state: tuple[Path, dict[str, str]]) -> None:
    file, _ = state

    with pytest.raises(ConfigurationError, match=r"keystores\.main\.probe_keys: there is no key 'nowhere'"):
        Host.open(settings(file, {}, probe_keys=["nowhere"]))
    with lying(file, {}) as keystore, pytest.raises(KeyNotFound):
        keystore.probe(["nowhere"])


def test_a_key_that_may_not_be_used_says_nothing_about_a_row(state: tuple[Path, dict[str, str]]) -> None:
    file, _ = state
    with lying(file, {}) as keystore:
        key = keystore.create_key("ED25519")
        keystore.disable_key(key.key_id)

        found = keystore.probe([key.key_id])

    signs = next(
        each for each in found if each.row.operation == "crypto.sign" and each.row.key_algorithm == "ED25519"
    )
    assert (signs.status, signs.reason) == (RowStatus.DECLARED, "not tried: KEY_DISABLED")


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "is no way of doing": {
        "operation": "crypto.encrypt", "key_algorithm": "EC_P256", "mechanism": "ECDSA_SHA_256",
    },
    "is not for ED25519 keys": {
        "operation": "crypto.sign", "key_algorithm": "ED25519", "mechanism": "ECDSA_SHA_256",
    },
    "cannot be for SIGN_VERIFY": {"operation": "crypto.sign", "key_algorithm": "AES_128_GCM"},
    "takes 190 bytes at most": {
        "operation": "crypto.wrap_key", "key_algorithm": "RSA_2048", "mechanism": "RSA_OAEP_SHA_256",
        "max_input_bytes": 4096,
    },
    "has to be called RSA-OAEP": {
        "operation": "crypto.encrypt", "key_algorithm": "RSA_3072", "mechanism": "RSA_OAEP_SHA_1",
        "wrap_algorithm": "com.example/secret",
    },
    "such keys sign whole messages": {
        "operation": "crypto.sign", "key_algorithm": "ED25519", "mechanism": "ED25519", "signs": "digest",
    },
    "no deletion window": {"operation": "key.schedule_deletion", "deletion_window_days": [30, 7]},
}  # fmt: skip


def test_rows_that_cannot_be_true_are_withdrawn_before_anything_is_asked(tmp_path: Path) -> None:
    lies = {"rows": list(IMPOSSIBLE.values())}
    with logged() as log, Host.open(settings(tmp_path / "state", lies)) as host:
        found = [each for each in host.keystore("main").rows() if each.status is RowStatus.WITHDRAWN]
        host.reload()

    for text, row in IMPOSSIBLE.items():
        (each,) = [each for each in found if each.reason and text in each.reason]
        assert each.row.operation == row["operation"]
    assert len(found) == len(IMPOSSIBLE)
    for text in IMPOSSIBLE:
        assert sum(text in message for message in log.messages) == 2  # once for each configuration


def test_what_a_driver_says_to_have_tried_is_told_as_its_own_word(tmp_path: Path) -> None:
    tried = {"operation": "crypto.encrypt", "key_algorithm": "RSA_2048", "probed": "known_answer"}
    with lying(tmp_path / "state", {"rows": [tried]}) as keystore:
        (found,) = [each for each in keystore.rows() if each.row.probed is not None]

    assert (found.status, found.reason) == (RowStatus.PROBED, "by the driver, known_answer")


def test_doctor_and_the_status_name_what_was_withdrawn(tmp_path: Path) -> None:
    config = tmp_path / "plugins.toml"
    lies = json.dumps({"spoilt": {"crypto.random": "constant"}, "rows": [IMPOSSIBLE["no deletion window"]]})
    config.write_text(
        f"""[plugins.liar]
command = ["{sys.executable}", "-I", "{DRIVERS / "liar.py"}"]
isolation = "process"
set_env = {{ LIES = '{lies}' }}
"""
    )

    found = [each for each in examine(config) if each.check == "promises"]
    with Host.open(config) as host:
        host.keystore("liar").probe()
        (keystore,) = document(host, {})["keystores"]
        metrics = render(host.plugins(), host.stats(), {})

    assert {each.verdict for each in found} == {Verdict.WRONG}
    assert [each.text.partition(":")[0] for each in found] == ["crypto.random", "key.schedule_deletion"]
    assert keystore["promises"]["withdrawn"] == 2
    assert [each["promise"] for each in keystore["withdrawn"]] == ["crypto.random", "key.schedule_deletion"]
    assert 'kmsplug_keystore_promises{keystore="liar",status="withdrawn"} 2' in metrics


def test_a_method_that_is_promised_and_does_not_exist_is_withdrawn_by_the_first_call(tmp_path: Path) -> None:
    lies = {"hidden": ["random", "mac", "generate_data_key"]}
    with logged() as log, lying(tmp_path / "state", lies) as keystore:
        key = keystore.create_key("AES_256_GCM").key_id
        secret = keystore.create_key("HMAC_SHA_256").key_id

        first, again = keystore.random(32), keystore.random(32)
        made = keystore.generate_data_key(key)
        for _ in range(2):
            with pytest.raises(UnsupportedOperation) as refused:
                keystore.mac(secret, b"message")

        assert first.executed_by == again.executed_by == "shim:random@1"
        assert made.executed_by == "shim:datakey@1"
        assert "withdrawn" in refused.value.message
        assert withdrawn(keystore).keys() == {"crypto.random", "crypto.mac", "crypto.generate_data_key"}
    assert sum("crypto.random" in message for message in log.messages) == 1


def test_a_forbidden_shim_does_not_stand_in_for_a_promise_that_was_withdrawn(tmp_path: Path) -> None:
    with lying(tmp_path / "state", {"hidden": ["random"]}, shims="forbid") as keystore:
        with pytest.raises(PolicyDenied, match="'random'"):
            keystore.random(32)
        assert not keystore.can_do("crypto.random")


def test_the_rows_of_a_kind_that_lost_its_binding_say_so(tmp_path: Path) -> None:
    command = [sys.executable, "-I", str(DRIVERS / "forgetful_driver.py")]
    plugins = {"forgetful": {"command": command, "isolation": "process"}}
    with Host.open({"plugins": plugins}) as host:
        keystore = host.keystore("forgetful")
        key = keystore.create_key("AES_256_GCM").key_id

        found = keystore.probe([key])

        lost = {each.row.operation for each in found if each.status is RowStatus.WITHDRAWN}
        assert lost == {"crypto.encrypt", "crypto.decrypt", "crypto.generate_data_key", "crypto.reencrypt"}
        assert {
            row.associated_data
            for row in keystore.capabilities
            if row.key_algorithm is KeyAlgorithm.AES_256_GCM
        } == {"none"}
        assert keystore.encrypt(key, b"data").executed_by == "shim:envelope@1"
