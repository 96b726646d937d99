"""Every error of AWS KMS and STS, sent as HTTP through the real SDK, comes out as its code."""

import contextlib
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import botocore.parsers
import botocore.session
import pytest
from botocore.config import Config
from kmsplug_plugins.aws_kms._errors import TABLE, aws_errors
from kmsplug_protocol import INVALID_CIPHERTEXT_MESSAGE, ErrorCode, Outcome, Vendor
from kmsplug_sdk import DriverError
from kmsplug_sdk.mapping import Row, VendorAnswer
from support.loopback import Loopback, deaf_port, free_port, loopback

REGION = "eu-west-1"
KEY = "test-access-key-id"
SECRET = "test-secret-access-key"
SERVICES = ("kms", "sts")
SENT = [row for row in TABLE.rows if "status" in row.fixture]
FAULTS = {row.fixture["fault"]: row for row in TABLE.rows if "fault" in row.fixture}


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    with loopback() as running:
        yield running


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine that runs the test may count."""
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def client(url: str, service: str = "kms", **settings: Any) -> Any:
    """Return a client as the driver makes it: it tries once."""
    config = Config(retries={"total_max_attempts": 1}, **settings)
    session = boto3.Session(KEY, SECRET, region_name=REGION)
    return session.client(service, endpoint_url=url, config=config)


@pytest.fixture(scope="module")
def clients(server: Loopback) -> dict[str, Any]:
    return {service: client(server.url, service) for service in SERVICES}


def use(kms: Any) -> None:
    kms.encrypt(KeyId="k", Plaintext=b"secret")


def seen(call: Callable[[], object], operation: str = "") -> DriverError | VendorAnswer:
    """Return what the driver would raise."""
    with pytest.raises((DriverError, VendorAnswer)) as caught, aws_errors(operation):
        call()
    assert caught.value.__cause__ is not None  # the root is kept
    found = caught.value
    assert isinstance(found, (DriverError, VendorAnswer))
    return found


def error(call: Callable[[], object], operation: str = "") -> DriverError:
    found = seen(call, operation)
    assert isinstance(found, DriverError)
    return found


def through_the_sdk(server: Loopback, clients: dict[str, Any], row: Row) -> DriverError | VendorAnswer:
    server.answer(row.fixture, **{"x-amzn-RequestId": "r-1"})
    service = row.service or "kms"
    operation = next(iter(row.operations), "crypto.encrypt")
    call = clients["kms"].list_keys if service == "kms" else clients["sts"].get_caller_identity
    before = len(server.requests)
    found = seen(call, operation)
    assert len(server.requests) == before + 1  # the SDK did not try again: that is the host's business
    return found


@pytest.mark.parametrize("row", SENT, ids=lambda row: f"{row.vendor}-{row.message or row.code}")
def test_each_row_comes_out_of_the_sdk_as_its_code(
    server: Loopback, clients: dict[str, Any], row: Row
) -> None:
    found = through_the_sdk(server, clients, row)

    if isinstance(found, VendorAnswer):
        assert found.answer == row.answer
        return
    assert found.code is row.code
    assert (found.data.outcome, found.data.hint) == (row.outcome, row.hint)
    vendor = found.data.vendor
    assert vendor is not None
    assert (vendor.service, vendor.code, vendor.http_status) == (
        row.service or "kms", row.vendor, row.fixture["status"],
    )  # fmt: skip
    assert vendor.request_id in ("r-1", "in-body")
    assert vendor.withheld is (row.code is ErrorCode.AUTHENTICATION_FAILED)
    if not vendor.withheld and row.fixture["body"].startswith(("{", "<E")):
        assert vendor.message


def codes(service: str) -> set[str]:
    model = botocore.session.get_session().get_service_model(service)
    return {shape.error_code for shape in model.error_shapes}


@pytest.mark.parametrize("service", SERVICES)
def test_every_error_of_the_sdks_own_model_has_a_row(service: str) -> None:
    modelled = {
        shape.error_code for shape in botocore.session.get_session().get_service_model(service).error_shapes
    }
    rows = {row.vendor for row in TABLE.rows}

    assert modelled - rows == set()
    sources = dict(Counter(row.source.split()[0] for row in TABLE.rows))
    print(f"{service}: {len(modelled)} codes in the model of botocore {botocore.__version__}, all with a row")
    print(f"in all {len(TABLE.rows)} rows, by source: {sources}")


def test_a_row_says_that_it_is_of_the_sdk_model_only_where_it_is() -> None:
    modelled = {code for service in SERVICES for code in codes(service)}
    own = {*vars(botocore.exceptions), *vars(botocore.parsers)}

    assert {row.vendor for row in TABLE.rows if row.source == "sdk model"} <= modelled | own
    assert not any(re.search("recorded|captured", row.source) for row in TABLE.rows)


def test_no_row_is_hidden_by_one_before_it() -> None:
    met = [(row.vendor, row.message, row.operations) for row in TABLE.rows]
    assert len(met) == len(set(met))
    for position, row in enumerate(TABLE.rows):
        text = str(row.fixture.get("body", "")).lower()
        fits = [other for other in TABLE.rows if other.vendor == row.vendor
                and other.fits(text, next(iter(row.operations), ""))]  # fmt: skip
        assert fits[0] is row, position


def test_a_waiting_time_is_handed_on_and_none_is_invented(server: Loopback, clients: dict[str, Any]) -> None:
    throttled, other = (row for row in SENT if row.vendor in ("ThrottlingException", "Throttling"))

    found = through_the_sdk(server, clients, throttled), through_the_sdk(server, clients, other)

    assert [one.data.retry_after_ms for one in found if isinstance(one, DriverError)] == [1500, None]


def test_an_unknown_code_is_unclassified_counted_and_logged_once(
    server: Loopback, clients: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    server.answer({"status": 400, "body": '{"__type":"BrandNewException","message":"m"}'})
    TABLE.unclassified.clear()

    with caplog.at_level(logging.WARNING):
        found = [error(clients["kms"].list_keys) for _ in range(3)]

    assert {one.code for one in found} == {ErrorCode.UNCLASSIFIED}
    assert found[0].data.vendor == Vendor(
        service="kms", code="BrandNewException", message="m", http_status=400,
    )  # fmt: skip
    assert TABLE.unclassified == {"BrandNewException": 3}
    assert [record.getMessage() for record in caplog.records if "BrandNew" in record.getMessage()] == [
        "no row for the error 'BrandNewException' of kms: please report it"
    ]


def test_a_mismatch_is_an_answer_only_where_it_was_asked_for(
    server: Loopback, clients: dict[str, Any]
) -> None:
    server.answer({"status": 400, "body": '{"__type":"KMSInvalidSignatureException"}'})

    assert error(clients["kms"].list_keys, "crypto.encrypt").code is ErrorCode.UNCLASSIFIED


def test_a_refused_ciphertext_has_the_one_sentence_and_no_hint(
    server: Loopback, clients: dict[str, Any]
) -> None:
    server.answer({"status": 400, "body": '{"__type":"IncorrectKeyException","message":"m"}'})
    found = error(clients["kms"].list_keys, "crypto.decrypt")

    assert (found.message, found.data.hint) == (INVALID_CIPHERTEXT_MESSAGE, None)


def test_the_text_of_the_sdks_own_error_is_not_handed_on() -> None:
    found = error(
        lambda: client("http://127.0.0.1:1").encrypt(KeyId=5, Plaintext={"secret": "canary-canary"})
    )

    assert found.code is ErrorCode.INVALID_ARGUMENT
    assert found.data.vendor == Vendor(service="kms", code="ParamValidationError")
    assert "canary" not in found.data.model_dump_json() + found.message


def test_a_defect_of_the_driver_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), aws_errors("crypto.encrypt"):
        _ = 1 / 0
    with pytest.raises(DriverError, match="mine"), aws_errors("crypto.encrypt"):
        raise DriverError(ErrorCode.CONFLICT, "mine")


# What goes wrong before an answer or instead of one. Each makes the real SDK raise its own exception.


def refused_connection(_: Loopback, __: Path) -> None:
    use(client(f"http://127.0.0.1:{free_port()}"))


def ignored_connection(_: Loopback, __: Path) -> None:
    with deaf_port() as port:
        use(client(f"http://127.0.0.1:{port}", connect_timeout=0.3))


def refusing_proxy(_: Loopback, __: Path) -> None:
    use(client("http://kms.invalid", proxies={"http": f"http://127.0.0.1:{free_port()}"}))


def no_answer(server: Loopback, _: Path) -> None:
    server.silent = True
    use(client(server.url, read_timeout=0.3))


def closed_connection(server: Loopback, _: Path) -> None:
    use(client(server.url))


def no_http(server: Loopback, _: Path) -> None:
    server.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 10, 20\r\n\r\n{}"
    use(client(server.url))


def no_tls(server: Loopback, _: Path) -> None:
    server.reply = b"hello, this is no TLS"
    use(client(server.url.replace("http", "https")))


def answer_without_sense(server: Loopback, _: Path) -> None:
    server.answer({"status": 200, "body": "<not-xml"})
    client(server.url, "sts").get_caller_identity()


def no_credentials(server: Loopback, _: Path) -> None:
    use(boto3.Session(region_name=REGION).client("kms", endpoint_url=server.url))


def half_a_credential(server: Loopback, folder: Path) -> None:
    (folder / "credentials").write_text("[default]\naws_access_key_id = x\n")
    no_credentials(server, folder)


def failing_credential_process(server: Loopback, folder: Path) -> None:
    (folder / "config").write_text("[default]\ncredential_process = false\n")
    no_credentials(server, folder)


def no_single_sign_on(server: Loopback, folder: Path) -> None:
    (folder / "config").write_text(
        f"[default]\nsso_start_url = {server.url}\nsso_region = {REGION}\n"
        "sso_account_id = 1\nsso_role_name = r\n"
    )
    no_credentials(server, folder)


def no_region(_: Loopback, __: Path) -> None:
    boto3.Session(KEY, SECRET).client("kms")


def bad_region(_: Loopback, __: Path) -> None:
    boto3.Session(KEY, SECRET, region_name="not a region").client("kms")


def no_such_profile(_: Loopback, __: Path) -> None:
    boto3.Session(profile_name="nobody")


def bad_configuration_file(_: Loopback, folder: Path) -> None:
    (folder / "config").write_text("no section\n")
    boto3.Session(KEY, SECRET).client("kms")


def bad_parameter(server: Loopback, _: Path) -> None:
    client(server.url).encrypt(KeyId=5)


HAPPEN: dict[str, Callable[[Loopback, Path], None]] = {
    "connection refused": refused_connection,
    "connection ignored": ignored_connection,
    "proxy refuses": refusing_proxy,
    "no answer": no_answer,
    "connection closed": closed_connection,
    "no http": no_http,
    "no tls": no_tls,
    "answer without sense": answer_without_sense,
    "no credentials": no_credentials,
    "half a credential": half_a_credential,
    "credential process fails": failing_credential_process,
    "no single sign-on": no_single_sign_on,
    "no region": no_region,
    "bad region": bad_region,
    "no such profile": no_such_profile,
    "bad configuration file": bad_configuration_file,
    "bad parameter": bad_parameter,
}


def test_every_fault_of_the_table_can_happen_here() -> None:
    assert FAULTS.keys() == HAPPEN.keys()


@pytest.mark.parametrize("fault", HAPPEN)
def test_what_goes_wrong_in_the_sdk_itself_comes_out_as_its_code(tmp_path: Path, fault: str) -> None:
    row = FAULTS[fault]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(loopback())
        found = error(lambda: HAPPEN[fault](server, tmp_path))
    types = [kind.__name__ for kind in type(found.__cause__).__mro__]

    assert row.vendor in types, types
    assert (found.code, found.data.outcome) == (row.code, row.outcome)
    assert found.data.vendor == Vendor(service="kms", code=types[0])
    if row.outcome is Outcome.NOT_APPLIED:
        assert not server.requests or fault == "no tls"  # it says so because nothing was sent
