"""A reload: new processes are started beside the old ones, and either all of them take over or none."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from ._deadline import Deadline
from ._fleet import Fleet
from ._launch import PluginSpec
from ._plugin import Plugin
from ._supervisor import run_together
from .errors import KmsplugError

_UNDO_S: Final = 4.0  # for processes that are not wanted after all to end by themselves


class Changeover:
    """From the plugins that run to those of another configuration.

    Args:
        running: The plugins that run.
        specs: The plugins that shall run.
        make: Returns a plugin that is not started yet, for a name that is new.
    """

    def __init__(
        self,
        running: Mapping[str, Plugin],
        specs: Sequence[PluginSpec],
        make: Callable[[PluginSpec], Plugin],
    ) -> None:
        self._running = running
        self._specs = specs
        self._make = make
        self._prepared: list[tuple[Plugin, Fleet]] = []
        self._added: list[Plugin] = []

    def prepare(
        self, deadline: Deadline, *, all_ready: bool = True, meanwhile: Callable[[], object] = lambda: None
    ) -> None:
        """Start everything that is new and wait until it is ready; after an error nothing of it is left.

        Args:
            deadline: For all of it.
            all_ready: Whether a plugin that does not start is an error; else it goes on trying, or is in
                quarantine.
            meanwhile: Called once when everything has been started, before the waiting.

        Raises:
            KmsplugError: A process did not start.
        """
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.undo)
            for spec in self._specs:
                plugin = self._running.get(spec.name)
                if plugin is None:
                    plugin = self._make(spec)
                    self._added.append(plugin)
                    plugin.start()
                else:
                    self._prepared.append((plugin, plugin.prepare(spec)))
            meanwhile()
            for _, fleet in self._prepared:
                fleet.wait_ready(deadline)
            for plugin in self._added:
                with contextlib.nullcontext() if all_ready else contextlib.suppress(KmsplugError):
                    plugin.wait_ready(deadline)
            on_failure.pop_all()

    def fleet(self, name: str) -> Fleet | None:
        """Return a plugin's new processes, if there are any."""
        for plugin, fleet in self._prepared:
            if plugin.name == name:
                return fleet
        return next((plugin.fleet for plugin in self._added if plugin.name == name), None)

    def commit(self) -> dict[str, Plugin]:
        """Let the new processes do the work, and return all plugins by name."""
        for plugin, fleet in self._prepared:
            plugin.adopt(fleet)
        plugins = [plugin for plugin, _ in self._prepared] + self._added
        return {plugin.name: plugin for plugin in plugins}

    def undo(self) -> None:
        """Stop what was started. Bounded."""
        deadline = Deadline.after(_UNDO_S)
        drops = [partial(plugin.drop, fleet, deadline) for plugin, fleet in self._prepared]
        closes = [partial(plugin.close, deadline) for plugin in self._added]
        run_together([*drops, *closes], "kmsplug-undo")
