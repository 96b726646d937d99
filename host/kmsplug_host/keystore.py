"""A keystore as applications hold it: every operation of the protocol, and an envelope around data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from kmsplug_protocol import KEYSTORE_API, Capability, Key, KeyAlgorithm

from ._deadline import Deadline
from ._envelope_operations import EnvelopeOperations
from ._evidence import Evidence, RowReport
from ._key_operations import KeyOperations
from ._offers import Offer, is_allowed
from ._plugin import Plugin
from ._probing import probe
from .catalog import Catalog, CatalogHandle
from .config import KeystoreSettings
from .errors import InvalidArgument
from .shims.auto_destroy import Reading, read_clocks
from .shims.envelope_format import check_context
from .shims.registry import ENVELOPE

_LONGEST_PROBE_S: Final = 600.0


class Keystore(KeyOperations, EnvelopeOperations):
    """One configured keystore. Obtained from `Host.keystore`; may be used by many threads.

    Attributes:
        name: Its name in the configuration.
        settings: Its table.
    """

    def __init__(
        self,
        name: str,
        settings: KeystoreSettings,
        plugin: Plugin,
        catalog: CatalogHandle | None = None,
    ) -> None:
        super().__init__(name, settings, plugin, catalog)
        self.settings = settings

    def rebind(
        self, settings: KeystoreSettings, plugin: Plugin, catalog: CatalogHandle | None = None
    ) -> None:
        """Go on under other settings, maybe on another plugin. Nothing learnt about the keys is kept."""
        self.settings = settings
        self._native.rebind(settings, plugin)
        self._resolver.bind(catalog)
        self.rebind_data_keys(settings)

    def close(self) -> None:
        """Refuse whatever waits, and forget the data keys: the host is being closed."""
        self.resilience.close()
        self.forget_data_keys()

    def forget_data_keys(self) -> None:
        """Use no data key from before now, and no description either: an alias may name another key."""
        super().forget_data_keys()
        self._resolver.forget()

    def remove(self) -> None:
        """Refuse every call from now on: the configuration names this keystore no more."""
        refusing = self._native.plugin.refusing(f"the keystore {self.name!r} was removed by a reload")
        self._native.rebind(self.settings, refusing)
        self.close()

    @property
    def identity(self) -> str:
        """Stable identity, the same for every host; it stands in envelopes, the name does not."""
        return self._native.identity

    @property
    def accepts_public_key_wrap(self) -> bool:
        """Whether ciphertexts open whose data key anybody could have wrapped."""
        return self.settings.accept_public_key_wrap

    @property
    def allows_envelope(self) -> bool:
        """Whether the host may encrypt data here, in the provider's place."""
        return is_allowed(self.settings, ENVELOPE)

    @property
    def shows_context(self) -> bool:
        """Whether a provider that authenticates maps gets the encryption context itself."""
        return self.settings.context_binding == "context"

    @property
    def wants_commitment(self) -> bool:
        """Whether no message goes through the provider itself, which commits to no key."""
        return self.settings.suite != "auto"

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What the driver promises, as probed, without what was found to be untrue."""
        return self._native.rows.all

    @property
    def evidence(self) -> Evidence:
        """What is known of the driver's promises. For shims; applications use `rows`."""
        return self._native.evidence

    def rows(self) -> tuple[RowReport, ...]:
        """Return every promise of the driver, and how far it is believed: probed, declared or withdrawn.

        Raises:
            PluginUnavailable: It was never ready.
        """
        _ = self._native.rows
        return self._native.evidence.report()

    def probe(self, key_ids: Sequence[str] = (), *, timeout: float | None = None) -> tuple[RowReport, ...]:
        """Try out what the driver promises: what needs no key, and with some keys all that they can do.

        Each key is used: its uses are logged, counted and billed like others; nothing is made or changed.
        A promise that does not hold is withdrawn, with a warning, for everybody who uses this plugin.

        Args:
            key_ids: Keys that may be used for this.
            timeout: Seconds for each call.

        Returns:
            As `rows`.

        Raises:
            KeyNotFound: No such key.
        """
        deadline = self.deadline(timeout)
        probe(
            self._native.ask,
            lambda: self._native.rows,
            self.evidence,
            [self.describe(key_id, deadline).key_id for key_id in key_ids],
            limit=self.deadline(_LONGEST_PROBE_S),
            each_s=deadline.remaining_s(),
        )
        return self.rows()

    def can_do(self, operation: str, key_id: str | None = None, *, timeout: float | None = None) -> Offer:
        """Tell who would do an operation: the provider, a shim of the host, or nobody, and why.

        Args:
            operation: Its wire name, as ``crypto.sign``.
            key_id: With this key; default: with any.
            timeout: Seconds.

        Returns:
            An `Offer`, which is true where anybody does it.

        Raises:
            InvalidArgument: There is no such operation.
            KeyNotFound: No such key.
        """
        if operation not in {each.wire for each in KEYSTORE_API}:
            raise InvalidArgument(f"there is no operation {operation!r}", path="operation")
        if key_id is None:
            return self._resolver.offer(operation)
        return self._resolver.can_do(operation, key_id, self.deadline(timeout))

    def destroy_due(self, deadline: Deadline, read: Callable[[Catalog], Reading] = read_clocks) -> list[str]:
        """Destroy what is due and need not wait for an operator, as ``auto_destroy`` says; return what was.

        The host does so by itself, every five minutes.
        """
        managed = self._resolver.managed
        if managed is None:
            return []
        destroyed = managed.destroy_due(deadline, read)
        if destroyed:
            self.forget_data_keys()
        return destroyed

    def describe(self, key_id: str, deadline: Deadline) -> Key:
        """Return a key's description for what never changes: its canonical id, algorithm, protection."""
        return self._resolver.describe(key_id, deadline)

    def wrap_row(
        self,
        operation: str,
        *,
        key_algorithm: KeyAlgorithm | None = None,
        wrap_algorithm: str | None = None,
        key_id: str | None = None,
    ) -> Capability | None:
        """Return the capability row by which a data key is wrapped or unwrapped, if there is one.

        Args:
            operation: ``crypto.encrypt`` or ``crypto.decrypt``.
            key_algorithm: Of the key; or
            wrap_algorithm: by which a data key was wrapped,
            key_id: by this key, which is looked at only where rows of that name differ.
        """
        rows = self._native.rows.wraps(operation, key_algorithm, wrap_algorithm)
        if len(rows) > 1 and key_id is not None:
            algorithm = self.describe(key_id, self.deadline(None)).algorithm
            rows = self._native.rows.wraps(operation, algorithm, wrap_algorithm)
        return rows[0] if rows else None

    def owns(self, key_id: str) -> bool:
        """Tell whether a key id lies in this keystore's own namespace."""
        return key_id.startswith(self._native.plugin.opened.key_namespace)

    def merge_context(self, context: Mapping[str, str]) -> dict[str, str]:
        """Return *context* with the keystore's own entries.

        Raises:
            InvalidArgument: The caller says something else for an entry of the configuration.
        """
        if not self.settings.context:
            return dict(context)  # whoever asks has checked it
        for key, value in self.settings.context.items():
            if context.get(key, value) != value:
                raise InvalidArgument(
                    f"the keystore's configuration sets the context entry {key!r} otherwise"
                )
        return check_context({**context, **self.settings.context})
