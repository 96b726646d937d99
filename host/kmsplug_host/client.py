"""The host: opens plugins.toml, starts the plugins, hands out keystores, ends everything in order.

However a program leaves the ``with`` block, no driver process stays behind, and leaving takes bounded time.
"""

import contextlib
import functools
import os
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ._deadline import Deadline, caller_deadline
from ._launch import prepare_plugins
from ._plugin import START_DEADLINE_S, Plugin
from ._status import PluginStatus
from ._supervisor import Supervisor, run_together
from .config import Source as SettingsSource
from .config import load
from .errors import ConfigurationError, InvalidArgument
from .health import Health, check_health
from .keystore import Keystore, open_bytes, open_stream
from .shims.envelope_types import Context, Opened, Progress, Sink, Source, Unseal

_DRAIN_S: Final = 4.0  # for calls in flight, then for a driver to end by itself


class Host:
    """The plugins of one configuration. Use `Host.open`.

    Threads of the application may share it; a forked child must open its own.
    """

    def __init__(self, source: SettingsSource, plugins: Mapping[str, Plugin], supervisor: Supervisor) -> None:
        self._source = source
        self._plugins = dict(plugins)
        self._supervisor = supervisor
        self._pid = os.getpid()
        self._keystores = {
            name: Keystore(name, settings, self._plugins[settings.plugin])
            for name, settings in source.settings.all_keystores().items()
            if settings.plugin in self._plugins
        }

    @classmethod
    def open(
        cls, source: str | Path | Mapping[str, Any], *, keystores: Collection[str] | None = None
    ) -> Self:
        """Start the configured plugins and return when all are ready: all or nothing.

        Args:
            source: Path of a plugins.toml, or the same as a mapping.
            keystores: Start only what these keystores need; default: everything.

        Raises:
            ConfigurationError: The configuration is wrong; names file, key and what was expected.
            KmsplugError: A plugin did not start; ``diagnosis`` says what is known about its process.
        """
        settings = load(source)
        wanted = _plugins_of(settings, keystores)
        specs = prepare_plugins(settings, wanted)
        supervisor = Supervisor()
        host_version = version()
        plugins = {spec.name: Plugin(spec, host_version, supervisor) for spec in specs}
        host = cls(settings, plugins, supervisor)
        # Closing is armed before anything runs: a failure must not leave a process behind.
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(host.close)
            deadline = Deadline.after(START_DEADLINE_S)
            for plugin in plugins.values():
                plugin.start()
            for plugin in plugins.values():
                plugin.wait_ready(deadline)
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
        self._supervisor.close()
        run_together(
            [functools.partial(plugin.close, deadline) for plugin in self._plugins.values()], "kmsplug-close"
        )

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
        timeout: float | None = None,
    ) -> Opened:
        """Open an envelope with whichever keystore it names, among those with ``auto_decrypt``.

        The ciphertext never chooses its key alone: configuration, namespace and *keys* limit it.

        Args:
            ciphertext: The envelope.
            context: As for `Keystore.decrypt`.
            keys: Key ids that may open it; default: any of the allowed keystores.
            tenant: The envelope must be bound to this tenant.
            timeout: Seconds for the keystore's part.

        Raises:
            InvalidCiphertext: The bytes do not belong to this key and context.
            AccessDenied: No keystore here may open it.
        """
        keystores, deadline = self._allowed(timeout)
        return open_bytes(keystores, ciphertext, context, tenant=tenant, keys=keys, deadline=deadline)

    def decrypt_stream(
        self,
        source: Source,
        sink: Sink,
        *,
        context: Mapping[str, str] | Context | None = None,
        keys: Sequence[str] | None = None,
        tenant: str | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Unseal:
        """Open everything in *source* into *sink*, in constant memory. As `decrypt` otherwise.

        After an error the sink holds a genuine beginning, but not all: throw it away.
        """
        keystores, deadline = self._allowed(timeout)
        return open_stream(
            keystores, source, sink, context, tenant=tenant, keys=keys, progress=progress, deadline=deadline
        )

    def plugins(self) -> tuple[PluginStatus, ...]:
        """Return a snapshot of every plugin."""
        return tuple(plugin.status() for plugin in self._plugins.values())

    def health(self, plugin: str, *, deep: bool = False, timeout: float | None = None) -> Health:
        """Check one plugin, whatever the others do.

        Args:
            plugin: Its name.
            deep: Also encrypt and decrypt.
            timeout: Seconds.

        Raises:
            ConfigurationError: There is none of this name.
        """
        try:
            found = self._plugins[plugin]
        except KeyError:
            known = ", ".join(sorted(self._plugins)) or "none"
            raise ConfigurationError(
                f"{self._source.name}: no plugin {plugin!r}, there are: {known}"
            ) from None
        return check_health(found, deep=deep, timeout=timeout)

    def _allowed(self, timeout: float | None) -> tuple[list[Keystore], Deadline]:
        keystores = [keystore for keystore in self._keystores.values() if keystore.settings.auto_decrypt]
        if timeout is not None:
            return keystores, caller_deadline(timeout)
        longest = max((keystore.deadline(None).at for keystore in keystores), default=0.0)
        return keystores, Deadline(longest)


def version() -> str:
    """Return the version of this library."""
    try:
        return distribution_version("kmsplug")
    except PackageNotFoundError:  # a source tree on the path, not installed
        return "0"


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
