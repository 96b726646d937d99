import hashlib
import hmac
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from kmsplug_plugins.local._hierarchy import check_record, new_scrypt_record
from kmsplug_protocol import cobblestone, dcbor, decode_base64
from unit.plugins.local_support import keystore, read, refused_configuration, sql

PASSPHRASE = "correct horse, battery st\u00e4ple"


def test_the_key_file_of_another_keystore_is_refused(folder: Path, tmp_path: Path) -> None:
    for each in (folder, tmp_path / "other"):
        with keystore(each):
            pass
    shutil.copy2(tmp_path / "other" / "master.key", folder / "master.key")

    assert refused_configuration({"path": str(folder)})["data"]["code"] == "AUTHENTICATION_FAILED"


def test_a_wrong_passphrase_and_a_damaged_box_give_one_sentence(folder: Path) -> None:
    with keystore(folder, passphrase=PASSPHRASE) as session:
        key_id = session.create()
    with keystore(folder, passphrase=PASSPHRASE) as session:
        session.call("key.get", key_id=key_id)
    assert not (folder / "master.key").exists()

    wrong = refused_configuration({"path": str(folder), "passphrase": PASSPHRASE + " "})
    sql(folder, "UPDATE meta SET value = zeroblob(length(value)) WHERE name = 'store_key'")
    damaged = refused_configuration({"path": str(folder), "passphrase": PASSPHRASE})

    assert wrong["data"]["code"] == "AUTHENTICATION_FAILED"
    assert wrong == damaged
    assert "horse" not in str(wrong)


def test_a_changed_store_id_is_a_master_key_that_does_not_open(folder: Path) -> None:
    with keystore(folder):
        pass

    sql(folder, "UPDATE meta SET value = zeroblob(16) WHERE name = 'store_id'")

    assert refused_configuration({"path": str(folder)})["data"]["code"] == "AUTHENTICATION_FAILED"


def test_passphrase_and_key_file_do_not_stand_for_each_other(folder: Path, tmp_path: Path) -> None:
    with keystore(folder):
        pass

    error = refused_configuration({"path": str(folder), "passphrase": PASSPHRASE})

    assert error["data"] == {"code": "CONFIGURATION_ERROR", "path": "passphrase"}


@pytest.mark.parametrize(
    "change",
    [
        {"n": 2**14}, {"n": 2**21}, {"n": 2**17 + 1}, {"r": 1}, {"r": 16}, {"p": 0}, {"p": 5}, {"salt": b""},
        {"salt": "x" * 32}, {"kdf": "argon2"}, {"more": 1}, {"n": "131072"},
    ],
)  # fmt: skip
def test_scrypt_parameters_out_of_bounds_are_refused_before_any_work(change: dict[str, Any]) -> None:
    record = new_scrypt_record()
    check_record(dcbor.decode(dcbor.encode(record)))

    with pytest.raises(ValueError, match="not a key derivation record"):
        check_record({**record, **change})


def expand(key: bytes, info: bytes, length: int) -> bytes:
    return HKDFExpand(hashes.SHA512(), length, info).derive(key)


def test_a_reader_that_follows_the_specification_opens_every_row(folder: Path) -> None:
    with keystore(folder) as session:
        key_id = session.create()
        mac_id = session.create("HMAC_SHA_256")
        session.call("key.rotate", key_id=key_id)
        mac = session.call("crypto.mac", key_id=mac_id, message="")["mac"]
    meta = dict(read(folder, "SELECT name, value FROM meta"))
    master = decode_base64((folder / "master.key").read_text().split(":")[1].strip())

    def opens(key: bytes, label: Any, box: bytes) -> bytes:
        return cobblestone.open_sealed(key, hashlib.sha512(dcbor.encode(label)).digest(), box)

    store_id = meta["store_id"]
    kek = expand(master, b"kmsplug/local@v1/kek" + b"\x00" + store_id, 32)
    label = ["kmsplug-local/v1/store-key", store_id, dcbor.decode(meta["kdf"])]
    store_key = opens(kek, label, meta["store_key"])
    rows = expand(store_key, b"kmsplug/local@v1/rows", 32)

    states, material, places = [], {}, []
    for each_id, number, state, revision, box in read(
        folder, "SELECT key_id, number, state, revision, box FROM versions"
    ):
        row_label = ["kmsplug-local/v1/row", store_id, "versions", [each_id, number], revision]
        columns = dcbor.decode(opens(rows, row_label, box))
        assert columns["state"] == state
        material[each_id, number] = columns["material"]
        states.append((each_id, number, state))
        places.append(["versions", [each_id, number], revision])
    for each_id, revision, box in read(folder, "SELECT key_id, revision, box FROM keys"):
        columns = dcbor.decode(
            opens(rows, ["kmsplug-local/v1/row", store_id, "keys", each_id, revision], box)
        )
        assert columns["key_id"] == each_id
        places.append(["keys", each_id, revision])

    message = ["kmsplug-local/v1/manifest", store_id, meta["epoch"], sorted(places)]
    manifest_key = expand(store_key, b"kmsplug/local@v1/manifest", 64)
    assert hmac.digest(manifest_key, dcbor.encode(message), "sha512") == meta["manifest"]
    assert sorted(states) == sorted(
        [(key_id, 1, "DEACTIVATED"), (key_id, 2, "ACTIVE"), (mac_id, 1, "ACTIVE")]
    )
    assert hmac.digest(material[mac_id, 1], b"", "sha256") == decode_base64(mac)


def test_a_passphrase_goes_through_scrypt_as_specified(folder: Path) -> None:
    with keystore(folder, passphrase=PASSPHRASE):
        pass
    meta = dict(read(folder, "SELECT name, value FROM meta"))
    record = dcbor.decode(meta["kdf"])

    assert (record["n"], record["r"], record["p"], len(record["salt"])) == (2**17, 8, 1, 32)
    master = Scrypt(salt=record["salt"], length=32, n=2**17, r=8, p=1).derive(PASSPHRASE.encode())
    kek = expand(master, b"kmsplug/local@v1/kek\x00" + meta["store_id"], 32)
    label = dcbor.encode(["kmsplug-local/v1/store-key", meta["store_id"], record])
    assert len(cobblestone.open_sealed(kek, hashlib.sha512(label).digest(), meta["store_key"])) == 32
