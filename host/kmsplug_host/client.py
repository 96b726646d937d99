"""The host: opens plugins.toml, starts the plugins, hands out keystores, ends everything in order.

However a program leaves the ``with`` block, no driver process stays behind, and leaving takes bounded time.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ._deadline import Deadline, caller_deadline
from ._envelope_operations import open_bytes, view_of
from ._events import Events, PluginEvent
from ._launch import PluginSpec, prepare_plugins
from ._plugin import Plugin
from ._redaction import Redactor
from ._reload import Changeover
from ._replica import START_DEADLINE_S
from ._resolver import is_allowed, unmet
from ._status import PluginStatus
from ._supervisor import Supervisor, run_together
from .catalog import CatalogHandle
from .config import Source as SettingsSource
from .config import load
from .errors import ConfigurationError, InvalidArgument, PluginUnavailable
from .health import DeepChecks, Health, check_health
from .keystore import Keystore
from .resilience import KeystoreStats
from .shims import envelope_open, envelope_recipients, envelope_stream
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
        self._version = version()
        self._pid = os.getpid()
        self._supervisor = Supervisor()
        self._events = Events()
        self._deep_checks = DeepChecks(self._supervisor)
        self._reloading = threading.Lock()
        self._changing = threading.Lock()  # what plugins there are
        self._closed = False
        self._plugins: dict[str, Plugin] = {}
        self._others: list[Plugin] = []  # that come or go by a reload
        self._keystores: dict[str, Keystore] = {}
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
        if os.getpid() != self._pid:
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
        for keystore in self._keystores.values():
            keystore.close()
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
        try:
            return self._keystores[name]
        except KeyError:
            known = ", ".join(sorted(self._keystores)) or "none"
            raise ConfigurationError(
                f"{self._source.name}: no keystore {name!r}, there are: {known}"
            ) from None

    def keystores(self) -> tuple[str, ...]:
        """Return the names of the keystores that were opened."""
        return tuple(self._keystores)

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
        return open_bytes(ciphertext, self._opening(context, keys, tenant, min_generation, timeout))

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
        request = self._opening(context, keys, tenant, min_generation, timeout)
        return envelope_stream.open_stream(source, sink, request, progress)

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
        change = envelope_recipients.Change(add, remove, expect_generation, require_same_strength)
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
        change = envelope_recipients.Change(add, remove, expect_generation, require_same_strength)
        request = self._opening(context, None, tenant, None, timeout)
        return envelope_recipients.rewrap_stream(source, sink, request, change, progress)

    def plugins(self) -> tuple[PluginStatus, ...]:
        """Return a snapshot of every plugin."""
        return tuple(plugin.status() for plugin in self._plugins.values())

    def stats(self) -> tuple[KeystoreStats, ...]:
        """Return a snapshot of every keystore: calls, retries, failures, breaker, load."""
        self._refuse_forked()
        return tuple(map(_stats, self._keystores.values()))

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
        change.prepare(Deadline.after(START_DEADLINE_S), all_ready=all_ready)
        try:
            _check_requirements(settings, change)
        except ConfigurationError:
            change.undo()
            raise
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
        plugin = Plugin(spec, self._version, self._supervisor, self._events)
        with self._changing:
            if self._closed:
                raise PluginUnavailable("the host is closed")
            self._others.append(plugin)
        return plugin

    def _rebind(self) -> None:
        """Put the keystores on the plugins of the configuration."""
        before, after = dict(self._keystores), {}
        old, self._catalog = self._catalog, self._make_catalog()
        for name, settings in self._source.settings.all_keystores().items():
            plugin = self._plugins.get(settings.plugin)
            if plugin is None:  # not wanted when the host was opened
                continue
            keystore = before.pop(name, None)
            if keystore is None:
                keystore = Keystore(name, settings, plugin, self._catalog)
            else:
                keystore.rebind(settings, plugin, self._catalog)
            after[name] = keystore
        self._keystores = after  # at once: somebody may be asking for one
        for keystore in before.values():
            keystore.remove()
        if old is not None:
            old.close()

    def _make_catalog(self) -> CatalogHandle | None:
        """Return the catalog of the configuration; it is opened when it is needed."""
        table = self._source.settings.catalog
        return None if table is None else CatalogHandle(table, self._source.folder, self._redactor)

    def _refuse_forked(self) -> None:
        if os.getpid() != self._pid:
            raise PluginUnavailable("the host was opened in another process")

    def _opening(
        self,
        context: Mapping[str, str] | Context | None,
        keys: Sequence[str] | None,
        tenant: str | None,
        min_generation: int | None,
        timeout: float | None,
    ) -> envelope_open.Request:
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


def _stats(keystore: Keystore) -> KeystoreStats:
    keys = keystore.data_keys
    return replace(
        keystore.resilience.stats(),
        data_keys=len(keys),
        data_key_hits=keys.hits,
        data_key_misses=keys.misses,
    )


def version() -> str:
    """Return the version of this library."""
    from importlib import metadata  # noqa: PLC0415 - 10 ms that `import kmsplug_host` need not take

    try:
        return metadata.version("kmsplug")
    except metadata.PackageNotFoundError:  # a source tree on the path, not installed
        return "0"


def _check_requirements(source: SettingsSource, change: Changeover) -> None:
    """Refuse to open a keystore that will not get what it requires."""
    has = source.settings.catalog is not None
    for name, keystore in source.settings.all_keystores().items():
        opened = change.opened(keystore.plugin)
        for reason in () if opened is None else unmet(opened.capabilities, keystore, catalog=has):
            raise ConfigurationError(
                f"{source.name}: keystores.{name}.require: {reason}", keystore=name, plugin=keystore.plugin
            )


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
