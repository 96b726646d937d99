"""Every error of Vault and OpenBao, sent as HTTP through the real client, comes out as its code."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kmsplug_plugins.vault_transit._client import Client
from kmsplug_plugins.vault_transit._errors import TABLE
from kmsplug_plugins.vault_transit.config import VaultConfig
from kmsplug_protocol import INVALID_CIPHERTEXT_MESSAGE, ErrorCode, Outcome, Vendor
from kmsplug_sdk import DriverError
from kmsplug_sdk.call import Call, set_current_call
from kmsplug_sdk.mapping import Row, VendorAnswer
from support.loopback import Loopback, deaf_port, free_port, loopback

SENT = [row for row in TABLE.rows if "status" in row.fixture]
FAULTS = {row.fixture["fault"]: row for row in TABLE.rows if "fault" in row.fixture}
TOKEN = "s.token-canary-7d1f"


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    with loopback() as running:
        yield running


@pytest.fixture(autouse=True)
def foreign_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the environment and the home folder say must not count: it would make every test here fail."""
    (tmp_path / ".vault-token").write_text("s.of-somebody-else")
    (tmp_path / ".netrc").write_text("default login somebody password else")
    for name, value in {
        "HOME": str(tmp_path),
        "VAULT_ADDR": "http://127.0.0.1:1",
        "VAULT_TOKEN": "s.of-somebody-else",
        "VAULT_NAMESPACE": "elsewhere",
        "VAULT_CACERT": "/nowhere",
        "REQUESTS_CA_BUNDLE": "/nowhere",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)


def client(url: str, **settings: Any) -> Client:
    login = {"method": "token", "token": TOKEN}
    return Client(VaultConfig.model_validate({"address": url, "login": login, **settings}))


def seen(call: Callable[[], object]) -> DriverError | VendorAnswer:
    with pytest.raises((DriverError, VendorAnswer)) as caught:
        call()
    found = caught.value
    assert isinstance(found, (DriverError, VendorAnswer))
    return found


def error(call: Callable[[], object]) -> DriverError:
    found = seen(call)
    assert isinstance(found, DriverError)
    return found


def use(client: Client, operation: str = "crypto.encrypt") -> object:
    return client.call(operation, "post", "transit/encrypt/k", {"plaintext": ""}, token=TOKEN)


@contextlib.contextmanager
def left(seconds: float) -> Iterator[None]:
    """As inside a request whose caller waits so long."""
    import time

    set_current_call(Call(deadline=time.monotonic() + seconds))
    try:
        yield
    finally:
        set_current_call(None)


@pytest.mark.parametrize("row", SENT, ids=lambda row: f"{row.vendor}-{row.message or row.code}")
def test_each_row_comes_out_of_the_client_as_its_code(server: Loopback, row: Row) -> None:
    server.answer({"headers": {"Content-Type": "application/json"}, **row.fixture})
    before = len(server.requests)
    found = seen(lambda: use(client(server.url), next(iter(row.operations), "crypto.encrypt")))

    assert len(server.requests) == before + 1  # tried once, and no redirect was followed
    if isinstance(found, VendorAnswer):
        assert found.answer == row.answer
        return
    assert found.code is row.code
    assert (found.data.outcome, found.message) == (
        row.outcome,
        INVALID_CIPHERTEXT_MESSAGE if row.code is ErrorCode.INVALID_CIPHERTEXT else row.says or found.message,
    )
    vendor = found.data.vendor
    assert vendor is not None
    if row.code is ErrorCode.INVALID_CIPHERTEXT:
        assert vendor == Vendor(service="transit", withheld=True)
        return
    assert (vendor.service, vendor.code, vendor.http_status) == ("transit", row.vendor, row.fixture["status"])
    if row.code is not ErrorCode.AUTHENTICATION_FAILED and row.message is not None:
        assert vendor.message is not None
        assert "error occurred" not in vendor.message


def test_no_row_is_hidden_by_one_before_it() -> None:
    met = [(row.vendor, row.message, row.operations) for row in TABLE.rows]
    assert len(met) == len(set(met))
    for position, row in enumerate(TABLE.rows):
        text = str(row.fixture.get("body", "")).lower()
        fits = [
            other
            for other in TABLE.rows
            if other.vendor == row.vendor and other.fits(text, next(iter(row.operations), ""))
        ]
        assert fits[0] is row, position


def test_every_status_that_hvac_knows_has_a_row() -> None:
    from hvac import exceptions

    known = []
    for status in range(300, 600):
        kind = type(exceptions.VaultError.from_status(status, "m"))
        if kind is not exceptions.UnexpectedError:
            known.append(str(status))
    assert known
    assert set(known) <= {row.vendor for row in TABLE.rows if row.message is None}


@pytest.mark.parametrize(
    ("header", "waiting_ms"),
    [
        ("2", 2000),
        ("0", 0),
        ("x", None),
        ("-1", None),
        ("9" * 30, None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ],
)
def test_a_waiting_time_is_handed_on_and_none_is_invented(
    server: Loopback, header: str, waiting_ms: int | None
) -> None:
    server.answer(
        {"status": 429, "headers": {"Retry-After": header}, "body": '{"errors":["quota exceeded"]}'}
    )

    assert error(lambda: use(client(server.url))).data.retry_after_ms == waiting_ms


def test_an_unknown_status_is_unclassified_counted_and_logged_once(
    server: Loopback, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer({"status": 418, "body": '{"errors":["I am a teapot"]}'})
    TABLE.unclassified.clear()
    with caplog.at_level(logging.WARNING):
        found = [error(lambda: use(client(server.url))) for _ in range(3)]

    assert {one.code for one in found} == {ErrorCode.UNCLASSIFIED}
    assert found[0].data.vendor == Vendor(
        service="transit", code="418", message="I am a teapot", http_status=418
    )
    assert TABLE.unclassified == {"418": 3}
    assert len([record for record in caplog.records if "418" in record.getMessage()]) == 1


def test_what_the_settings_say_is_sent_and_nothing_else(server: Loopback) -> None:
    server.answer(
        {"status": 200, "headers": {"Content-Type": "application/json"}, "body": '{"data":{"a":1}}'}
    )
    answer = client(server.url, namespace="team/a").call("key.get", "list", "transit/keys", token=TOKEN)
    request = server.requests[-1].decode().lower()

    assert answer.data == {"a": 1}
    assert request.startswith("get /v1/transit/keys?list=true http/1.1")
    assert f"x-vault-token: {TOKEN}".lower() in request
    assert "x-vault-namespace: team/a" in request
    for foreign in ("elsewhere", "authorization", "cookie", "somebody"):
        assert foreign not in request


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "null",
        '"text"',
        '{"errors":"no list"}',
        '{"errors":[null,7]}',
        '{"data":[]}',
        "\ufffe",
        "{" * 9000,
    ],
)
def test_an_answer_without_sense_is_an_error_and_no_defect(server: Loopback, body: str) -> None:
    for status in (200, 400, 500):
        server.answer({"status": status, "headers": {"Content-Type": "application/json"}, "body": body})
        with contextlib.suppress(DriverError):
            use(client(server.url))


def test_the_callers_deadline_bounds_a_request_and_a_late_one_is_not_sent(server: Loopback) -> None:
    with left(0):
        found = error(lambda: use(client(f"http://127.0.0.1:{free_port()}")))
    assert (found.code, found.data.outcome) == (ErrorCode.TIMEOUT, Outcome.NOT_APPLIED)


# What goes wrong before an answer or instead of one. Each makes the real client raise its own exception.


def refused_connection(_: Loopback, __: Path) -> None:
    use(client(f"http://127.0.0.1:{free_port()}"))


def unknown_name(_: Loopback, __: Path) -> None:
    use(client("https://vault.invalid"))


def ignored_connection(_: Loopback, __: Path) -> None:
    with deaf_port() as port, left(0.3):
        use(client(f"http://127.0.0.1:{port}"))


def refusing_proxy(_: Loopback, __: Path) -> None:
    use(client("https://vault.invalid", proxy=f"http://127.0.0.1:{free_port()}"))


def no_answer(server: Loopback, _: Path) -> None:
    server.silent = True
    with left(0.3):
        use(client(server.url))


def answer_stops(server: Loopback, _: Path) -> None:
    server.silent = True
    server.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
    with left(0.3):
        use(client(server.url))


def closed_connection(server: Loopback, _: Path) -> None:
    use(client(server.url))


def no_tls(server: Loopback, _: Path) -> None:
    server.reply = b"hello, this is no TLS"
    use(client(server.url.replace("http", "https")))


def token_of_two_lines(server: Loopback, _: Path) -> None:
    client(server.url).call("key.get", "get", "transit/keys/k", token="a\r\nb: c")


def answer_without_sense(server: Loopback, _: Path) -> None:
    server.answer({"status": 200, "body": "<html>"})
    use(client(server.url))


def no_certificate_file(server: Loopback, folder: Path) -> None:
    use(client(server.url.replace("http", "https"), ca_file=str(folder / "nowhere.pem")))


def answer_in_a_broken_encoding(server: Loopback, _: Path) -> None:
    server.reply = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
    use(client(server.url))


HAPPEN: dict[str, Callable[[Loopback, Path], None]] = {
    "connection refused": refused_connection,
    "name unknown": unknown_name,
    "connection ignored": ignored_connection,
    "proxy refuses": refusing_proxy,
    "no answer": no_answer,
    "answer stops": answer_stops,
    "connection closed": closed_connection,
    "no tls": no_tls,
    "token of two lines": token_of_two_lines,
    "answer without sense": answer_without_sense,
    "no certificate file": no_certificate_file,
    "answer cut in its encoding": answer_in_a_broken_encoding,
}


def test_every_fault_of_the_table_can_happen_here() -> None:
    assert FAULTS.keys() == HAPPEN.keys()


@pytest.mark.parametrize("fault", HAPPEN)
def test_what_goes_wrong_in_the_client_itself_comes_out_as_its_code(tmp_path: Path, fault: str) -> None:
    row = FAULTS[fault]
    with loopback() as server:
        found = error(lambda: HAPPEN[fault](server, tmp_path))

    assert (found.code, found.data.outcome, found.message) == (
        row.code,
        row.outcome,
        row.says or found.message,
    )
    assert found.__cause__ is not None  # the root is kept
    text = found.message + found.data.model_dump_json()
    assert TOKEN not in text
    assert "127.0.0.1" not in text
    if row.outcome is Outcome.NOT_APPLIED and fault != "no tls":
        assert not server.requests
