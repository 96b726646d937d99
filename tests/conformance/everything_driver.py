"""A driver in memory that offers nearly every operation, so that every case of the suite runs against one.

It shares no code with any driver in use. Its keys die with it, unless it is given a file to keep them in;
nothing guards that file. It is one file, however long: broken drivers are its text with a few words changed.
"""

import contextlib
import copyreg
import functools
import hashlib
import http.client
import json
import os
import pickle
import threading
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Final, cast

import kmsplug_protocol as wire
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hmac, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, padding, rsa, utils, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kmsplug_protocol import ErrorCode, KeyAlgorithm, KeyState, KeyUsage, Mechanism
from kmsplug_sdk import Driver, DriverError, provides
from kmsplug_sdk.serve import serve
from pydantic import BaseModel, ConfigDict, Field

A, M, S, U = KeyAlgorithm, Mechanism, KeyState, KeyUsage
USABLE: Final = (S.ACTIVE, S.DEACTIVATED)
REFUSALS: Final = {
    S.PRE_ACTIVE: ErrorCode.KEY_INVALID_STATE,
    S.SUSPENDED: ErrorCode.KEY_DISABLED,
    S.DEACTIVATED: ErrorCode.KEY_INVALID_STATE,
    S.COMPROMISED: ErrorCode.KEY_COMPROMISED,
    S.DESTROY_SCHEDULED: ErrorCode.KEY_PENDING_DELETION,
    S.DESTROYED: ErrorCode.KEY_DESTROYED,
}
USAGES: Final = {
    A.AES_128_GCM: (U.ENCRYPT_DECRYPT,),
    A.AES_256_GCM: (U.ENCRYPT_DECRYPT,),
    A.AES_256_KW: (U.WRAP_UNWRAP,),
    A.RSA_2048: (U.ENCRYPT_DECRYPT, U.SIGN_VERIFY),
    A.EC_P256: (U.SIGN_VERIFY, U.KEY_AGREEMENT),
    A.X25519: (U.KEY_AGREEMENT,),
    A.HMAC_SHA_384: (U.GENERATE_VERIFY_MAC,),
    A.ML_KEM_768: (U.KEY_ENCAPSULATION,),
}
# RSA keys made beforehand: making one takes longer than most cases.
STOCK: Final[list[rsa.RSAPrivateKey]] = []
MAKES: Final[dict[KeyAlgorithm, Callable[[], Any]]] = {
    A.AES_128_GCM: lambda: os.urandom(16),
    A.AES_256_GCM: lambda: os.urandom(32),
    A.AES_256_KW: lambda: os.urandom(32),
    A.RSA_2048: lambda: STOCK.pop() if STOCK else rsa.generate_private_key(65537, 2048),
    A.EC_P256: lambda: ec.generate_private_key(ec.SECP256R1()),
    A.X25519: x25519.X25519PrivateKey.generate,
    A.HMAC_SHA_384: lambda: os.urandom(48),
    A.ML_KEM_768: mlkem.MLKEM768PrivateKey.generate,
}
SIGNS: Final = {A.RSA_2048: (M.RSA_PSS_SHA_256, M.RSA_PKCS1_SHA_512), A.EC_P256: (M.ECDSA_SHA_256,)}
SEALS: Final = {
    A.AES_128_GCM: M.AES_128_GCM,
    A.AES_256_GCM: M.AES_256_GCM,
    A.RSA_2048: M.RSA_OAEP_SHA_256,
}
OAEP: Final = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


@dataclass(frozen=True)
class Version:
    name: str
    state: KeyState
    material: Any
    former: KeyState = S.ACTIVE


@dataclass
class Stored:
    key_id: str
    algorithm: KeyAlgorithm
    usage: KeyUsage
    versions: list[Version]
    origin: wire.Origin = wire.Origin.GENERATED
    tags: dict[str, str] = field(default_factory=dict)
    deletion_at: str | None = None

    def move(self, state: KeyState, *sources: KeyState) -> None:
        self.versions = [
            replace(one, state=state, former=one.state) if one.state in (sources or USABLE) else one
            for one in self.versions
        ]

    def back(self, source: KeyState) -> None:
        self.versions = [
            replace(one, state=one.former) if one.state is source else one for one in self.versions
        ]


def invalid(text: str) -> DriverError:
    return DriverError(ErrorCode.INVALID_ARGUMENT, text)


def foreign() -> DriverError:
    return DriverError(ErrorCode.INVALID_CIPHERTEXT, wire.INVALID_CIPHERTEXT_MESSAGE)


def kept(method: Any) -> Any:
    """Write down what a change left behind, before it is answered."""

    def changing(self: Any, request: Any) -> Any:
        with self.changing:
            result = method(self, request)
            self.save()
            return result

    return changing


def once(operation: str) -> Callable[[Any], Any]:
    """Make a change that is asked for twice under one idempotency key once."""

    def declare(method: Any) -> Any:
        def changing(self: Any, request: Any) -> wire.Key:
            known = self.changed.get((operation, request.change_key))
            if known is not None:
                return cast(wire.Key, self.described(self.find(known)))
            key: wire.Key = method(self, request)
            if request.change_key is not None:
                self.changed[operation, request.change_key] = key.key_id
            return key

        return kept(changing)

    return declare


def each(rows: Sequence[dict[str, Any]]) -> Callable[[Any], Any]:
    def declare(method: Any) -> Any:
        for row in reversed(rows):
            method = provides(**row)(method)
        return method

    return declare


CREATES: Final = [
    {"key_algorithm": kind, "usage": usage} for kind, found in USAGES.items() for usage in found
]
GCM: Final[dict[str, Any]] = {
    "key_algorithm": A.AES_256_GCM,
    "mechanism": M.AES_256_GCM,
    "associated_data": wire.AssociatedData.BYTES,
    "max_input_bytes": 5000,
    "wrap_algorithm": "A256GCM",
    "versions_addressable": True,
}
GCM_OF_A_MAP: Final[dict[str, Any]] = {
    "key_algorithm": A.AES_128_GCM,
    "mechanism": M.AES_128_GCM,
    "associated_data": wire.AssociatedData.MAP,
    "max_input_bytes": 5000,
    "versions_addressable": True,
}
RSA: Final[dict[str, Any]] = {
    "key_algorithm": A.RSA_2048,
    "mechanism": M.RSA_OAEP_SHA_256,
    "max_input_bytes": 190,
    "versions_addressable": True,
}
SIGNING: Final[list[dict[str, Any]]] = [
    {"key_algorithm": kind, "mechanism": one, "max_input_bytes": 4096, "versions_addressable": True}
    for kind, mechanisms in SIGNS.items()
    for one in mechanisms
]
WRAPPING: Final[dict[str, Any]] = {
    "key_algorithm": A.AES_256_KW,
    "mechanism": M.AES_256_KW,
    "versions_addressable": True,
}
MACS: Final[dict[str, Any]] = {"key_algorithm": A.HMAC_SHA_384, "mechanism": M.HMAC_SHA_384}


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    state: str | None = Field(default=None, json_schema_extra={"format": "path"})
    pin: str | None = Field(default=None, json_schema_extra={"writeOnly": True})
    url: str | None = None


class EverythingDriver(Driver[Settings]):
    name: ClassVar[str] = "everything"
    version: ClassVar[str] = "1"
    Config = Settings

    def __init__(self) -> None:
        self.keys: dict[str, Stored] = {}
        self.aliases: dict[str, str] = {}
        self.changed: dict[tuple[str, str], str] = {}
        self.changing = threading.Lock()
        self.state: Path | None = None

    def configure(self, config: Settings, *, dry_run: bool) -> wire.ConfigureResult:
        if config.pin == "wrong":
            raise DriverError(ErrorCode.AUTHENTICATION_FAILED, "the login was refused")
        if config.url is not None:
            call_provider(config.url)
        identity = f"everything:{id(self)}:{os.getpid()}"
        if config.state is not None:
            self.state, identity = Path(config.state), f"everything:{config.state}"
            if self.state.exists():
                self.keys, self.aliases, self.changed = pickle.loads(self.state.read_bytes())  # noqa: S301
                self.take_out_of_stock()
        return wire.ConfigureResult(identity=identity, key_namespace=("k/",))

    def take_out_of_stock(self) -> None:
        """Leave in stock what no key that was kept has for its material."""
        found = [one.material for key in self.keys.values() for one in key.versions]
        taken = [key.private_numbers() for key in found if isinstance(key, rsa.RSAPrivateKey)]
        STOCK[:] = [key for key in STOCK if key.private_numbers() not in taken]

    def save(self) -> None:
        if self.state is not None:
            new = self.state.with_suffix(".new")
            new.write_bytes(pickle.dumps((self.keys, self.aliases, self.changed)))
            new.replace(self.state)

    @functools.cached_property
    def importing(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(65537, 2048)

    # What is behind all operations.

    def find(self, key_id: str) -> Stored:
        key = self.keys.get(self.aliases.get(key_id, key_id))
        if key is None:
            raise DriverError(ErrorCode.KEY_NOT_FOUND, "no such key")
        return key

    def usable(self, request: Any, usage: KeyUsage, states: Sequence[KeyState] = USABLE) -> list[Version]:
        key = self.find(request.key_id)
        if key.usage is not usage:
            raise DriverError(ErrorCode.KEY_USAGE_MISMATCH, f"the key is for {key.usage}")
        versions = key.versions[::-1]
        if request.key_version is not None:
            versions = [one for one in versions if one.name == request.key_version]
        elif states == (S.ACTIVE,):
            versions = versions[:1]
        if not versions:
            raise DriverError(ErrorCode.KEY_NOT_FOUND, "no such version")
        found = [one for one in versions if one.state in states]
        if not found:
            raise DriverError(REFUSALS[versions[0].state], f"the key is {versions[0].state}")
        return found

    def mechanism(self, request: Any, *fitting: Mechanism) -> Mechanism:
        wanted: Mechanism = request.mechanism or fitting[0]
        if wanted not in fitting:
            raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "another mechanism")
        return wanted

    def described(self, key: Stored) -> wire.Key:
        return wire.Key(
            key_id=key.key_id,
            key_version=key.versions[-1].name,
            algorithm=key.algorithm,
            usage=key.usage,
            state=key.versions[-1].state,
            origin=key.origin,
            protection=wire.Protection.SOFTWARE,
            deletion_at=key.deletion_at,
            aliases=tuple(name for name, owner in self.aliases.items() if owner == key.key_id),
            tags=key.tags,
        )

    # key.*

    @each(CREATES)
    @once("key.create")
    def create_key(self, request: wire.CreateKeyParams) -> wire.Key:
        found = USAGES.get(request.algorithm, ())
        if request.usage is None and request.algorithm is A.RSA_2048:
            raise invalid("say what the RSA key is for")
        usage = request.usage or (found[0] if found else U.ENCRYPT_DECRYPT)
        hsm = request.protection not in (None, wire.Protection.SOFTWARE)
        imported = request.origin is wire.Origin.IMPORTED
        if (
            usage not in found
            or hsm
            or request.exportable
            or request.name
            or (imported and usage is U.SIGN_VERIFY)
        ):
            raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "no such keys here")
        first = Version("1", S.PRE_ACTIVE if imported else S.ACTIVE, MAKES[request.algorithm]())
        key = Stored(
            f"k/{os.urandom(8).hex()}", request.algorithm, usage, [first], request.origin, request.tags
        )
        self.keys[key.key_id] = key
        return self.described(key)

    @provides()
    def get_key(self, request: wire.KeyParams) -> wire.Key:
        return self.described(self.find(request.key_id))

    def page(self, found: Sequence[Any], request: Any) -> tuple[tuple[Any, ...], str | None]:
        cursor = request.cursor or "0"
        if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 9:
            raise invalid("not a cursor of this driver")
        end = int(cursor) + request.limit
        return tuple(found[int(cursor) : end]), str(end) if end < len(found) else None

    @provides()
    def list_keys(self, request: wire.ListKeysParams) -> wire.ListKeysResult:
        keys, cursor = self.page([self.described(key) for key in self.keys.values()], request)
        return wire.ListKeysResult(keys=keys, next_cursor=cursor)

    @provides()
    def list_key_versions(self, request: wire.ListVersionsParams) -> wire.ListVersionsResult:
        key = self.find(request.key_id)
        found = [
            wire.KeyVersion(key_version=one.name, state=one.state, current=one is key.versions[-1])
            for one in key.versions
        ]
        versions, cursor = self.page(found, request)
        return wire.ListVersionsResult(key_id=key.key_id, versions=versions, next_cursor=cursor)

    @provides()
    @kept
    def disable_key(self, request: wire.KeyParams) -> wire.Key:
        key = self.find(request.key_id)
        key.move(S.SUSPENDED)
        return self.described(key)

    @provides()
    @kept
    def enable_key(self, request: wire.KeyParams) -> wire.Key:
        key = self.find(request.key_id)
        if key.versions[-1].state not in (*USABLE, S.SUSPENDED):
            raise DriverError(REFUSALS[key.versions[-1].state], "that state is not left by enable")
        key.back(S.SUSPENDED)
        return self.described(key)

    @provides()
    @kept
    def set_key_state(self, request: wire.SetStateParams) -> wire.Key:
        key = self.find(request.key_id)
        if request.state in (S.PRE_ACTIVE, S.DESTROY_SCHEDULED, S.DESTROYED):
            raise invalid("not by this operation")
        named = [one for one in key.versions if request.key_version in (None, one.name)]
        if not named:
            raise DriverError(ErrorCode.KEY_NOT_FOUND, "no such version")
        if named[-1].state not in (*USABLE, S.SUSPENDED):
            raise DriverError(REFUSALS[named[-1].state], "that state is not left")
        others = [one for one in key.versions if one not in named]
        key.versions = named
        key.move(request.state, *USABLE, S.SUSPENDED)
        key.versions = sorted([*others, *key.versions], key=lambda one: int(one.name))
        return self.described(key)

    @provides(deletion_window_days=(7, 30))
    @kept
    def schedule_key_deletion(self, request: wire.ScheduleDeletionParams) -> wire.Key:
        key, days = self.find(request.key_id), 30 if request.window_days is None else request.window_days
        if not 7 <= days <= 30:
            raise invalid("7 to 30 days")
        if key.versions[-1].state is S.DESTROY_SCHEDULED:
            raise DriverError(ErrorCode.KEY_PENDING_DELETION, "it is scheduled already")
        key.move(S.DESTROY_SCHEDULED, *set(S) - {S.DESTROYED})
        key.deletion_at = (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self.described(key)

    @provides()
    @kept
    def cancel_key_deletion(self, request: wire.KeyParams) -> wire.Key:
        key = self.find(request.key_id)
        if key.versions[-1].state is not S.DESTROY_SCHEDULED:
            raise DriverError(ErrorCode.KEY_INVALID_STATE, "it is not scheduled")
        key.versions = [replace(one, state=S.SUSPENDED) for one in key.versions]
        key.deletion_at = None
        return self.described(key)

    @provides()
    @kept
    def purge_key(self, request: wire.KeyParams) -> wire.EmptyResult:
        key = self.find(request.key_id)
        if key.versions[-1].state is not S.DESTROY_SCHEDULED:
            raise DriverError(ErrorCode.KEY_INVALID_STATE, "schedule its deletion first")
        key.versions = [replace(one, state=S.DESTROYED, material=None) for one in key.versions]
        return wire.EmptyResult()

    @provides()
    @once("key.rotate")
    def rotate_key(self, request: wire.KeyParams) -> wire.Key:
        key = self.find(request.key_id)
        if key.versions[-1].state is not S.ACTIVE:
            raise DriverError(REFUSALS[key.versions[-1].state], "only an ACTIVE key is rotated")
        key.move(S.DEACTIVATED, S.ACTIVE)
        key.versions.append(Version(str(len(key.versions) + 1), S.ACTIVE, MAKES[key.algorithm]()))
        return self.described(key)

    @provides()
    def reconcile(self, request: wire.ReconcileParams) -> wire.ReconcileResult:
        known = self.changed.get((request.method, request.idempotency_key))
        if known is not None:
            return wire.ReconcileResult(outcome=wire.Outcome.APPLIED, key=self.described(self.find(known)))
        kept = request.method in ("key.create", "key.rotate", "key.import")
        return wire.ReconcileResult(outcome=wire.Outcome.NOT_APPLIED if kept else wire.Outcome.UNKNOWN)

    @provides()
    def backup_key(self, request: wire.KeyParams) -> wire.BackupResult:
        return wire.BackupResult(backup=self.find(request.key_id).key_id.encode())

    @provides()
    def restore_key(self, request: wire.RestoreParams) -> wire.Key:
        raise DriverError(ErrorCode.ALREADY_EXISTS, f"a key {request.backup.decode()} is there")

    @provides(import_formats=("RSA_OAEP_SHA_256",))
    def get_import_parameters(
        self, request: wire.GetImportParametersParams
    ) -> wire.GetImportParametersResult:
        return wire.GetImportParametersResult(
            key_id=self.find(request.key_id).key_id,
            wrapping_algorithm="RSA_OAEP_SHA_256",
            public_key=spki(self.importing),
            import_token=b"token",
        )

    @provides(import_formats=("RSA_OAEP_SHA_256",))
    @once("key.import")
    def import_key(self, request: wire.ImportKeyParams) -> wire.Key:
        key = self.find(request.key_id)
        try:
            material = self.importing.decrypt(request.wrapped_key, OAEP)
        except ValueError:
            raise invalid("material and token do not fit") from None
        key.versions = [Version("1", S.ACTIVE, material)]
        return self.described(key)

    @each([{"key_algorithm": kind} for kind in USAGES if not kind.startswith(("AES", "HMAC"))])
    def get_public_key(self, request: wire.GetPublicKeyParams) -> wire.GetPublicKeyResult:
        key = self.find(request.key_id)
        if key.algorithm.startswith(("AES", "HMAC")):
            raise DriverError(ErrorCode.KEY_USAGE_MISMATCH, "it has no public half")
        wanted = request.key_version or key.versions[-1].name
        found = next((one for one in key.versions if one.name == wanted), None)
        if found is None:
            raise DriverError(ErrorCode.KEY_NOT_FOUND, "no such version")
        return wire.GetPublicKeyResult(
            key_id=key.key_id,
            key_version=found.name,
            algorithm=key.algorithm,
            public_key=spki(found.material),
        )

    @provides()
    @kept
    def set_alias(self, request: wire.AliasParams) -> wire.EmptyResult:
        self.aliases[request.alias] = self.find(request.key_id).key_id
        return wire.EmptyResult()

    @provides()
    @kept
    def remove_alias(self, request: wire.AliasParams) -> wire.EmptyResult:
        self.aliases.pop(request.alias, None)
        return wire.EmptyResult()

    @provides()
    @kept
    def tag_key(self, request: wire.TagKeyParams) -> wire.Key:
        key = self.find(request.key_id)
        key.tags = {
            name: value for name, value in (key.tags | request.set).items() if name not in request.remove
        }
        return self.described(key)

    @provides()
    def validate_key(self, request: wire.ValidateKeyParams) -> wire.ValidationResult:
        key = self.keys.get(request.key_id)
        good = key is not None and request.algorithm in (None, key.algorithm)
        return wire.ValidationResult(valid=good, reason=None if good else "no such key")

    # crypto.*

    @each([GCM, GCM_OF_A_MAP, RSA])
    def encrypt(self, request: wire.EncryptParams) -> wire.EncryptResult:
        (version,) = self.usable(request, U.ENCRYPT_DECRYPT, (S.ACTIVE,))
        key = self.find(request.key_id)
        mechanism = self.mechanism(request, SEALS[key.algorithm])
        bound = self.bound(key, request)
        if len(request.plaintext) > (5000 if bound is not None else 190):
            raise invalid("too long")
        if bound is None:
            sealed = version.material.public_key().encrypt(request.plaintext, OAEP)
        else:
            iv = os.urandom(12)
            sealed = iv + AESGCM(version.material).encrypt(iv, request.plaintext, bound)
        return wire.EncryptResult(
            key_id=key.key_id, key_version=version.name, mechanism=mechanism, ciphertext=sealed
        )

    def bound(self, key: Stored, request: Any) -> bytes | None:
        kind = key.algorithm
        if (request.associated_data and kind is not A.AES_256_GCM) or (
            request.context and kind is not A.AES_128_GCM
        ):
            raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "associated data of that kind are not bound")
        if kind is A.RSA_2048:
            return None
        if kind is A.AES_256_GCM:
            return request.associated_data or b""
        return json.dumps(sorted((request.context or {}).items())).encode()

    @each([GCM, GCM_OF_A_MAP, RSA])
    def decrypt(self, request: wire.DecryptParams) -> wire.DecryptResult:
        versions = self.usable(request, U.ENCRYPT_DECRYPT)
        key = self.find(request.key_id)
        self.mechanism(request, SEALS[key.algorithm])
        bound = self.bound(key, request)
        for version in versions:
            with contextlib.suppress(InvalidTag, ValueError):
                if bound is None:
                    opened = version.material.decrypt(request.ciphertext, OAEP)
                else:
                    sealed = request.ciphertext
                    opened = AESGCM(version.material).decrypt(sealed[:12], sealed[12:], bound)
                return wire.DecryptResult(key_id=key.key_id, key_version=version.name, plaintext=opened)
        raise foreign()

    @provides(key_algorithm=A.AES_256_GCM, associated_data=wire.AssociatedData.BYTES)
    def generate_data_key(self, request: wire.GenerateDataKeyParams) -> wire.GenerateDataKeyResult:
        if self.find(request.key_id).algorithm is not A.AES_256_GCM:
            raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "such a key makes no data keys")
        plaintext = os.urandom(request.length_bytes)
        sealed = self.encrypt(
            wire.EncryptParams(
                key_id=request.key_id,
                key_version=request.key_version,
                plaintext=plaintext,
                context=request.context,
                associated_data=request.associated_data,
            )
        )
        return wire.GenerateDataKeyResult(
            **sealed.model_dump(), plaintext=plaintext if request.with_plaintext else None
        )

    @provides(key_algorithm=A.AES_256_GCM, associated_data=wire.AssociatedData.BYTES)
    def reencrypt(self, request: wire.ReEncryptParams) -> wire.ReEncryptResult:
        opened = self.decrypt(
            wire.DecryptParams(
                key_id=request.source_key_id,
                ciphertext=request.ciphertext,
                context=request.source_context,
                associated_data=request.source_associated_data,
            )
        )
        sealed = self.encrypt(
            wire.EncryptParams(
                key_id=request.key_id,
                plaintext=opened.plaintext,
                context=request.context,
                associated_data=request.associated_data,
            )
        )
        return wire.ReEncryptResult(**sealed.model_dump(), source_key_version=opened.key_version)

    @provides(**WRAPPING)
    def wrap_key(self, request: wire.WrapKeyParams) -> wire.WrapKeyResult:
        (version,) = self.usable(request, U.WRAP_UNWRAP, (S.ACTIVE,))
        mechanism = self.mechanism(request, M.AES_256_KW)
        wrapped = keywrap.aes_key_wrap(version.material, request.key)
        return wire.WrapKeyResult(
            key_id=request.key_id, key_version=version.name, mechanism=mechanism, wrapped_key=wrapped
        )

    @provides(**WRAPPING)
    def unwrap_key(self, request: wire.UnwrapKeyParams) -> wire.UnwrapKeyResult:
        for version in self.usable(request, U.WRAP_UNWRAP):
            with contextlib.suppress(keywrap.InvalidUnwrap):
                opened = keywrap.aes_key_unwrap(version.material, request.wrapped_key)
                return wire.UnwrapKeyResult(key_id=request.key_id, key_version=version.name, key=opened)
        raise foreign()

    def scheme(self, request: Any) -> tuple[Mechanism, bytes, tuple[Any, ...]]:
        key = self.find(request.key_id)
        mechanism = self.mechanism(request, *SIGNS[key.algorithm])
        kind: Any = hashes.SHA512() if mechanism.endswith("512") else hashes.SHA256()
        digest = request.digest
        if digest is None:
            if len(request.message) > 4096:
                raise invalid("too long")
            digest = hashlib.new(kind.name, request.message).digest()
        if len(digest) != kind.digest_size:
            raise invalid("a digest of another length")
        prehashed = utils.Prehashed(kind)
        if mechanism is M.ECDSA_SHA_256:
            return mechanism, digest, (ec.ECDSA(prehashed),)
        pss = padding.PSS(padding.MGF1(kind), kind.digest_size)
        return mechanism, digest, (pss if "PSS" in mechanism else padding.PKCS1v15(), prehashed)

    @each(SIGNING)
    def sign(self, request: wire.SignParams) -> wire.SignResult:
        (version,) = self.usable(request, U.SIGN_VERIFY, (S.ACTIVE,))
        mechanism, digest, how = self.scheme(request)
        signature = version.material.sign(digest, *how)
        return wire.SignResult(
            key_id=request.key_id, key_version=version.name, mechanism=mechanism, signature=signature
        )

    @each(SIGNING)
    def verify(self, request: wire.VerifyParams) -> wire.VerifyResult:
        versions = self.usable(request, U.SIGN_VERIFY)
        _, digest, how = self.scheme(request)
        for version in versions:
            with contextlib.suppress(InvalidSignature):
                version.material.public_key().verify(request.signature, digest, *how)
                return wire.VerifyResult(key_id=request.key_id, key_version=version.name, valid=True)
        return wire.VerifyResult(key_id=request.key_id, valid=False)

    @provides(**MACS)
    def mac(self, request: wire.MacParams) -> wire.MacResult:
        if request.key_version not in (None, self.find(request.key_id).versions[-1].name):
            raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "older versions cannot be named")
        (version,) = self.usable(request, U.GENERATE_VERIFY_MAC, (S.ACTIVE,))
        mechanism = self.mechanism(request, M.HMAC_SHA_384)
        code = hmac_of(version.material, request.message)
        return wire.MacResult(key_id=request.key_id, key_version=version.name, mechanism=mechanism, mac=code)

    @provides(**MACS)
    def verify_mac(self, request: wire.VerifyMacParams) -> wire.VerifyResult:
        for version in self.usable(request, U.GENERATE_VERIFY_MAC):
            if hmac_of(version.material, request.message) == request.mac:
                return wire.VerifyResult(key_id=request.key_id, key_version=version.name, valid=True)
        return wire.VerifyResult(key_id=request.key_id, valid=False)

    @provides(inline=True)
    def random(self, request: wire.RandomParams) -> wire.RandomResult:
        return wire.RandomResult(data=os.urandom(request.length_bytes))

    @provides(key_algorithm=A.ML_KEM_768, mechanism=M.ML_KEM_768)
    def encapsulate(self, request: wire.EncapsulateParams) -> wire.EncapsulateResult:
        (version,) = self.usable(request, U.KEY_ENCAPSULATION, (S.ACTIVE,))
        secret, sealed = version.material.public_key().encapsulate()
        return wire.EncapsulateResult(
            key_id=request.key_id, mechanism=M.ML_KEM_768, shared_secret=secret, ciphertext=sealed
        )

    @provides(key_algorithm=A.ML_KEM_768, mechanism=M.ML_KEM_768)
    def decapsulate(self, request: wire.DecapsulateParams) -> wire.SharedSecretResult:
        version = self.usable(request, U.KEY_ENCAPSULATION)[0]
        try:
            secret = version.material.decapsulate(request.ciphertext)
        except ValueError:
            raise foreign() from None
        return wire.SharedSecretResult(key_id=request.key_id, shared_secret=secret)

    @each([{"key_algorithm": kind, "mechanism": M.ECDH} for kind in (A.EC_P256, A.X25519)])
    def derive(self, request: wire.DeriveParams) -> wire.SharedSecretResult:
        (version,) = self.usable(request, U.KEY_AGREEMENT, (S.ACTIVE,))
        try:
            peer: Any = serialization.load_der_public_key(request.peer_public_key)
            how = () if isinstance(peer, x25519.X25519PublicKey) else (ec.ECDH(),)
            secret = version.material.exchange(*how, peer)
        except (ValueError, TypeError, AttributeError):
            raise invalid("the peer's key does not fit") from None
        return wire.SharedSecretResult(key_id=request.key_id, shared_secret=secret)

    @provides()
    def batch(self, request: wire.BatchParams) -> wire.BatchResult:
        return wire.BatchResult(items=tuple(self.item(call) for call in request.calls))

    def item(self, call: wire.BatchCall) -> wire.BatchItem:
        if call.method != "crypto.random":
            only = DriverError(ErrorCode.UNSUPPORTED_OPERATION, "only crypto.random is worth a batch here")
            return wire.BatchItem(error=wire.error_response(1, only.message, only.data)["error"])
        try:
            result = self.random(wire.RandomParams.model_validate(call.params))
        except ValueError:
            bad = invalid("malformed")
            return wire.BatchItem(error=wire.error_response(1, bad.message, bad.data)["error"])
        return wire.BatchItem(result=result.model_dump(mode="json", exclude_none=True))


def call_provider(url: str) -> None:
    """Ask a provider that has nothing to say but ok."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            told = answer.read(100)
    except (OSError, http.client.HTTPException) as error:
        vendor = wire.Vendor(service="http", code=type(error).__name__)
        raise DriverError(
            ErrorCode.PROVIDER_UNAVAILABLE, "no answer from the provider", vendor=vendor
        ) from None
    if told != b"ok":
        vendor = wire.Vendor(service="http", code="nonsense")
        raise DriverError(ErrorCode.UNCLASSIFIED, "the provider talks nonsense", vendor=vendor)


def loaded(der: bytes) -> Any:
    return serialization.load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)


def unloaded(private: Any) -> Any:
    how = (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return loaded, (private.private_bytes(*how),)


for make in MAKES.values():
    if not isinstance(material := make(), bytes):
        copyreg.pickle(type(material), unloaded)


def spki(private: Any) -> bytes:
    data: bytes = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return data


def hmac_of(key: bytes, message: bytes) -> bytes:
    context = hmac.HMAC(key, hashes.SHA384())
    context.update(message)
    return context.finalize()


if __name__ == "__main__":
    serve("everything_driver:EverythingDriver")
