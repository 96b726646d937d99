"""The host: opens plugins.toml, starts the plugins, hands out keystores, ends everything in order.

However a program leaves the ``with`` block, no driver process stays behind, and leaving takes bounded time.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from . import _fork as fork
from ._deadline import Deadline
from ._events import Events, PluginEvent
from ._launch import PluginSpec, prepare_plugins
from ._plugin import Plugin
from ._redaction import Redactor
from ._reload import Changeover
from ._replica import START_DEADLINE_S
from ._status import PluginStatus
from ._supervisor import Supervisor, run_together
from .config import Source as SettingsSource
from .config import load
from .errors import ConfigurationError, InvalidArgument, PluginUnavailable
from .health import DeepChecks, Health, check_health

if TYPE_CHECKING:  # what calls need is loaded while the first drivers start: see `Host._change`
    from types import TracebackType

    from ._keyring import Keyring
    from .catalog import CatalogHandle
    from .keystore import Keystore
    from .resilience import KeystoreStats
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

_DRAIN_S: Final = 4.0  # for calls in flight, then for a driver to end by itself
_LINGER_S: Final = 1.0  # for calls on a removed plugin that began while their keystore moved to another one

_Given = str | Path | Mapping[str, Any]


class Host:
    """The plugins of one configuration. Use `Host.open`.

    Threads of the application may share it; a forked child must open its own.
    """

    def __init__(self, given: _Given, source: SettingsSource, wanted: Collection[str] | None) -> None:
        self._given = given
        self._source = source
        self._wanted = wanted
        self._redactor = Redactor()
        self._forks = fork.count
        self._supervisor = Supervisor()
        self._events = Events()
        self._deep_checks = DeepChecks(self._supervisor)
        self._reloading = threading.Lock()
        self._changing = threading.Lock()  # what plugins there are
        self._closed = False
        self._plugins: dict[str, Plugin] = {}
        self._others: list[Plugin] = []  # that come or go by a reload
        self._loaded: Keyring | None = None
        self._catalog: CatalogHandle | None = None

    @classmethod
    def open(
        cls, source: _Given, *, keystores: Collection[str] | None = None, all_ready: bool = True
    ) -> Self:
        """Start the configured plugins and return when all are ready: all or nothing.

        Args:
            source: Path of a plugins.toml, or the same as a mapping.
            keystores: Start only what these keystores need; default: everything.
            all_ready: Whether a plugin that does not start is an error. Where it is none, the plugin is
                started again as one that crashed, and calls on it fail until it is ready.

        Raises:
            ConfigurationError: The configuration is wrong; names file, key and what was expected.
            KmsplugError: A plugin did not start; unless it refused to work with its
                settings, ``diagnosis`` says what is known about its process.
        """
        settings = load(source)
        host = cls(source, settings, keystores)
        # Closing is armed before anything runs: a failure must not leave a process behind.
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(host.close)
            host._change(settings, all_ready=all_ready)
            on_failure.pop_all()
        return host

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let calls in flight end, then stop all drivers; bounded, and harmless when repeated.

        In a forked child it does nothing: the drivers are its parent's.
        """
        if fork.count != self._forks:
            return
        # Not on this thread: Ctrl-C may end the waiting, but not the work.
        run_together([functools.partial(self._close, Deadline.after(_DRAIN_S))], "kmsplug-close")

    def _close(self, deadline: Deadline) -> None:
        with self._changing:
            self._closed = True
            plugins = [*self._plugins.values(), *self._others]
        self._supervisor.close()
        for plugin in plugins:
            plugin.dismiss("the host is closed")
        if self._loaded is not None:
            self._loaded.close()
        run_together([functools.partial(plugin.close, deadline) for plugin in plugins], "kmsplug-close")
        if self._catalog is not None:
            self._catalog.close()
        self._events.close()

    def reload(self, source: _Given | None = None) -> None:
        """Go over to new processes, and to what the configuration and the executables are now.

        They are started beside the old ones and take over when all are ready; no call fails for it, and
        calls in flight end where they began. Keystores that the application holds stay valid, also where they
        are on another plugin now; those that the configuration names no more refuse every call. For a while
        there are twice as many processes. A login that was refused is tried again.

        Args:
            source: A configuration as for `open`; default: the same as before, read anew.

        Raises:
            ConfigurationError: The configuration is wrong. After this and any other error, everything goes on
                as it was.
            KmsplugError: A plugin did not start.
            PluginUnavailable: The host is closed, or another reload does not end.
        """
        self._refuse_forked()
        if not self._reloading.acquire(timeout=START_DEADLINE_S):
            raise PluginUnavailable("another reload goes on")
        try:
            given = self._given if source is None else source
            settings = load(given)
            self._change(settings)
            self._given = given
        finally:
            self._reloading.release()

    def release(self, plugin: str) -> None:
        """Start again what is in quarantine, whatever the reason was; returns before it is ready.

        A credential that was rejected is tried once more, by one process.

        Raises:
            ConfigurationError: There is no plugin of this name.
        """
        self._refuse_forked()
        self._plugin(plugin).release()

    def subscribe(self, callback: Callable[[PluginEvent], object]) -> Callable[[], None]:
        """Call *callback* with every change of a plugin's state; return what ends that.

        It runs on a thread of its own. What it raises is logged; while it blocks, up to 1,000 events wait and
        further ones are lost and counted. The supervision of the plugins never waits for it.
        """
        self._refuse_forked()
        return self._events.subscribe(callback)

    def keystore(self, name: str) -> Keystore:
        """Return a keystore by its name in the configuration.

        Raises:
            ConfigurationError: There is none of this name.
        """
        keystore = self._keyring.get(name)
        if keystore is None:
            known = ", ".join(sorted(self.keystores())) or "none"
            raise ConfigurationError(f"{self._source.name}: no keystore {name!r}, there are: {known}")
        return keystore

    def keystores(self) -> tuple[str, ...]:
        """Return the names of the keystores that were opened."""
        return self._keyring.names()

    def decrypt(
        self,
        ciphertext: bytes,
        *,
        context: Mapping[str, str] | Context | None = None,
        keys: Sequence[str] | None = None,
        tenant: str | None = None,
        min_generation: int | None = None,
        timeout: float | None = None,
    ) -> Opened:
        """Open an envelope with whichever keystore it names, among those with ``auto_decrypt``.

        The ciphertext never chooses its key alone: configuration, namespace and *keys* limit it.

        Args:
            ciphertext: The envelope.
            context: As for `Keystore.decrypt`.
            keys: Key ids that may open it; default: any of the allowed keystores.
            tenant: The envelope must be bound to this tenant.
            min_generation: As for `Keystore.decrypt`.
            timeout: Seconds for the keystore's part.

        Raises:
            InvalidCiphertext: The bytes do not belong to this key and context.
            AccessDenied: No keystore here may open it.
        """
        keyring = self._keyring
        return keyring.decrypt(ciphertext, keyring.request(context, keys, tenant, min_generation, timeout))

    def decrypt_stream(
        self,
        source: Source,
        sink: Sink,
        *,
        context: Mapping[str, str] | Context | None = None,
        keys: Sequence[str] | None = None,
        tenant: str | None = None,
        min_generation: int | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Unseal:
        """Open everything in *source* into *sink*, in constant memory. As `decrypt` otherwise.

        After an error the sink holds a genuine beginning, but not all: throw it away.
        """
        keyring = self._keyring
        request = keyring.request(context, keys, tenant, min_generation, timeout)
        return keyring.decrypt_stream(source, sink, request, progress)

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
        """Replace who can open an envelope, opening it as `decrypt` does. See `Keystore.rewrap`."""
        keyring = self._keyring
        change = keyring.change(add, remove, expect_generation, require_same_strength)
        return keyring.rewrap(ciphertext, keyring.request(context, None, tenant, None, timeout), change)

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
        keyring = self._keyring
        change = keyring.change(add, remove, expect_generation, require_same_strength)
        request = keyring.request(context, None, tenant, None, timeout)
        return keyring.rewrap_stream(source, sink, request, change, progress)

    def plugins(self) -> tuple[PluginStatus, ...]:
        """Return a snapshot of every plugin."""
        return tuple(plugin.status() for plugin in self._plugins.values())

    def stats(self) -> tuple[KeystoreStats, ...]:
        """Return a snapshot of every keystore: calls, retries, failures, breaker, load."""
        self._refuse_forked()
        return self._keyring.stats()

    def health(self, plugin: str, *, deep: bool = False, timeout: float | None = None) -> Health:
        """Check one plugin, whatever the others do.

        Args:
            plugin: Its name.
            deep: Also encrypt and decrypt.
            timeout: Seconds.

        Raises:
            ConfigurationError: There is none of this name.
        """
        return check_health(self._plugin(plugin), deep=deep, timeout=timeout)

    def _plugin(self, name: str) -> Plugin:
        try:
            return self._plugins[name]
        except KeyError:
            known = ", ".join(sorted(self._plugins)) or "none"
            raise ConfigurationError(f"{self._source.name}: no plugin {name!r}, there are: {known}") from None

    def _change(self, settings: SettingsSource, *, all_ready: bool = True) -> None:
        """Go over to other plugins and keystores; or raise, and nothing has changed."""
        specs = prepare_plugins(settings, _plugins_of(settings, self._wanted), self._redactor)
        change = Changeover(self._plugins, specs, self._make)
        deadline = Deadline.after(START_DEADLINE_S)
        change.prepare(deadline, all_ready=all_ready, meanwhile=lambda: self._keyring)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(change.undo)
            self._keyring.check(settings, change)
            on_failure.pop_all()
        with self._changing:
            closed = self._closed
            if not closed:
                before, self._plugins = self._plugins, change.commit()
                self._source = settings
                self._rebind()
                leaving = [plugin for name, plugin in before.items() if name not in self._plugins]
                here = self._plugins.values()
                self._others = [p for p in self._others if p not in here and not p.stopped] + leaving
        if closed:
            change.undo()
            raise PluginUnavailable("the host is closed")
        for plugin in leaving:
            reason = f"the plugin {plugin.name!r} was removed by a reload"
            self._supervisor.submit(functools.partial(plugin.dismiss, reason), _LINGER_S)
        for plugin in self._plugins.values():
            self._deep_checks.watch(plugin)

    def _make(self, spec: PluginSpec) -> Plugin:
        plugin = Plugin(spec, self._supervisor, self._events)
        with self._changing:
            if self._closed:
                raise PluginUnavailable("the host is closed")
            self._others.append(plugin)
        return plugin

    @property
    def _keyring(self) -> Keyring:
        """The keystores; loaded at the first use, which is while the first drivers start."""
        if self._loaded is None:
            from ._keyring import Keyring  # noqa: PLC0415

            self._loaded = Keyring()
        return self._loaded

    def _rebind(self) -> None:
        """Put the keystores on the plugins of the configuration."""
        old, self._catalog = self._catalog, self._make_catalog()
        self._keyring.rebind(self._source, self._plugins, self._catalog)
        if old is not None:
            old.close()

    def _make_catalog(self) -> CatalogHandle | None:
        """Return the catalog of the configuration; it is opened when it is needed."""
        from .catalog import CatalogHandle  # noqa: PLC0415

        table = self._source.settings.catalog
        return None if table is None else CatalogHandle(table, self._source.folder, self._redactor)

    def _refuse_forked(self) -> None:
        if fork.count != self._forks:
            raise PluginUnavailable("the host was opened in another process")


def _plugins_of(source: SettingsSource, keystores: Collection[str] | None) -> set[str]:
    configured = source.settings.all_keystores()
    if keystores is None:
        return set(source.settings.plugins)
    if isinstance(keystores, str):  # a collection of letters, as far as types go
        raise InvalidArgument(f"keystores must be a collection of names, as [{keystores!r}]")
    for name in keystores:
        if name not in configured:
            known = ", ".join(sorted(configured)) or "none"
            raise ConfigurationError(f"{source.name}: no keystore {name!r}, there are: {known}")
    return {configured[name].plugin for name in keystores}
