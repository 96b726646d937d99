"""Everything that a key can be used for, each use seen done by whom `Keystore.can_do` names."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from kmsplug_host import KeyAlgorithm, Keystore, KeyUsage
from kmsplug_host.errors import (
    InvalidArgument,
    InvalidCiphertext,
    KmsplugError,
    PolicyDenied,
    UnsupportedOperation,
)
from kmsplug_protocol import AssociatedData, Capability, Key, ReEncryptResult
from support.portable_witness import Witness

_A = KeyAlgorithm
_U = KeyUsage
_CONTEXT: Final = {"order": "4711", "tenant": "Käufer"}
_OTHER: Final = {"order": "4712", "tenant": "Käufer"}


class Uses(Witness):
    """Uses two keys of one kind: the other one must open nothing."""

    def _uses(self, key: Key, other: Key) -> list[Callable[[], object]]:
        """Use a key for all there is; return what opens again what was made."""
        by_usage: dict[KeyUsage, Callable[[Key, Key], list[Callable[[], object]]]] = {
            _U.ENCRYPT_DECRYPT: self._encrypting,
            _U.WRAP_UNWRAP: self._wrapping,
            _U.SIGN_VERIFY: self._signing,
            _U.GENERATE_VERIFY_MAC: self._authenticating,
            _U.KEY_AGREEMENT: self._agreeing,
            _U.KEY_ENCAPSULATION: self._encapsulating,
        }
        public = self.done("key.get_public_key", key, lambda: self.keystore.get_public_key(key.key_id))
        if public is not None:
            serialization.load_der_public_key(public.public_key)
        return by_usage[key.usage](key, other)

    def _encrypting(self, key: Key, other: Key) -> list[Callable[[], object]]:
        keystore, reopen = self.keystore, list[Callable[[], object]]()
        made = self.done("crypto.encrypt", key, lambda: keystore.encrypt(key.key_id, b"raw", format="raw"))
        if made is not None:

            def opened() -> None:
                found = self.done(
                    "crypto.decrypt",
                    key,
                    lambda: keystore.decrypt(made.ciphertext, key_id=key.key_id, format="raw"),
                )
                assert found is None or found.plaintext == b"raw"

            opened()
            reopen.append(opened)
            if keystore.can_do("crypto.decrypt", key.key_id):
                with pytest.raises(InvalidCiphertext):
                    keystore.decrypt(made.ciphertext, key_id=other.key_id, format="raw")
            self._bound(key)
            reopen += self._enveloped(key)
        reopen += self._wrapping(key, other)
        self._data_keys(key)
        if made is not None:
            self._reencrypting(key, other, made.ciphertext)
        return reopen

    def _bound(self, key: Key) -> None:
        """Associated data bind, or are refused; they are never dropped."""
        keystore = self.keystore
        for argument in ({"associated_data": b"beside"}, {"context": _CONTEXT}):
            try:
                made = keystore.encrypt(key.key_id, b"bound", format="raw", **argument)
            except (UnsupportedOperation, PolicyDenied):
                continue
            if not keystore.can_do("crypto.decrypt", key.key_id):
                return
            for wrong in ({}, {"associated_data": b"Beside"}, {"context": _OTHER}):
                with pytest.raises((InvalidCiphertext, UnsupportedOperation)):
                    keystore.decrypt(made.ciphertext, key_id=key.key_id, format="raw", **wrong)
            opened = keystore.decrypt(made.ciphertext, key_id=key.key_id, format="raw", **argument)
            assert opened.plaintext == b"bound"

    def _enveloped(self, key: Key) -> list[Callable[[], object]]:
        keystore = self.keystore
        allowed = keystore.settings.shims == "allow" or "envelope" in keystore.settings.shims
        if not allowed or not all(
            keystore.can_do(wire, key.key_id) for wire in ("crypto.decrypt", "key.get")
        ):
            return []
        data = b"enveloped" * 5000
        sealed = keystore.encrypt(key.key_id, data, context=_CONTEXT)
        self.seen["crypto.encrypt"].add(sealed.executed_by)
        public = key.algorithm.startswith("RSA") and not keystore.settings.accept_public_key_wrap

        def opened() -> None:
            if public:
                with pytest.raises(KmsplugError):
                    keystore.decrypt(sealed.ciphertext, context=_CONTEXT)
                return
            assert keystore.decrypt(sealed.ciphertext, context=_CONTEXT).plaintext == data
            with pytest.raises(InvalidCiphertext):
                keystore.decrypt(sealed.ciphertext, context=_OTHER)

        opened()
        return [opened]

    def _data_keys(self, key: Key) -> None:
        keystore = self.keystore
        made = self.done("crypto.generate_data_key", key, lambda: keystore.generate_data_key(key.key_id))
        if made is None:
            return
        assert made.plaintext is not None
        assert len(made.plaintext) == 32
        assert keystore.generate_data_key(key.key_id, with_plaintext=False).plaintext is None
        if keystore.can_do("crypto.decrypt", key.key_id):
            opened = keystore.decrypt(made.ciphertext, key_id=key.key_id, format="raw")
            assert opened.plaintext == made.plaintext

    def _reencrypting(self, key: Key, other: Key, ciphertext: bytes) -> None:
        keystore = self.keystore

        def move() -> ReEncryptResult:
            return keystore.reencrypt(ciphertext, key.key_id, other.key_id)

        row = _row(keystore, "crypto.reencrypt", key)
        moved: ReEncryptResult | None
        if row is not None and row.within_key:  # named for what stays within a key
            self.done("crypto.reencrypt", key, lambda: keystore.reencrypt(ciphertext, key.key_id, key.key_id))
            moved = move()
            self.took("crypto.reencrypt", moved)
        else:
            moved = self.done("crypto.reencrypt", other, move)
        if moved is None or not keystore.can_do("crypto.decrypt", key.key_id):
            return
        assert keystore.decrypt(moved.ciphertext, key_id=other.key_id, format="raw").plaintext == b"raw"
        with pytest.raises(InvalidCiphertext):
            keystore.decrypt(moved.ciphertext, key_id=key.key_id, format="raw")
        kind = _binding(keystore, key)
        if kind is None:
            return
        name, right, wrong = kind
        bound = keystore.encrypt(key.key_id, b"moved", format="raw", **{name: right})
        moved = keystore.reencrypt(
            bound.ciphertext, key.key_id, other.key_id, **{f"source_{name}": right, name: wrong}
        )
        self.seen["crypto.reencrypt"].add(moved.executed_by)
        found = keystore.decrypt(moved.ciphertext, key_id=other.key_id, format="raw", **{name: wrong})
        assert found.plaintext == b"moved"
        with pytest.raises(InvalidCiphertext):
            keystore.reencrypt(bound.ciphertext, key.key_id, other.key_id, **{f"source_{name}": wrong})

    def _wrapping(self, key: Key, other: Key) -> list[Callable[[], object]]:
        keystore, material = self.keystore, bytes(range(32))
        made = self.done("crypto.wrap_key", key, lambda: keystore.wrap_key(key.key_id, material))
        if made is None:
            if not keystore.can_do("crypto.unwrap_key", key.key_id):
                self.done("crypto.unwrap_key", key, lambda: keystore.unwrap_key(key.key_id, material))
            return []

        def opened() -> None:
            found = self.done(
                "crypto.unwrap_key", key, lambda: keystore.unwrap_key(key.key_id, made.wrapped_key)
            )
            assert found is None or found.key == material

        opened()
        if keystore.can_do("crypto.unwrap_key", key.key_id):
            for key_id, wrapped in (
                (other.key_id, made.wrapped_key),
                (key.key_id, _flipped(made.wrapped_key)),
            ):
                with pytest.raises(InvalidCiphertext):
                    keystore.unwrap_key(key_id, wrapped)
        if made.executed_by != "native" and keystore.can_do("crypto.decrypt", key.key_id):
            with pytest.raises(InvalidCiphertext):  # a wrapped key is no data
                keystore.decrypt(made.wrapped_key, key_id=key.key_id, format="raw")
        return [opened]

    def _signing(self, key: Key, other: Key) -> list[Callable[[], object]]:
        keystore, message = self.keystore, b"to be signed" * 20
        signed = self.done("crypto.sign", key, lambda: keystore.sign(key.key_id, message))
        if signed is None:
            self.seen["crypto.verify"].add("refused")  # there is no signature to try it with
            return []
        how: dict[str, Any] = {"mechanism": signed.mechanism}

        def verified() -> None:
            found = self.done(
                "crypto.verify", key, lambda: keystore.verify(key.key_id, message, signed.signature, **how)
            )
            assert found is None or found.valid

        verified()
        if keystore.can_do("crypto.verify", key.key_id):
            for key_id, said, signature in (
                (other.key_id, message, signed.signature),
                (key.key_id, message + b".", signed.signature),
                (key.key_id, message, _flipped(signed.signature)),
                (key.key_id, message, signed.signature[:-1]),
                (key.key_id, message, b""),
            ):
                assert not keystore.verify(key_id, said, signature, **how).valid
        if "_SHA_" in signed.mechanism:
            digest = hashlib.new("sha" + signed.mechanism.rsplit("_", 1)[1], message).digest()
            by_digest = keystore.sign(key.key_id, digest=digest, **how)
            if keystore.can_do("crypto.verify", key.key_id):
                assert keystore.verify(key.key_id, message, by_digest.signature, **how).valid
                assert keystore.verify(key.key_id, digest=digest, signature=signed.signature, **how).valid
            with suppress(
                PolicyDenied, InvalidArgument
            ):  # too long for a frame: the shim `digest`, or nobody
                self.took("crypto.sign", keystore.sign(key.key_id, b"long" * 500_000, **how))
        return [verified]

    def _authenticating(self, key: Key, other: Key) -> list[Callable[[], object]]:
        keystore, message = self.keystore, b"message"
        made = self.done("crypto.mac", key, lambda: keystore.mac(key.key_id, message))
        if made is None:
            self.done("crypto.verify_mac", key, lambda: keystore.verify_mac(key.key_id, message, bytes(32)))
            return []

        def verified() -> None:
            found = self.done(
                "crypto.verify_mac", key, lambda: keystore.verify_mac(key.key_id, message, made.mac)
            )
            assert found is None or found.valid

        verified()
        if keystore.can_do("crypto.verify_mac", key.key_id):
            assert not keystore.verify_mac(other.key_id, message, made.mac).valid
            assert not keystore.verify_mac(key.key_id, message, _flipped(made.mac)).valid
        return [verified]

    def _agreeing(self, key: Key, other: Key) -> list[Callable[[], object]]:
        keystore = self.keystore
        peer: Any = (
            x25519.X25519PrivateKey.generate()
            if key.algorithm is _A.X25519
            else ec.generate_private_key(ec.SECP256R1())
        )
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        sent = peer.public_key().public_bytes(serialization.Encoding.DER, form)
        agreed = self.done("crypto.derive", key, lambda: keystore.derive(key.key_id, sent))
        if agreed is not None and keystore.can_do("key.get_public_key", key.key_id):
            public: Any = serialization.load_der_public_key(keystore.get_public_key(key.key_id).public_key)
            secret = peer.exchange(public) if key.algorithm is _A.X25519 else peer.exchange(ec.ECDH(), public)
            assert agreed.shared_secret == secret
        return []

    def _encapsulating(self, key: Key, other: Key) -> list[Callable[[], object]]:
        keystore = self.keystore
        made = self.done("crypto.encapsulate", key, lambda: keystore.encapsulate(key.key_id))
        ciphertext = bytes(1088) if made is None else made.ciphertext
        version = None if made is None else made.key_version
        opened = self.done(
            "crypto.decapsulate",
            key,
            lambda: keystore.decapsulate(key.key_id, ciphertext, key_version=version),
        )
        if made is not None and opened is not None:
            assert opened.shared_secret == made.shared_secret
            assert keystore.decapsulate(other.key_id, ciphertext).shared_secret != made.shared_secret
        return []


def _row(keystore: Keystore, wire: str, key: Key) -> Capability | None:
    return next(
        (
            row
            for row in keystore.capabilities
            if row.operation == wire and row.key_algorithm in (None, key.algorithm)
        ),
        None,
    )


def _binding(keystore: Keystore, key: Key) -> tuple[str, Any, Any] | None:
    """Return the argument by which a key's ciphertexts are bound, and two values of it."""
    row = _row(keystore, "crypto.encrypt", key)
    if row is None or row.associated_data is AssociatedData.NONE:
        return None
    if row.associated_data is AssociatedData.BYTES:
        return "associated_data", b"one", b"two"
    return "context", _CONTEXT, _OTHER


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])
