"""A table of a vendor's errors: the first row that fits counts, and what fits none is told apart."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kmsplug_protocol import ERROR_FACTS, INVALID_CIPHERTEXT_MESSAGE, ErrorCode, Outcome, Vendor
from kmsplug_sdk import DriverError
from kmsplug_sdk.mapping import ErrorTable, Row, VendorAnswer
from pydantic import ValidationError

ROW = {"vendor": "E1", "code": "CONFLICT", "source": "sdk model", "fixture": {}}

TABLE = """\
service = "vault"

[[rows]]
vendor = "E1"
message = "too old"
operations = ["crypto.decrypt"]
code = "KEY_DISABLED"
source = "server vault 1.18"
fixture = {}

[[rows]]
vendor = "E1"
message = "too old"
code = "INVALID_ARGUMENT"
source = "server vault 1.18"
fixture = {}

[[rows]]
vendor = "E1"
code = "PROVIDER_INTERNAL"
outcome = "not_applied"
says = "it failed"
hint = "look at it"
source = "document API"
fixture = {}

[[rows]]
vendor = "E2"
code = "AUTHENTICATION_FAILED"
service = "login"
source = "document API"
fixture = {}

[[rows]]
vendor = "E3"
code = "INVALID_CIPHERTEXT"
hint = "never told"
source = "document API"
fixture = {}

[[rows]]
vendor = "E4"
answer = "mismatch"
source = "document API"
fixture = {}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ErrorTable]:
    """Make a driver's package with a table, and load that."""

    def make(text: str) -> ErrorTable:
        package = tmp_path / "driver_of_this_test"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "errors.toml").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, package.name, raising=False)
        return ErrorTable(package.name)

    return make


@pytest.fixture
def table(write: Callable[[str], ErrorTable]) -> ErrorTable:
    return write(TABLE)


def translated(table: ErrorTable, vendor: Vendor, operation: str = "key.get") -> DriverError:
    found = table.translate(vendor, operation)
    assert isinstance(found, DriverError)
    return found


@pytest.mark.parametrize(("message", "operation", "code"), [
    ("version is TOO OLD", "crypto.decrypt", ErrorCode.KEY_DISABLED),
    ("version is too old", "crypto.encrypt", ErrorCode.INVALID_ARGUMENT),
    ("something else", "crypto.decrypt", ErrorCode.PROVIDER_INTERNAL),
    (None, "crypto.decrypt", ErrorCode.PROVIDER_INTERNAL),
])  # fmt: skip
def test_the_first_row_that_fits_message_and_operation_counts(
    table: ErrorTable, message: str | None, operation: str, code: ErrorCode
) -> None:
    assert translated(table, Vendor(code="E1", message=message), operation).code is code


def test_the_vendors_words_are_kept_and_ours_are_added(table: ErrorTable) -> None:
    vendor = Vendor(code="E1", message="m", http_status=500, request_id="r")
    found = table.translate(vendor, "key.create", retry_after_ms=7)

    assert isinstance(found, DriverError)
    assert found.message == "it failed"
    assert found.data.vendor == vendor.model_copy(update={"service": "vault"})
    assert (found.data.outcome, found.data.hint, found.data.retry_after_ms) == (
        Outcome.NOT_APPLIED, "look at it", 7,
    )  # fmt: skip


def test_a_refused_login_keeps_its_code_and_not_its_text(table: ErrorTable) -> None:
    found = translated(table, Vendor(code="E2", message="token s.123 is wrong", request_id="r"))

    assert found.message == ERROR_FACTS[ErrorCode.AUTHENTICATION_FAILED].meaning
    assert found.data.vendor == Vendor(service="login", code="E2", request_id="r", withheld=True)


@pytest.mark.parametrize("withhold", [False, True])
def test_a_refused_ciphertext_has_one_sentence_and_may_be_withheld(
    table: ErrorTable, *, withhold: bool
) -> None:
    vendor = Vendor(code="E3", message="m", http_status=400, request_id="r")
    found = table.translate(vendor, "crypto.decrypt", withhold=withhold)

    assert isinstance(found, DriverError)
    assert (found.message, found.data.hint) == (INVALID_CIPHERTEXT_MESSAGE, None)
    assert found.data.vendor == (
        Vendor(service="vault", request_id="r", withheld=True)
        if withhold
        else vendor.model_copy(update={"service": "vault"})
    )


def test_what_is_an_answer_is_no_error(table: ErrorTable) -> None:
    found = table.translate(Vendor(code="E4"), "crypto.verify")

    assert isinstance(found, VendorAnswer)
    assert found.answer == "mismatch"


def test_a_name_that_the_code_is_derived_from_has_a_row(table: ErrorTable) -> None:
    found = table.translate(Vendor(code="E2.1"), "key.get", also=("E2.1", "E2"))

    assert isinstance(found, DriverError)
    assert found.code is ErrorCode.AUTHENTICATION_FAILED
    assert found.data.vendor is not None
    assert found.data.vendor.code == "E2.1"


@pytest.mark.parametrize("code", ["E9", None])
def test_what_has_no_row_is_unclassified_counted_and_logged_once(
    table: ErrorTable, caplog: pytest.LogCaptureFixture, code: str | None
) -> None:
    with caplog.at_level(logging.WARNING):
        found = [translated(table, Vendor(code=code, message="m")) for _ in range(3)]

    assert [one.code for one in found] == [ErrorCode.UNCLASSIFIED] * 3
    assert found[0].data.vendor == Vendor(service="vault", code=code, message="m")
    assert table.unclassified == {code or "none": 3}
    assert len(caplog.records) == 1


def test_a_vendor_that_invents_codes_for_ever_fills_no_memory(table: ErrorTable) -> None:
    for number in range(1000):
        translated(table, Vendor(code=f"X{number}"))

    assert len(table.unclassified) == 257
    assert table.unclassified["other"] == 1000 - 256


@pytest.mark.parametrize("source", ["sdk model", "server vault 1.18", "document API reference"])
def test_a_row_says_how_it_is_known(source: str) -> None:
    assert Row.model_validate({**ROW, "source": source}).source == source


@pytest.mark.parametrize("change", [
    {"source": "recorded from the vendor"}, {"source": "document "}, {"source": "server"}, {"source": ""},
    {"code": None}, {"answer": "done"}, {"code": "NO_SUCH"}, {"code": None, "answer": "perhaps"}, {"odd": 1},
    {"vendor": None},
], ids=str)  # fmt: skip
def test_a_row_that_means_nothing_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Row.model_validate({**ROW, **change})


def test_a_row_without_a_fixture_is_refused(write: Callable[[str], ErrorTable]) -> None:
    with pytest.raises(ValidationError, match="fixture"):
        write(TABLE.replace("fixture = {}", "", 1))
