"""The keystore of an envelope vector: opens what the vector's wrapping key can, as its algorithm says."""

from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap
from cryptography.hazmat.primitives.serialization import load_der_private_key
from kmsplug_host._deadline import Deadline
from kmsplug_host.shims import envelope_format as fmt
from kmsplug_protocol import AssociatedData, Capability, DecryptResult, Mechanism, dcbor
from support.envelopes import MemoryKeystore

_KINDS: Final = {
    "A256GCM": AssociatedData.BYTES,
    "org.example/map-gcm": AssociatedData.MAP,
    "A256KW": AssociatedData.NONE,
    "RSA-OAEP-256": AssociatedData.NONE,
}
_OAEP: Final = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


class VectorKeystore(MemoryKeystore):
    """One of the keystores that a vector names, by its number."""

    def __init__(self, vector: Mapping[str, Any], number: int = 0) -> None:
        super().__init__(identity=f"keystore-{number}", key=bytes.fromhex(vector["wrapping_key"]))
        self.accepts_public_key_wrap = not vector.get("policy")
        self.algorithm = ""

    def wrap_row(self, operation: str, *, wrap_algorithm: str | None = None, **_: Any) -> Capability | None:
        if wrap_algorithm not in _KINDS:
            return None
        self.algorithm = wrap_algorithm
        return Capability(
            operation=operation, associated_data=_KINDS[wrap_algorithm], wrap_algorithm=wrap_algorithm
        )

    def native_decrypt(
        self,
        key_id: str,
        ciphertext: bytes,
        *,
        deadline: Deadline,
        key_version: str | None = None,
        mechanism: Mechanism | None = None,
        associated_data: bytes | None = None,
        context: Mapping[str, str] | None = None,
    ) -> DecryptResult:
        self.calls.append(key_id)
        try:
            if self.algorithm == "RSA-OAEP-256":
                private = load_der_private_key(self.key, None)
                assert isinstance(private, rsa.RSAPrivateKey)
                plaintext = private.decrypt(ciphertext, _OAEP)
            elif self.algorithm == "A256KW":
                plaintext = aes_key_unwrap(self.key, ciphertext)
            else:
                bound = associated_data if context is None else dcbor.encode(dict(context))
                plaintext = AESGCM(self.key).decrypt(ciphertext[:12], ciphertext[12:], bound)
        except (InvalidTag, InvalidUnwrap, ValueError):
            raise fmt.refused() from None
        return DecryptResult(key_id=key_id, key_version=key_version, plaintext=plaintext)
