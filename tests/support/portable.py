"""The portable check: every operation of the protocol, through the host, over whichever driver.

`check(keystore)` asks the keystore who does each operation for each kind of key (`Keystore.can_do`), and
then sees it done: natively or by the shim that was named, with the right answer, or refused with a typed
error that says why. It returns what it saw, as ``{"crypto.sign": {"native"}, "crypto.mac": {"refused"}}``, so
that a test can say which shims it expects.

The keystore must allow raw ciphertexts (``allow_raw = true``). All is done with two keys of a kind: the
other one must open nothing. Keys are made with `create_key`, or by *make*, where making them needs arguments.
Keys are left behind: use a keystore of your own.

    >>> seen = check(host.keystore("main"), algorithms={KeyAlgorithm.AES_256_GCM, KeyAlgorithm.RSA_2048})
    >>> assert seen["crypto.verify"] == {"shim:verify@1"}
"""

import base64
import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from kmsplug_host import KeyAlgorithm, Keystore, KeyUsage
from kmsplug_host.cli import _wrapping
from kmsplug_host.errors import (
    InvalidArgument,
    InvalidCiphertext,
    KeyDestroyed,
    KeyDisabled,
    KeyInvalidState,
    KeyNotFound,
    KeyPendingDeletion,
    KeyUsageMismatch,
    KmsplugError,
    PolicyDenied,
    UnsupportedOperation,
)
from kmsplug_protocol import (
    KEYSTORE_API,
    AssociatedData,
    Capability,
    Key,
    KeyState,
    Outcome,
    ReEncryptResult,
    Result,
)

_A = KeyAlgorithm
_U = KeyUsage

KINDS: Final = (
    (_A.AES_256_GCM, _U.ENCRYPT_DECRYPT),
    (_A.RSA_2048, _U.ENCRYPT_DECRYPT),
    (_A.AES_256_KW, _U.WRAP_UNWRAP),
    (_A.EC_P256, _U.SIGN_VERIFY),
    (_A.RSA_2048, _U.SIGN_VERIFY),
    (_A.ED25519, _U.SIGN_VERIFY),
    (_A.ML_DSA_65, _U.SIGN_VERIFY),
    (_A.HMAC_SHA_256, _U.GENERATE_VERIFY_MAC),
    (_A.EC_P256, _U.KEY_AGREEMENT),
    (_A.X25519, _U.KEY_AGREEMENT),
    (_A.ML_KEM_768, _U.KEY_ENCAPSULATION),
)
"""Kinds of keys that are tried, where the keystore makes them."""

REFUSALS: Final = (UnsupportedOperation, PolicyDenied, KeyUsageMismatch)
"""How an operation is refused that nobody does. The last one only by drivers, of a key for something else."""

Seen = dict[str, set[str]]
Make = Callable[[KeyAlgorithm, KeyUsage], Key]

_T = TypeVar("_T", bound=Result)

_CONTEXT: Final = {"order": "4711", "tenant": "Käufer"}
_OTHER: Final = {"order": "4712", "tenant": "Käufer"}


def check(
    keystore: Keystore,
    *,
    algorithms: Collection[KeyAlgorithm] | None = None,
    make: Make | None = None,
    rotations: int = 2,
) -> Seen:
    """Run every operation; see the module.

    Args:
        keystore: Of an open host.
        algorithms: Only keys of these; default: of every kind that the keystore makes.
        make: Makes a key of a kind; default: `Keystore.create_key`.
        rotations: How often keys are rotated, once at least.
    """
    portable = _Portable(
        keystore, make or (lambda algorithm, usage: keystore.create_key(algorithm, usage=usage))
    )
    kinds = [kind for kind in KINDS if algorithms is None or kind[0] in algorithms]
    kinds = [kind for kind in kinds if _makes(keystore, *kind)]
    portable.keystore_operations()
    if not kinds:
        assert not keystore.can_do("key.create"), "the keystore makes no kind of key that could be tried"
        portable.done("key.create", None, lambda: keystore.create_key("AES_256_GCM"))
        return dict(portable.seen)
    for algorithm, usage in kinds:
        portable.kind(algorithm, usage, rotations)
    portable.importing([algorithm for algorithm, _ in kinds])
    missing = {operation.wire for operation in KEYSTORE_API} - portable.seen.keys()
    usages = {usage for _, usage in kinds}
    for wire in missing:  # there was no key to try it with
        assert not _usages_of(wire) & usages, f"{wire} was not tried"
    return dict(portable.seen)


class _Portable:
    def __init__(self, keystore: Keystore, make: Make) -> None:
        assert keystore.settings.allow_raw, "the portable check needs allow_raw = true"
        self.keystore = keystore
        self.make = make
        self.seen: defaultdict[str, set[str]] = defaultdict(set)

    def kind(self, algorithm: KeyAlgorithm, usage: KeyUsage, rotations: int) -> None:
        """Everything with two keys of one kind, over their versions, through their states."""
        key, other = self.make(algorithm, usage), self.make(algorithm, usage)
        self.took("key.create", key)
        assert (key.algorithm, key.usage, key.state) == (algorithm, usage, KeyState.ACTIVE)
        reopen = self._uses(key, other)
        current = key
        for _ in range(rotations):
            rotated = self.done("key.rotate", key, lambda: self.keystore.rotate_key(key.key_id))
            if rotated is None:
                break
            assert rotated.key_version != current.key_version
            current = rotated
            for again in reopen:  # what older versions made still opens
                again()
        reopen += self._uses(key, other)
        versions = self.done("key.list_versions", key, lambda: self.keystore.list_key_versions(key.key_id))
        if versions is not None:
            named = [version.key_version for version in versions.versions]
            assert len(named) == len(set(named))
            assert [v.key_version for v in versions.versions if v.current] == [current.key_version]
        self._labels(key)
        self._keeping(key)
        self._states(key, reopen)

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

    def _labels(self, key: Key) -> None:
        keystore, alias = self.keystore, f"alias/portable-{key.key_id[-8:]}"
        if self.done("key.set_alias", key, lambda: keystore.set_alias(key.key_id, alias)) is not None:
            assert self.got(alias, "key_id") in (None, key.key_id)
            if key.usage is _U.ENCRYPT_DECRYPT and keystore.can_do("crypto.encrypt", key.key_id):
                assert keystore.encrypt(alias, b"", format="raw").key_id == key.key_id
            if (
                self.done("key.remove_alias", key, lambda: keystore.remove_alias(key.key_id, alias))
                is not None
            ):
                with pytest.raises((KeyNotFound, UnsupportedOperation)):
                    keystore.get_key(alias)
        else:
            self.done("key.remove_alias", key, lambda: keystore.remove_alias(key.key_id, alias))
        tagged = self.done("key.tag", key, lambda: keystore.tag_key(key.key_id, {"cost": "r&d", "b": "2"}))
        if tagged is not None:
            assert tagged.tags["cost"] == "r&d"
            assert "b" not in keystore.tag_key(key.key_id, {"cost": "new"}, remove=["b"]).tags
            assert (self.got(key.key_id, "tags") or {"cost": "new"})["cost"] == "new"

    def _keeping(self, key: Key) -> None:
        """Backup, and what else is asked about a key."""
        keystore = self.keystore
        self.done("key.get", key, lambda: keystore.get_key(key.key_id))
        backup = self.done("key.backup", key, lambda: keystore.backup_key(key.key_id))
        if not keystore.can_do("key.restore"):
            self.done("key.restore", None, lambda: keystore.restore_key(b"nothing"))
        elif backup is None:
            self.seen["key.restore"].add("refused")  # there is nothing to try it with
        else:
            with self.may_fail():  # a key that is still there may not come back beside itself
                self.took("key.restore", keystore.restore_key(backup.backup))
            self.seen["key.restore"].add("native")
        valid = self.done("key.validate", key, lambda: keystore.validate_key(key.key_id))
        assert valid is None or valid.valid
        with self.may_fail():
            self.done("key.get_region", key, lambda: keystore.get_key_region(key.key_id))
        with self.may_fail():
            self.seen["key.transform_access"].update()  # tried, whatever the provider says of no data
            self.done("key.transform_access", key, lambda: keystore.transform_key_access(key.key_id, {}))
        self.done("key.validate_access", key, lambda: keystore.validate_key_access({}))
        found = self.done("key.reconcile", key, lambda: keystore.reconcile("key.create", "0" * 32))
        assert found is None or found.outcome is not Outcome.APPLIED

    def _states(self, key: Key, reopen: list[Callable[[], object]]) -> None:
        keystore = self.keystore
        use = self._making(key)
        if self.done("key.disable", key, lambda: keystore.disable_key(key.key_id)) is not None:
            assert self.got(key.key_id, "state") in (None, KeyState.SUSPENDED)
            if use is not None:
                with pytest.raises(KeyDisabled):
                    use()
            if self.done("key.enable", key, lambda: keystore.enable_key(key.key_id)) is not None:
                assert self.got(key.key_id, "state") in (None, KeyState.ACTIVE)
                for again in [*reopen, *([use] if use else [])]:
                    again()
            else:  # this one is of no use any more
                key = self.make(key.algorithm, key.usage)
                use, reopen = self._making(key), []
        else:
            self.done("key.enable", key, lambda: keystore.enable_key(key.key_id))
        for state in (KeyState.DEACTIVATED, KeyState.ACTIVE):
            try:
                moved = self.done(
                    "key.set_state",
                    key,
                    lambda to=state: keystore.set_key_state(key.key_id, to),  # type: ignore[misc]
                )
            except (KeyInvalidState, UnsupportedOperation):  # the provider has no such state
                self.seen["key.set_state"].add("refused")
                break
            if moved is None:
                break
            assert moved.state is state
            if state is KeyState.DEACTIVATED and use is not None:
                with pytest.raises((KeyInvalidState, KeyDisabled)):
                    use()
                for again in reopen:
                    again()
        self._ending(key, use)

    def _ending(self, key: Key, use: Callable[[], object] | None) -> None:
        keystore = self.keystore
        ended = self.done("key.schedule_deletion", key, lambda: keystore.schedule_key_deletion(key.key_id))
        if ended is None:
            with self.may_fail():
                self.done("key.cancel_deletion", key, lambda: keystore.cancel_key_deletion(key.key_id))
            if not keystore.can_do("key.purge", key.key_id):
                self.done("key.purge", key, lambda: keystore.purge_key(key.key_id))
            return
        assert ended.state is KeyState.DESTROY_SCHEDULED
        if use is not None:
            with pytest.raises((KeyPendingDeletion, KeyDisabled)):
                use()
        cancelled = self.done("key.cancel_deletion", key, lambda: keystore.cancel_key_deletion(key.key_id))
        if cancelled is not None:
            assert cancelled.state in (KeyState.SUSPENDED, KeyState.ACTIVE)
            if keystore.can_do("key.enable", key.key_id):
                keystore.enable_key(key.key_id)
                if use is not None:
                    use()
            keystore.schedule_key_deletion(key.key_id)
        self._purging(key, use, due_at_once=ended.executed_by.startswith("shim:"))

    def _purging(self, key: Key, use: Callable[[], object] | None, *, due_at_once: bool) -> None:
        keystore = self.keystore
        if due_at_once:  # the host keeps the window, and destroys nothing before it is over
            if keystore.can_do("key.purge", key.key_id):
                with pytest.raises(KeyInvalidState, match="not due"):
                    keystore.purge_key(key.key_id)
            keystore.cancel_key_deletion(key.key_id)
            keystore.schedule_key_deletion(key.key_id, window_days=0)
        purged = self.done("key.purge", key, lambda: keystore.purge_key(key.key_id))
        if purged is not None and use is not None:
            with pytest.raises((KeyDestroyed, KeyNotFound)):
                use()

    def _making(self, key: Key) -> Callable[[], object] | None:
        """Return what makes something with a key, if it can."""
        keystore = self.keystore
        uses: dict[KeyUsage, tuple[str, Callable[[], object]]] = {
            _U.ENCRYPT_DECRYPT: ("crypto.encrypt", lambda: keystore.encrypt(key.key_id, b"", format="raw")),
            _U.WRAP_UNWRAP: ("crypto.wrap_key", lambda: keystore.wrap_key(key.key_id, bytes(32))),
            _U.SIGN_VERIFY: ("crypto.sign", lambda: keystore.sign(key.key_id, b"message")),
            _U.GENERATE_VERIFY_MAC: ("crypto.mac", lambda: keystore.mac(key.key_id, b"message")),
            _U.KEY_ENCAPSULATION: ("crypto.encapsulate", lambda: keystore.encapsulate(key.key_id)),
        }
        wire, use = uses.get(key.usage, ("", None))
        return use if use is not None and keystore.can_do(wire, key.key_id) else None

    def importing(self, algorithms: list[KeyAlgorithm]) -> None:
        """Own material: wrapped here, and used afterwards."""
        keystore = self.keystore
        rows = [row for row in keystore.capabilities if row.operation == "key.import" and row.import_formats]
        offered = next((row for row in rows if row.key_algorithm in (None, _A.AES_256_GCM)), None)
        key = self.make(_A.AES_256_GCM, _U.ENCRYPT_DECRYPT) if _A.AES_256_GCM in algorithms else None
        if offered is None or key is None:
            named = key or self.make(algorithms[0], next(u for a, u in KINDS if a is algorithms[0]))
            with suppress(KeyInvalidState):  # offered all the same, and this key has its material
                self.done(
                    "key.get_import_parameters", named, lambda: keystore.get_import_parameters(named.key_id)
                )
            self.seen["key.get_import_parameters"].add("refused")
            with suppress(KeyInvalidState):
                self.done(
                    "key.import", named, lambda: keystore.import_key(named.key_id, b"wrapped", b"token")
                )
            self.seen["key.import"].add("refused")
            return
        known = [name for name in offered.import_formats if name in _wrapping.KNOWN]
        if not known:  # a transfer format of the provider's own, which only its driver's tests know
            for wire in ("key.get_import_parameters", "key.import"):
                self.seen[wire].add("not tried")
            return
        if not keystore.can_do("key.get_import_parameters", key.key_id):
            self.done("key.get_import_parameters", key, lambda: keystore.get_import_parameters(key.key_id))
            self.seen["key.import"].add("refused")
            return
        waiting = keystore.create_key(_A.AES_256_GCM, origin="imported")
        assert waiting.state is KeyState.PRE_ACTIVE
        parameters = self.done(
            "key.get_import_parameters",
            waiting,
            lambda: keystore.get_import_parameters(waiting.key_id, wrapping_algorithm=known[0]),
        )
        assert parameters is not None
        wrapped = _wrapping.wrap(bytes(range(32)), parameters.public_key, known[0])
        imported = self.done(
            "key.import",
            waiting,
            lambda: keystore.import_key(
                waiting.key_id, wrapped, parameters.import_token, wrapping_algorithm=known[0]
            ),
        )
        assert imported is None or imported.state is KeyState.ACTIVE

    def keystore_operations(self) -> None:
        """What needs no key."""
        keystore = self.keystore
        random = self.done("crypto.random", None, lambda: keystore.random(33))
        assert random is None or len(random) == 33
        if random is not None and keystore.can_do("crypto.random").how != "native":
            with pytest.raises(UnsupportedOperation):
                keystore.random(33, source="keystore")
        listed = self.done("key.list", None, keystore.list_keys)
        assert listed is None or len(listed.keys) <= 100
        calls: list[tuple[str, dict[str, Any]]] = [
            ("crypto.random", {"length_bytes": 3}),
            ("key.get", {"key_id": "x"}),
        ]
        batched = self.done("crypto.batch", None, lambda: keystore.batch(calls))
        if batched is not None and batched.items[0].result is not None:
            assert len(base64.b64decode(batched.items[0].result["data"])) == 3
            assert batched.items[1].error is not None
        made = self.done("keystore.provision", None, lambda: keystore.provision_keystore("portable"))
        identity = "nowhere" if made is None else made.identity
        for wire, call in (
            ("keystore.grant_trust", lambda: keystore.grant_trust(identity, "role:app")),
            ("keystore.remove_trust", lambda: keystore.remove_trust(identity, "role:app")),
            ("keystore.deprovision", lambda: keystore.deprovision_keystore(identity)),
        ):
            with self.may_fail(made is None):
                self.done(wire, None, call)
            if wire not in self.seen:
                self.seen[wire].add("refused")  # there is no keystore to try it with

    def done(self, wire: str, key: Key | None, call: Callable[[], _T]) -> _T | None:
        """Make a call and see it done by whom `can_do` named; or refused, and return None."""
        offer = self.keystore.can_do(wire, None if key is None else key.key_id)
        if not offer:
            with pytest.raises(REFUSALS) as caught:
                call()
            refusal = caught.value
            assert refusal.hint or isinstance(refusal, KeyUsageMismatch), f"{wire}: nothing says why not"
            assert offer.reason
            assert refusal.outcome is Outcome.NOT_APPLIED
            self.seen[wire].add("refused")
            return None
        try:
            answer = call()
        except KeyUsageMismatch:
            if self.keystore.can_do("key.get"):
                raise
            self.seen[wire].add("refused")  # which key it is could not be known before
            return None
        self.took(wire, answer)
        assert answer.executed_by == offer.how, f"{wire}: {answer.executed_by}, and {offer.how} was named"
        return answer

    def got(self, key_id: str, member: str) -> Any:
        """Return a member of a key's description; None where keys are not described."""
        return getattr(self.keystore.get_key(key_id), member) if self.keystore.can_do("key.get") else None

    def took(self, wire: str, answer: Result) -> None:
        """Take down who did it."""
        self.seen[wire].add(answer.executed_by)

    @contextmanager
    def may_fail(self, may: bool = True) -> Iterator[None]:
        """Let a provider refuse what it is asked without the arguments that only it knows."""
        try:
            yield
        except (InvalidArgument, UnsupportedOperation, KeyNotFound, KeyInvalidState, KmsplugError):
            if not may:
                raise


def _makes(keystore: Keystore, algorithm: KeyAlgorithm, usage: KeyUsage) -> bool:
    return any(
        row.operation == "key.create"
        and row.key_algorithm in (None, algorithm)
        and row.usage in (None, usage)
        for row in keystore.capabilities
    )


def _usages_of(wire: str) -> frozenset[KeyUsage]:
    """Return the usages of keys with which an operation can be tried."""
    if wire.startswith(("key.", "keystore.")):
        return frozenset(_U)
    return {
        "crypto.sign": frozenset({_U.SIGN_VERIFY}),
        "crypto.verify": frozenset({_U.SIGN_VERIFY}),
        "crypto.mac": frozenset({_U.GENERATE_VERIFY_MAC}),
        "crypto.verify_mac": frozenset({_U.GENERATE_VERIFY_MAC}),
        "crypto.derive": frozenset({_U.KEY_AGREEMENT}),
        "crypto.encapsulate": frozenset({_U.KEY_ENCAPSULATION}),
        "crypto.decapsulate": frozenset({_U.KEY_ENCAPSULATION}),
    }.get(wire, frozenset())


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
