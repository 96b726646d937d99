"""Lengths, names, tags and wrapped material at and beyond their bounds (see test_local_refusals)."""

import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from kmsplug_plugins.local._hierarchy import box, open_box
from kmsplug_protocol import dcbor, decode_base64
from unit.plugins.local_support import AES_KEY_WRAP, Stored, b64, flip, opened, wrap
from unit.plugins.test_local_refusals import BY_OAEP, ROWS, asked


def lengths(row: Any) -> tuple[str, tuple[int, ...], tuple[int, ...], str]:
    """Return a member of a request, which lengths it takes and which not, and with which code."""
    limit, invalid = row.max_input_bytes, "INVALID_ARGUMENT"
    opens = ((), (0, 1, 15, 16, 27, 28, limit, limit + 1), "INVALID_CIPHERTEXT")
    wraps = (0, limit + 1, limit + 8)
    members: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], str]] = {
        "crypto.random": ("length_bytes", (1, limit), (-1, 0, limit + 1), invalid),
        "crypto.generate_data_key": ("length_bytes", (16, limit), (0, 1, 15, limit + 1), invalid),
        "crypto.encrypt": ("plaintext", (0, 1, limit), (limit + 1,), invalid),
        "crypto.decrypt": ("ciphertext", *opens),
        "crypto.reencrypt": ("ciphertext", *opens),
        "crypto.wrap_key": ("key", (16, limit), (*wraps, 1, 8, 15, 17), invalid),
        "crypto.unwrap_key": ("wrapped_key", *opens),
    }
    if row.mechanism == "AES_256_KWP" and row.operation == "crypto.wrap_key":
        return "key", (1, 8, 15, limit), wraps, invalid
    return members[row.operation]


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.max_input_bytes],
    ids=lambda row: "-".join(filter(None, (row.operation, row.key_algorithm, row.mechanism))),
)
def test_inputs_end_at_the_declared_limit(stored: Stored, row: Any) -> None:
    member, taken, refused, code = lengths(row)
    named: dict[str, Any] = {}
    if row.key_algorithm is not None:
        usage = "WRAP_UNWRAP" if row.key_algorithm == "AES_256_KW" else "ENCRYPT_DECRYPT"
        key_id = stored.active(row.key_algorithm, usage)
        named = {"key_id": key_id, "source_key_id": key_id, "mechanism": row.mechanism}

    def sized(length: int) -> Any:
        return length if member == "length_bytes" else b64(bytes(length))

    for length in taken:
        stored.session.call(row.operation, **named, **{member: sized(length)})
    for length in refused:
        stored.refuses(code, row.operation, **named, **{member: sized(length)})


# Names from outside: each has to be taken as it is, or refused.
NAMES = {
    "non-ASCII": "ключ-鍵-🔑-é-é",
    "right to left": "\u202egnp.yek",
    "with a zero": "a\0b",
    "with lines": "a\r\nb\u2028c",
    "like SQL": "'; DROP TABLE keys; --",
    "longest": "鍵" * 256,
}
OVERLONG = {"257 characters": "x" * 257, "10,000 characters": "鍵" * 10_000, "none": ""}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_of_any_characters_is_kept_as_it_is(stored: Stored, name: str) -> None:
    session = stored.session
    key_id = session.create(name=name, tags={name: name})

    session.call("key.set_alias", key_id=key_id, alias=name)

    key = session.call("key.get", key_id=f"alias/{name}")
    assert (key["key_id"], key["name"], key["aliases"], key["tags"]) == (key_id, name, [name], {name: name})
    session.call("key.remove_alias", key_id=key_id, alias=name)
    assert session.call("key.tag", key_id=key_id, remove=[name])["tags"] == {}
    stored.refuses("KEY_NOT_FOUND", "key.get", key_id=f"alias/{name}")
    stored.refuses("KEY_NOT_FOUND", "crypto.encrypt", key_id=key_id, key_version=name, plaintext="")


@pytest.mark.parametrize("name", OVERLONG.values(), ids=OVERLONG)
def test_a_name_that_is_too_long_or_none_is_refused_wherever_it_stands(stored: Stored, name: str) -> None:
    key_id = stored.session.create()

    stored.refuses("INVALID_ARGUMENT", "key.create", algorithm="AES_256_GCM", name=name)
    stored.refuses("INVALID_ARGUMENT", "key.create", algorithm="AES_256_GCM", tags={name: ""})
    for method in ("key.set_alias", "key.remove_alias"):
        stored.refuses("INVALID_ARGUMENT", method, key_id=key_id, alias=name)
    for params in ({"set": {name: ""}}, {"remove": [name]}):
        stored.refuses("INVALID_ARGUMENT", "key.tag", key_id=key_id, **params)
    for method, params in asked("X25519", {}).items():
        stored.refuses("INVALID_ARGUMENT", method, key_id=key_id, key_version=name, **params)


KEY_OPERATIONS: dict[str, dict[str, Any]] = {
    **{
        f"key.{name}": {}
        for name in (
            "get", "enable", "disable", "rotate", "list_versions", "get_public_key", "schedule_deletion",
            "cancel_deletion", "purge", "backup", "get_import_parameters", "tag", "get_region",
        )
    },
    "key.set_state": {"state": "SUSPENDED"},
    "key.transform_access": {"access_data": {}},
    "key.set_alias": {"alias": "a"},
    "key.remove_alias": {"alias": "a"},
    "key.import": {"wrapped_key": "", "import_token": "", "wrapping_algorithm": BY_OAEP},
}  # fmt: skip


def test_a_key_id_of_any_form_is_not_found_or_refused_by_every_operation(stored: Stored) -> None:
    known = {row.operation for row in ROWS if not row.operation.startswith("key.validate")}  # which opine
    operations = {**KEY_OPERATIONS, **asked("X25519", {})}
    source = {"source_key_id": stored.session.create(), "ciphertext": ""}
    without = {"key.create", "key.list", "key.restore", "crypto.random", "crypto.batch"}
    assert known - operations.keys() == {*without, "crypto.reencrypt"}

    for key_id, code in (
        *((name, "KEY_NOT_FOUND") for name in NAMES.values()),
        ("鍵" * 2048, "KEY_NOT_FOUND"),
        ("x" * 2049, "INVALID_ARGUMENT"),
        ("鍵" * 10_000, "INVALID_ARGUMENT"),
        ("", "INVALID_ARGUMENT"),
    ):
        for method, params in {**operations, "crypto.reencrypt": source}.items():
            stored.refuses(code, method, key_id=key_id, **params)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        *(
            (method, {member: value})
            for method in ("key.list", "key.list_versions")
            for member, value in (("limit", 0), ("limit", 1001), ("limit", 2**63), ("cursor", "x" * 4097))
        ),
        *(("key.schedule_deletion", {"window_days": days}) for days in (-1, 6, 31, 3651, 2**53)),
        ("crypto.batch", {"calls": []}),
        ("crypto.batch", {"calls": [{"method": "crypto.random", "params": {"length_bytes": 1}}] * 1001}),
        ("key.get_import_parameters", {"wrapping_algorithm": "x" * 65}),
        ("key.create", {"algorithm": "AES_256_GCM", "tags": {str(number): "" for number in range(51)}}),
    ],
)
def test_numbers_and_lists_end_at_their_bounds(stored: Stored, method: str, params: dict[str, Any]) -> None:
    key_id = stored.active("AES_256_GCM", "ENCRYPT_DECRYPT")

    stored.refuses("INVALID_ARGUMENT", method, key_id=key_id, **params)


@pytest.mark.parametrize("length", [0, 1, 55, 56, 72, 1024, 100_000])
def test_a_backup_of_any_length_that_is_none_is_refused(stored: Stored, length: int) -> None:
    stored.refuses("INVALID_CIPHERTEXT", "key.restore", backup=b64(bytes(length)))


def test_tags_end_at_their_bounds(stored: Stored) -> None:
    most = {f"{number:0256}": "é" * 1024 for number in range(50)}
    key_id = stored.session.create(tags=most)
    assert stored.session.call("key.get", key_id=key_id)["tags"] == most

    stored.refuses("INVALID_ARGUMENT", "key.create", algorithm="AES_256_GCM", tags={**most, "one more": ""})
    stored.refuses("INVALID_ARGUMENT", "key.create", algorithm="AES_256_GCM", tags={"a": "x" * 1025})
    stored.refuses("LIMIT_EXCEEDED", "key.tag", key_id=key_id, set={"one more": ""})
    stored.refuses("INVALID_ARGUMENT", "key.tag", key_id=key_id, set={"a": "x" * 1025})
    stored.refuses("INVALID_ARGUMENT", "key.tag", key_id=key_id, set={**most, "one more": ""})
    stored.refuses("INVALID_ARGUMENT", "key.tag", key_id=key_id, remove=[*most, "one more"])
    stored.refuses("INVALID_ARGUMENT", "key.tag", key_id=key_id, set={"a": 1})


@pytest.mark.parametrize("algorithm", ["AES_256_GCM", "HMAC_SHA_512", "RSA_2048", "ML_KEM_768"])
def test_material_in_the_wrong_wrapping_or_too_late_is_refused(stored: Stored, algorithm: str) -> None:
    usage = {"usage": "SIGN_VERIFY"} if algorithm == "RSA_2048" else {}
    key_id = stored.session.create(algorithm, origin="imported", **usage)
    parameters = stored.session.call(
        "key.get_import_parameters", key_id=key_id, wrapping_algorithm=AES_KEY_WRAP
    )
    good = wrap(parameters, bytes(32))
    public = load_der_public_key(decode_base64(parameters["public_key"]))
    assert isinstance(public, rsa.RSAPublicKey)
    sha_1 = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303
    blobs = {
        "not wrapped": bytes(32),
        "by PKCS#1 v1.5": public.encrypt(bytes(32), padding.PKCS1v15()),
        "by OAEP with SHA-1": public.encrypt(bytes(32), sha_1),
        "one byte less": decode_base64(good["wrapped_key"])[:-1],
        "one byte more": decode_base64(good["wrapped_key"]) + b"\0",
        "all zeros": bytes(384),
    }

    for blob in blobs.values():
        stored.refuses("INVALID_ARGUMENT", "key.import", **{**good, "wrapped_key": b64(blob)})
    for wrapping in (BY_OAEP, "RSA_PKCS1", ""):
        stored.refuses("INVALID_ARGUMENT", "key.import", **{**good, "wrapping_algorithm": wrapping})
    for token in (flip(good["import_token"], -1), "", expired(stored, key_id, good["import_token"])):
        stored.refuses("INVALID_ARGUMENT", "key.import", **{**good, "import_token": token})


def expired(stored: Stored, key_id: str, token: str) -> str:
    """Return the token as if it had been made so early that it ends now."""
    with opened(stored.folder) as store:
        label: dcbor.Value = ["kmsplug-local/v1/import-token", store.store_id, key_id]
        content = dcbor.decode(open_box(store.keys.imports, label, decode_base64(token)))
        content["expires"] = int(time.time())
        return b64(box(store.keys.imports, label, dcbor.encode(content)))
