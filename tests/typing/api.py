"""What a driver's author and a reader of messages write, as a type checker sees it. Checked, never run.

A line that must not pass the checker says so with an ``ignore``: were it to pass one day, the checker
would complain about the unused comment.
"""

from collections.abc import Sequence
from typing import Any, NoReturn, assert_type

from kmsplug_protocol import (
    BY_API,
    ERROR_FACTS,
    AssociatedData,
    Capability,
    Context,
    EncryptParams,
    EncryptResult,
    ErrorCode,
    ErrorFact,
    FrameReader,
    HealthCheck,
    HealthDepth,
    Key,
    KeyAlgorithm,
    KeyParams,
    Mechanism,
    Model,
    Operation,
    Outcome,
    Oversize,
    Protection,
    RandomParams,
    RandomResult,
    RetryClass,
    Secret,
    Vendor,
    cobblestone,
    dcbor,
    decode_base64,
    decode_frame,
    encode_base64,
    encode_frame,
    jsonrpc,
    negotiate,
    untrusted,
)
from kmsplug_protocol import ConfigureResult as Opened
from kmsplug_sdk import Call, Driver, DriverError, NoConfig, current_call, provides, serve
from kmsplug_sdk.testing import DriverClient, run_driver
from pydantic import BaseModel, Field


class Settings(BaseModel):
    address: str
    pin: str = Field(json_schema_extra={"writeOnly": True})


class Vault(Driver[Settings]):
    """A driver with settings, rows of several kinds, and every method that a driver may have."""

    name = "vault"
    version = "1"
    Config = Settings
    max_concurrency = 8

    def configure(self, config: Settings, *, dry_run: bool) -> Opened:
        assert_type(config.address, str)
        assert_type(dry_run, bool)
        return Opened(identity=config.address, key_namespace=("vault/",), warnings=("old server",))

    def health(self, depth: HealthDepth) -> Sequence[HealthCheck]:
        return [HealthCheck(name=depth.value, healthy=True)]

    def close(self) -> None: ...

    @provides(
        key_algorithm=KeyAlgorithm.AES_256_GCM,
        mechanism=Mechanism.AES_256_GCM,
        associated_data=AssociatedData.BYTES,
        max_input_bytes=4096,
        wrap_algorithm="vault-transit",
        versions_addressable=True,
        protection=Protection.SOFTWARE,
    )
    @provides(
        key_algorithm=KeyAlgorithm.AES_128_GCM, deletion_window_days=(7, 30), import_formats=("RSA_OAEP",)
    )
    def encrypt(self, request: EncryptParams) -> EncryptResult:
        assert_type(request.key_id, str)
        assert_type(request.plaintext, bytes)
        assert_type(request.context, Context | None)
        assert_type(request.mechanism, Mechanism | None)
        if request.context:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                "this keystore authenticates bytes, not a map",
                outcome=Outcome.NOT_APPLIED,
                retry_after_ms=None,
                hint="use associated_data",
                path=None,
                vendor=Vendor(service="transit", code="400", http_status=400, request_id="r"),
            )
        return EncryptResult(key_id=request.key_id, mechanism=Mechanism.AES_256_GCM, ciphertext=b"")

    @provides(inline=True)
    def random(self, request: RandomParams) -> RandomResult:
        return RandomResult(data=Secret(bytes(request.length_bytes)))

    @provides(max_input="4096")  # type: ignore[call-arg]
    @provides(max_input_bytes="4096")  # type: ignore[arg-type]
    @provides(mechanism="AES_256_GCM")  # type: ignore[arg-type]
    def get_key(self, request: KeyParams) -> Key:
        raise NotImplementedError


# `provides` changes nothing of the method that it stands on.
assert_type(Vault().random(RandomParams(length_bytes=1)), RandomResult)
assert_type(Vault().encrypt(EncryptParams(key_id="k", plaintext=b"")), EncryptResult)
Vault().random(KeyParams(key_id="k"))  # type: ignore[arg-type]
Vault().configure(NoConfig(), dry_run=True)  # type: ignore[arg-type]
Vault().configure(Settings(address="", pin=""), True)  # type: ignore[call-arg]


class NotForSettings(Driver[int]):  # type: ignore[type-var]
    """Settings are a model."""


def a_request_in_progress() -> None:
    call = current_call()
    assert_type(call, Call)
    assert_type(call.remaining_s(10.0), float)
    assert_type(call.deadline, float | None)
    assert_type(call.cancelled.is_set(), bool)
    assert_type(call.correlation_id, str | None)


def an_error() -> None:
    error = DriverError(ErrorCode.CONFLICT, "changed meanwhile")
    assert_type(error.code, ErrorCode)
    assert_type(error.message, str)
    assert_type(error.data.outcome, Outcome | None)
    DriverError("CONFLICT", "a code is no string")  # type: ignore[arg-type]
    DriverError(ErrorCode.CONFLICT)  # type: ignore[call-arg]
    DriverError(ErrorCode.CONFLICT, "no", Outcome.APPLIED)  # type: ignore[call-arg]


def the_program() -> NoReturn:
    serve("package.module:Vault")


def a_test_of_a_driver() -> None:
    with run_driver(Vault, {"address": "a", "pin": "1234"}) as client:
        assert_type(client, DriverClient)
        assert_type(client.call("crypto.random", {"length_bytes": 1}), dict[str, Any])
        assert_type(client.receive(timeout_s=1.0), dict[str, Any])
        client.send(b"\n")
    run_driver(Vault())  # type: ignore[arg-type]


def messages() -> None:
    request = EncryptParams(key_id="k", plaintext=b"p", associated_data=b"a", context={"a": "b"})
    request.key_id = "other"  # type: ignore[misc]
    EncryptParams(key_id="k")  # type: ignore[call-arg]
    EncryptParams(key_id=7, plaintext=b"p")  # type: ignore[arg-type]
    assert_type(Capability(operation="crypto.encrypt").max_input_bytes, int | None)
    assert_type(Capability(operation="key.create").deletion_window_days, tuple[int, int] | None)
    assert_type(bytes(RandomResult(data=b"")), bytes)
    assert_type(len(RandomResult(data=b"")), int)


def bytes_and_frames() -> None:
    assert_type(encode_base64(b""), str)
    assert_type(decode_base64(""), bytes)
    assert_type(Secret(b"").hex(), str)
    decode_base64(b"")  # type: ignore[arg-type]
    for frame in FrameReader(65536).feed(b""):
        if isinstance(frame, Oversize):
            assert_type(frame.head, bytes)
        else:
            assert_type(decode_frame(frame), dict[str, Any])
    assert_type(encode_frame(jsonrpc.request("plugin.ping", {}, 1)), bytes)
    jsonrpc.request("plugin.ping", {}, None)  # type: ignore[arg-type]
    identity: object = 7
    if jsonrpc.is_id(identity):
        assert_type(identity, int | str)


def tables() -> None:
    operation = BY_API["encrypt"]
    assert_type(operation, Operation)
    assert_type(operation.params, type[Model])
    assert_type(operation.repeatable, bool)
    fact = ERROR_FACTS[ErrorCode.TIMEOUT]
    assert_type(fact, ErrorFact)
    assert_type(fact.retry, RetryClass)
    operation.wire = "other"  # type: ignore[misc]
    assert_type(negotiate(["1"]), str | None)
    assert_type(untrusted("text", 80), str)


def formats() -> None:
    assert_type(dcbor.encode({"a": "b"}), bytes)
    assert_type(dcbor.encode(["a", 1, b"c", ("d", 2)]), bytes)
    dcbor.encode(1.5)  # type: ignore[arg-type]
    dcbor.encode({1.5: 1})  # type: ignore[arg-type]
    assert_type(cobblestone.seal(b"", b"", b""), bytes)
    opener = cobblestone.Opener(b"", b"", b"")
    assert_type(opener.open_into(memoryview(b""), memoryview(b""), final=True), int)
    opener.open_into(b"", bytearray(), final=True)  # type: ignore[arg-type]
