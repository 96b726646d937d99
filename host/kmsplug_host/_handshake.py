"""Opens a session: versions, limits, schema, settings. What a driver says here is checked, not believed."""

import secrets
from typing import Final

from kmsplug_protocol import (
    BY_WIRE,
    DEFAULT_FRAME_BYTES,
    KNOWN_VERSIONS,
    Capability,
    ConfigureParams,
    ConfigureResult,
    InitializeParams,
    InitializeResult,
    Peer,
)
from msgspec import Struct

from . import _settings
from ._connection import Connection
from ._deadline import Deadline
from ._facade_v1 import FacadeV1
from ._launch import PluginSpec
from ._redaction import Redactor
from ._version import version
from .errors import ProtocolViolation

HOST_NAME: Final = "kmsplug"
_SHOWN: Final = 5


class Opened(Struct, frozen=True):
    """A session that is ready for calls.

    Attributes:
        facade: Makes the calls.
        driver: Name and version of the driver, escaped.
        identity: The keystore's stable identity.
        key_namespace: Prefixes of its key ids.
        capabilities: What it promises, as probed.
        max_concurrency: How many slow requests it works on at once.
        warnings: What the driver wants an operator to know, escaped.
        ignored: What the rows are about, escaped, that are in words of a newer protocol.
    """

    facade: FacadeV1
    driver: Peer
    identity: str
    key_namespace: tuple[str, ...]
    capabilities: tuple[Capability, ...]
    max_concurrency: int
    warnings: tuple[str, ...]
    ignored: tuple[str, ...] = ()

    @property
    def not_understood(self) -> str | None:
        """What to tell of such rows; None: there are none."""
        if not self.ignored:
            return None
        shown = ", ".join(self.ignored[:_SHOWN]) + (", ..." if len(self.ignored) > _SHOWN else "")
        return f"{len(self.ignored)} promises are in words of a newer protocol, and ignored: {shown}"


def initialize(
    connection: Connection, plugin: str, redactor: Redactor, deadline: Deadline
) -> tuple[InitializeResult, tuple[str, ...]]:
    """Learn what the driver is, before it has any settings; and which of its rows are not understood.

    Raises:
        KmsplugError: It refused, or broke the protocol.
    """
    facade = FacadeV1(connection, plugin, Peer(name="unknown", version="0"), redactor)
    params = InitializeParams(
        protocol_versions=KNOWN_VERSIONS,
        host=Peer(name=HOST_NAME, version=version()),
        max_frame_bytes=DEFAULT_FRAME_BYTES,
    )
    answer = facade.call(BY_WIRE["plugin.initialize"], params, deadline)
    assert isinstance(answer, InitializeResult)  # noqa: S101 - the facade validated it
    if answer.protocol_version not in KNOWN_VERSIONS:
        chosen = redactor.clean(answer.protocol_version, 64)
        raise ProtocolViolation(f"the driver chose protocol {chosen!r}, which was not offered")
    if answer.max_frame_bytes > DEFAULT_FRAME_BYTES:
        raise ProtocolViolation("the driver raised the frame limit over what was offered")
    connection.set_max_frame(answer.max_frame_bytes)
    return answer, facade.ignored


def configure(
    connection: Connection,
    spec: PluginSpec,
    hello: InitializeResult,
    deadline: Deadline,
    *,
    ignored: tuple[str, ...] = (),
) -> Opened:
    """Give the driver its settings, secrets included.

    Args:
        connection: To the process.
        spec: The plugin and its settings.
        hello: What the driver told of itself.
        deadline: For all of it.
        ignored: Which of its rows were not understood.

    Raises:
        KmsplugError: The settings are wrong, the driver refused, or it broke the protocol.
    """
    clean = spec.redactor.clean
    where = f"{spec.where}.config"
    settings = _settings.prepare(spec.settings.config, hello.config_schema, spec.folder, where, spec.redactor)
    driver = Peer(name=clean(hello.driver.name, 128), version=clean(hello.driver.version, 64))
    facade = FacadeV1(connection, spec.name, driver, spec.redactor)
    answer = facade.call(BY_WIRE["plugin.configure"], ConfigureParams(config=settings), deadline)
    assert isinstance(answer, ConfigureResult)  # noqa: S101 - the facade validated it
    # Drivers must ignore notifications that they do not know; one a session keeps them tolerant.
    connection.notify(f"plugin.grease-{secrets.token_hex(4)}", {})
    return Opened(
        facade=facade,
        driver=driver,
        identity=answer.identity,
        key_namespace=answer.key_namespace,
        capabilities=_untried(hello.capabilities) if answer.capabilities is None else answer.capabilities,
        max_concurrency=hello.max_concurrency,
        warnings=tuple(clean(warning) for warning in answer.warnings),
        ignored=ignored if answer.capabilities is None else facade.ignored,
    )


def _untried(rows: tuple[Capability, ...]) -> tuple[Capability, ...]:
    """Return rows that were told before there were settings: no provider can have been asked ([5.1-5])."""
    return tuple(row if row.probed is None else row.model_copy(update={"probed": None}) for row in rows)
