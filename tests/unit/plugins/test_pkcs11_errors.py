"""Every return value of PKCS#11, raised by a module through the real python-pkcs11, comes out as its code."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from kmsplug_plugins.pkcs11._ckr import Ckr
from kmsplug_plugins.pkcs11._errors import TABLE, name_of, translated
from kmsplug_plugins.pkcs11.driver import Pkcs11Driver
from kmsplug_protocol import INVALID_CIPHERTEXT_MESSAGE, ErrorCode, Vendor
from kmsplug_sdk import DriverError
from kmsplug_sdk.mapping import Row, VendorAnswer
from kmsplug_sdk.testing import DriverClient, run_driver
from support.tokens import Faults, softhsm

PLAIN = [row for row in TABLE.rows if not row.operations]
FOR_OPENING = [row for row in TABLE.rows if row.operations]


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    folder = tmp_path_factory.mktemp("faults")
    return Faults(softhsm(folder), folder)


@pytest.fixture(scope="module")
def client(faults: Faults) -> Iterator[DriverClient]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in faults.tokens.env.items():
            patch.setenv(name, value)
        with run_driver(Pkcs11Driver, faults.tokens.config) as running:
            yield running


@pytest.fixture(scope="module")
def key(client: DriverClient) -> dict[str, Any]:
    created = client.call("key.create", {"algorithm": "AES_256_GCM"})["result"]
    sealed = client.call("crypto.encrypt", {"key_id": created["key_id"], "plaintext": "aGVsbG8="})["result"]
    return {"key_id": created["key_id"], "ciphertext": sealed["ciphertext"]}


def raised(faults: Faults, client: DriverClient, key: dict[str, Any], row: Row) -> Any:
    """Let the module answer with the row's value, and return the error that the host sees."""
    opens = bool(row.operations)
    faults.tell(f"{'C_Decrypt' if opens else 'C_Encrypt'} {row.fixture['ckr']:#x} always")
    try:
        if opens:
            return client.call("crypto.decrypt", key)["error"]
        return client.call("crypto.encrypt", {"key_id": key["key_id"], "plaintext": "aGVsbG8="})["error"]
    finally:
        faults.tell()


@pytest.mark.parametrize(
    "row", [row for row in TABLE.rows if row.code is not None], ids=lambda row: f"{row.vendor}-{row.code}"
)
def test_each_row_comes_out_of_the_module_as_its_code(
    faults: Faults, client: DriverClient, key: dict[str, Any], row: Row
) -> None:
    error = raised(faults, client, key, row)

    assert error["data"]["code"] == row.code
    assert error["data"].get("outcome") == row.outcome
    if row.code is ErrorCode.INVALID_CIPHERTEXT:
        assert error["message"] == INVALID_CIPHERTEXT_MESSAGE
        assert error["data"]["vendor"] == {"service": "pkcs11", "withheld": True}
    else:
        assert error["data"]["vendor"]["code"] == row.vendor
        assert error["data"].get("hint") == row.hint


def test_after_each_of_them_the_key_works_as_before(client: DriverClient, key: dict[str, Any]) -> None:
    assert client.call("crypto.decrypt", key)["result"]["plaintext"] == "aGVsbG8="


@pytest.mark.parametrize("member", Ckr, ids=lambda member: member.name)
def test_every_value_of_the_standard_has_one_row_for_all_operations(member: Ckr) -> None:
    rows = [row for row in PLAIN if row.vendor == member.name]

    assert len(rows) == 1
    assert rows[0].fixture == {"ckr": member.value}


def test_every_value_that_the_library_knows_is_one_of_them() -> None:
    header = Path(pkcs11.__file__).with_name("_pkcs11.pxd").read_text(encoding="utf-8")
    known = set(re.findall(r"\bCKR_\w+", header)) - {"CKR_OK"}

    assert known
    assert known <= set(Ckr.__members__)


def test_a_row_for_some_operations_stands_before_the_one_for_all() -> None:
    order = [(row.vendor, bool(row.operations)) for row in TABLE.rows]

    for row in FOR_OPENING:
        assert order.index((row.vendor, True)) < order.index((row.vendor, False))
    assert max(Counter((row.vendor, row.operations) for row in TABLE.rows).values()) == 1


def test_a_value_of_the_vendors_own_keeps_its_number(
    faults: Faults, client: DriverClient, key: dict[str, Any]
) -> None:
    faults.tell("C_Encrypt 0x80000123 always")
    try:
        error = client.call("crypto.encrypt", {"key_id": key["key_id"], "plaintext": "aGVsbG8="})["error"]
    finally:
        faults.tell()

    assert error["data"]["code"] == "PROVIDER_INTERNAL"
    assert error["data"]["outcome"] == "unknown"
    assert error["data"]["vendor"]["code"] == "0x80000123"


@pytest.mark.parametrize("value", [0x100, 0xC0], ids=["USER_ALREADY_LOGGED_IN", "SIGNATURE_INVALID"])
def test_an_answer_to_something_else_is_a_failure_of_the_token(
    faults: Faults, client: DriverClient, key: dict[str, Any], value: int
) -> None:
    faults.tell(f"C_Encrypt {value:#x} always")
    try:
        error = client.call("crypto.encrypt", {"key_id": key["key_id"], "plaintext": "aGVsbG8="})["error"]
    finally:
        faults.tell()

    assert error["data"]["code"] == "PROVIDER_INTERNAL"
    assert error["data"]["vendor"]["code"] == Ckr(value).name


def test_a_value_of_neither_is_unclassified_and_counted() -> None:
    before = TABLE.unclassified["0x7ff"]

    found = translated("0x7ff", "crypto.encrypt")

    assert isinstance(found, DriverError)
    assert found.code is ErrorCode.UNCLASSIFIED
    assert TABLE.unclassified["0x7ff"] == before + 1


def test_a_failure_of_a_token_that_is_not_well_is_no_wrong_ciphertext() -> None:
    found = translated("CKR_GENERAL_ERROR", "crypto.decrypt", healthy=False)

    assert isinstance(found, DriverError)
    assert found.code is ErrorCode.PROVIDER_UNAVAILABLE


def test_a_mismatch_is_an_answer() -> None:
    found = translated("CKR_SIGNATURE_INVALID", "crypto.verify")

    assert isinstance(found, VendorAnswer)
    assert found.answer == "mismatch"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (pkcs11.TokenNotRecognised(), "CKR_TOKEN_NOT_RECOGNIZED"),
        (pkcs11.RandomNoRNG(), "CKR_RANDOM_NO_RNG"),
        (pkcs11.PKCS11Error("Unmapped error code 0x68"), "CKR_KEY_FUNCTION_NOT_PERMITTED"),
        (pkcs11.PKCS11Error("Buffer was too small. Should never see this."), "CKR_BUFFER_TOO_SMALL"),
        (pkcs11.PKCS11Error("something new"), "CKR_GENERAL_ERROR"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_exception_is_named_as_the_standard_names_its_value(error: Exception, name: str) -> None:
    assert isinstance(error, pkcs11.PKCS11Error)
    assert name_of(error) == name


def test_the_vendors_words_are_withheld_where_a_ciphertext_is_refused() -> None:
    found = translated("CKR_ENCRYPTED_DATA_INVALID", "crypto.decrypt")

    assert isinstance(found, DriverError)
    assert found.data.vendor == Vendor(service="pkcs11", withheld=True)
