"""What a driver is: a class with one method per operation that it has, and its promises beside them.

Methods carry the API names of the protocol (``create_key``, ``encrypt``, ``random``) and take and
return its models. A method without `provides` is not offered; an operation without a method is refused
by the SDK, so there is nothing to stub.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, Generic, TypedDict, TypeVar, Unpack

from kmsplug_protocol import (
    KEYSTORE_API,
    AssociatedData,
    Capability,
    ConfigureResult,
    HealthCheck,
    HealthDepth,
    KeyAlgorithm,
    KeyUsage,
    Mechanism,
    Operation,
    Probe,
    Protection,
    SignedForm,
)
from pydantic import BaseModel, ConfigDict

_ROWS: Final = "_kmsplug_rows"
_INLINE: Final = "_kmsplug_inline"

ConfigT = TypeVar("ConfigT", bound=BaseModel)
_Method = TypeVar("_Method", bound=Callable[..., Any])


class NoConfig(BaseModel):
    """The settings of a driver that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Driver(Generic[ConfigT]):
    """Base of all drivers.

    Attributes:
        name: Name of the driver, as an operator sees it.
        version: Its version.
        Config: Model of its settings; its JSON Schema is what the host validates against. Mark a secret
            with ``json_schema_extra={"writeOnly": True}``, a path with ``{"format": "path"}``.
        max_concurrency: How many slow requests may run at once; 1 for libraries that are not thread-safe.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    Config: ClassVar[type[BaseModel]] = NoConfig
    max_concurrency: ClassVar[int] = 4

    def configure(self, config: ConfigT, *, dry_run: bool) -> ConfigureResult:
        """Open the keystore and say what was found. Called before any operation.

        It is called again after a dry run, and after it raised; never once it has succeeded.

        Args:
            config: Validated settings, secrets included.
            dry_run: Check all that can be checked, but create and change nothing.

        Returns:
            What was found. Where it lists capabilities, an operation without a row is refused from now on.

        Raises:
            DriverError: The settings are wrong (CONFIGURATION_ERROR with its path), the login was refused
                (AUTHENTICATION_FAILED), or the provider cannot be reached (PROVIDER_UNAVAILABLE).
        """
        del config, dry_run
        return ConfigureResult(identity=self.name)

    def health(self, depth: HealthDepth) -> Sequence[HealthCheck]:
        """Look whether the keystore works.

        Args:
            depth: ``deep`` encrypts and decrypts with a key of its own; ``shallow`` calls nobody.
        """
        del depth
        return ()

    def close(self) -> None:
        """Give back what `configure` opened. Called once, after the last operation.

        Also when `configure` raised or was never called, as when the host has gone before.
        """


class CapabilityRow(TypedDict, total=False):
    """The members of a `Capability` that a driver declares; the operation follows from the method."""

    key_algorithm: KeyAlgorithm
    mechanism: Mechanism
    usage: KeyUsage
    associated_data: AssociatedData
    max_input_bytes: int
    wrap_algorithm: str
    versions_addressable: bool
    within_key: bool
    protection: Protection
    deletion_window_days: tuple[int, int]
    import_formats: tuple[str, ...]
    signs: SignedForm
    probed: Probe
    documented_only: bool


def provides(*, inline: bool = False, **row: Unpack[CapabilityRow]) -> Callable[[_Method], _Method]:
    """Declare one capability row of a method; repeat it for several.

    Args:
        inline: The method takes microseconds and never waits, so it runs on the reading thread: faster
            than the pool by a third, but nothing else is answered meanwhile. It may run beside a request of
            the pool, also where `max_concurrency` is 1.
        row: Members of `Capability`.
    """

    def declare(method: _Method) -> _Method:
        # Decorators apply from the bottom up; the rows are to be read from the top down.
        setattr(method, _ROWS, [row, *getattr(method, _ROWS, [])])
        setattr(method, _INLINE, inline or getattr(method, _INLINE, False))
        return method

    return declare


def provides_each(rows: Iterable[CapabilityRow], *, inline: bool = False) -> Callable[[_Method], _Method]:
    """Declare several rows of a method at once, as of a table; see `provides`."""

    def declare(method: _Method) -> _Method:
        for row in reversed(tuple(rows)):
            method = provides(inline=inline, **row)(method)
        return method

    return declare


def operations(driver: type[Driver[Any]]) -> Iterator[tuple[Operation, bool]]:
    """Yield each operation that a driver class offers, and whether it runs inline."""
    for operation in KEYSTORE_API:
        method = getattr(driver, operation.api, None)
        if method is not None and hasattr(method, _ROWS):
            yield operation, getattr(method, _INLINE)


def capabilities(driver: type[Driver[Any]]) -> tuple[Capability, ...]:
    """Return the rows that a driver class declares."""
    return tuple(
        Capability(operation=operation.wire, **row)
        for operation, _ in operations(driver)
        for row in getattr(getattr(driver, operation.api), _ROWS)
    )
