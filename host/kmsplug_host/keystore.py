"""A keystore as applications hold it: every operation of the protocol, and an envelope around data."""

import threading
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args, overload

from kmsplug_protocol import Capability, DecryptResult, EncryptResult, Key, KeyAlgorithm
from kmsplug_protocol.cobblestone import Sealer

from ._crypto_operations import CryptoOperations
from ._deadline import Deadline
from ._key_operations import KeyOperations
from ._plugin import Plugin
from .config import KeystoreSettings
from .errors import InvalidArgument, PolicyDenied
from .shims import envelope, envelope_stream
from .shims.envelope_format import check_context
from .shims.envelope_types import Context, Opened, Progress, Seal, Sealed, Sink, Source, Unseal

_MAX_DESCRIBED: Final = 4096  # keys whose unchanging description is remembered

Format = Literal["envelope", "raw"]


class Keystore(KeyOperations, CryptoOperations):
    """One configured keystore. Obtained from `Host.keystore`; may be used by many threads.

    Attributes:
        name: Its name in the configuration.
        settings: Its table.
    """

    def __init__(self, name: str, settings: KeystoreSettings, plugin: Plugin) -> None:
        super().__init__(name, settings, plugin)
        self.settings = settings
        self._described: dict[str, Key] = {}
        self._proven: set[str] = set()
        self._lock = threading.Lock()

    def rebind(self, settings: KeystoreSettings, plugin: Plugin) -> None:
        """Go on under other settings, maybe on another plugin. Nothing learnt about the keys is kept."""
        with self._lock:
            self.settings, self._plugin = settings, plugin
            self._described, self._proven = {}, set()
            self.resilience.rebind(settings, plugin)

    def remove(self) -> None:
        """Refuse every call from now on: the configuration names this keystore no more."""
        self._plugin = self._plugin.refusing(f"the keystore {self.name!r} was removed by a reload")
        self.resilience.rebind(self.settings, self._plugin)
        self.resilience.close()

    @property
    def identity(self) -> str:
        """Stable identity, the same for every host; it stands in envelopes, the name does not."""
        return self.settings.identity or self._plugin.opened.identity

    @property
    def accepts_public_key_wrap(self) -> bool:
        """Whether ciphertexts open whose data key anybody could have wrapped."""
        return self.settings.accept_public_key_wrap

    @property
    def shows_context(self) -> bool:
        """Whether a provider that authenticates maps gets the encryption context itself."""
        return self.settings.context_binding == "context"

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What the driver promises, as probed."""
        return self._plugin.opened.capabilities

    @overload
    def encrypt(
        self,
        key_id: str,
        plaintext: bytes,
        *,
        context: Mapping[str, str] | None = None,
        store_context: bool = False,
        tenant: str | None = None,
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
        format: Format = "envelope",  # noqa: A002 - the word that everybody would look for
        key_version: str | None = None,
        associated_data: bytes | None = None,
        timeout: float | None = None,
    ) -> Sealed | EncryptResult:
        """Encrypt data of any length under a key.

        The result is an envelope: a fresh data key, wrapped by the keystore, encrypts the data here.

        Args:
            key_id: The key.
            plaintext: The data; 0 bytes and more.
            context: Authenticated, not secret, needed again to decrypt; not stored.
            store_context: Write the context into the header, readable for anybody.
            tenant: Bind the envelope to a tenant; stands in the header.
            format: ``raw`` for the provider's own ciphertext of few bytes; the keystore must allow it.
            key_version: With ``raw`` only: pin a version.
            associated_data: With ``raw`` only: authenticated bytes.
            timeout: Seconds for the keystore's part.

        Raises:
            KeyNotFound: No such key.
            InvalidArgument: The context breaks a bound, or contradicts the keystore's own.
            UnsupportedOperation: The key cannot wrap data keys.
        """
        if not isinstance(plaintext, (bytes, bytearray, memoryview)):
            raise InvalidArgument(f"plaintext must be bytes, not {type(plaintext).__name__}")
        deadline = self.deadline(timeout)
        _check_format(format)
        if format == "raw":
            self._allow_raw()
            return self.native_encrypt(
                key_id,
                bytes(plaintext),
                deadline=deadline,
                key_version=key_version,
                associated_data=associated_data,
                context=context,
            )
        _only_raw(key_version=key_version, associated_data=associated_data)
        prefix, sealer, facts = self._begin_seal(key_id, context, store_context, tenant, deadline)
        ciphertext = envelope.seal(prefix, sealer, bytes(plaintext))
        return Sealed(
            keystore=facts.keystore,
            key_id=facts.key_id,
            key_version=facts.key_version,
            protection=facts.protection,
            vendor=facts.vendor,
            ciphertext=ciphertext,
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
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Seal:
        """Encrypt everything in *source* into *sink*, in constant memory. As `encrypt` otherwise.

        Args:
            key_id: The key.
            source: A binary file or pipe.
            sink: A binary file or pipe. After an error it holds a part of an envelope: throw it away.
            context: As in `encrypt`.
            store_context: As in `encrypt`.
            tenant: As in `encrypt`.
            progress: Called with the number of bytes of each step.
            timeout: Seconds for the keystore's part; the data may take as long as they take.
        """
        deadline = self.deadline(timeout)
        prefix, sealer, facts = self._begin_seal(key_id, context, store_context, tenant, deadline)
        envelope_stream.seal_stream(prefix, sealer, source, sink, progress)
        return facts

    @overload
    def decrypt(
        self,
        ciphertext: bytes,
        *,
        context: Mapping[str, str] | Context | None = None,
        key_id: str | None = None,
        tenant: str | None = None,
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
            format: As in `encrypt`.
            key_version: With ``raw`` only: the version that made it.
            associated_data: With ``raw`` only: the same as for `encrypt`.
            timeout: Seconds for the keystore's part.

        Raises:
            InvalidCiphertext: The bytes do not belong to this key and context.
            AccessDenied: The envelope names no key of this keystore that may open it.
        """
        _check_format(format)
        if format == "raw":
            self._allow_raw()
            if key_id is None or isinstance(context, Context):
                raise InvalidArgument(
                    "a raw ciphertext needs key_id, and has no header to take a context from"
                )
            return self.native_decrypt(
                key_id,
                ciphertext,
                deadline=self.deadline(timeout),
                key_version=key_version,
                associated_data=associated_data,
                context=context,
            )
        _only_raw(key_version=key_version, associated_data=associated_data)
        keys = None if key_id is None else [key_id]
        return open_bytes(
            [self], ciphertext, context, tenant=tenant, keys=keys, deadline=self.deadline(timeout)
        )

    def decrypt_stream(
        self,
        source: Source,
        sink: Sink,
        *,
        context: Mapping[str, str] | Context | None = None,
        key_id: str | None = None,
        tenant: str | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Unseal:
        """Open everything in *source* into *sink*, in constant memory. As `decrypt` otherwise.

        After an error the sink holds a genuine beginning, but not all: throw it away.
        """
        keys = None if key_id is None else [key_id]
        deadline = self.deadline(timeout)
        return open_stream(
            [self], source, sink, context, tenant=tenant, keys=keys, progress=progress, deadline=deadline
        )

    def describe(self, key_id: str, deadline: Deadline) -> Key:
        """Return a key's description for what never changes: its canonical id, algorithm, protection."""
        key = self._described.get(key_id)
        if key is None:
            key = self.get_key(key_id, timeout=deadline.remaining_s())
            with self._lock:
                if len(self._described) >= _MAX_DESCRIBED:
                    self._described.clear()
                self._described[key_id] = key
        return key

    def wrap_row(
        self,
        operation: str,
        *,
        key_algorithm: KeyAlgorithm | None = None,
        wrap_algorithm: str | None = None,
    ) -> Capability | None:
        """Return the capability row by which a data key is wrapped or unwrapped, if there is one."""
        for row in self.capabilities:
            if row.operation != operation or row.wrap_algorithm is None:
                continue
            if key_algorithm is not None and row.key_algorithm is not key_algorithm:
                continue
            if wrap_algorithm is None or row.wrap_algorithm == wrap_algorithm:
                return row
        return None

    def owns(self, key_id: str) -> bool:
        """Tell whether a key id lies in this keystore's own namespace."""
        return key_id.startswith(self._plugin.opened.key_namespace)

    def merge_context(self, context: Mapping[str, str]) -> dict[str, str]:
        """Return *context* with the keystore's own entries.

        Raises:
            InvalidArgument: The caller says something else for an entry of the configuration.
        """
        for key, value in self.settings.context.items():
            if context.get(key, value) != value:
                raise InvalidArgument(
                    f"the keystore's configuration sets the context entry {key!r} otherwise"
                )
        return check_context({**context, **self.settings.context})

    def is_proven(self, wrap_algorithm: str) -> bool:
        """Tell whether this keystore was seen to refuse other associated data."""
        return wrap_algorithm in self._proven

    def set_proven(self, wrap_algorithm: str) -> None:
        """Remember that it was."""
        self._proven.add(wrap_algorithm)

    def _begin_seal(
        self,
        key_id: str,
        context: Mapping[str, str] | None,
        store_context: bool,
        tenant: str | None,
        deadline: Deadline,
    ) -> tuple[bytes, Sealer, Seal]:
        merged = self.merge_context(check_context(context))
        return envelope.begin_seal(
            self, key_id, merged, store_context=store_context, tenant=tenant, deadline=deadline
        )

    def _allow_raw(self) -> None:
        if not self.settings.allow_raw:
            raise PolicyDenied(
                "this keystore does not allow ciphertexts without an envelope",
                keystore=self.name,
                hint=f"set allow_raw = true in [keystores.{self.name}]",
            )


def open_bytes(
    keystores: Sequence[Keystore],
    ciphertext: bytes,
    context: Mapping[str, str] | Context | None,
    *,
    tenant: str | None,
    keys: Sequence[str] | None,
    deadline: Deadline,
) -> Opened:
    """Open an envelope that is in memory with one of *keystores*."""
    if not isinstance(ciphertext, (bytes, bytearray, memoryview)):
        raise InvalidArgument(f"ciphertext must be bytes, not {type(ciphertext).__name__}")
    header, head, chunks = envelope.split(bytes(ciphertext))
    opener, facts = envelope.begin_open(
        keystores, header, head, context, tenant=tenant, keys=keys, deadline=deadline
    )
    return Opened(
        keystore=facts.keystore,
        key_id=facts.key_id,
        key_version=facts.key_version,
        sender=facts.sender,
        suite=facts.suite,
        context=facts.context,
        tenant=facts.tenant,
        generation=facts.generation,
        vendor=facts.vendor,
        plaintext=envelope.open_payload(opener, chunks),
    )


def open_stream(
    keystores: Sequence[Keystore],
    source: Source,
    sink: Sink,
    context: Mapping[str, str] | Context | None,
    *,
    tenant: str | None,
    keys: Sequence[str] | None,
    progress: Progress | None,
    deadline: Deadline,
) -> Unseal:
    """Open an envelope that is read from *source* with one of *keystores*."""
    header, head = envelope_stream.read_head(source)
    opener, facts = envelope.begin_open(
        keystores, header, head, context, tenant=tenant, keys=keys, deadline=deadline
    )
    envelope_stream.open_stream(opener, source, sink, progress)
    return facts


def _check_format(name: str) -> None:
    if name not in get_args(Format):  # a misspelt "raw" must not silently mean something else
        raise InvalidArgument(f"format must be one of {', '.join(get_args(Format))}, not {name!r}")


def _only_raw(**arguments: object) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise InvalidArgument(f'{name} goes with format="raw": an envelope binds the context instead')
