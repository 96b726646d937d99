"""The AWS KMS driver behind a host, on LocalStack, with a proxy between that sees and spoils requests."""

import base64
import json
import secrets
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from backends.aws import ACCOUNT, REGION, SECRET, settings
from backends.fault_proxy import Fault, FaultProxy, Seen, fault_proxy, once, share
from kmsplug_host import Host, Keystore
from kmsplug_host.errors import (
    ConfigurationError,
    InvalidArgument,
    InvalidCiphertext,
    KeyNotFound,
    ProviderUnavailable,
    Timeout,
)
from kmsplug_plugins.aws_kms import manage
from kmsplug_protocol import ErrorCode
from support.host import LONG_S, nothing_left

CALLERS = 16
ENCRYPTS = 2_000
THROTTLED = Fault(
    status=400,
    headers={"x-amzn-RequestId": "throttled"},
    body=b'{"__type":"ThrottlingException","message":"Rate exceeded"}',
)
BROKEN = Fault(status=500, body=b'{"__type":"KMSInternalException","message":"try again"}')
NOT_FOUND = Fault(status=400, body=b'{"__type":"NotFoundException","message":"Key does not exist"}')
FOREIGN = "arn:aws:kms:{region}:{account}:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture(scope="module")
def running(localstack_url: str) -> Iterator[tuple[FaultProxy, Keystore]]:
    """One host for all tests that do no harm to it."""
    with (
        pytest.MonkeyPatch.context() as patch,
        fault_proxy(localstack_url) as proxy,
        opened(proxy, patch) as keystore,
    ):
        yield proxy, keystore


@pytest.fixture
def proxy(running: tuple[FaultProxy, Keystore]) -> Iterator[FaultProxy]:
    found = running[0]
    found.seen.clear()
    yield found
    found.plan = lambda _seen: None


@pytest.fixture
def keystore(running: tuple[FaultProxy, Keystore]) -> Keystore:
    return running[1]


@contextmanager
def opened(
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any] | None = None,
    **keystore: Any,
) -> Iterator[Keystore]:
    with hosted(proxy, monkeypatch, config, **keystore) as host:
        yield host.keystore("main")


@contextmanager
def hosted(
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any] | None = None,
    **keystore: Any,
) -> Iterator[Host]:
    monkeypatch.setenv("KMSPLUG_TEST_SECRET", SECRET)
    given = settings(proxy.url, **(config or {}))
    given["login"] = {**given["login"], "secret_access_key": {"env": "KMSPLUG_TEST_SECRET"}}
    plugin = {"driver": "aws", "config": given, "deadline_s": LONG_S}
    table = {"plugin": "aws", "allow_raw": True, **keystore}
    with nothing_left(), Host.open({"plugins": {"aws": plugin}, "keystores": {"main": table}}) as host:
        yield host


def asked(proxy: FaultProxy, call: str) -> list[dict[str, Any]]:
    """Return the bodies of the requests for one call of KMS."""
    return [json.loads(one.body) for one in proxy.seen if _is(one, call)]


def only(call: str, fault: Fault, times: int = 1) -> Any:
    """Let *fault* happen to the first requests for one call."""
    plan = once(*[fault] * times)
    return lambda seen: plan(seen) if _is(seen, call) else None


def _is(seen: Seen, call: str) -> bool:
    return seen.headers.get("x-amz-target") == f"TrentService.{call}"


def new_key(keystore: Keystore, algorithm: str = "AES_256_GCM", **params: Any) -> str:
    return keystore.create_key(algorithm, **params).key_id


def test_2000_encrypts_succeed_though_30_percent_are_throttled_and_the_sdk_tries_each_attempt_once(
    keystore: Keystore, proxy: FaultProxy
) -> None:
    key_id = new_key(keystore)
    keystore.encrypt(key_id, b"now the driver knows the key", format="raw")
    before = keystore.resilience.stats()
    proxy.seen.clear()
    proxy.plan = share(0.3, THROTTLED)

    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(keystore.encrypt, key_id, b"data", format="raw") for _ in range(ENCRYPTS)]
        for call in calls:
            call.result()

    after = keystore.resilience.stats()
    attempts = (after.calls - before.calls) + (after.retries - before.retries)
    assert after.calls - before.calls == ENCRYPTS
    failed = Counter(after.failures) - Counter(before.failures)
    assert failed[ErrorCode.RATE_LIMIT_EXCEEDED] > ENCRYPTS * 0.3
    assert failed.total() == after.retries - before.retries
    assert len(proxy.seen) == attempts
    assert proxy.count("x-amz-target", "TrentService.Encrypt") == attempts
    assert proxy.count("amz-sdk-request", "attempt=1") == attempts
    assert len({one.headers["amz-sdk-invocation-id"] for one in proxy.seen}) == attempts


@pytest.mark.parametrize(
    "fault",
    [BROKEN, Fault(reset=True), Fault(reset=True, reached=True), Fault(cut=True), Fault(status=503)],
    ids=["500", "reset-before", "reset-after", "cut", "503"],
)
def test_an_encrypt_that_fails_on_the_way_is_made_again(
    keystore: Keystore, proxy: FaultProxy, fault: Fault
) -> None:
    key_id = new_key(keystore)
    proxy.plan = only("Encrypt", fault, 2)

    sealed = keystore.encrypt(key_id, b"data", format="raw")

    assert bytes(keystore.decrypt(sealed.ciphertext, key_id=key_id, format="raw").plaintext) == b"data"
    assert len(asked(proxy, "Encrypt")) == 3


def test_a_provider_that_says_nothing_ends_in_time(keystore: Keystore, proxy: FaultProxy) -> None:
    key_id = new_key(keystore)
    proxy.plan = only("Encrypt", Fault(stall_s=30), 99)

    with pytest.raises((Timeout, ProviderUnavailable)):
        keystore.encrypt(key_id, b"data", format="raw", timeout=1.0)


def test_a_create_and_a_rotate_whose_answers_are_lost_are_found_and_not_repeated(
    keystore: Keystore, proxy: FaultProxy
) -> None:
    before = keystore.resilience.stats().reconciled
    proxy.plan = only("CreateKey", Fault(reset=True, reached=True))
    key = keystore.create_key("AES_256_GCM", tags={"colour": "red"})
    proxy.plan = only("RotateKeyOnDemand", Fault(reset=True, reached=True))
    rotated = keystore.rotate_key(key.key_id)

    assert len(asked(proxy, "CreateKey")) == len(asked(proxy, "RotateKeyOnDemand")) == 1
    assert keystore.resilience.stats().reconciled == before + 2
    assert rotated.key_version != key.key_version
    assert rotated.tags == {"colour": "red"}
    assert len(keystore.list_key_versions(key.key_id).versions) == 2


def test_a_new_key_that_is_not_known_everywhere_yet_is_asked_for_again(
    keystore: Keystore, proxy: FaultProxy
) -> None:
    key_id = new_key(keystore)
    proxy.plan = only("Encrypt", NOT_FOUND, 3)

    assert keystore.encrypt(key_id, b"data", format="raw").key_id == key_id


@pytest.mark.parametrize(
    "key_id",
    [
        FOREIGN.format(region="us-east-1", account=ACCOUNT),
        FOREIGN.format(region=REGION, account="111122223333"),
        FOREIGN.format(region=REGION, account=ACCOUNT).replace("arn:aws:", "arn:aws-cn:"),
        FOREIGN.format(region=REGION, account=ACCOUNT).replace(":kms:", ":s3:"),
        f"arn:aws:kms:{REGION}:{ACCOUNT}:key/../alias/x",
        f"arn:aws:kms:{REGION}:{ACCOUNT}:key/alias",
        "arn:aws:kms",
    ],
)
def test_a_key_of_elsewhere_is_refused_before_anybody_is_asked(
    keystore: Keystore, proxy: FaultProxy, key_id: str
) -> None:
    proxy.seen.clear()

    for call in (
        lambda: keystore.encrypt(key_id, b"x", format="raw"),
        lambda: keystore.decrypt(b"x" * 100, key_id=key_id, format="raw"),
        lambda: keystore.schedule_key_deletion(key_id),
    ):
        with pytest.raises(KeyNotFound):
            call()

    assert proxy.seen == []


def test_the_key_is_always_named_when_something_is_opened(keystore: Keystore, proxy: FaultProxy) -> None:
    one, other = new_key(keystore), new_key(keystore)
    sealed = keystore.encrypt(one, b"data", format="raw").ciphertext

    with pytest.raises(InvalidCiphertext):
        keystore.decrypt(sealed, key_id=other, format="raw")
    keystore.reencrypt(sealed, one, other)

    assert [body["KeyId"] for body in asked(proxy, "Decrypt")] == [other]
    assert [body["SourceKeyId"] for body in asked(proxy, "ReEncrypt")] == [one]


@pytest.mark.parametrize("binding", ["context", "label"])
def test_the_provider_sees_of_the_context_what_the_binding_says(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, binding: str
) -> None:
    context = {"invoice": "7", "tenant": "blue"}
    with opened(proxy, monkeypatch, context_binding=binding) as keystore:
        key_id = new_key(keystore)
        sealed = keystore.encrypt(key_id, b"data", context=context)

        assert bytes(keystore.decrypt(sealed.ciphertext, context=context).plaintext) == b"data"
        with pytest.raises(InvalidCiphertext):
            keystore.decrypt(sealed.ciphertext, context={**context, "invoice": "8"})

    (shown,) = [body["EncryptionContext"] for body in asked(proxy, "Encrypt")]
    assert shown.keys() == {"kmsplug:v1"} | (context.keys() if binding == "context" else set())


def test_a_message_is_hashed_in_the_driver_and_never_sent(keystore: Keystore, proxy: FaultProxy) -> None:
    key_id = new_key(keystore, "EC_P256", usage="SIGN_VERIFY")
    message = b"canary" * 2000  # longer than KMS takes

    signature = keystore.sign(key_id, message).signature

    assert keystore.verify(key_id, message, signature).valid
    assert all(base64.b64encode(b"canarycanary") not in one.body for one in proxy.seen)


def test_deep_health_encrypts_with_the_key_that_is_set_aside(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, keystore: Keystore
) -> None:
    key_id = new_key(keystore)

    with hosted(proxy, monkeypatch, {"probe_key_id": key_id}) as host:
        proxy.seen.clear()

        assert host.health("aws", deep=True).healthy
        assert len(asked(proxy, "Encrypt")) == len(asked(proxy, "Decrypt")) == 1


def test_an_operator_replicates_a_key_and_sets_its_rotation(
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with opened(proxy, monkeypatch, {"multi_region": True}) as keystore:
        key_id = new_key(keystore)
        sealed = keystore.encrypt(key_id, b"data", format="raw").ciphertext
    config = tmp_path / "aws.json"
    config.write_text(json.dumps(settings(proxy.url)))
    config.chmod(0o600)

    def run(*arguments: str) -> dict[str, Any]:
        assert manage.main(["--config", str(config), *arguments]) == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    assert "/mrk-" in key_id
    assert run("rotation", key_id)["automatic"] is False
    assert run("rotation", key_id, "--every", "365")["automatic"] is True
    assert run("rotation", key_id, "--off")["automatic"] is False
    replica = run("replicate", key_id, "eu-central-1")["key_id"]
    pair = run("data-key-pair", key_id, "EC_P256")
    with opened(proxy, monkeypatch, {"region": "eu-central-1"}) as elsewhere:
        assert bytes(elsewhere.decrypt(sealed, key_id=replica, format="raw").plaintext) == b"data"
    with opened(proxy, monkeypatch) as keystore:
        private = base64.b64decode(pair["private_key_ciphertext"])
        assert bytes(keystore.decrypt(private, key_id=key_id, format="raw").plaintext)[:1] == b"\x30"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rotation", "alias/none"], "not"),
        (["rotation", "alias/none", "--every", "9"], "90 to 2560"),
    ],
)
def test_an_operators_mistake_is_told_in_a_line(
    localstack_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    config = tmp_path / "aws.json"
    config.write_text(json.dumps(settings(localstack_url)))

    assert manage.main(["--config", str(config), *arguments]) == 1
    assert "chmod 600" in capsys.readouterr().err
    config.chmod(0o600)
    assert manage.main(["--config", str(config), *arguments]) == 1
    assert told in capsys.readouterr().err


def test_the_login_must_be_of_the_account_in_the_settings(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, keystore: Keystore
) -> None:
    new_key(keystore)

    with (
        pytest.raises(ConfigurationError, match="another account"),
        opened(proxy, monkeypatch, {"account": "111122223333"}),
    ):
        pass


def test_names_and_tags_of_the_drivers_own_are_refused(keystore: Keystore) -> None:
    key_id = new_key(keystore, name=f"display {secrets.token_hex(4)}")

    for alias in ("aws/s3", key_id.rpartition("/")[2], "with blank"):
        with pytest.raises(InvalidArgument):
            keystore.set_alias(key_id, alias)
    with pytest.raises(InvalidArgument):
        keystore.tag_key(key_id, {"kmsplug:change": "x"})
    assert keystore.get_key(key_id).tags == {}
