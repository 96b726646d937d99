"""Encrypting and decrypting data of any length, as methods of `Keystore`: the envelope shim, and ``raw``."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, overload

from kmsplug_protocol import DecryptResult, EncryptResult

from ._crypto_operations import CryptoOperations
from ._deadline import Deadline
from .config import KeystoreSettings
from .errors import InvalidArgument, PolicyDenied
from .shims import envelope, envelope_open, envelope_recipients, envelope_seal, envelope_stream
from .shims.envelope_reader import EnvelopeReader, SeekableSource
from .shims.envelope_types import (
    Context,
    KeyHandle,
    Opened,
    Progress,
    Rewrap,
    Rewrapped,
    Seal,
    Sealed,
    Sink,
    Source,
    Unseal,
    Wrapping,
)

Format = Literal["envelope", "raw"]


class EnvelopeOperations(CryptoOperations, Wrapping):
    """Data of any length. See `CryptoOperations` for ``timeout``."""

    settings: KeystoreSettings

    def handle(self, key_id: str) -> KeyHandle:
        """Return a key of this keystore, to be named as a recipient of an envelope."""
        return KeyHandle(self, key_id)

    @overload
    def encrypt(
        self,
        key_id: str,
        plaintext: bytes,
        *,
        context: Mapping[str, str] | None = None,
        store_context: bool = False,
        tenant: str | None = None,
        recipients: Sequence[KeyHandle] = (),
        require_same_strength: bool = True,
        format: Literal["envelope"] = "envelope",
        key_version: str | None = None,
        associated_data: bytes | None = None,
        timeout: float | None = None,
    ) -> Sealed: ...

    @overload
    def encrypt(
        self,
        key_id: str,
        plaintext: bytes,
        *,
        context: Mapping[str, str] | None = None,
        store_context: bool = False,
        tenant: str | None = None,
        recipients: Sequence[KeyHandle] = (),
        require_same_strength: bool = True,
        format: Literal["raw"],
        key_version: str | None = None,
        associated_data: bytes | None = None,
        timeout: float | None = None,
    ) -> EncryptResult: ...

    def encrypt(
        self,
        key_id: str,
        plaintext: bytes,
        *,
        context: Mapping[str, str] | None = None,
        store_context: bool = False,
        tenant: str | None = None,
        recipients: Sequence[KeyHandle] = (),
        require_same_strength: bool = True,
        format: Format = "envelope",  # noqa: A002 - the word that everybody would look for
        key_version: str | None = None,
        associated_data: bytes | None = None,
        timeout: float | None = None,
    ) -> Sealed | EncryptResult:
        """Encrypt data of any length under a key.

        The result is an envelope (docs/envelope.md). A data key, wrapped by the keystore, encrypts the data
        here; up to 4 KiB go through the provider itself where it authenticates associated data, unless the
        keystore is configured otherwise. ``executed_by`` tells.

        Args:
            key_id: The key.
            plaintext: The data; 0 bytes and more.
            context: Authenticated, not secret, needed again to decrypt; not stored.
            store_context: Write the context into the header, readable for anybody.
            tenant: Bind the envelope to a tenant; stands in the header.
            recipients: Further keys, each of which can open it alone; see `handle`.
            require_same_strength: Refuse a public key, to which anybody can write, beside secret keys.
            format: ``raw`` for the provider's own ciphertext of few bytes; the keystore must allow it.
            key_version: With ``raw`` only: pin a version.
            associated_data: With ``raw`` only: authenticated bytes.
            timeout: Seconds for the keystore's part.

        Raises:
            KeyNotFound: No such key.
            InvalidArgument: The context breaks a bound, or contradicts the keystore's own.
            UnsupportedOperation: The key cannot wrap data keys.
        """
        plaintext = _as_bytes("plaintext", plaintext)
        if format == "raw":
            self._allow_raw()
            return self._encrypt_raw(
                key_id,
                bytes(plaintext),
                key_version=key_version,
                associated_data=associated_data,
                context=context,
                deadline=self.deadline(timeout),
            )
        _refuse(format, key_version, associated_data)
        return envelope.encrypt(
            self,
            key_id,
            plaintext,
            context,
            store_context=store_context,
            tenant=tenant,
            recipients=recipients,
            require_same_strength=require_same_strength,
            timeout=timeout,
        )

    def encrypt_stream(
        self,
        key_id: str,
        source: Source,
        sink: Sink,
        *,
        context: Mapping[str, str] | None = None,
        store_context: bool = False,
        tenant: str | None = None,
        recipients: Sequence[KeyHandle] = (),
        require_same_strength: bool = True,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Seal:
        """Encrypt everything in *source* into *sink*, in constant memory. As `encrypt` otherwise.

        Each stream has a data key of its own, whatever the keystore keeps.

        Args:
            key_id: The key.
            source: A binary file or pipe.
            sink: A binary file or pipe. After an error it holds a part of an envelope: throw it away.
            context: As in `encrypt`.
            store_context: As in `encrypt`.
            tenant: As in `encrypt`.
            recipients: As in `encrypt`.
            require_same_strength: As in `encrypt`.
            progress: Called with the number of bytes of each step.
            timeout: Seconds for the keystore's part; the data may take as long as they take.
        """
        deadline = self.deadline(timeout)
        request = envelope_seal.Request.of(
            self,
            key_id,
            context,
            store_context=store_context,
            tenant=tenant,
            recipients=recipients,
            require_same_strength=require_same_strength,
        )
        return envelope.encrypt_stream(request, source, sink, progress, deadline)

    @overload
    def decrypt(
        self,
        ciphertext: bytes,
        *,
        context: Mapping[str, str] | Context | None = None,
        key_id: str | None = None,
        tenant: str | None = None,
        min_generation: int | None = None,
        format: Literal["envelope"] = "envelope",
        key_version: str | None = None,
        associated_data: bytes | None = None,
        timeout: float | None = None,
    ) -> Opened: ...

    @overload
    def decrypt(
        self,
        ciphertext: bytes,
        *,
        context: Mapping[str, str] | Context | None = None,
        key_id: str | None = None,
        tenant: str | None = None,
        min_generation: int | None = None,
        format: Literal["raw"],
        key_version: str | None = None,
        associated_data: bytes | None = None,
        timeout: float | None = None,
    ) -> DecryptResult: ...

    def decrypt(
        self,
        ciphertext: bytes,
        *,
        context: Mapping[str, str] | Context | None = None,
        key_id: str | None = None,
        tenant: str | None = None,
        min_generation: int | None = None,
        format: Format = "envelope",  # noqa: A002 - the word that everybody would look for
        key_version: str | None = None,
        associated_data: bytes | None = None,
        timeout: float | None = None,
    ) -> Opened | DecryptResult:
        """Open what `encrypt` made, with a key of this keystore only.

        Args:
            ciphertext: The envelope, or with ``raw`` the provider's ciphertext.
            context: The same as for `encrypt`; `Context.FROM_HEADER` uses a stored one and returns it.
            key_id: Only this key may open it. Needed with ``raw``.
            tenant: The envelope must be bound to this tenant.
            min_generation: Its recipients must have been replaced so often: an older header is refused.
            format: As in `encrypt`.
            key_version: With ``raw`` only: the version that made it.
            associated_data: With ``raw`` only: the same as for `encrypt`.
            timeout: Seconds for the keystore's part.

        Raises:
            InvalidCiphertext: The bytes do not belong to this key and context.
            AccessDenied: The envelope names no key of this keystore that may open it.
            PolicyDenied: Its generation is lower than demanded.
        """
        ciphertext = _as_bytes("ciphertext", ciphertext)
        if format == "raw":
            self._allow_raw()
            if key_id is None or isinstance(context, Context):
                raise InvalidArgument(
                    "a raw ciphertext needs key_id, and has no header to take a context from"
                )
            return self.native_decrypt(
                key_id,
                bytes(ciphertext),
                deadline=self.deadline(timeout),
                key_version=key_version,
                associated_data=associated_data,
                context=context,
            )
        _refuse(format, key_version, associated_data)
        return open_bytes(ciphertext, self._opening(context, key_id, tenant, min_generation, timeout))

    def decrypt_stream(
        self,
        source: Source,
        sink: Sink,
        *,
        context: Mapping[str, str] | Context | None = None,
        key_id: str | None = None,
        tenant: str | None = None,
        min_generation: int | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Unseal:
        """Open everything in *source* into *sink*, in constant memory. As `decrypt` otherwise.

        After an error the sink holds a genuine beginning, but not all: throw it away.
        """
        request = self._opening(context, key_id, tenant, min_generation, timeout)
        return envelope_stream.open_stream(source, sink, request, progress)

    def open_reader(
        self,
        source: SeekableSource,
        *,
        context: Mapping[str, str] | Context | None = None,
        key_id: str | None = None,
        tenant: str | None = None,
        min_generation: int | None = None,
        timeout: float | None = None,
    ) -> EnvelopeReader:
        """Return a file of the plaintext, to be read from any position. As `decrypt` otherwise.

        Args:
            source: A binary file that can seek, with the envelope from its beginning to its end. It stays
                open, and must not be used otherwise meanwhile.
            context: As in `decrypt`.
            key_id: As in `decrypt`.
            tenant: As in `decrypt`.
            min_generation: As in `decrypt`.
            timeout: As in `decrypt`.
        """
        return EnvelopeReader(source, self._opening(context, key_id, tenant, min_generation, timeout))

    def rewrap(
        self,
        ciphertext: bytes,
        *,
        add: Sequence[KeyHandle] = (),
        remove: Sequence[KeyHandle | int] = (),
        context: Mapping[str, str] | Context | None = None,
        tenant: str | None = None,
        expect_generation: int | None = None,
        require_same_strength: bool = True,
        timeout: float | None = None,
    ) -> Rewrapped:
        """Replace who can open an envelope, without touching its payload.

        Removing a recipient is not revocation: the old envelope stays valid, and whoever had the data key
        keeps it. To revoke, encrypt again. A payload of suite native has no data key: it is encrypted again.

        Args:
            ciphertext: An envelope that this keystore can open.
            add: Keys that shall open it.
            remove: Recipients that shall not: keys, or positions in the header, from 0.
            context: As in `decrypt`.
            tenant: As in `decrypt`.
            expect_generation: Refuse if it is of another generation, because somebody changed it.
            require_same_strength: As in `encrypt`.
            timeout: As in `decrypt`.

        Raises:
            Conflict: It is of another generation.
            InvalidArgument: Nobody would be left, or more than 16, or a recipient to be removed is not there.
        """
        change = envelope_recipients.Change(
            tuple(add), tuple(remove), expect_generation, require_same_strength
        )
        request = self._opening(context, None, tenant, None, timeout)
        return envelope_recipients.rewrap_bytes(view_of(ciphertext), request, change)

    def rewrap_stream(
        self,
        source: Source,
        sink: Sink,
        *,
        add: Sequence[KeyHandle] = (),
        remove: Sequence[KeyHandle | int] = (),
        context: Mapping[str, str] | Context | None = None,
        tenant: str | None = None,
        expect_generation: int | None = None,
        require_same_strength: bool = True,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Rewrap:
        """Write the envelope in *source* to *sink* with other recipients. As `rewrap` otherwise."""
        change = envelope_recipients.Change(
            tuple(add), tuple(remove), expect_generation, require_same_strength
        )
        request = self._opening(context, None, tenant, None, timeout)
        return envelope_recipients.rewrap_stream(source, sink, request, change, progress)

    def _opening(
        self,
        context: Mapping[str, str] | Context | None,
        key_id: str | None,
        tenant: str | None,
        min_generation: int | None,
        timeout: float | None,
    ) -> envelope_open.Request:
        return envelope_open.Request(
            keystores=(self,),
            context=context,
            tenant=tenant,
            keys=None if key_id is None else (key_id,),
            min_generation=min_generation,
            deadline=self.deadline(timeout),
        )

    def _encrypt_raw(
        self,
        key_id: str,
        plaintext: bytes,
        *,
        key_version: str | None,
        associated_data: bytes | None,
        context: Mapping[str, str] | None,
        deadline: Deadline,
    ) -> EncryptResult:
        made = self.native_encrypt(
            key_id,
            plaintext,
            deadline=deadline,
            key_version=key_version,
            associated_data=associated_data,
            context=context,
        )
        if associated_data or context:
            self._resolver.prove_binding(made, associated_data, context, deadline)
        return made

    def _allow_raw(self) -> None:
        if not self.settings.allow_raw:
            raise PolicyDenied(
                "this keystore does not allow ciphertexts without an envelope",
                keystore=self.name,
                hint=f"set allow_raw = true in [keystores.{self.name}]",
            )


def open_bytes(ciphertext: bytes, request: envelope_open.Request) -> Opened:
    """Open an envelope that is in memory."""
    return envelope_open.open_bytes(view_of(ciphertext), request)


def view_of(ciphertext: bytes) -> memoryview:
    """Return an envelope as what can be cut without copying.

    Raises:
        InvalidArgument: It is not bytes.
    """
    return memoryview(_as_bytes("ciphertext", ciphertext))


def _as_bytes(name: str, value: Any) -> bytes:
    """Return what a caller gave, if it is bytes; a copy of what may still change."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, (bytearray, memoryview)):
        raise InvalidArgument(f"{name} must be bytes, not {type(value).__name__}")
    return bytes(value)


def _refuse(name: str, key_version: object, associated_data: object) -> None:
    if name != "envelope":  # a misspelt "raw" must not silently mean something else
        raise InvalidArgument(f"format must be one of {', '.join(get_args(Format))}, not {name!r}")
    if key_version is not None or associated_data is not None:
        argument = "associated_data" if key_version is None else "key_version"
        raise InvalidArgument(f'{argument} goes with format="raw": an envelope binds the context instead')
