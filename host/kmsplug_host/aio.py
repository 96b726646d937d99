"""The host for asynchronous applications: the same operations and names, awaited. asyncio and trio.

A thin wrapper around the synchronous host, which does everything: a call runs on a worker thread. Needs
the extra ``async`` (anyio). Cancelling a task cancels its call in the driver.

    >>> async with await AsyncHost.open("plugins.toml") as host:
    ...     sealed = await host.keystore("local").encrypt(key_id, b"secret")
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from kmsplug_protocol import Capability, Key

from ._async_operations import AsyncOperations
from ._events import PluginEvent
from ._evidence import RowReport
from ._status import PluginStatus
from ._workers import Workers, shielded
from .client import Host
from .health import Health
from .resilience import KeystoreStats
from .shims.envelope_types import (
    Context,
    KeyHandle,
    Opened,
    Progress,
    Rewrapped,
    Sink,
    Source,
    Unseal,
)

__all__ = ["AsyncHost", "AsyncKeystore"]

_MOST_AT_ONCE: Final = 64


class AsyncKeystore(AsyncOperations):
    """A `Keystore` whose operations are awaited."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._keystore.name

    @property
    def identity(self) -> str:
        """Its stable identity."""
        return self._keystore.identity

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What the driver promises, as probed."""
        return self._keystore.capabilities

    def rows(self) -> tuple[RowReport, ...]:
        """Return every promise of the driver, and how far it is believed."""
        return self._keystore.rows()

    def handle(self, key_id: str) -> KeyHandle:
        """Return a key of this keystore, to be named as a recipient of an envelope."""
        return self._keystore.handle(key_id)

    async def keys(self, *, timeout: float | None = None) -> AsyncIterator[Key]:  # noqa: ASYNC109 - as in `Keystore`
        """Walk all keys, page by page; *timeout* is for each page."""
        cursor = None
        while True:
            page = await self.list_keys(limit=1000, cursor=cursor, timeout=timeout)
            for key in page.keys:
                yield key
            cursor = page.next_cursor
            if cursor is None:
                return


class AsyncHost:
    """A `Host` whose operations are awaited. Use `AsyncHost.open`.

    Args:
        host: The host that does the work.
        most_at_once: How many calls run at the same time; a further one waits for a place.
    """

    def __init__(self, host: Host, *, most_at_once: int = _MOST_AT_ONCE) -> None:
        self._host = host
        self._workers = Workers(most_at_once)

    @classmethod
    async def open(
        cls,
        source: str | Path | Mapping[str, Any],
        *,
        keystores: Collection[str] | None = None,
        all_ready: bool = True,
        most_at_once: int = _MOST_AT_ONCE,
    ) -> Self:
        """Start the configured plugins and return when all are ready: all or nothing. See `Host.open`."""
        # Shielded: a host that is being opened belongs to nobody yet, so nobody else could close it.
        with shielded():
            host = await Workers(1).run(Host.open, source, keystores=keystores, all_ready=all_ready)
        return cls(host, most_at_once=most_at_once)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let calls in flight end, then stop all drivers; bounded, also in a task that was cancelled."""
        with shielded():
            await Workers(1).run(self._host.close)

    def keystore(self, name: str) -> AsyncKeystore:
        """Return a keystore by its name in the configuration."""
        return AsyncKeystore(self._host.keystore(name), self._workers)

    def keystores(self) -> tuple[str, ...]:
        """Return the names of the keystores that were opened."""
        return self._host.keystores()

    def plugins(self) -> tuple[PluginStatus, ...]:
        """Return a snapshot of every plugin."""
        return self._host.plugins()

    def stats(self) -> tuple[KeystoreStats, ...]:
        """Return a snapshot of every keystore. See `Host.stats`."""
        return self._host.stats()

    async def reload(self, source: str | Path | Mapping[str, Any] | None = None) -> None:
        """Go over to new processes, and to what the configuration is now. See `Host.reload`."""
        with shielded():
            await Workers(1).run(self._host.reload, source)

    def release(self, plugin: str) -> None:
        """Start again what is in quarantine. See `Host.release`."""
        self._host.release(plugin)

    def subscribe(self, callback: Callable[[PluginEvent], object]) -> Callable[[], None]:
        """Call *callback* with every change of a plugin's state, on another thread. See `Host.subscribe`."""
        return self._host.subscribe(callback)

    async def health(
        self,
        plugin: str,
        *,
        deep: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline goes to the driver too
    ) -> Health:
        """Check one plugin, whatever the others do. See `Host.health`."""
        return await self._workers.run(self._host.health, plugin, deep=deep, timeout=timeout)

    async def decrypt(
        self,
        ciphertext: bytes,
        *,
        context: Mapping[str, str] | Context | None = None,
        keys: Sequence[str] | None = None,
        tenant: str | None = None,
        min_generation: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline goes to the driver too
    ) -> Opened:
        """Open an envelope with whichever keystore it names. See `Host.decrypt`."""
        return await self._workers.run(
            self._host.decrypt,
            ciphertext,
            context=context,
            keys=keys,
            tenant=tenant,
            min_generation=min_generation,
            timeout=timeout,
        )

    async def decrypt_stream(
        self,
        source: Source,
        sink: Sink,
        *,
        context: Mapping[str, str] | Context | None = None,
        keys: Sequence[str] | None = None,
        tenant: str | None = None,
        min_generation: int | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline goes to the driver too
    ) -> Unseal:
        """Open everything in *source* into *sink*. See `Host.decrypt_stream`; *progress* runs on a thread."""
        return await self._workers.run(
            self._host.decrypt_stream,
            source,
            sink,
            context=context,
            keys=keys,
            tenant=tenant,
            min_generation=min_generation,
            progress=progress,
            timeout=timeout,
        )

    async def rewrap(
        self,
        ciphertext: bytes,
        *,
        add: Sequence[KeyHandle] = (),
        remove: Sequence[KeyHandle | int] = (),
        context: Mapping[str, str] | Context | None = None,
        tenant: str | None = None,
        expect_generation: int | None = None,
        require_same_strength: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline goes to the driver too
    ) -> Rewrapped:
        """Replace who can open an envelope. See `Host.rewrap`."""
        return await self._workers.run(
            self._host.rewrap,
            ciphertext,
            add=add,
            remove=remove,
            context=context,
            tenant=tenant,
            expect_generation=expect_generation,
            require_same_strength=require_same_strength,
            timeout=timeout,
        )
