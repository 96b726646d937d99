"""Operations that take in material from outside.

A key without material does not exist at Azure. Until it comes, a wrapping key stands in its place, marked by
its note: the key's first version, which is no longer one once the material has come. What goes into an HSM is
wrapped under it in Azure's own transfer format and unwrapped in there; other material is unwrapped by the
service and this process, and handed in over the same connection.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from kmsplug_protocol import (
    ErrorCode,
    GetImportParametersParams,
    GetImportParametersResult,
    ImportKeyParams,
    Key,
    Outcome,
    Protection,
)
from kmsplug_sdk import DriverError

from ._capabilities import import_formats, offers
from ._changes import Changes
from ._kinds import HSM_SUFFIX, KINDS, OPERATIONS, algorithm_of
from ._making import WAITING_BITS, public_key
from ._records import Record, digest, read
from ._vault import Vault
from ._wire import b64, unb64

_MODULUS_BYTES: Final = WAITING_BITS // 8
_AES_BYTES: Final = (16, 24, 32)
_MAX_WRAPPED: Final = 16 * 1024
_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


class ImportOperations:
    """The part of the driver that takes in material."""

    _vault: Vault
    _changing: Changes

    @offers("key.get_import_parameters")
    def get_import_parameters(self, request: GetImportParametersParams) -> GetImportParametersResult:
        """Return the public half of the wrapping key that waits in the place of a key."""
        record, answer = self._vault.live("key.get_import_parameters", request.key_id)
        _require_waiting(record)
        _require_format(record, request.wrapping_algorithm)
        public = public_key(record.jwk, answer)
        if public is None:
            raise _misfit()
        return GetImportParametersResult(
            key_id=self._vault.config.namespace + record.name,
            wrapping_algorithm=request.wrapping_algorithm,
            public_key=public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            import_token=record.version.encode(),
            protection=record.protection,
            vendor=answer.vendor,
        )

    @offers("key.import")
    def import_key(self, request: ImportKeyParams) -> Key:
        """Give a key its material; the wrapping key is disabled and never shown again."""
        operation = "key.import"
        if request.expires_at is not None:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION, "this vault forgets no material: leave expires_at out"
            )
        change = None if request.change_key is None else digest(request.change_key)
        with self._changing.of(change):
            record, answer = self._vault.live(operation, request.key_id)
            if change is not None and record.note.made_by == change:
                return self._vault.described(record, answer)
            _require_waiting(record)
            _require_format(record, request.wrapping_algorithm)
            if request.import_token != record.version.encode() or len(request.wrapped_key) > _MAX_WRAPPED:
                raise _misfit()
            note = replace(record.note, generation=1, made_by=change or "", waits_for="")
            body = {
                "key": self._material(record, bytes(request.wrapped_key)),
                "attributes": {"enabled": True},
                "tags": record.with_note(note).all_tags(),
            }
            answer = self._vault.client.call(operation, "PUT", f"/keys/{record.name}", body, withhold=True)
            made = read(answer.body)
            try:
                self._vault.retire_wrapping_keys(operation, made)
            except DriverError as error:
                # The material is in, whatever kept the wrapping key from being disabled.
                error.data = error.data.model_copy(update={"outcome": Outcome.UNKNOWN})
                raise
            return self._vault.described(made, answer)

    def _material(self, record: Record, wrapped: bytes) -> dict[str, Any]:
        """Return the material as the service takes it, checked where it can be.

        Raises:
            DriverError: INVALID_ARGUMENT: it does not fit, whatever the reason.
        """
        kind, operations = KINDS[record.algorithm], list(OPERATIONS[record.usage])
        if record.protection is Protection.HSM:
            curve = {} if kind.curve is None else {"crv": kind.curve}
            transfer = _transfer(f"{self._vault.config.namespace}{record.name}/{record.version}", wrapped)
            return {"kty": kind.kty + HSM_SUFFIX, "key_ops": operations, "key_hsm": b64(transfer), **curve}
        ephemeral = self._unwrapped(record, wrapped[:_MODULUS_BYTES])
        try:
            private = load_der_private_key(
                keywrap.aes_key_unwrap_with_padding(ephemeral, wrapped[_MODULUS_BYTES:]), None
            )
        except (keywrap.InvalidUnwrap, ValueError, TypeError, UnsupportedAlgorithm):
            raise _misfit() from None
        jwk = _jwk(private)
        if algorithm_of(jwk, None) is not record.algorithm:
            raise _misfit()
        return {**jwk, "key_ops": operations}

    def _unwrapped(self, record: Record, wrapped: bytes) -> bytes:
        if len(wrapped) != _MODULUS_BYTES:
            raise _misfit()
        path = f"/keys/{record.name}/{record.version}/unwrapkey"
        body = {"alg": "RSA-OAEP-256", "value": b64(wrapped)}
        try:
            answer = self._vault.client.call("key.import", "POST", path, body, withhold=True)
        except DriverError as error:
            if error.code is ErrorCode.INVALID_ARGUMENT:
                raise _misfit() from None
            raise
        ephemeral = unb64(answer, "value")
        if len(ephemeral) not in _AES_BYTES:
            raise _misfit()
        return ephemeral


def _require_waiting(record: Record) -> None:
    if not record.note.waits_for:
        raise DriverError(
            ErrorCode.KEY_INVALID_STATE,
            f"key {record.name} does not wait for material: make one with origin imported",
        )


def _require_format(record: Record, wrapping_algorithm: str) -> None:
    formats = import_formats(KINDS[record.algorithm], hsm=record.protection is Protection.HSM)
    if wrapping_algorithm not in formats:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION, f"material for this key is wrapped by {' or '.join(formats)}"
        )


def _transfer(wrapping_key_id: str, wrapped: bytes) -> bytes:
    """Return a key transfer blob (Azure's bring your own key specification)."""
    blob = {
        "schema_version": "1.0.0",
        "header": {"kid": wrapping_key_id, "alg": "dir", "enc": "CKM_RSA_AES_KEY_WRAP"},
        "ciphertext": b64(wrapped),
        "generator": "kmsplug",
    }
    return json.dumps(blob).encode()


def _jwk(private: object) -> Mapping[str, Any]:
    """Return a private key as RFC 7518, section 6, writes it.

    Raises:
        DriverError: INVALID_ARGUMENT: it is of no kind that the service takes.
    """
    if isinstance(private, rsa.RSAPrivateKey):
        numbers = private.private_numbers()
        public = numbers.public_numbers
        members = {
            "n": public.n, "e": public.e, "d": numbers.d, "p": numbers.p, "q": numbers.q,
            "dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp,
        }  # fmt: skip
        return {"kty": "RSA", **{name: b64(_shortest(value)) for name, value in members.items()}}
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _CURVES:
        size = (private.key_size + 7) // 8
        point = private.public_key().public_numbers()
        coordinates = {"x": point.x, "y": point.y, "d": private.private_numbers().private_value}
        return {
            "kty": "EC",
            "crv": _CURVES[private.curve.name],
            **{name: b64(value.to_bytes(size)) for name, value in coordinates.items()},
        }
    raise _misfit()


def _shortest(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8)


def _misfit() -> DriverError:
    """Return the one refusal of everything that does not fit: which, could be an oracle."""
    return DriverError(
        ErrorCode.INVALID_ARGUMENT,
        "the import token or the material does not fit this key: ask for import parameters again",
    )
