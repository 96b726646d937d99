"""Messages of the plugin itself: handshake, configuration, health, end."""

from typing import Any

from pydantic import Field

from kmsplug_protocol.capabilities import Capability
from kmsplug_protocol.framing import DEFAULT_FRAME_BYTES
from kmsplug_protocol.jsonrpc import Id
from kmsplug_protocol.types import HealthDepth

from .base import Model, Params


class Peer(Model):
    """A program and its version."""

    name: str = Field(min_length=1, max_length=128, description="Name of the program.")
    version: str = Field(min_length=1, max_length=64, description="Its version.")


class InitializeParams(Params):
    """First request of a session."""

    protocol_versions: tuple[str, ...] = Field(
        min_length=1, description="Versions that the host speaks, its favourite first."
    )
    host: Peer = Field(description="Who is asking.")
    max_frame_bytes: int = Field(
        default=DEFAULT_FRAME_BYTES, ge=65536, le=64 * 1024 * 1024, description="Longest line the host takes."
    )


class InitializeResult(Model):
    """What the driver is and promises before it knows its configuration."""

    protocol_version: str = Field(description="The version chosen among those offered.")
    driver: Peer = Field(description="The driver and its version.")
    max_frame_bytes: int = Field(
        ge=65536,
        le=64 * 1024 * 1024,
        description="Longest line, newline excluded, in both directions; at most what was offered.",
    )
    max_concurrency: int = Field(
        default=1, ge=1, le=1024, description="How many slow requests are worked on at once."
    )
    config_schema: dict[str, Any] = Field(
        description="JSON Schema (2020-12) of `config`; `writeOnly` marks secrets, `format: path` paths."
    )
    capabilities: tuple[Capability, ...] = Field(description="Static promises (section 5).")


class ConfigureParams(Params):
    """The driver's settings, secrets included."""

    config: dict[str, Any] = Field(description="Satisfies `config_schema`; paths are absolute.")
    dry_run: bool = Field(
        default=False, description="Check everything that can be checked without changing anything."
    )


class ConfigureResult(Model):
    """The keystore behind the driver, as found."""

    identity: str = Field(
        min_length=1, max_length=256, description="Stable identity of the keystore, the same for every host."
    )
    key_namespace: tuple[str, ...] = Field(
        default=("",), description="Every key id of this keystore starts with one of these prefixes."
    )
    capabilities: tuple[Capability, ...] | None = Field(
        default=None, description="Replaces the static promises; absent: they hold as declared."
    )
    warnings: tuple[str, ...] = Field(default=(), description="What an operator should know.")


class PingParams(Params):
    """Asks for a sign of life."""


class PingResult(Model):
    """A sign of life."""


class HealthParams(Params):
    """Asks whether the keystore works."""

    depth: HealthDepth = Field(
        default=HealthDepth.SHALLOW, description="`shallow`: no provider call. `deep`: real cryptography."
    )


class HealthCheck(Model):
    """One thing that was looked at."""

    name: str = Field(max_length=128, description="What was checked.")
    healthy: bool = Field(description="Whether it is well.")
    detail: str | None = Field(default=None, max_length=4096, description="What was found.")


class HealthResult(Model):
    """The sum of the checks."""

    healthy: bool = Field(description="Whether all that is needed for work is well.")
    checks: tuple[HealthCheck, ...] = Field(default=(), description="What was looked at.")


class CancelParams(Model):
    """Names the request whose answer nobody waits for."""

    id: Id = Field(description="The id of the request to cancel.")


class ShutdownParams(Params):
    """Asks the driver to finish and end."""


class ShutdownResult(Model):
    """Sent when all requests before it have been answered."""
