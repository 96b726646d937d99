"""Trials of capability rows: a key is used as they promise, and the answers are looked at.

Each makes something and has it opened, or checks it here where that can be done; and sees something else
refused. Nothing is made, changed or ended in the keystore. What a trial signs begins with `SIGNED`.
"""

import contextlib
import hashlib
import hmac
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from kmsplug_protocol import (
    AssociatedData,
    Capability,
    Key,
    KeyUsage,
    Mechanism,
    Secret,
    SignedForm,
    untrusted,
)
from kmsplug_protocol.kinds import ASYMMETRIC, HMAC_BYTES

from ._evidence import Evidence
from ._observe import refusal_wanted
from ._public_keys import agree, is_of
from ._rows import Rows
from .errors import (
    IntegrityError,
    InvalidArgument,
    InvalidCiphertext,
    KeyUsageMismatch,
    KmsplugError,
    ProtocolViolation,
    UnsupportedOperation,
)
from .shims import binding, signatures

SIGNED: Final = b"kmsplug probe, and nothing else: "
_MOST: Final = 4096  # bytes of one input: what the host leaves to providers itself is no longer
_ENCRYPT, _DECRYPT = "crypto.encrypt", "crypto.decrypt"

# What a row rules out. Anything else, as a permission that is missing, says nothing about the row.
_CONTRADICTIONS: Final = (
    UnsupportedOperation, InvalidArgument, InvalidCiphertext, KeyUsageMismatch, IntegrityError,
    ProtocolViolation,
)  # fmt: skip


class Ask(Protocol):
    """Makes one call of the driver."""

    def __call__(self, wire: str, **arguments: Any) -> Any:
        """Return its result."""


class _UntrueError(Exception):
    """An answer is not what the row promises."""


class _OverError(Exception):
    """A trial is over: its rows were withdrawn, or could not be tried."""


@dataclass(frozen=True, slots=True)
class _Used:
    """A key that is used.

    Attributes:
        key: As the driver describes it.
        public: Its public half, DER, where there is one and it can be seen.
    """

    key: Key
    public: bytes | None

    @property
    def how(self) -> str:
        """How a row was tried with it."""
        return f"with {untrusted(self.key.key_id, 128)}"

    def by(self, row: Capability) -> dict[str, Any]:
        """Return the members of a call that name it and a row's mechanism."""
        key_id = self.key.key_id
        return {"key_id": key_id} if row.mechanism is None else {"key_id": key_id, "mechanism": row.mechanism}


class Trials:
    """Tries rows, and takes down what is found.

    Args:
        ask: Makes the calls.
        rows: What is believed at the moment.
        evidence: Where it is taken down.
    """

    def __init__(self, ask: Ask, rows: Callable[[], Rows], evidence: Evidence) -> None:
        self._ask = ask
        self._rows = rows
        self._evidence = evidence

    def random(self) -> None:
        """Try the row that needs no key."""
        for row in self._rows().of("crypto.random"):
            with contextlib.suppress(_OverError), self._trying(row):
                length = min(row.max_input_bytes or 32, 32)
                first, second = (bytes(self._ask("crypto.random", length_bytes=length).data) for _ in "12")
                _demand({len(first), len(second)} == {length}, "it returns another number of bytes")
                _demand(length < 8 or (first != second and any(first)), "its bytes are not random")  # noqa: PLR2004
                self._held("asked twice", row)

    def key(self, key_id: str) -> None:
        """Try every row that covers a key, as far as its usage goes.

        Raises:
            KmsplugError: The key cannot be described.
        """
        key: Key = self._ask("key.get", key_id=key_id)
        used = _Used(key, self._public_key(key))
        self._held(used.how, *self._rows().of("key.get"))
        self._versions(used)
        by_usage: dict[KeyUsage, tuple[tuple[str, Callable[[_Used, Capability], None]], ...]] = {
            KeyUsage.ENCRYPT_DECRYPT: (
                (_ENCRYPT, self._encryption),
                ("crypto.generate_data_key", self._data_key),
                ("crypto.reencrypt", self._reencryption),
            ),
            KeyUsage.WRAP_UNWRAP: (("crypto.wrap_key", self._wrapping),),
            KeyUsage.SIGN_VERIFY: (("crypto.sign", self._signature),),
            KeyUsage.GENERATE_VERIFY_MAC: (("crypto.mac", self._code),),
            KeyUsage.KEY_ENCAPSULATION: (("crypto.encapsulate", self._encapsulation),),
            KeyUsage.KEY_AGREEMENT: (("crypto.derive", self._agreement),),
        }
        for wire, trial in by_usage[key.usage]:
            for row in self._rows().of(wire):
                if row.key_algorithm in (None, key.algorithm):
                    with contextlib.suppress(_OverError):
                        trial(used, row)

    def _public_key(self, key: Key) -> bytes | None:
        row = self._rows().find("key.get_public_key", key.algorithm)
        if row is None or key.algorithm not in ASYMMETRIC:
            return None
        try:
            with self._trying(row):
                found = bytes(self._ask("key.get_public_key", key_id=key.key_id).public_key)
                _demand(is_of(found, key.algorithm), "it shows no public key of such a key")
        except _OverError:
            return None
        self._held(_Used(key, found).how, row)
        return found

    def _versions(self, used: _Used) -> None:
        row = self._rows().find("key.list_versions", used.key.algorithm)
        if row is None:
            return
        with contextlib.suppress(_OverError), self._trying(row):
            page = self._ask("key.list_versions", key_id=used.key.key_id, limit=1000)
            current = [version.key_version for version in page.versions if version.current]
            _demand(page.next_cursor is not None or len(current) == 1, "it shows no current version")
            self._held(used.how, row)

    def _encryption(self, used: _Used, row: Capability) -> None:
        plaintext, bound = _material(row), _bound(row)
        with self._trying(row):
            made = self._ask(_ENCRYPT, **used.by(row), plaintext=plaintext, **bound)
            again = self._ask(_ENCRYPT, **used.by(row), plaintext=plaintext, **bound)
            _demand(made.ciphertext != again.ciphertext, "it encrypts the same twice to the same")
        opening = self._partner(_DECRYPT, used, row)

        def decrypt(ciphertext: bytes = made.ciphertext, **beside: Any) -> Any:
            given = {**used.by(opening), "key_version": made.key_version, "ciphertext": ciphertext}
            return self._ask(_DECRYPT, **given, **beside)

        with self._trying(row, opening):
            opened = bytes(decrypt(**bound).plaintext)
            _demand(hmac.compare_digest(opened, plaintext), "what was encrypted opens to something else")
            self._refused(lambda: decrypt(_flipped(made.ciphertext), **bound), "a damaged ciphertext opens")
            try:
                binding.prove(self._evidence, row, bound, decrypt)
            except ProtocolViolation:
                if row.key_algorithm not in self._evidence.unbound:
                    raise
                raise _OverError from None  # of what is left of them nothing more is said
        self._held(used.how, row, opening)

    def _data_key(self, used: _Used, row: Capability) -> None:
        bound = _bound(row)
        with self._trying(row):
            made = self._ask("crypto.generate_data_key", key_id=used.key.key_id, length_bytes=32, **bound)
            plaintext = bytes(made.plaintext or b"")
            _demand(len(plaintext) == 32, "the data key is of another length")  # noqa: PLR2004
        opening = self._partner(_DECRYPT, used, row)
        with self._trying(row, opening):
            opened = self._ask(
                _DECRYPT,
                **used.by(opening),
                key_version=made.key_version,
                ciphertext=made.ciphertext,
                **bound,
            )
            _demand(hmac.compare_digest(bytes(opened.plaintext), plaintext), "its two forms differ")
        self._held(used.how, row)

    def _reencryption(self, used: _Used, row: Capability) -> None:
        """Within the key: that another one is reached is left to be seen."""
        before, opening = self._partner(_ENCRYPT, used, row), self._partner(_DECRYPT, used, row)
        plaintext, bound = _material(before), _bound(row)
        with self._trying(before):
            made = self._ask(_ENCRYPT, **used.by(before), plaintext=plaintext, **bound)
        with self._trying(row):
            moved = self._ask(
                "crypto.reencrypt",
                source_key_id=used.key.key_id,
                key_id=used.key.key_id,
                ciphertext=made.ciphertext,
                **bound,
                **{f"source_{name}": value for name, value in bound.items()},
            )
            opened = self._ask(_DECRYPT, **used.by(opening), ciphertext=moved.ciphertext, **bound)
            _demand(hmac.compare_digest(bytes(opened.plaintext), plaintext), "it opens to something else")
        self._held(used.how, row)

    def _wrapping(self, used: _Used, row: Capability) -> None:
        material = Secret(os.urandom(32))
        with self._trying(row):
            made = self._ask("crypto.wrap_key", **used.by(row), key=material)
        opening = self._partner("crypto.unwrap_key", used, row)

        def unwrap(wrapped_key: bytes) -> Any:
            version = made.key_version
            return self._ask(
                "crypto.unwrap_key", **used.by(opening), key_version=version, wrapped_key=wrapped_key
            )

        with self._trying(row, opening):
            opened = bytes(unwrap(made.wrapped_key).key)
            _demand(hmac.compare_digest(opened, material), "what was wrapped opens to something else")
            self._refused(lambda: unwrap(_flipped(made.wrapped_key)), "a damaged wrapped key opens")
        self._held(used.how, row, opening)

    def _signature(self, used: _Used, row: Capability) -> None:
        mechanism = row.mechanism or signatures.default_mechanism(used.key.algorithm)
        if mechanism is None:
            return
        message = SIGNED + os.urandom(16).hex().encode()
        name = signatures.hash_name(mechanism)
        given: list[dict[str, bytes]] = [{"message": message}]
        if name is not None:
            given.append({"digest": hashlib.new(name, message).digest()})
        given = [each for each in given if row.signs is None or row.signs in each]
        checks, seen = self._rows().find("crypto.verify", used.key.algorithm, row.mechanism), None
        for each in given:
            with self._trying(row):
                signature = self._ask("crypto.sign", **used.by(row), **each).signature
                seen = None if used.public is None else _good(used.public, mechanism, signature, message)
                _demand(seen is not False, "its signature is not good")
            if checks is not None:
                with self._trying(*((row,) if seen is None else ()), checks):
                    for text, expected in ((message, True), (message + b".", False)):
                        shown = {"message": text}
                        if name is not None and checks.signs is SignedForm.DIGEST:
                            shown = {"digest": hashlib.new(name, text).digest()}
                        answer = self._ask("crypto.verify", **used.by(checks), **shown, signature=signature)
                        _demand(answer.valid is expected, "it does not tell good from bad")
        if seen or checks is not None:
            self._held(used.how, row, *(() if checks is None else (checks,)))

    def _code(self, used: _Used, row: Capability) -> None:
        message = SIGNED + os.urandom(16).hex().encode()
        with self._trying(row):
            made = self._ask("crypto.mac", **used.by(row), message=message).mac
            again = self._ask("crypto.mac", **used.by(row), message=message + b".").mac
            whole = len(made) == HMAC_BYTES[used.key.algorithm]
            _demand(whole and made != again, "its code is not of the message")
        checks = self._partner("crypto.verify_mac", used, row)
        with self._trying(row, checks):
            for text, expected in ((message, True), (message + b".", False)):
                answer = self._ask("crypto.verify_mac", **used.by(checks), message=text, mac=made)
                _demand(answer.valid is expected, "it does not tell good from bad")
        self._held(used.how, row, checks)

    def _encapsulation(self, used: _Used, row: Capability) -> None:
        with self._trying(row):
            made = self._ask("crypto.encapsulate", **used.by(row))
            again = self._ask("crypto.encapsulate", **used.by(row))
            _demand(made.ciphertext != again.ciphertext, "it encapsulates the same secret twice")
        opening = self._partner("crypto.decapsulate", used, row)
        with self._trying(row, opening):
            opened = self._ask(
                "crypto.decapsulate",
                **used.by(opening),
                key_version=made.key_version,
                ciphertext=made.ciphertext,
            )
            same = hmac.compare_digest(bytes(opened.shared_secret), bytes(made.shared_secret))
            _demand(same and len(opened.shared_secret) == 32, "the two secrets differ")  # noqa: PLR2004
        self._held(used.how, row, opening)

    def _agreement(self, used: _Used, row: Capability) -> None:
        if used.public is None:
            self._evidence.note_untried(row, "not tried: without the public key nobody knows the answer")
            return
        peer, expected = agree(used.public)
        with self._trying(row):
            answer = self._ask("crypto.derive", **used.by(row), peer_public_key=peer)
            _demand(hmac.compare_digest(bytes(answer.shared_secret), expected), "its secret is another one")
        self._held(used.how, row)

    def _partner(self, wire: str, used: _Used, row: Capability) -> Capability:
        """Return the row of the operation by which one can be tried; without one, the trial is over."""
        found = self._rows().find(wire, used.key.algorithm, row.mechanism)
        if found is None:
            self._evidence.note_untried(row, f"not tried: {wire} is not offered for such keys")
            raise _OverError
        return found

    def _refused(self, call: Callable[[], object], otherwise: str) -> None:
        """See a call refused as one with bytes that nobody made."""
        with contextlib.suppress(*_CONTRADICTIONS), refusal_wanted():
            call()
            raise _UntrueError(otherwise)

    def _held(self, how: str, *rows: Capability) -> None:
        for row in rows:
            self._evidence.note_probed(row, f"by the host, {how}")

    @contextlib.contextmanager
    def _trying(self, *rows: Capability) -> Iterator[None]:
        """Withdraw the rows of which one is contradicted in this block, and end the trial, as where it fails.

        Those that held before are not suspected, as long as there is another one.
        """
        suspected = [row for row in rows if not self._evidence.is_probed(row)] or rows
        try:
            yield
        except _UntrueError as lie:
            self._evidence.withdraw(suspected, f"when it was tried, {lie}")
        except _CONTRADICTIONS as error:
            self._evidence.withdraw(suspected, f"when it was tried, the driver answered {error.code}")
        except KmsplugError as error:
            for row in rows:
                self._evidence.note_untried(row, f"not tried: {error.code}")
        else:
            return
        raise _OverError


def _demand(fact: bool, otherwise: str) -> None:
    if not fact:
        raise _UntrueError(otherwise)


def _good(public: bytes, mechanism: Mechanism, signature: bytes, message: bytes) -> bool | None:
    """Tell whether a signature is good; None: such keys cannot be read here."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see `signatures`

    try:
        return signatures.verify(public, mechanism, signature, message=message, digest=None)
    except (ImportError, UnsupportedAlgorithm):
        return None
    except ValueError:
        return False


def _material(row: Capability) -> bytes:
    """Return as much to encrypt as the row promises to take, and the host would ask for."""
    return Secret(os.urandom(min(row.max_input_bytes or 32, _MOST)))


def _bound(row: Capability) -> dict[str, Any]:
    match row.associated_data:
        case AssociatedData.BYTES:
            return {"associated_data": SIGNED}
        case AssociatedData.MAP:
            return {"context": {"purpose": SIGNED.decode()}}
        case AssociatedData.NONE:
            return {}


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1]) if data else b"\0"
