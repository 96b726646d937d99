"""A keystore as its driver does it: calls through the resilience, capabilities, descriptions. No shims.

What is learnt about the provider is kept here and forgotten when the keystore goes over to another one.
"""

import secrets
import threading
from typing import Any, Final

from kmsplug_protocol import (
    BY_WIRE,
    Key,
    Meta,
    Model,
    Nature,
    Operation,
    Outcome,
    Params,
)

from ._deadline import Deadline
from ._evidence import Evidence
from ._plugin import Plugin
from ._rows import Rows
from .config import KeystoreSettings
from .errors import KmsplugError
from .resilience import Resilience

_MAX_DESCRIBED: Final = 4096  # keys whose unchanging description is remembered


class Native:
    """The provider behind one keystore.

    Args:
        name: Name of the keystore, for errors.
        settings: Its table.
        plugin: The plugin behind it.
    """

    def __init__(self, name: str, settings: KeystoreSettings, plugin: Plugin) -> None:
        self.name = name
        self.settings = settings
        self.plugin = plugin
        self.resilience = Resilience(name, settings, plugin)
        self._lock = threading.Lock()
        self._forget()

    def rebind(self, settings: KeystoreSettings, plugin: Plugin) -> None:
        """Go on under other settings, maybe on another plugin."""
        with self._lock:
            self.settings, self.plugin = settings, plugin
            self._forget()
            self.resilience.rebind(settings, plugin)

    def _forget(self) -> None:
        self._described: dict[str, Key] = {}

    def forget_descriptions(self) -> None:
        """Describe every key anew: an alias may name another one."""
        with self._lock:
            self._described = {}

    @property
    def identity(self) -> str:
        """Stable identity of the keystore."""
        return self.settings.identity or self.plugin.opened.identity

    @property
    def rows(self) -> Rows:
        """What the driver promises, as probed by it, without what was found here to be untrue.

        Raises:
            PluginUnavailable: It was never ready.
        """
        return self.plugin.rows

    @property
    def evidence(self) -> Evidence:
        """What is known of these promises."""
        return self.plugin.evidence

    def describe(self, key_id: str, deadline: Deadline) -> Key:
        """Return what never changes about a key: canonical id, algorithm, usage, protection."""
        key = self._described.get(key_id)
        if key is None:
            answer = self.ask("key.get", deadline, key_id=key_id)
            assert isinstance(answer, Key)  # noqa: S101 - the facade validated it
            key = answer
            with self._lock:
                if len(self._described) >= _MAX_DESCRIBED:
                    self._described.clear()
                self._described[key_id] = key
        return key

    def ask(self, wire: str, deadline: Deadline, **arguments: Any) -> Any:
        """Make one call with these members of its params; `call` otherwise."""
        operation = BY_WIRE[wire]
        return self.call(operation, operation.params(**arguments), deadline)

    def call(self, operation: Operation, params: Model, deadline: Deadline) -> Model:
        """Make one call, with its repetitions.

        Raises:
            KmsplugError: What the driver refused, or what happened instead of an answer.
        """
        change = None
        if operation.nature is Nature.MUTATION:
            change = secrets.token_hex(16)
            params = params.model_copy(update={"meta": Meta(idempotency_key=change)})
        try:
            return self.resilience.call(operation, params, deadline)
        except KmsplugError as error:
            error.add(operation=operation.wire, keystore=self.name, key_id=getattr(params, "key_id", None))
            if error.outcome is Outcome.UNKNOWN and isinstance(params, Params):
                error.add(idempotency_key=params.change_key)  # `Keystore.reconcile` may tell later
            raise
