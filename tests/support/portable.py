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
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final

import pytest
from kmsplug_host import KeyAlgorithm, Keystore, KeyUsage
from kmsplug_host.cli import _wrapping
from kmsplug_host.errors import KeyInvalidState, UnsupportedOperation
from kmsplug_protocol import KEYSTORE_API, KeyState
from support.portable_lifecycle import Lifecycle
from support.portable_uses import Uses
from support.portable_witness import Make, Seen

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


class _Portable(Uses, Lifecycle):
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
