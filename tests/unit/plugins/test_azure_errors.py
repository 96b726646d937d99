"""The table of the errors of Key Vault and Entra: each row comes out of the real SDKs as its code."""

import contextlib
import logging
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import azure.core.exceptions
import azure.identity
import certifi
import pytest
from backends.azure_fake import AzureFake, azure_fake
from kmsplug_plugins.azure_keyvault._client import VaultClient
from kmsplug_plugins.azure_keyvault._errors import TABLE, azure_errors
from kmsplug_plugins.azure_keyvault._wire import Answer
from kmsplug_plugins.azure_keyvault.config import AzureConfig
from kmsplug_protocol import INVALID_CIPHERTEXT_MESSAGE, ErrorCode, Outcome
from kmsplug_sdk import DriverError
from kmsplug_sdk.call import Call, set_current_call
from kmsplug_sdk.mapping import Row, VendorAnswer
from support.azure import SECRET_LOGIN, VAULT, led_to, workload
from support.loopback import deaf_port, free_port

SENT = [row for row in TABLE.rows if "status" in row.fixture and row.service is None]
LOGINS = [row for row in TABLE.rows if "status" in row.fixture and row.service == "entra"]
FAULTS = {row.fixture["fault"]: row for row in TABLE.rows if "fault" in row.fixture}

TOKEN = "POST .*/oauth2/v2.0/token"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureFake]:
    with azure_fake(tmp_path_factory.mktemp("azure")) as fake, led_to(fake):
        yield fake


@pytest.fixture
def fake(server: AzureFake) -> AzureFake:
    server.settle()
    return server


@pytest.fixture(scope="module")
def shared(server: AzureFake) -> Iterator[VaultClient]:
    found = client()
    with_token(found)
    yield found
    found.close()


def client(**settings: Any) -> VaultClient:
    return VaultClient(AzureConfig.model_validate({**VAULT, **settings}))


def use(vault: VaultClient, operation: str = "crypto.encrypt", *, withhold: bool = False) -> Answer:
    return vault.call(operation, "POST", "/keys/k/v/encrypt", {"value": "x"}, withhold=withhold)


def seen(call: Callable[[], object]) -> DriverError | VendorAnswer:
    """Return what the driver raises."""
    with pytest.raises((DriverError, VendorAnswer)) as caught:
        call()
    found = caught.value
    assert isinstance(found, (DriverError, VendorAnswer))
    return found


def error(call: Callable[[], object]) -> DriverError:
    found = seen(call)
    assert isinstance(found, DriverError)
    return found


def name(row: Row) -> str:
    return f"{row.vendor}-{row.message or row.answer or row.code}"


@pytest.mark.parametrize("row", SENT, ids=name)
def test_each_row_of_the_vault_comes_out_of_the_sdk_as_its_code(
    fake: AzureFake, shared: VaultClient, row: Row
) -> None:
    operation = next(iter(sorted(row.operations)), "key.get")
    with_token(shared)
    fake.settle()
    fake.script("/keys/", **row.fixture)

    found = seen(lambda: use(shared, operation, withhold="unwrap" in operation))

    assert fake.requests == [f"POST /keys/k/v/encrypt {row.fixture['status']}"]  # and never again
    if isinstance(found, VendorAnswer):
        assert found.answer == row.answer
        return
    assert found.code is row.code
    hidden = row.code is ErrorCode.INVALID_CIPHERTEXT
    assert (found.data.outcome, found.data.hint) == (row.outcome, row.hint)
    vendor = found.data.vendor
    assert vendor is not None
    assert (vendor.service, vendor.http_status) == ("key vault", row.fixture["status"])
    assert vendor.request_id
    assert vendor.code is not None
    if "error" in row.fixture["body"] and not hidden:
        assert vendor.code == row.vendor or vendor.http_status == 500
        assert vendor.message or vendor.withheld


@pytest.mark.parametrize("row", LOGINS, ids=name)
def test_each_row_of_the_login_comes_out_of_the_sdk_as_its_code(
    fake: AzureFake, row: Row, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("the-platform-s-token")
    vault = client(login=workload(tmp_path / "token"))
    fake.script(TOKEN, **row.fixture, times=9)

    found = error(lambda: use(vault))
    vault.close()

    assert (found.code, found.data.outcome) == (row.code, Outcome.NOT_APPLIED)
    vendor = found.data.vendor
    assert vendor is not None
    assert (vendor.service, vendor.code, vendor.message) == ("entra", row.vendor, None)
    assert len(fake.seen(TOKEN)) == 1  # neither is a login tried again
    assert not fake.seen(r"/keys/k/v/encrypt [^4]")


def test_no_row_is_hidden_by_one_before_it() -> None:
    met = [(row.vendor, row.message, row.operations, row.service) for row in TABLE.rows]
    assert len(met) == len(set(met))
    for position, row in enumerate(TABLE.rows):
        text = str(row.fixture.get("body", "")).lower()
        fits = [other for other in TABLE.rows if other.vendor == row.vendor
                and other.fits(text, next(iter(row.operations), ""))]  # fmt: skip
        assert fits[0] is row, position


def test_every_exception_of_the_sdks_own_transport_has_a_row() -> None:
    modelled = {
        name
        for module in (azure.core.exceptions, azure.identity)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, azure.core.exceptions.AzureError)
    }
    rows = {row.vendor for row in TABLE.rows}
    # What they mean beyond their base: nothing, or nothing that the requests of this driver can meet.
    through_their_base = {
        "ODataV4Error", "ResourceExistsError", "ResourceNotFoundError", "ResourceNotModifiedError",
        "ResourceModifiedError", "TooManyRedirectsError", "DeserializationError", "SerializationError",
        "StreamConsumedError", "StreamClosedError", "ResponseNotReadError", "AuthenticationRequiredError",
        "AzureError",
    }  # fmt: skip

    assert modelled - rows - through_their_base == set()
    own = {row.vendor for row in TABLE.rows if row.source == "sdk model"}
    assert own <= modelled
    assert not any(re.search("recorded|captured", row.source) for row in TABLE.rows if row.service)
    print(len(TABLE.rows), "rows, by source:", dict(Counter(row.source.split()[0] for row in TABLE.rows)))


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        ({"Retry-After": "7"}, 7000),
        ({"retry-after-ms": "250"}, 250),
        ({"x-ms-retry-after-ms": "1500"}, 1500),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "99999999999"}, 24 * 3600 * 1000),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({}, None),
    ],
)
def test_a_waiting_time_is_handed_on_in_whatever_form_and_none_is_invented(
    fake: AzureFake, shared: VaultClient, headers: dict[str, str], wait_ms: int | None
) -> None:
    fake.script("/keys/", status=429, headers=headers)

    found = error(lambda: use(shared))

    assert (found.code, found.data.retry_after_ms) == (ErrorCode.RATE_LIMIT_EXCEEDED, wait_ms)
    assert len(fake.seen("/keys/k")) == 1


def test_a_new_inner_code_keeps_its_name_and_means_what_the_outer_one_says(
    fake: AzureFake, shared: VaultClient
) -> None:
    body = '{"error":{"code":"Forbidden","message":"m","innerError":{"code":"BrandNew"}}}'
    fake.script("/keys/", status=403, body=body)

    found = error(lambda: use(shared, "key.get"))

    assert found.code is ErrorCode.ACCESS_DENIED
    assert found.data.vendor is not None
    assert (found.data.vendor.code, found.data.vendor.message) == ("BrandNew", "m")


def test_an_unknown_code_is_unclassified_counted_and_logged_once(
    fake: AzureFake, shared: VaultClient, caplog: pytest.LogCaptureFixture
) -> None:
    TABLE.unclassified.clear()
    fake.script("/keys/", status=418, body='{"error":{"code":"Teapot","message":"m"}}', times=3)

    with caplog.at_level(logging.WARNING):
        found = [error(lambda: use(shared, "key.get")) for _ in range(3)]

    assert {one.code for one in found} == {ErrorCode.UNCLASSIFIED}
    assert TABLE.unclassified == {"Teapot": 3}
    assert [record.getMessage() for record in caplog.records if "Teapot" in record.getMessage()] == [
        "no row for the error 'Teapot' of key vault: please report it"
    ]


def test_what_the_vault_says_about_a_bad_value_is_not_handed_on(fake: AzureFake, shared: VaultClient) -> None:
    fake.script("/keys/", status=400, body='{"error":{"code":"BadParameter","message":"canary-canary"}}')

    found = error(lambda: use(shared, "crypto.encrypt"))

    assert found.data.vendor is not None
    assert found.data.vendor.withheld
    assert "canary" not in found.message + found.data.model_dump_json()


def test_a_refused_ciphertext_of_rsa_has_the_one_sentence_and_no_code_of_the_vendor(
    fake: AzureFake, shared: VaultClient
) -> None:
    fake.script("/keys/", status=400, body='{"error":{"code":"BadParameter","message":"padding"}}')

    found = error(lambda: shared.call("crypto.decrypt", "POST", "/keys/k/v/decrypt", {}, withhold=True))

    assert (found.code, found.message) == (ErrorCode.INVALID_CIPHERTEXT, INVALID_CIPHERTEXT_MESSAGE)
    assert found.data.vendor is not None
    assert found.data.vendor.withheld
    assert found.data.vendor.code is None


def test_a_defect_of_the_driver_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), azure_errors("crypto.encrypt"):
        _ = 1 / 0
    with pytest.raises(DriverError, match="mine"), azure_errors("crypto.encrypt"):
        raise DriverError(ErrorCode.CONFLICT, "mine")


def test_nothing_is_sent_once_the_deadline_has_passed(fake: AzureFake, shared: VaultClient) -> None:
    set_current_call(Call(deadline=0.0))
    try:
        found = error(lambda: use(shared))
    finally:
        set_current_call(None)

    assert (found.code, found.data.outcome) == (ErrorCode.TIMEOUT, Outcome.NOT_APPLIED)
    assert fake.requests == []


# What goes wrong before an answer or instead of one. Each makes the real SDK raise its own exception.


def refused_connection(_: AzureFake) -> DriverError:
    vault = client(vault_url=f"https://127.0.0.1:{free_port()}")
    return error(lambda: use(vault))


def ignored_connection(_: AzureFake) -> DriverError:
    with deaf_port() as port:
        vault = client(vault_url=f"https://127.0.0.1:{port}", connect_timeout_s=0.3)
        return error(lambda: use(vault))


def no_answer(fake: AzureFake) -> DriverError:
    vault = client()
    with_token(vault)
    fake.script("/keys/", silent=True)
    set_current_call(Call(deadline=time.monotonic() + 0.5))
    try:
        return error(lambda: use(vault))
    finally:
        set_current_call(None)


def ended_tls(fake: AzureFake) -> DriverError:
    fake.script("/keys/")
    return error(lambda: use(client()))


def closed_connection(fake: AzureFake) -> DriverError:
    """Without a proxy in between, the SDK knows that the request was sent."""

    def serve() -> None:
        with fake.wrap(listening.accept()[0]) as connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.unwrap()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        found = error(lambda: use(client(vault_url=f"https://127.0.0.1:{listening.getsockname()[1]}")))
        thread.join()
    return found


def untrusted_certificate(fake: AzureFake) -> DriverError:
    with led_to(fake, REQUESTS_CA_BUNDLE=certifi.where()):
        return error(lambda: use(client()))


def cut_answer(fake: AzureFake) -> DriverError:
    fake.script("/keys/", status=200, body='{"value":"cut"}', cut=True)
    return error(lambda: use(client()))


def answer_without_sense(fake: AzureFake) -> DriverError:
    fake.script("/keys/", status=200, body="<html>all is well</html>")
    return error(lambda: use(client()))


def redirect(fake: AzureFake) -> DriverError:
    fake.script("/keys/", status=307, headers={"Location": "https://elsewhere.invalid/"})
    return error(lambda: use(client()))


def no_managed_identity(fake: AzureFake) -> DriverError:
    return machine(fake, f"http://127.0.0.1:{fake.port}")


def machine(fake: AzureFake, metadata: str) -> DriverError:
    """Log in as a machine of Azure whose metadata service is elsewhere than at its link-local address."""
    with led_to(fake, AZURE_POD_IDENTITY_AUTHORITY_HOST=metadata):
        vault = client(login={"method": "managed_identity"})
        return error(lambda: use(vault))


def with_token(vault: VaultClient) -> None:
    vault.call("key.list", "GET", "/keys")


HAPPEN: dict[str, Callable[[AzureFake], DriverError]] = {
    "connection refused": refused_connection,
    "connection ignored": ignored_connection,
    "no answer": no_answer,
    "connection closed": closed_connection,
    "connection ended in TLS": ended_tls,
    "untrusted certificate": untrusted_certificate,
    "answer cut off": cut_answer,
    "answer without sense": answer_without_sense,
    "redirect": redirect,
    "no managed identity": no_managed_identity,
}


AT_LOGIN = ("no managed identity", "untrusted certificate")


def test_every_fault_of_the_table_can_happen_here() -> None:
    assert FAULTS.keys() == HAPPEN.keys()


@pytest.mark.parametrize("fault", HAPPEN)
def test_what_goes_wrong_in_the_sdk_itself_comes_out_as_its_code(fake: AzureFake, fault: str) -> None:
    row = FAULTS[fault]

    found = HAPPEN[fault](fake)

    login = fault in AT_LOGIN
    assert (found.code, found.data.outcome) == (row.code, Outcome.NOT_APPLIED if login else row.outcome)
    vendor = found.data.vendor
    assert vendor is not None
    assert (vendor.service, vendor.code) == ("entra" if login else "key vault", row.vendor)
    assert found.__cause__ is not None  # the root is kept
    if found.data.outcome is Outcome.NOT_APPLIED:
        assert not fake.seen("/keys/.* [^4]")  # it says so because nothing was sent


def test_a_proxy_that_is_down_is_known_to_have_let_nothing_through(fake: AzureFake) -> None:
    with led_to(fake, HTTPS_PROXY=f"http://127.0.0.1:{free_port()}"):
        found = error(lambda: use(client()))

    assert (found.code, found.data.outcome) == (ErrorCode.PROVIDER_UNAVAILABLE, Outcome.NOT_APPLIED)


def test_a_metadata_service_that_is_down_is_no_wrong_configuration(fake: AzureFake) -> None:
    found = machine(fake, f"http://127.0.0.1:{free_port()}")

    assert (found.code, found.data.outcome) == (ErrorCode.PROVIDER_UNAVAILABLE, Outcome.NOT_APPLIED)


@pytest.mark.parametrize("login", [SECRET_LOGIN, None], ids=["client_secret", "workload_identity"])
@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({"status": 0}, ErrorCode.PROVIDER_UNAVAILABLE),
        ({"status": 503, "body": "<html>"}, ErrorCode.PROVIDER_UNAVAILABLE),
        ({"status": 503, "body": '{"error":"x"}'}, ErrorCode.PROVIDER_UNAVAILABLE),
        ({"status": 200, "body": "<html>"}, ErrorCode.PROVIDER_INTERNAL),
        ({"status": 401, "body": '{"error":"invalid_client"}'}, ErrorCode.AUTHENTICATION_FAILED),
    ],
)
def test_an_entra_that_is_down_is_not_a_login_that_was_refused(
    fake: AzureFake, tmp_path: Path, login: Any, script: dict[str, Any], code: ErrorCode
) -> None:
    """A rejected credential is never tried again, an Entra that does not answer is."""
    (tmp_path / "token").write_text("the-platform-s-token")
    vault = client(login=login or workload(tmp_path / "token"))
    fake.script(TOKEN, times=9, **script)

    found = error(lambda: use(vault))

    assert (found.code, found.data.outcome) == (code, Outcome.NOT_APPLIED)
    assert found.data.vendor is not None
    assert found.data.vendor.service == "entra"
    assert len(fake.seen(TOKEN)) == 1


def test_what_entra_quotes_of_a_refused_secret_is_nowhere(
    fake: AzureFake, caplog: pytest.LogCaptureFixture
) -> None:
    body = '{"error":"invalid_client","error_description":"AADSTS7000215: canary-canary is wrong"}'
    fake.script(TOKEN, times=9, status=401, body=body)

    with caplog.at_level(logging.DEBUG):
        found = error(lambda: use(client()))

    assert "canary" not in found.message + found.data.model_dump_json() + caplog.text


def test_a_challenge_for_another_domain_than_the_vaults_is_refused(fake: AzureFake) -> None:
    challenge = 'Bearer authorization="https://login.evil.invalid/t", resource="https://evil.invalid"'
    vault = client()
    fake.script("/keys/", status=401, headers={"WWW-Authenticate": challenge}, times=3)
    with_token(vault)

    found = error(lambda: use(vault))

    assert (found.code, found.data.path) == (ErrorCode.CONFIGURATION_ERROR, "vault_url")
    assert not fake.seen("evil")
