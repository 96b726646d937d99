"""Operations that encrypt. Ciphertexts of AES keys are the server's texts; those of RSA keys bare bytes."""

from typing import Any, Final, cast

from kmsplug_protocol import (
    INVALID_CIPHERTEXT_MESSAGE,
    DecryptParams,
    DecryptResult,
    EncryptParams,
    EncryptResult,
    ErrorCode,
    GenerateDataKeyParams,
    GenerateDataKeyResult,
    KeyUsage,
    Protection,
    RandomParams,
    RandomResult,
    ReEncryptParams,
    ReEncryptResult,
    Secret,
    Vendor,
    encode_base64,
)
from kmsplug_sdk import DriverError, provides
from kmsplug_sdk.driver import provides_each

from kmsplug_plugins._software.requests import check_bound, check_size, choose

from . import _capabilities as rows
from ._algorithms import CIPHERS
from ._client import SERVICE
from ._keyring import Keyring, Kind
from ._keys import version_number
from ._prepared import Prepared, batch_results, item_error, run
from ._texts import made, read, secret, taken, written

_SOFTWARE = Protection.SOFTWARE
_ENCRYPT: Final = "crypto.encrypt"
_DECRYPT: Final = "crypto.decrypt"
_DATA_KEY: Final = "crypto.generate_data_key"
_REENCRYPT: Final = "crypto.reencrypt"

_NATIVE_BYTES: Final = (16, 32, 64)  # the data keys that the server makes itself
_VERSIONS_AT_ONCE: Final = 100


class CryptoOperations:
    """The part of the driver that encrypts."""

    _keys: Keyring

    @provides_each(rows.CIPHER)
    def encrypt(self, request: EncryptParams) -> EncryptResult:
        """Encrypt by the current version, or by the ACTIVE one that was asked for."""
        return cast("EncryptResult", run(self._keys, self.prepared_encrypt(request)))

    @provides_each(rows.CIPHER)
    def decrypt(self, request: DecryptParams) -> DecryptResult:
        """Decrypt by the version that the bytes name; with RSA by each usable one, newest first."""
        prepared = self.prepared_decrypt(request)
        if prepared is None:
            return self._decrypt_rsa(request)
        return cast("DecryptResult", run(self._keys, prepared))

    @provides_each(rows.DATA_KEY)
    def generate_data_key(self, request: GenerateDataKeyParams) -> GenerateDataKeyResult:
        """Let the server make a data key; other lengths and bound ones of its random bytes."""
        kind = self._keys.use(_DATA_KEY, request.key_id, KeyUsage.ENCRYPT_DECRYPT)
        row = CIPHERS[kind.algorithm]
        check_bound(kind.algorithm, row.associated_data, request)
        check_size(kind.algorithm, bytes(request.length_bytes), row.max_plaintext)
        if request.associated_data or request.length_bytes not in _NATIVE_BYTES:
            return self._encrypted_random(kind, request)
        form = "plaintext" if request.with_plaintext else "wrapped"
        body = {"bits": 8 * request.length_bytes, **_version(kind, request.key_version)}
        with self._keys.explaining(_DATA_KEY, kind, body.get("key_version")):
            answer = self._keys.transit.post(_DATA_KEY, f"datakey/{form}/{kind.name}", body)
        version, ciphertext = _ciphertext(kind, answer.data)
        return GenerateDataKeyResult(
            key_id=kind.key_id,
            key_version=str(version),
            mechanism=row.mechanism,
            plaintext=secret(answer.data, "plaintext") if request.with_plaintext else None,
            ciphertext=ciphertext,
            protection=_SOFTWARE,
            vendor=answer.vendor,
        )

    @provides_each(rows.REWRAP)
    def reencrypt(self, request: ReEncryptParams) -> ReEncryptResult:
        """Encrypt anew under the same key: the server does no more without showing the plaintext."""
        return cast("ReEncryptResult", run(self._keys, self.prepared_reencrypt(request)))

    @provides(**rows.RANDOM)
    def random(self, request: RandomParams) -> RandomResult:
        """Return bytes of the server's generator."""
        data, vendor = self._random("crypto.random", request.length_bytes)
        return RandomResult(data=data, protection=_SOFTWARE, vendor=vendor)

    def prepared_encrypt(self, request: EncryptParams) -> Prepared:
        """Return an encryption, ready to be sent."""
        kind = self._keys.use(_ENCRYPT, request.key_id, KeyUsage.ENCRYPT_DECRYPT)
        row = CIPHERS[kind.algorithm]
        choose(kind.algorithm, (row.mechanism,), request.mechanism)
        check_bound(kind.algorithm, row.associated_data, request)
        check_size(kind.algorithm, request.plaintext, row.max_plaintext)
        version = _version(kind, request.key_version)
        item = {
            "plaintext": encode_base64(request.plaintext),
            **_associated_data(request.associated_data),
            **version,
        }

        def finish(data: dict[str, Any], vendor: Vendor) -> EncryptResult:
            used, ciphertext = _ciphertext(kind, data)
            return EncryptResult(
                key_id=kind.key_id,
                key_version=str(used),
                mechanism=row.mechanism,
                ciphertext=ciphertext,
                protection=_SOFTWARE,
                vendor=vendor,
            )

        return Prepared(_ENCRYPT, kind, f"encrypt/{kind.name}", (), item, version.get("key_version"), finish)

    def prepared_decrypt(self, request: DecryptParams) -> Prepared | None:
        """Return a decryption, ready to be sent; None: it takes several, as the bytes name no version."""
        kind = self._keys.use(_DECRYPT, request.key_id, KeyUsage.ENCRYPT_DECRYPT)
        row = CIPHERS[kind.algorithm]
        if row.raw:
            return None
        choose(kind.algorithm, (row.mechanism,), request.mechanism)
        check_bound(kind.algorithm, row.associated_data, request)
        version, text = self._named_by(_DECRYPT, kind, request.ciphertext, request.key_version)
        item = {"ciphertext": text, **_associated_data(request.associated_data)}

        def finish(data: dict[str, Any], vendor: Vendor) -> DecryptResult:
            return DecryptResult(
                key_id=kind.key_id,
                key_version=str(version),
                plaintext=secret(data, "plaintext"),
                protection=_SOFTWARE,
                vendor=vendor,
            )

        return Prepared(_DECRYPT, kind, f"decrypt/{kind.name}", (), item, version, finish)

    def prepared_reencrypt(self, request: ReEncryptParams) -> Prepared:
        """Return a re-encryption, ready to be sent."""
        kind = self._keys.use(_REENCRYPT, request.source_key_id, KeyUsage.ENCRYPT_DECRYPT)
        to = self._keys.use(_REENCRYPT, request.key_id, KeyUsage.ENCRYPT_DECRYPT)
        row = CIPHERS[kind.algorithm]
        if to.name != kind.name or row.raw:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                "the server re-encrypts under the same AES key only; anything else shows the plaintext here",
                path="key_id",
            )
        for name in ("source_associated_data", "source_context", "associated_data", "context"):
            if getattr(request, name):
                raise DriverError(
                    ErrorCode.UNSUPPORTED_OPERATION,
                    "the server re-encrypts only what nothing is bound to",
                    path=name,
                )
        opened_by, text = self._named_by(_REENCRYPT, kind, request.ciphertext, request.source_key_version)
        version = _version(kind, request.key_version)
        item = {"ciphertext": text, **version}

        def finish(data: dict[str, Any], vendor: Vendor) -> ReEncryptResult:
            used, ciphertext = _ciphertext(kind, data)
            return ReEncryptResult(
                key_id=kind.key_id,
                key_version=str(used),
                source_key_version=str(opened_by),
                mechanism=row.mechanism,
                ciphertext=ciphertext,
                protection=_SOFTWARE,
                vendor=vendor,
            )

        return Prepared(
            _REENCRYPT, kind, f"rewrap/{kind.name}", (), item, version.get("key_version", opened_by), finish
        )

    def _named_by(self, operation: str, kind: Kind, ciphertext: bytes, wanted: str | None) -> tuple[int, str]:
        """Return the version that a ciphertext names, and its text.

        Raises:
            DriverError: INVALID_CIPHERTEXT: it names none, or not the one that was asked for.
        """
        text = ciphertext.decode("ascii", "replace")
        found = read(text)
        number = None if wanted is None else self._existing_version(operation, kind, wanted)
        if found is None or number not in (None, found[0]):
            raise invalid_ciphertext()
        return found[0], text

    def _existing_version(self, operation: str, kind: Kind, wanted: str) -> int:
        """Return the number of a version that opens something; the server would only speak of the bytes."""
        number = version_number(kind.key_id, wanted)
        return self._keys.read(operation, kind.key_id).opening(number)

    def _decrypt_rsa(self, request: DecryptParams) -> DecryptResult:
        """Ask about several versions in one request."""
        kind = self._keys.use(_DECRYPT, request.key_id, KeyUsage.ENCRYPT_DECRYPT)
        row = CIPHERS[kind.algorithm]
        choose(kind.algorithm, (row.mechanism,), request.mechanism)
        check_bound(kind.algorithm, row.associated_data, request)
        versions = self._candidates(kind, request.key_version)
        for first in range(0, len(versions), _VERSIONS_AT_ONCE):
            some = versions[first : first + _VERSIONS_AT_ONCE]
            items = [{"ciphertext": written(version, request.ciphertext)} for version in some]
            with self._keys.explaining(_DECRYPT, kind):
                answer = self._keys.transit.post(_DECRYPT, f"decrypt/{kind.name}", {"batch_input": items})
            for version, item in zip(some, batch_results(answer, len(some)), strict=True):
                error = item_error(_DECRYPT, item)
                if error is None:
                    return DecryptResult(
                        key_id=kind.key_id,
                        key_version=str(version),
                        plaintext=secret(item, "plaintext"),
                        protection=_SOFTWARE,
                        vendor=answer.vendor,
                    )
                if not isinstance(error, DriverError) or error.code is not ErrorCode.INVALID_CIPHERTEXT:
                    raise error
        raise invalid_ciphertext()

    def _candidates(self, kind: Kind, wanted: str | None) -> list[int]:
        if wanted is not None:
            return [self._existing_version(_DECRYPT, kind, wanted)]
        key = self._keys.read(_DECRYPT, kind.key_id)
        if key.soft_deleted:
            raise key.refusal()
        return list(key.openers)

    def _encrypted_random(self, kind: Kind, request: GenerateDataKeyParams) -> GenerateDataKeyResult:
        version = _version(kind, request.key_version)
        data_key, _ = self._random(_DATA_KEY, request.length_bytes)
        body = {
            "plaintext": encode_base64(data_key),
            **_associated_data(request.associated_data),
            **version,
        }
        with self._keys.explaining(_DATA_KEY, kind, version.get("key_version")):
            answer = self._keys.transit.post(_DATA_KEY, f"encrypt/{kind.name}", body)
        used, ciphertext = _ciphertext(kind, answer.data)
        return GenerateDataKeyResult(
            key_id=kind.key_id,
            key_version=str(used),
            mechanism=CIPHERS[kind.algorithm].mechanism,
            plaintext=data_key if request.with_plaintext else None,
            ciphertext=ciphertext,
            protection=_SOFTWARE,
            vendor=answer.vendor,
        )

    def _random(self, operation: str, length: int) -> tuple[Secret, Vendor]:
        answer = self._keys.transit.post(operation, f"random/platform/{length}", {"format": "base64"})
        data = secret(answer.data, "random_bytes")
        if len(data) != length:
            raise DriverError(
                ErrorCode.PROVIDER_INTERNAL, f"{length} random bytes were asked for, {len(data)} came"
            )
        return data, answer.vendor


def invalid_ciphertext() -> DriverError:
    """Return the one refusal of bytes; the server's words, where it was asked, are withheld too."""
    return DriverError(
        ErrorCode.INVALID_CIPHERTEXT,
        INVALID_CIPHERTEXT_MESSAGE,
        vendor=Vendor(service=SERVICE, withheld=True),
    )


def _version(kind: Kind, wanted: str | None) -> dict[str, int]:
    return {} if wanted is None else {"key_version": version_number(kind.key_id, wanted)}


def _associated_data(data: bytes | None) -> dict[str, str]:
    return {"associated_data": encode_base64(data)} if data else {}


def _ciphertext(kind: Kind, data: dict[str, Any]) -> tuple[int, bytes]:
    version, sealed = made(data, "ciphertext")
    raw = CIPHERS[kind.algorithm].raw
    return version, sealed if raw else taken(data, "ciphertext").encode("ascii")
