"""A keystore as applications hold it: every operation of the protocol, and an envelope around data."""

import threading
from collections.abc import Mapping
from typing import Final

from kmsplug_protocol import Capability, Key, KeyAlgorithm

from ._deadline import Deadline
from ._envelope_operations import EnvelopeOperations
from ._key_operations import KeyOperations
from ._plugin import Plugin
from .config import KeystoreSettings
from .errors import InvalidArgument
from .shims.envelope_format import check_context

_MAX_DESCRIBED: Final = 4096  # keys whose unchanging description is remembered


class Keystore(KeyOperations, EnvelopeOperations):
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
        self.rebind_data_keys(settings)

    def close(self) -> None:
        """Refuse whatever waits, and forget the data keys: the host is being closed."""
        self.resilience.close()
        self.forget_data_keys()

    def forget_data_keys(self) -> None:
        """Use no data key from before now, and no description either: an alias may name another key."""
        super().forget_data_keys()
        self._described.clear()

    def remove(self) -> None:
        """Refuse every call from now on: the configuration names this keystore no more."""
        self._plugin = self._plugin.refusing(f"the keystore {self.name!r} was removed by a reload")
        self.resilience.rebind(self.settings, self._plugin)
        self.close()

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
    def wants_commitment(self) -> bool:
        """Whether no message goes through the provider itself, which commits to no key."""
        return self.settings.suite != "auto"

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What the driver promises, as probed."""
        return self._plugin.opened.capabilities

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
