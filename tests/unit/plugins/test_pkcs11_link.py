"""The login, the sessions, and what is done when they or the token are gone, with a module that fails."""

import base64
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from kmsplug_plugins.pkcs11 import _link
from kmsplug_plugins.pkcs11.config import Pkcs11Config
from kmsplug_plugins.pkcs11.driver import Pkcs11Driver
from kmsplug_protocol import ErrorCode, encode_frame, jsonrpc
from kmsplug_sdk import DriverError
from kmsplug_sdk.testing import DriverClient, run_driver
from support.host import LONG_S, wait_until
from support.tokens import Faults, softhsm

# The library ends a search that could not begin, in a destructor, and complains there that this fails too.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. 'pkcs11:pytest.PytestUnraisableExceptionWarning"
)

Opened = Callable[..., AbstractContextManager[DriverClient]]


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(softhsm(tmp_path), tmp_path)


@pytest.fixture
def opened(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> Opened:
    for name, value in faults.tokens.env.items():
        monkeypatch.setenv(name, value)
    return lambda **config: run_driver(Pkcs11Driver, {**faults.tokens.config, **config})


@pytest.fixture
def client(opened: Opened) -> Iterator[DriverClient]:
    with opened() as running:
        yield running


def make(client: DriverClient, **params: Any) -> str:
    created = client.call("key.create", {"algorithm": "AES_256_GCM", **params})
    return str(created["result"]["key_id"])


def encrypt(client: DriverClient, key_id: str) -> dict[str, Any]:
    return client.call("crypto.encrypt", {"key_id": key_id, "plaintext": "aGVsbG8="})


def code(answer: dict[str, Any]) -> str | None:
    return str(answer["error"]["data"]["code"]) if "error" in answer else None


def unconfigured(client: DriverClient) -> Callable[[dict[str, Any]], dict[str, Any]]:
    host = {"name": "test", "version": "0"}
    client.call("plugin.initialize", {"protocol_versions": ["1"], "host": host})
    return lambda config: client.call("plugin.configure", {"config": config})


def test_a_wrong_pin_is_shown_to_the_token_once_however_often_it_is_asked(
    faults: Faults, opened: Opened
) -> None:
    with opened() as client:
        make(client)
    before = faults.count("C_Login")

    with run_driver(Pkcs11Driver) as client:
        configure = unconfigured(client)
        answers = [configure({**faults.tokens.config, "pin": "9999"}) for _ in range(3)]

    assert {code(answer) for answer in answers} == {"AUTHENTICATION_FAILED"}
    assert all(answer["error"]["data"]["vendor"]["code"] == "CKR_PIN_INCORRECT" for answer in answers)
    assert "9999" not in str(answers)
    assert faults.count("C_Login") == before + 1


def test_after_a_wrong_pin_the_right_one_is_taken(faults: Faults, opened: Opened) -> None:
    del opened  # for its environment
    with run_driver(Pkcs11Driver) as client:
        configure = unconfigured(client)
        configure({**faults.tokens.config, "pin": "9999"})

        assert code(configure(faults.tokens.config)) is None


def test_one_login_serves_all_sessions(faults: Faults, client: DriverClient) -> None:
    key_id = make(client)
    for _ in range(5):
        assert code(encrypt(client, key_id)) is None

    assert faults.count("C_Login") == 1


def test_while_the_token_is_out_calls_say_so_and_when_it_is_back_they_go_on(
    faults: Faults, client: DriverClient
) -> None:
    key_id = make(client)
    faults.tell("token removed")

    meanwhile = [encrypt(client, key_id) for _ in range(5)]

    assert {code(answer) for answer in meanwhile} == {"PROVIDER_UNAVAILABLE"}
    assert all("outcome" not in a["error"]["data"] or a["error"]["data"]["outcome"] for a in meanwhile)
    faults.tell()
    wait_until(lambda: code(encrypt(client, key_id)) is None, "the token to be used again")
    assert faults.count("C_Login") == 2


def test_a_pin_that_is_rejected_after_the_token_came_back_is_not_shown_again(
    faults: Faults, client: DriverClient
) -> None:
    key_id = make(client)
    faults.tell("token removed")
    encrypt(client, key_id)
    faults.tell("C_Login 0xa0 always")
    wait_until(lambda: code(encrypt(client, key_id)) == "AUTHENTICATION_FAILED", "the PIN to be rejected")

    faults.tell()
    answers = [encrypt(client, key_id) for _ in range(3)]

    assert {code(answer) for answer in answers} == {"AUTHENTICATION_FAILED"}
    assert faults.count("C_Login") == 2


@pytest.mark.parametrize(
    "fault",
    [
        "C_EncryptInit 0xb3 first 1",  # CKR_SESSION_HANDLE_INVALID
        "C_EncryptInit 0x60 first 1",  # CKR_KEY_HANDLE_INVALID
        "C_EncryptInit 0x82 first 1",  # CKR_OBJECT_HANDLE_INVALID
        "C_EncryptInit 0x101 first 1",  # CKR_USER_NOT_LOGGED_IN
        "C_EncryptInit 0x190 first 1",  # CKR_CRYPTOKI_NOT_INITIALIZED
        "C_OpenSession 0xb3 first 1",
    ],
)
def test_a_handle_that_is_no_more_is_found_again_and_the_caller_does_not_notice(
    faults: Faults, client: DriverClient, fault: str
) -> None:
    key_id = make(client)
    faults.tell(fault)

    answers = [encrypt(client, key_id) for _ in range(2)]

    # Opening a session is no part of a call yet: its failure is told, and the host asks again.
    allowed = {None, "PROVIDER_UNAVAILABLE"} if fault.startswith("C_OpenSession") else {None}
    assert {code(answer) for answer in answers} <= allowed


def test_nobody_is_told_that_a_key_is_missing_because_the_login_is_gone(
    faults: Faults, client: DriverClient
) -> None:
    key_id = make(client)
    # A token finds no private object for one who is logged out; the session says that he is.
    faults.tell("C_EncryptInit 0x60 first 1", "C_GetSessionInfo 0xb3 first 1")

    assert code(encrypt(client, key_id)) is None
    assert faults.count("C_Login") == 2


def test_a_key_that_another_program_destroyed_is_not_found(faults: Faults, client: DriverClient) -> None:
    key_id = make(client)
    assert code(encrypt(client, key_id)) is None
    for file in Path(faults.tokens.env["SOFTHSM2_CONF"]).parent.glob("tokens/*/*.object"):
        if file.name != "token.object":
            file.unlink()

    assert code(encrypt(client, key_id)) == "KEY_NOT_FOUND"


def test_a_module_that_fails_again_and_again_is_begun_anew(faults: Faults, client: DriverClient) -> None:
    key_id = make(client)
    faults.tell("C_Encrypt 0x30 first 2")  # CKR_DEVICE_ERROR

    answers = [encrypt(client, key_id) for _ in range(3)]

    assert [code(answer) for answer in answers] == ["PROVIDER_UNAVAILABLE", "PROVIDER_UNAVAILABLE", None]
    assert faults.count("C_Initialize") == 2


def test_a_failure_of_one_call_does_not_begin_the_module_anew(faults: Faults, client: DriverClient) -> None:
    key_id = make(client)
    faults.tell("C_Encrypt 0x5 first 1")  # CKR_GENERAL_ERROR

    assert code(encrypt(client, key_id)) == "PROVIDER_INTERNAL"
    assert code(encrypt(client, key_id)) is None
    assert (faults.count("C_Initialize"), faults.count("C_Login")) == (1, 1)


def test_a_token_that_is_gone_is_not_looked_for_by_every_call(
    faults: Faults, client: DriverClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id = make(client)
    monkeypatch.setattr(_link, "_PAUSE_S", 3600.0)
    faults.tell("token removed")

    answers = [encrypt(client, key_id) for _ in range(20)]

    assert {code(answer) for answer in answers} == {"PROVIDER_UNAVAILABLE"}
    assert faults.count("C_Initialize") == 2
    assert answers[-1]["error"]["data"]["retry_after_ms"] == 3_600_000


def test_where_a_token_has_no_session_left_a_call_waits_for_one_of_ours(
    faults: Faults, opened: Opened
) -> None:
    with opened():  # for its environment
        pass
    link = _link.Link(Pkcs11Config.model_validate(faults.tokens.config))
    link.open()
    busy, done = threading.Event(), threading.Event()

    def keep(_worker: _link.Worker) -> None:
        busy.set()
        assert done.wait(LONG_S)

    with contextlib.closing(link), ThreadPoolExecutor(2) as pool:
        first = pool.submit(link.run, "crypto.random", keep)
        assert busy.wait(LONG_S)
        faults.tell("C_OpenSession 0xb1 always")  # CKR_SESSION_COUNT
        second = pool.submit(link.run, "crypto.random", lambda worker: worker.session.generate_random(64))
        done.set()

        assert first.result(LONG_S) is None
        assert len(second.result(LONG_S)) == 8


def test_where_others_have_all_sessions_of_a_token_the_call_says_so(
    faults: Faults, client: DriverClient
) -> None:
    faults.tell("C_OpenSession 0xb1 always")

    assert code(client.call("crypto.random", {"length_bytes": 8})) == "RATE_LIMIT_EXCEEDED"


@pytest.mark.parametrize("value", [0x30, 0x31, 0x02, 0xB3], ids=hex)
def test_a_token_that_is_not_well_at_the_start_is_not_taken_for_one_that_can_do_less(
    faults: Faults, opened: Opened, value: int
) -> None:
    del opened  # for its environment
    faults.tell(f"C_Encrypt {value:#x} always")
    with run_driver(Pkcs11Driver) as client:
        configure = unconfigured(client)
        refused = configure(faults.tokens.config)
        faults.tell()
        rows = configure(faults.tokens.config)["result"]["capabilities"]

    assert code(refused) in ("PROVIDER_UNAVAILABLE", "PROVIDER_INTERNAL", "LIMIT_EXCEEDED")
    assert "AES_256_GCM" in {row.get("mechanism") for row in rows}


def test_two_creates_under_one_idempotency_key_make_one_key(client: DriverClient) -> None:
    meta = {"meta": {"idempotency_key": "c-1"}}

    first, second = make(client, **meta), make(client, **meta)
    other = client.call("key.create", {"algorithm": "EC_P256", **meta})

    assert first == second
    assert code(other) == "ALREADY_EXISTS"


@pytest.mark.parametrize(
    ("profile", "fault", "iv_bytes"),
    [("cloudhsm", "gcm writes-iv", 12), ("luna", "gcm appends-iv", 16)],
)
def test_where_the_device_makes_the_iv_it_is_taken_from_what_the_device_gave(
    faults: Faults, opened: Opened, profile: str, fault: str, iv_bytes: int
) -> None:
    faults.tell(fault)
    with opened(profile=profile) as client:
        key_id = make(client, protection="hsm")
        sealed = [encrypt(client, key_id)["result"]["ciphertext"] for _ in range(3)]
        texts = {
            client.call("crypto.decrypt", {"key_id": key_id, "ciphertext": each})["result"]["plaintext"]
            for each in sealed
        }
        rows = client.call("plugin.health", {"depth": "deep"})["result"]

    assert texts == {"aGVsbG8="}
    assert len(set(sealed)) == 3
    assert rows["healthy"] is True
    assert {len(base64.b64decode(each)) for each in sealed} == {iv_bytes + 5 + 16}


def test_a_device_that_was_said_to_make_the_iv_and_does_not_is_not_trusted_with_gcm(opened: Opened) -> None:
    with opened(profile="cloudhsm") as client:
        refused = client.call("key.create", {"algorithm": "AES_256_GCM"})

    assert code(refused) == "UNSUPPORTED_OPERATION"
    assert "did not" in refused["error"]["message"] or "standard" in refused["error"]["message"]


@pytest.mark.parametrize("profile", ["softhsm", "generic"])
def test_where_a_module_cannot_bear_it_nothing_else_is_asked_while_a_key_is_made(
    faults: Faults, opened: Opened, profile: str
) -> None:
    faults.tell("C_GenerateKey 0x05 overlapped")
    with opened(profile=profile) as client:
        for number in range(1000, 1032):
            client.send(encode_frame(jsonrpc.request("key.create", {"algorithm": "AES_256_GCM"}, number)))
        answers = [client.receive(LONG_S) for _ in range(32)]

    refused = [answer for answer in answers if "error" in answer]
    assert (refused == []) is (profile == "softhsm")


def test_a_key_that_cannot_be_made_because_another_call_does_not_end_keeps_nobody_waiting_after_that(
    faults: Faults, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_link, "_WAIT_S", 0.2)
    with opened():  # for its environment
        pass
    link = _link.Link(Pkcs11Config.model_validate(faults.tokens.config))
    link.makes_alone = True
    link.open()
    busy, done = threading.Event(), threading.Event()

    def keep(_worker: _link.Worker) -> None:
        busy.set()
        assert done.wait(LONG_S)

    with contextlib.closing(link), ThreadPoolExecutor(1) as pool:
        hangs = pool.submit(link.run, "crypto.random", keep)
        assert busy.wait(LONG_S)
        with pytest.raises(DriverError) as caught:
            link.run("key.create", lambda _worker: None, makes=True)
        data = link.run("crypto.random", lambda worker: worker.session.generate_random(64))
        done.set()
        hangs.result(LONG_S)
        made = link.run("key.create", lambda _worker: "made", makes=True)

    assert caught.value.code is ErrorCode.PROVIDER_UNAVAILABLE
    assert "busy" in caught.value.message
    assert len(data) == 8
    assert made == "made"
