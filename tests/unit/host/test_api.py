"""The surface: every operation of the protocol is there, and nonsense is refused before it is sent."""

import base64
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kmsplug_host
import pytest
from kmsplug_host import KeyAlgorithm, KeyState, Keystore, KeyUsage, Mechanism
from kmsplug_host._calls import _BYTES_ARGUMENTS
from kmsplug_host._deadline import Deadline, caller_deadline
from kmsplug_host._launch import Launch, PluginSpec
from kmsplug_host._plugin import Plugin
from kmsplug_host._redaction import Redactor
from kmsplug_host._supervisor import Supervisor
from kmsplug_host.config import KeystoreSettings, PluginSettings
from kmsplug_host.errors import (
    InvalidArgument,
    KmsplugError,
    PluginUnavailable,
    PolicyDenied,
    ProtocolViolation,
    Timeout,
)
from kmsplug_protocol import KEYSTORE_API, BatchResult, Key, Model, Operation, Params
from kmsplug_protocol.messages.crypto import BatchItem, GenerateDataKeyResult
from kmsplug_protocol.messages.keys import ListKeysResult

SECRET = b"s3cr3t-plaintext"


class Answering(Plugin):
    """A plugin that has no process: it answers from a list, and keeps what it was asked."""

    def __init__(self, supervisor: Supervisor) -> None:
        settings = PluginSettings(driver="none")
        super().__init__(
            PluginSpec("p", settings, Launch((), {}, settings.limits), Path("/"), "settings: p", Redactor()),
            supervisor,
        )
        self.answers: list[Model] = []
        self.asked: list[tuple[str, Model]] = []
        self.failure: Exception | None = None

    def call(
        self, operation: Operation, params: Model, deadline: Deadline, attempt_s: float | None = None
    ) -> Model:
        """Answer, or fail as a host does that has just been closed."""
        self.asked.append((operation.wire, params))
        if self.failure is not None:
            raise self.failure
        if not self.answers:
            raise PluginUnavailable("the host is closed")
        return self.answers.pop(0)


@pytest.fixture
def plugin() -> Iterator[Answering]:
    supervisor = Supervisor()
    yield Answering(supervisor)
    supervisor.close()


@pytest.fixture
def keystore(plugin: Answering) -> Keystore:
    return Keystore("main", KeystoreSettings(plugin="p", allow_raw=True), plugin)


def test_every_operation_is_a_method_with_a_timeout() -> None:
    for operation in KEYSTORE_API:
        method = getattr(Keystore, operation.api)
        timeout = inspect.signature(method).parameters["timeout"]
        assert timeout.kind is inspect.Parameter.KEYWORD_ONLY, operation.api
        assert timeout.default is None, operation.api
        assert inspect.getdoc(method), operation.api


def test_every_member_of_the_params_is_an_argument() -> None:
    renamed = {"validate_key_access": {}, "decrypt": {"mechanism"}, "encrypt": {"mechanism"}}
    not_offered = {"derive": {"mechanism"}, "encapsulate": {"mechanism"}, "decapsulate": {"mechanism"}}
    for operation in KEYSTORE_API:
        arguments = set(inspect.signature(getattr(Keystore, operation.api)).parameters)
        members = set(operation.params.model_fields) - {"meta"}
        left_out = set(renamed.get(operation.api, ())) | not_offered.get(operation.api, set())
        if operation.api == "tag_key":
            members = {"tags" if name == "set" else name for name in members}
        assert members - left_out <= arguments, operation.api


def test_every_argument_that_is_bytes_on_the_wire_is_guarded() -> None:
    for operation in KEYSTORE_API:
        for name, field in operation.params.model_fields.items():
            if any(getattr(part, "when_used", None) == "json" for part in field.metadata):
                assert name in _BYTES_ARGUMENTS, (operation.wire, name)


CALLS: list[tuple[str, Callable[[Keystore, Any], object]]] = [
    ("plaintext", lambda k, v: k.encrypt("k", v)),
    ("plaintext", lambda k, v: k.encrypt("k", v, format="raw")),
    ("ciphertext", lambda k, v: k.decrypt(v)),
    ("ciphertext", lambda k, v: k.decrypt(v, key_id="k", format="raw")),
    ("associated_data", lambda k, v: k.encrypt("k", b"", format="raw", associated_data=v)),
    ("key", lambda k, v: k.wrap_key("k", v)),
    ("wrapped_key", lambda k, v: k.unwrap_key("k", v)),
    ("wrapped_key", lambda k, v: k.import_key("k", v, b"t")),
    ("import_token", lambda k, v: k.import_key("k", b"w", v)),
    ("message", lambda k, v: k.sign("k", v)),
    ("digest", lambda k, v: k.sign("k", digest=v)),
    ("signature", lambda k, v: k.verify("k", b"m", signature=v)),
    ("message", lambda k, v: k.mac("k", v)),
    ("mac", lambda k, v: k.verify_mac("k", b"m", mac=v)),
    ("ciphertext", lambda k, v: k.decapsulate("k", v)),
    ("peer_public_key", lambda k, v: k.derive("k", v)),
    ("backup", lambda k, v: k.restore_key(v)),
    ("source_associated_data", lambda k, v: k.reencrypt(b"c", "a", "b", source_associated_data=v)),
]


@pytest.mark.parametrize(("name", "call"), CALLS)
@pytest.mark.parametrize("value", ["c2VjcmV0", 5, [1], Path("x")])
def test_text_is_never_taken_for_bytes(
    plugin: Answering, keystore: Keystore, name: str, call: Callable[[Keystore, Any], object], value: Any
) -> None:
    with pytest.raises(InvalidArgument, match=f"^{name} must be bytes, not {type(value).__name__}$"):
        call(keystore, value)
    assert plugin.asked == []


@pytest.mark.parametrize("value", [bytearray(b"message"), memoryview(b"message")])
def test_whatever_holds_bytes_is_taken(plugin: Answering, keystore: Keystore, value: Any) -> None:
    with pytest.raises(PluginUnavailable):
        keystore.mac("k", value)
    ((wire, params),) = plugin.asked
    assert (wire, params.model_dump()["message"]) == ("crypto.mac", b"message")


@pytest.mark.parametrize(("path", "call"), [
    ("algorithm", lambda k: k.create_key("AES_1024_GCM")),
    ("usage", lambda k: k.create_key("RSA_2048", usage="EVERYTHING")),
    ("protection", lambda k: k.create_key("RSA_2048", protection="paper")),
    ("origin", lambda k: k.create_key("RSA_2048", origin="found")),
    ("tags", lambda k: k.create_key("RSA_2048", tags={str(n): "" for n in range(51)})),
    ("tags.a", lambda k: k.create_key("RSA_2048", tags={"a": 5})),
    ("state", lambda k: k.set_key_state("k", "BROKEN")),
    ("mechanism", lambda k: k.sign("k", b"m", mechanism="MD5")),
    ("key_id", lambda k: k.get_key("")),
    ("key_id", lambda k: k.get_key("k" * 2049)),
    ("key_id", lambda k: k.get_key(5)),
    ("key_id", lambda k: k.get_key(None)),
    ("key_id", lambda k: k.get_key("\ud800")),
    ("key_version", lambda k: k.mac("k", b"m", key_version="")),
    ("length_bytes", lambda k: k.random(0)),
    ("length_bytes", lambda k: k.random(10**9)),
    ("length_bytes", lambda k: k.random("many")),
    ("limit", lambda k: k.list_keys(limit=0)),
    ("window_days", lambda k: k.schedule_key_deletion("k", window_days=-1)),
    ("context.a", lambda k: k.generate_data_key("k", context={"a": 5})),
    ("calls.0.method", lambda k: k.batch([(5, {})])),
    ("calls.0.params", lambda k: k.batch([("crypto.random", [])])),
    ("calls", lambda k: k.batch([])),
    (None, lambda k: k.sign("k")),
    (None, lambda k: k.sign("k", b"m", digest=b"d")),
])  # fmt: skip
def test_a_wrong_value_is_refused_by_its_name_before_anything_is_sent(
    plugin: Answering, keystore: Keystore, path: str | None, call: Callable[[Any], object]
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        call(keystore)

    assert caught.value.details.get("path") == path
    assert (caught.value.outcome, caught.value.details["keystore"]) == ("not_applied", "main")
    assert plugin.asked == []


@pytest.mark.parametrize("call", [
    lambda k: k.mac("", SECRET), lambda k: k.wrap_key("k", SECRET, mechanism="x"),
    lambda k: k.sign("", SECRET), lambda k: k.encrypt("", SECRET, format="raw"),
])  # fmt: skip
def test_no_argument_hangs_on_to_the_error(keystore: Keystore, call: Callable[[Any], object]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        call(keystore)

    told = (
        f"{caught.value!r} {caught.value.to_dict()} {caught.value.__context__!r} {caught.value.__cause__!r}"
    )
    assert SECRET.decode() not in told


@pytest.mark.parametrize("params", [
    {"plaintext": b"aGVsbG8="}, {"plaintext": bytearray(b"x")}, {"x": {1, 2}},
    {"x": float("nan")}, {"x": object()},
])  # fmt: skip
def test_a_batch_takes_json_only(plugin: Answering, keystore: Keystore, params: dict[str, Any]) -> None:
    """Bytes would go out as text, which the driver would read as base64 of other bytes."""
    with pytest.raises(InvalidArgument, match="bytes as base64"):
        keystore.batch([("crypto.encrypt", params)])
    assert plugin.asked == []


@pytest.mark.parametrize("name", ["RAW", "envelop", "", None])
def test_a_misspelt_format_is_refused(plugin: Answering, keystore: Keystore, name: Any) -> None:
    with pytest.raises(InvalidArgument, match="format must be one of envelope, raw"):
        keystore.encrypt("k", b"x", format=name)
    with pytest.raises(InvalidArgument, match="format must be one of envelope, raw"):
        keystore.decrypt(b"x", format=name)
    assert plugin.asked == []


def test_raw_needs_the_permission_of_the_configuration(plugin: Answering) -> None:
    strict = Keystore("main", KeystoreSettings(plugin="p"), plugin)
    for call in (lambda: strict.encrypt("k", b"x", format="raw"), lambda: strict.decrypt(b"x", format="raw")):
        with pytest.raises(PolicyDenied) as caught:
            call()
        assert caught.value.hint == "set allow_raw = true in [keystores.main]"
    assert plugin.asked == []


def data_key(plaintext: bytes | None) -> GenerateDataKeyResult:
    """Return the answer of a driver that was asked for a data key."""
    return GenerateDataKeyResult(
        key_id="k", key_version="1", mechanism=Mechanism.AES_256_GCM, ciphertext=b"c", plaintext=plaintext
    )


@pytest.mark.parametrize(("answer", "call"), [
    (data_key(b"short"), lambda k: k.generate_data_key("k", length_bytes=32)),
    (data_key(None), lambda k: k.generate_data_key("k")),
    (data_key(b"k" * 32), lambda k: k.generate_data_key("k", with_plaintext=False)),
    (BatchResult(items=(BatchItem(result={}),)), lambda k: k.batch([("crypto.random", {})] * 2)),
])  # fmt: skip
def test_an_answer_to_another_question_is_refused(
    plugin: Answering, keystore: Keystore, answer: Model, call: Callable[[Any], object]
) -> None:
    plugin.answers = [answer]
    with pytest.raises(ProtocolViolation) as caught:
        call(keystore)
    assert {"operation", "plugin", "keystore"} <= set(caught.value.details)


def key(number: int) -> Key:
    """Return the description of a key."""
    return Key(
        key_id=f"k{number}",
        key_version="1",
        algorithm=KeyAlgorithm.AES_256_GCM,
        usage=KeyUsage.ENCRYPT_DECRYPT,
        state=KeyState.ACTIVE,
    )


def test_all_pages_of_keys_are_walked(plugin: Answering, keystore: Keystore) -> None:
    plugin.answers = [
        ListKeysResult(keys=(key(1), key(2)), next_cursor="a"),
        ListKeysResult(keys=(), next_cursor="b"),
        ListKeysResult(keys=(key(3),)),
    ]

    keys = keystore.keys()
    assert [found.key_id for found in keys] == ["k1", "k2", "k3"]
    assert [params.model_dump()["cursor"] for _, params in plugin.asked] == [None, "a", "b"]


def test_a_driver_that_gives_the_same_page_again_and_again_is_caught(
    plugin: Answering, keystore: Keystore
) -> None:
    plugin.answers = [ListKeysResult(keys=(key(1),), next_cursor="a") for _ in range(3)]
    with pytest.raises(ProtocolViolation, match="the same page"):
        list(keystore.keys())


def test_what_the_package_exports_is_what_it_lists() -> None:
    assert all(hasattr(kmsplug_host, name) for name in kmsplug_host.__all__)
    assert set(kmsplug_host.__all__) <= set(dir(kmsplug_host))
    public = {
        name for name, value in vars(kmsplug_host).items()
        if not name.startswith("_") and not (inspect.ismodule(value) and name != "errors")
    }  # fmt: skip

    assert sorted(public - {"TYPE_CHECKING", "late"}) == kmsplug_host.__all__
    with pytest.raises(AttributeError, match="'kmsplug_host' has no attribute 'nothing'"):
        _ = kmsplug_host.nothing


def test_the_import_pulls_nothing_that_a_call_does_not_need() -> None:
    heavy = {"typer", "click", "rich", "jsonschema", "referencing", "asyncio", "sqlalchemy", "boto3", "azure",
             "hvac", "psutil", "jsonrpcserver", "kmsplug_sdk", "kmsplug_plugins", "kmsplug_host.cli",
             "kmsplug_host.conformance", "kmsplug_host.serve", "http.server", "opentelemetry",
             "kmsplug_host.keystore", "kmsplug_host.shims", "cryptography",
             "pydantic", "kmsplug_protocol.messages"}  # fmt: skip
    program = (
        "import sys; before = {*sys.modules}; import kmsplug_host; print('\\n'.join({*sys.modules} - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    packages = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"__main__"}
    allowed = {"kmsplug_host", "kmsplug_protocol", "msgspec", "orjson", "typing_extensions"}

    assert "kmsplug_host.client" in loaded
    assert not loaded & heavy
    assert {name for name in packages if not name.startswith(("_", "__editable__"))} <= allowed


def test_a_deadline_is_one_moment() -> None:
    soon = Deadline.after(60)
    assert 59 < soon.remaining_s() <= 60
    assert not soon.passed
    assert (Deadline.after(-1).remaining_s(), Deadline.after(-1).passed) == (0.0, True)


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), 86_401, "1", None, [], 10**400])
def test_a_timeout_that_no_system_can_wait_for_is_refused(timeout: Any) -> None:
    with pytest.raises(InvalidArgument, match="timeout must be at most 86400 seconds"):
        caller_deadline(timeout)


def test_base64_in_a_batch_is_handed_on_as_it_is(plugin: Answering, keystore: Keystore) -> None:
    plugin.answers = [BatchResult(items=(BatchItem(result={}),))]
    text = base64.b64encode(b"\xff\xfe").decode()
    keystore.batch([("crypto.encrypt", {"key_id": "k", "plaintext": text})])

    ((_, params),) = plugin.asked
    assert params.model_dump()["calls"][0]["params"] == {"key_id": "k", "plaintext": text}


def test_every_error_of_a_call_names_operation_keystore_and_key(keystore: Keystore) -> None:
    with pytest.raises(KmsplugError) as caught:
        keystore.get_key("k-1")
    assert caught.value.details == {"operation": "key.get", "keystore": "main", "key_id": "k-1"}


def test_every_change_has_an_idempotency_key_of_its_own_and_nothing_else_has_one(
    plugin: Answering, keystore: Keystore
) -> None:
    for call in (keystore.rotate_key, keystore.rotate_key, keystore.get_key):
        with pytest.raises(PluginUnavailable):
            call("k")

    first, second, reading = [params.meta for _, params in plugin.asked if isinstance(params, Params)]
    assert first is not None
    assert second is not None
    assert first.idempotency_key != second.idempotency_key
    assert reading is None


def test_an_unknown_outcome_comes_with_what_to_ask_by(plugin: Answering, keystore: Keystore) -> None:
    plugin.failure = Timeout("lost")

    with pytest.raises(Timeout) as caught:
        keystore.rotate_key("k")

    ((_, params),) = plugin.asked
    assert isinstance(params, Params)
    assert caught.value.details["idempotency_key"] == params.change_key
    assert caught.value.details["operation"] == "key.rotate"


def test_a_check_of_the_state_is_asked_for_sealing_and_for_opening(keystore: Keystore) -> None:
    sealing, opening = list[str](), list[str]()

    keystore.check_data_keys(sealing=sealing.append, opening=opening.append)

    assert keystore.data_keys.check is not None
    assert keystore.opened_keys.check is not None
    keystore.data_keys.check("sealed")
    keystore.opened_keys.check("opened")
    assert (sealing, opening) == (["sealed"], ["opened"])
