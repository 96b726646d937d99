"""Who opens the sessions of a plugin's processes, and remembers what was refused for good."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from kmsplug_protocol import ErrorCode

from ._deadline import Deadline
from ._launch import PluginSpec
from .errors import KmsplugError, PluginUnavailable, ProtocolViolation

if TYPE_CHECKING:
    from ._connection import Connection
    from ._handshake import Opened

# Trying again cannot help and may harm: an HSM locks after a few wrong PINs.
FINAL: Final = frozenset(
    {ErrorCode.CONFIGURATION_ERROR, ErrorCode.AUTHENTICATION_FAILED, ErrorCode.KEYSTORE_CORRUPT}
)


class Login:
    """Opens the sessions of all processes of one configuration. Only one at a time gets the settings.

    What one of them was refused for good, the others do not try.

    Args:
        spec: The plugin and its settings.
    """

    def __init__(self, spec: PluginSpec) -> None:
        self._spec = spec
        self._one_at_a_time = threading.Lock()
        self._refused: KmsplugError | None = None
        self._identity: str | None = None

    def open(self, connection: Connection, deadline: Deadline) -> Opened:
        """Take a fresh process through the handshake.

        Raises:
            KmsplugError: It failed, or another one has failed for good.
        """
        # All that a session stands on is loaded now, while its process starts.
        from . import _settings  # noqa: PLC0415
        from ._handshake import configure, initialize  # noqa: PLC0415

        _settings.get_ready()
        # Before it is its turn: one that hangs while it starts keeps no other one waiting.
        redactor = self._spec.redactor
        hello, ignored = initialize(connection, self._spec.name, redactor, deadline)
        if not self._one_at_a_time.acquire(timeout=deadline.remaining_s()):
            raise PluginUnavailable("another process of this plugin did not become ready in time")
        try:
            if self._refused is not None:
                raise self._refused
            opened = configure(connection, self._spec, hello, deadline, ignored=ignored)
            if self._identity is not None and opened.identity != self._identity:
                raise ProtocolViolation("the driver came back with the identity of another keystore")
            self._identity = opened.identity
        except KmsplugError as error:
            if error.code in FINAL:
                self._refused = error
            raise
        finally:
            self._one_at_a_time.release()
        return opened

    def release(self) -> None:
        """Let what was refused be tried again."""
        self._refused = None
