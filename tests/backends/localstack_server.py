"""LocalStack's KMS, with what it answers otherwise than AWS repaired; README.md lists every repair.

Run by the Python of its own environment, with its settings in the environment: ``servers.py`` does that.
"""

import datetime as dt
import hashlib
import os
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import load_der_public_key
from localstack.aws.api import RequestContext, handler
from localstack.aws.api.kms import (
    IncorrectKeyMaterialException,
    InvalidCiphertextException,
    InvalidMarkerException,
    KMSInvalidStateException,
    UnsupportedOperationException,
)
from localstack.runtime.main import main
from localstack.services.kms import models, provider
from localstack.services.kms.exceptions import ValidationException

_SYMMETRIC = "SYMMETRIC_DEFAULT"


def _serialize_context(encryption_context: Mapping[str, str] | None) -> bytes:
    """Repair 1: names and values have lengths, so that what stands between them cannot move."""
    parts = (part.encode() for pair in sorted((encryption_context or {}).items()) for part in pair)
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _material_id(material: bytes) -> str:
    return hashlib.sha256(material).hexdigest()


class Key(models.KmsKey):
    """Repair 2: a symmetric key knows the ids of its materials, and when each became current."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rotated_at: list[dt.datetime] = []
        self.name_material()

    def name_material(self) -> None:
        """Show the id of the current material, where there is one."""
        if self.metadata["KeySpec"] == _SYMMETRIC and self.metadata["KeyState"] != "PendingImport":
            self.metadata["CurrentKeyMaterialId"] = _material_id(self.crypto_key.key_material)

    @property
    def materials(self) -> list[bytes]:
        """All of them, oldest first."""
        return [*self.previous_keys, self.crypto_key.key_material]

    def rotate_key_on_demand(self) -> None:
        super().rotate_key_on_demand()
        self.rotated_at.append(dt.datetime.now(dt.UTC))
        self.name_material()

    def material_that_opens(self, blob: bytes, context: Mapping[str, str] | None) -> str:
        """Return the id of the material that made a ciphertext, which opens."""
        sealed = models.deserialize_ciphertext_blob(blob)
        for material in self.materials:
            try:
                models.decrypt(
                    material, sealed.ciphertext, sealed.iv, sealed.tag, _serialize_context(context)
                )
            except models.InvalidTag:
                continue
            return _material_id(material)
        raise InvalidCiphertextException

    def derive_shared_secret(self, public_key: bytes) -> bytes:
        """Repair 3: the bare secret, not a key derived from it; a peer of another curve is refused."""
        try:
            peer = load_der_public_key(public_key)
            return self.crypto_key.key.exchange(ec.ECDH(), peer)
        except Exception as error:
            raise ValidationException("the public key does not fit the key") from error


def _oaep(algorithm: str) -> padding.OAEP:
    chosen = hashes.SHA1 if algorithm.endswith("SHA_1") else hashes.SHA256
    return padding.OAEP(padding.MGF1(chosen()), chosen(), None)


class Provider(provider.KmsProvider):
    """KMS, repaired."""

    @handler("Encrypt", expand=False)
    def encrypt(self, context: RequestContext, request: dict[str, Any]) -> dict[str, Any]:
        """Repair 4: RSA keys encrypt with RSA."""
        key = self._usable(context, request["KeyId"])
        algorithm = request.get("EncryptionAlgorithm") or _SYMMETRIC
        if not self._is_rsa_spec(key.metadata["KeySpec"]):
            return super().encrypt(
                context, request["KeyId"], request["Plaintext"], request.get("EncryptionContext"),
                encryption_algorithm=algorithm,
            )  # fmt: skip
        self._validate_plaintext_key_type_based(request["Plaintext"], key, algorithm)
        sealed = key.crypto_key.key.public_key().encrypt(request["Plaintext"], _oaep(algorithm))
        return {"CiphertextBlob": sealed, "KeyId": key.metadata["Arn"], "EncryptionAlgorithm": algorithm}

    @handler("Decrypt", expand=False)
    def decrypt(self, context: RequestContext, request: dict[str, Any]) -> dict[str, Any]:
        """Repairs 2 and 4; and 5: whatever is wrong with the bytes is InvalidCiphertextException."""
        blob, bound = request["CiphertextBlob"], request.get("EncryptionContext")
        key_id = request.get("KeyId") or self._maker(blob)
        key = self._usable(context, key_id)
        algorithm = request.get("EncryptionAlgorithm") or _SYMMETRIC
        if self._is_rsa_spec(key.metadata["KeySpec"]):
            try:
                opened = key.crypto_key.key.decrypt(blob, _oaep(algorithm))
            except ValueError:
                raise InvalidCiphertextException from None
            return {"KeyId": key.metadata["Arn"], "Plaintext": opened, "EncryptionAlgorithm": algorithm}
        if len(blob) < models.HEADER_LEN:
            raise InvalidCiphertextException
        answer = super().decrypt(context, blob, bound, key_id=key_id, encryption_algorithm=algorithm)
        return {**answer, "KeyMaterialId": key.material_that_opens(blob, bound)}

    @handler("ReEncrypt", expand=False)
    def re_encrypt(self, context: RequestContext, request: dict[str, Any]) -> dict[str, Any]:
        """Repair 6: the source may be left out; the ids of both materials are told."""
        opened = self.decrypt(
            context,
            {
                "CiphertextBlob": request["CiphertextBlob"],
                "KeyId": request.get("SourceKeyId"),
                "EncryptionContext": request.get("SourceEncryptionContext"),
                "EncryptionAlgorithm": request.get("SourceEncryptionAlgorithm"),
            },
        )
        sealed = self.encrypt(
            context,
            {
                "KeyId": request["DestinationKeyId"],
                "Plaintext": opened["Plaintext"],
                "EncryptionContext": request.get("DestinationEncryptionContext"),
                "EncryptionAlgorithm": request.get("DestinationEncryptionAlgorithm"),
            },
        )
        target = self._usable(context, request["DestinationKeyId"])
        return {
            "CiphertextBlob": sealed["CiphertextBlob"],
            "SourceKeyId": opened["KeyId"],
            "KeyId": sealed["KeyId"],
            "SourceEncryptionAlgorithm": opened["EncryptionAlgorithm"],
            "DestinationEncryptionAlgorithm": sealed["EncryptionAlgorithm"],
            "SourceKeyMaterialId": opened.get("KeyMaterialId"),
            "DestinationKeyMaterialId": target.metadata.get("CurrentKeyMaterialId"),
        }

    def _generate_data_key(
        self, context: RequestContext, key_id: str, encryption_context: Any = None, length: int = 32
    ) -> dict[str, Any]:
        """Repair 7: as long as was asked for; only with symmetric keys."""
        key = self._usable(context, key_id)
        if key.metadata["KeySpec"] != _SYMMETRIC:
            raise UnsupportedOperationException
        self._validate_key_for_encryption_decryption(context, key)
        made = os.urandom(length)
        return {
            "KeyId": key.metadata["Arn"],
            "Plaintext": made,
            "CiphertextBlob": key.encrypt(made, encryption_context),
            "KeyMaterialId": key.metadata["CurrentKeyMaterialId"],
        }

    @handler("GenerateDataKey", expand=False)
    def generate_data_key(self, context: RequestContext, request: dict[str, Any]) -> dict[str, Any]:
        length = request.get("NumberOfBytes") or {"AES_128": 16}.get(request.get("KeySpec"), 32)
        return self._generate_data_key(context, request["KeyId"], request.get("EncryptionContext"), length)

    @handler("GenerateDataKeyWithoutPlaintext", expand=False)
    def generate_data_key_without_plaintext(
        self, context: RequestContext, request: dict[str, Any]
    ) -> dict[str, Any]:
        made = self.generate_data_key(context, request)
        return {name: value for name, value in made.items() if name != "Plaintext"}

    @handler("ListKeyRotations", expand=False)
    def list_key_rotations(self, context: RequestContext, request: dict[str, Any]) -> dict[str, Any]:
        """Repair 8: there is such a call."""
        account, region, key_id = self._parse_key_id(request["KeyId"], context)
        key = self._get_kms_key(account, region, key_id, any_key_state_allowed=True)
        if key.metadata["KeySpec"] != _SYMMETRIC:
            raise UnsupportedOperationException
        arn, current = key.metadata["Arn"], len(key.materials) - 1
        entries: list[dict[str, Any]] = [
            {
                "KeyId": arn,
                "KeyMaterialId": _material_id(material),
                "KeyMaterialState": "CURRENT" if index == current else "NON_CURRENT",
                **({"RotationDate": key.rotated_at[index - 1], "RotationType": "ON_DEMAND"} if index else {}),
            }
            for index, material in enumerate(key.materials)
        ]
        if request.get("IncludeKeyMaterial") != "ALL_KEY_MATERIAL":
            entries = entries[1:]
        begin, limit = int(request.get("Marker") or 0), request.get("Limit") or 100
        rest = begin + limit < len(entries)
        more = {"Truncated": True, "NextMarker": str(begin + limit)} if rest else {"Truncated": False}
        return {"Rotations": entries[begin : begin + limit], **more}

    @handler("ListKeys", expand=False)
    def list_keys(self, context: RequestContext, request: dict[str, Any]) -> dict[str, Any]:
        """Repair 11: a marker that was never given is refused."""
        marker = request.get("Marker")
        if marker is not None and marker not in self._get_store(context.account_id, context.region).keys:
            raise InvalidMarkerException
        return super().list_keys(context, request)

    @handler("ImportKeyMaterial", expand=False)
    def import_key_material(self, context: RequestContext, request: dict[str, Any]) -> dict[str, Any]:
        """Repair 9: what cannot be unwrapped, or is other material than before, is refused as AWS does."""
        key = self._get_kms_key(
            context.account_id, context.region, request["KeyId"], disabled_key_allowed=True
        )
        before = key.metadata.get("CurrentKeyMaterialId")
        token = self._get_store(context.account_id, context.region).imports.get(
            request["ImportToken"].decode(errors="replace")
        )
        if token is not None:
            try:
                material = self._decrypt_wrapped_key_material(token, request["EncryptedKeyMaterial"])
            except Exception:  # noqa: BLE001 - the library has several
                raise InvalidCiphertextException from None
            if before is not None and _material_id(material) != before:
                raise IncorrectKeyMaterialException
        answer = super().import_key_material(
            context, request["KeyId"], request["ImportToken"], request["EncryptedKeyMaterial"],
            request.get("ValidTo"), request.get("ExpirationModel"),
        )  # fmt: skip
        key.name_material()
        return answer

    @handler("DeriveSharedSecret", expand=False)
    def derive_shared_secret(self, context: RequestContext, request: dict[str, Any]) -> dict[str, Any]:
        """Repair 10: not with a key that is disabled or waits for material."""
        self._usable(context, request["KeyId"])
        account, region, key_id = self._parse_key_id(request["KeyId"], context)
        del account, region
        return super().derive_shared_secret(
            context, key_id, request["KeyAgreementAlgorithm"], request["PublicKey"]
        )

    def _usable(self, context: RequestContext, any_id: str) -> Key:
        account, region, key_id = self._parse_key_id(any_id, context)
        key = self._get_kms_key(account, region, key_id)
        if key.metadata["KeyState"] == "PendingImport":
            raise KMSInvalidStateException(f"{key.metadata['Arn']} is pending import.")
        return key

    def _maker(self, blob: bytes) -> str:
        try:
            return models.deserialize_ciphertext_blob(blob).key_id
        except Exception:  # noqa: BLE001 - the same
            raise InvalidCiphertextException from None


models._serialize_encryption_context = _serialize_context
provider.KmsKey = Key
provider.KmsProvider = Provider

if __name__ == "__main__":
    main()
