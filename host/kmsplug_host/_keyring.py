"""The keystores of a host, by name, and an envelope opened with whichever of them it names.

`Host.open` loads this module while its drivers start: it stands on the shims and the messages of every
operation, which take longer to load than what starts a driver.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from . import _plausible  # noqa: F401 - loaded with the rest, for it is needed when a driver is ready
from ._deadline import Deadline, caller_deadline
from ._deletions import Deletions
from ._envelope_operations import open_bytes, view_of
from ._offers import is_allowed, unmet
from ._plugin import Plugin
from ._probing import probe_at_open
from ._reload import Changeover
from .catalog import CatalogHandle
from .config import Source as SettingsSource
from .errors import ConfigurationError
from .keystore import Keystore
from .resilience import KeystoreStats
from .shims import envelope_open, envelope_recipients, envelope_stream
from .shims.envelope_recipients import Change
from .shims.envelope_types import (
    Context,
    KeyHandle,
    Opened,
    Progress,
    Rewrap,
    Rewrapped,
    Sink,
    Source,
    Unseal,
)
from .shims.registry import ENVELOPE


class Keyring:
    """The keystores of one host. Those that a reload leaves in place stay the same objects."""

    def __init__(self) -> None:
        self._keystores: dict[str, Keystore] = {}
        self._deletions = Deletions(self._all)

    def get(self, name: str) -> Keystore | None:
        """Return a keystore, if there is one of this name."""
        return self._keystores.get(name)

    def _all(self) -> list[Keystore]:
        return list(self._keystores.values())

    def names(self) -> tuple[str, ...]:
        """Return the names of all."""
        return tuple(self._keystores)

    def stats(self) -> tuple[KeystoreStats, ...]:
        """Return a snapshot of each."""
        return tuple(map(_stats, self._keystores.values()))

    def rebind(
        self, source: SettingsSource, plugins: Mapping[str, Plugin], catalog: CatalogHandle | None
    ) -> None:
        """Put the keystores of a configuration on these plugins; those that it names no more refuse calls."""
        before, after = dict(self._keystores), {}
        for name, settings in source.settings.all_keystores().items():
            plugin = plugins.get(settings.plugin)
            if plugin is None:  # not wanted when the host was opened
                continue
            keystore = before.pop(name, None)
            if keystore is None:
                keystore = Keystore(name, settings, plugin, catalog)
            else:
                keystore.rebind(settings, plugin, catalog)
            after[name] = keystore
        self._keystores = after  # at once: somebody may be asking for one
        for keystore in before.values():
            keystore.remove()
        self._deletions.watch()

    @staticmethod
    def check(source: SettingsSource, change: Changeover) -> None:
        """Try what was asked for, and refuse to open a keystore that will not get what it requires.

        Raises:
            ConfigurationError: Names the keystore, what it requires, and why it is not to be had; or a key
                that is not there to be tried with.
        """
        has = source.settings.catalog is not None
        for name, keystore in source.settings.all_keystores().items():
            fleet = change.fleet(keystore.plugin)
            if fleet is None or fleet.rows is None:
                continue
            probe_at_open(fleet, name, keystore)
            for reason in unmet(fleet.rows, keystore, catalog=has):
                raise ConfigurationError(
                    f"{source.name}: keystores.{name}.require: {reason}",
                    keystore=name,
                    plugin=keystore.plugin,
                )

    def close(self) -> None:
        """Refuse whatever waits in any of them, and forget all data keys."""
        self._deletions.close()
        for keystore in self._keystores.values():
            keystore.close()

    def request(
        self,
        context: Mapping[str, str] | Context | None,
        keys: Sequence[str] | None,
        tenant: str | None,
        min_generation: int | None,
        timeout: float | None,
    ) -> envelope_open.Request:
        """Return what may open an envelope: every keystore with ``auto_decrypt``, under these limits."""
        keystores = [
            keystore
            for keystore in self._keystores.values()
            if keystore.settings.auto_decrypt and is_allowed(keystore.settings, ENVELOPE)
        ]
        if timeout is not None:
            deadline = caller_deadline(timeout)
        else:
            deadline = Deadline(max((keystore.deadline(None).at for keystore in keystores), default=0.0))
        return envelope_open.Request(
            keystores=keystores,
            context=context,
            tenant=tenant,
            keys=keys,
            min_generation=min_generation,
            deadline=deadline,
        )

    @staticmethod
    def change(
        add: Sequence[KeyHandle],
        remove: Sequence[KeyHandle | int],
        expect_generation: int | None,
        require_same_strength: bool,
    ) -> Change:
        """Return a change of who can open an envelope."""
        return Change(add, remove, expect_generation, require_same_strength)

    @staticmethod
    def decrypt(ciphertext: bytes, request: envelope_open.Request) -> Opened:
        """Open an envelope in memory."""
        return open_bytes(ciphertext, request)

    @staticmethod
    def decrypt_stream(
        source: Source, sink: Sink, request: envelope_open.Request, progress: Progress | None
    ) -> Unseal:
        """Open an envelope of any size."""
        return envelope_stream.open_stream(source, sink, request, progress)

    @staticmethod
    def rewrap(ciphertext: bytes, request: envelope_open.Request, change: Change) -> Rewrapped:
        """Replace who can open an envelope in memory."""
        return envelope_recipients.rewrap_bytes(view_of(ciphertext), request, change)

    @staticmethod
    def rewrap_stream(
        source: Source,
        sink: Sink,
        request: envelope_open.Request,
        change: Change,
        progress: Progress | None,
    ) -> Rewrap:
        """Replace who can open an envelope of any size."""
        return envelope_recipients.rewrap_stream(source, sink, request, change, progress)


def _stats(keystore: Keystore) -> KeystoreStats:
    keys = keystore.data_keys
    return replace(
        keystore.resilience.stats(),
        data_keys=len(keys),
        data_key_hits=keys.hits,
        data_key_misses=keys.misses,
        rows=Counter(report.status for report in keystore.evidence.report()),
    )
