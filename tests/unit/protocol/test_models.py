import inspect
import json
from collections.abc import Iterator
from typing import Any, get_args

import jsonschema
import kmsplug_protocol
import pytest
from kmsplug_protocol import (
    BY_WIRE,
    AliasParams,
    BatchCall,
    BatchParams,
    CancelParams,
    Capability,
    ConfigureResult,
    CreateKeyParams,
    EncryptParams,
    ErrorData,
    GenerateDataKeyParams,
    HealthCheck,
    InitializeParams,
    InitializeResult,
    Key,
    KeyParams,
    KeystoreParams,
    ListKeysParams,
    ListVersionsParams,
    Meta,
    Peer,
    ProvisionParams,
    RandomParams,
    RandomResult,
    ScheduleDeletionParams,
    SignParams,
    TagKeyParams,
    TrustParams,
    ValidateAccessParams,
    ValidationResult,
    VerifyParams,
)
from kmsplug_protocol.schema import message_schema
from pydantic import BaseModel, ValidationError


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def reachable() -> list[type[BaseModel]]:
    """Every model of an operation, and those in them."""
    waiting: list[type[BaseModel]] = [CancelParams, ErrorData]
    waiting += [model for operation in BY_WIRE.values() for model in (operation.params, operation.result)]
    found: dict[str, type[BaseModel]] = {}
    while waiting:
        model = waiting.pop()
        if model.__name__ not in found:
            found[model.__name__] = model
            waiting += [
                inner for field in model.model_fields.values() for inner in models_in(field.annotation)
            ]
    return [found[name] for name in sorted(found)]


MODELS = reachable()
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)

# One valid message for each model: what has to be there, and no more.
KEY = {"key_id": "k", "key_version": "1", "algorithm": "RSA_2048", "usage": "SIGN_VERIFY", "state": "ACTIVE"}
PEER = {"name": "n", "version": "1"}
SMALLEST: dict[str, dict[str, Any]] = {
    "AliasParams": {"key_id": "k", "alias": "a"},
    "BackupResult": {"backup": ""},
    "BatchCall": {"method": "crypto.random", "params": {}},
    "BatchItem": {},
    "BatchParams": {"calls": [{"method": "crypto.random", "params": {}}]},
    "BatchResult": {"items": []},
    "CancelParams": {"id": 1},
    "Capability": {"operation": "crypto.encrypt"},
    "ConfigureParams": {"config": {}},
    "ConfigureResult": {"identity": "i"},
    "CreateKeyParams": {"algorithm": "AES_256_GCM"},
    "DecapsulateParams": {"key_id": "k", "ciphertext": ""},
    "DecryptParams": {"key_id": "k", "ciphertext": ""},
    "DecryptResult": {"key_id": "k", "plaintext": ""},
    "DeriveParams": {"key_id": "k", "peer_public_key": ""},
    "EmptyResult": {},
    "EncapsulateParams": {"key_id": "k"},
    "EncapsulateResult": {"key_id": "k", "mechanism": "ML_KEM_768", "shared_secret": "", "ciphertext": ""},
    "EncryptParams": {"key_id": "k", "plaintext": ""},
    "EncryptResult": {"key_id": "k", "mechanism": "AES_256_GCM", "ciphertext": ""},
    "ErrorData": {"code": "CONFLICT"},
    "GenerateDataKeyParams": {"key_id": "k"},
    "GenerateDataKeyResult": {"key_id": "k", "mechanism": "AES_256_GCM", "ciphertext": ""},
    "GetImportParametersParams": {"key_id": "k"},
    "GetImportParametersResult": {
        "key_id": "k",
        "wrapping_algorithm": "RSA_OAEP_SHA_256",
        "public_key": "",
        "import_token": "",
    },
    "GetPublicKeyParams": {"key_id": "k"},
    "GetPublicKeyResult": {"key_id": "k", "key_version": "1", "algorithm": "EC_P256", "public_key": ""},
    "GetRegionParams": {"key_id": "k"},
    "GetRegionResult": {"region": ""},
    "HealthCheck": {"name": "n", "healthy": True},
    "HealthParams": {},
    "HealthResult": {"healthy": False},
    "ImportKeyParams": {
        "key_id": "k",
        "wrapped_key": "",
        "wrapping_algorithm": "RSA_OAEP_SHA_256",
        "import_token": "",
    },
    "InitializeParams": {"protocol_versions": ["1"], "host": PEER},
    "InitializeResult": {
        "protocol_version": "1",
        "driver": PEER,
        "max_frame_bytes": 65536,
        "config_schema": {},
        "capabilities": [],
    },
    "Key": KEY,
    "KeyParams": {"key_id": "k"},
    "KeyVersion": {"key_version": "1", "state": "DESTROYED", "current": False},
    "KeystoreParams": {"identity": "i"},
    "KeystoreResult": {"identity": "i"},
    "ListKeysParams": {},
    "ListKeysResult": {"keys": []},
    "ListVersionsParams": {"key_id": "k"},
    "ListVersionsResult": {"key_id": "k", "versions": []},
    "MacParams": {"key_id": "k", "message": ""},
    "MacResult": {"key_id": "k", "mechanism": "HMAC_SHA_256", "mac": ""},
    "Meta": {},
    "Peer": PEER,
    "PingParams": {},
    "PingResult": {},
    "ProvisionParams": {"name": "n"},
    "RandomParams": {"length_bytes": 1},
    "RandomResult": {"data": ""},
    "ReEncryptParams": {"source_key_id": "k", "ciphertext": "", "key_id": "k"},
    "ReEncryptResult": {"key_id": "k", "mechanism": "AES_256_GCM", "ciphertext": ""},
    "ReconcileParams": {"method": "key.create", "idempotency_key": "i"},
    "ReconcileResult": {"outcome": "unknown"},
    "RestoreParams": {"backup": ""},
    "ScheduleDeletionParams": {"key_id": "k"},
    "SetStateParams": {"key_id": "k", "state": "SUSPENDED"},
    "SharedSecretResult": {"key_id": "k", "shared_secret": ""},
    "ShutdownParams": {},
    "ShutdownResult": {},
    "SignParams": {"key_id": "k", "message": ""},
    "SignResult": {"key_id": "k", "mechanism": "ED25519", "signature": ""},
    "TagKeyParams": {"key_id": "k"},
    "TransformAccessParams": {"key_id": "k", "access_data": {}},
    "TransformAccessResult": {"access_data": {}},
    "TrustParams": {"identity": "i", "subject": "s"},
    "UnwrapKeyParams": {"key_id": "k", "wrapped_key": ""},
    "UnwrapKeyResult": {"key_id": "k", "key": ""},
    "ValidateAccessParams": {"access_data": {}},
    "ValidateKeyParams": {"key_id": "k"},
    "ValidationResult": {"valid": True},
    "Vendor": {},
    "VerifyMacParams": {"key_id": "k", "message": "", "mac": ""},
    "VerifyParams": {"key_id": "k", "message": "", "signature": ""},
    "VerifyResult": {"key_id": "k", "valid": False},
    "WrapKeyParams": {"key_id": "k", "key": ""},
    "WrapKeyResult": {"key_id": "k", "mechanism": "AES_256_KW", "wrapped_key": ""},
}


def test_every_model_has_a_smallest_message_here() -> None:
    assert [model.__name__ for model in MODELS] == sorted(SMALLEST)


@every_model
def test_a_model_says_what_it_is(model: type[BaseModel]) -> None:
    own = model.__dict__.get("__doc__")

    assert own
    assert own.strip().splitlines()[0].endswith((".", ":"))


@every_model
def test_every_member_has_a_description(model: type[BaseModel]) -> None:
    missing = [name for name, field in model.model_fields.items() if not (field.description or "").strip()]

    assert missing == []


@every_model
def test_every_model_can_be_imported_from_the_package(model: type[BaseModel]) -> None:
    assert getattr(kmsplug_protocol, model.__name__) is model


@every_model
def test_a_message_cannot_be_changed(model: type[BaseModel]) -> None:
    message = model.model_validate(SMALLEST[model.__name__])

    for name in model.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(message, name, None)


@every_model
def test_unknown_members_are_ignored(model: type[BaseModel]) -> None:
    small = SMALLEST[model.__name__]

    message = model.model_validate({**small, "grease_7f": {"a": [None]}})

    assert message == model.model_validate(small)
    assert "grease_7f" not in message.model_dump_json()


@every_model
def test_a_message_reads_back_as_itself(model: type[BaseModel]) -> None:
    message = model.model_validate(SMALLEST[model.__name__])

    for wire in (message.model_dump_json(), message.model_dump_json(exclude_none=True)):
        assert model.model_validate_json(wire, strict=True) == message
        assert model.model_validate(json.loads(wire)) == message


@every_model
def test_each_member_that_is_required_is_missed(model: type[BaseModel]) -> None:
    small = SMALLEST[model.__name__]

    for name, field in model.model_fields.items():
        if field.is_required():
            with pytest.raises(ValidationError) as caught:
                model.model_validate({key: value for key, value in small.items() if key != name})
            assert caught.value.errors()[0]["loc"] == (name,)


@every_model
def test_the_schema_and_the_model_refuse_the_same_wrong_types(model: type[BaseModel]) -> None:
    schema = jsonschema.Draft202012Validator(message_schema(model, "validation"))  # type: ignore[arg-type]
    small = SMALLEST[model.__name__]
    schema.validate(small)

    for name in model.model_fields:
        wrong = {**small, name: 1.5}  # no member of any message is a fraction
        assert not schema.is_valid(wrong), name
        with pytest.raises(ValidationError):
            model.model_validate(wrong)


TOO_LONG_ID = "x" * 2049


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (KeyParams, {"key_id": ""}),
        (KeyParams, {"key_id": TOO_LONG_ID}),
        (KeyParams, {"key_id": None}),
        (KeyParams, {"key_id": "\ud800"}),
        (Key, {"key_version": ""}),
        (Key, {"key_version": "x" * 257}),
        (Key, {"algorithm": "aes_256_gcm"}),
        (Key, {"state": "ENABLED"}),
        (Key, {"created_at": "2026-01-31"}),
        (Key, {"created_at": "2026-01-31T09:30:00"}),
        (Key, {"created_at": "2026-01-31T09:30:00+01:00"}),
        (Key, {"created_at": "2026-01-31T09:30:00Z\n"}),
        (Key, {"created_at": " 2026-01-31T09:30:00Z"}),
        (Key, {"created_at": "2026-01-31T09:30:00.1234567Z"}),
        (Key, {"tags": {"": "v"}}),
        (Key, {"tags": {"x" * 257: "v"}}),
        (CreateKeyParams, {"tags": {str(number): "" for number in range(51)}}),
        (CreateKeyParams, {"name": ""}),
        (AliasParams, {"alias": "x" * 257}),
        (TagKeyParams, {"set": {str(number): "" for number in range(51)}}),
        (TagKeyParams, {"remove": [str(number) for number in range(51)]}),
        (TagKeyParams, {"remove": "abc"}),
        (ListKeysParams, {"limit": 0}),
        (ListKeysParams, {"limit": 1001}),
        (ListKeysParams, {"cursor": "x" * 4097}),
        (ListVersionsParams, {"limit": 1001}),
        (ScheduleDeletionParams, {"window_days": -1}),
        (ScheduleDeletionParams, {"window_days": 3651}),
        (ValidateAccessParams, {"access_data": {str(number): "" for number in range(65)}}),
        (ValidateAccessParams, {"access_data": {"a": 1}}),
        (ValidationResult, {"reason": "x" * 4097}),
        (RandomParams, {"length_bytes": 0}),
        (RandomParams, {"length_bytes": 65537}),
        (GenerateDataKeyParams, {"length_bytes": 15}),
        (GenerateDataKeyParams, {"length_bytes": 1025}),
        (EncryptParams, {"plaintext": "-_-_"}),
        (EncryptParams, {"context": {"a": None}}),
        (EncryptParams, {"context": [["a", "b"]]}),
        (SignParams, {"digest": ""}),
        (SignParams, {"message": None}),
        (VerifyParams, {"digest": ""}),
        (BatchCall, {"method": "x" * 65}),
        (BatchParams, {"calls": []}),
        (BatchParams, {"calls": [{"method": "crypto.random", "params": {}}] * 1001}),
        (InitializeParams, {"protocol_versions": []}),
        (InitializeParams, {"max_frame_bytes": 65535}),
        (InitializeParams, {"max_frame_bytes": 64 * 1024 * 1024 + 1}),
        (InitializeResult, {"max_frame_bytes": 65535}),
        (InitializeResult, {"max_concurrency": 0}),
        (InitializeResult, {"max_concurrency": 1025}),
        (Peer, {"name": ""}),
        (Peer, {"name": "x" * 129}),
        (Peer, {"version": "x" * 65}),
        (ConfigureResult, {"identity": ""}),
        (ConfigureResult, {"identity": "x" * 257}),
        (HealthCheck, {"detail": "x" * 4097}),
        (Capability, {"max_input_bytes": 0}),
        (Capability, {"deletion_window_days": [7]}),
        (Capability, {"wrap_algorithm": "x" * 65}),
        (Meta, {"deadline_ms": -1}),
        (Meta, {"traceparent": "x" * 257}),
        (Meta, {"correlation_id": "x" * 129}),
        (Meta, {"idempotency_key": "x" * 129}),
        (ProvisionParams, {"settings": {str(number): "" for number in range(65)}}),
        (KeystoreParams, {"identity": "x" * 257}),
        (TrustParams, {"subject": TOO_LONG_ID}),
        (CancelParams, {"id": None}),
        (ErrorData, {"retry_after_ms": -1}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:40],
)
def test_what_is_out_of_bounds_is_refused(model: type[BaseModel], change: dict[str, Any]) -> None:
    message = {**SMALLEST[model.__name__], **change}

    with pytest.raises(ValidationError):
        model.model_validate(message)


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (KeyParams, {"key_id": "x" * 2048}),
        (KeyParams, {"key_id": "arn:aws:kms:eu-central-1:111122223333:key/mrk-1 / ü\n"}),
        (Key, {"key_version": "x" * 256, "created_at": "2026-01-31T09:30:00.123456Z"}),
        (CreateKeyParams, {"tags": {str(number): "" for number in range(50)}}),
        (ListKeysParams, {"limit": 1000, "cursor": "x" * 4096}),
        (ScheduleDeletionParams, {"window_days": 0}),
        (RandomParams, {"length_bytes": 65536}),
        (GenerateDataKeyParams, {"length_bytes": 16}),
        (EncryptParams, {"context": {}}),
        (BatchParams, {"calls": [{"method": "crypto.random", "params": {}}] * 1000}),
        (InitializeParams, {"max_frame_bytes": 65536, "protocol_versions": ["2", "1"]}),
        (Meta, {"deadline_ms": 0}),
        (CancelParams, {"id": "a"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:40],
)
def test_what_is_just_within_bounds_is_taken(model: type[BaseModel], change: dict[str, Any]) -> None:
    message = {**SMALLEST[model.__name__], **change}

    read = model.model_validate(message).model_dump(mode="json")
    assert {name: read[name] for name in change} == change


def test_an_operation_takes_meta_and_none_is_required() -> None:
    for operation in BY_WIRE.values():
        assert not operation.params.model_fields["meta"].is_required(), operation.wire


def test_a_message_or_its_digest_is_signed_never_both_and_never_neither() -> None:
    for model, rest in ((SignParams, {}), (VerifyParams, {"signature": ""})):
        assert model.model_validate({"key_id": "k", "digest": "", **rest}).digest == b""
        for members in ({}, {"message": "", "digest": ""}):
            with pytest.raises(ValidationError, match="either message or digest"):
                model.model_validate({"key_id": "k", **members, **rest})


def test_random_bytes_can_be_taken_as_bytes() -> None:
    result = RandomResult(data=b"1234")

    assert bytes(result) == b"1234"
    assert len(result) == 4
