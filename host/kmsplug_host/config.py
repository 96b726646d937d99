"""plugins.toml: what it may say, and errors that name the file, the key and what was expected.

Nothing is started here. Secrets are references (``{ env = "X" }``, ``{ file = "/path" }``) that stay
references until a plugin is configured.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from kmsplug_protocol import KEYSTORE_API, KeyAlgorithm
from msgspec import Meta, Struct, field

from ._tables import Table, read
from .errors import ConfigurationError

_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")]
_Variable = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z")]
_Sha256 = Annotated[str, Meta(pattern=r"^[0-9A-Fa-f]{64}\Z")]
_KeyId = Annotated[str, Meta(min_length=1, max_length=2048)]
_Text = Annotated[str, Meta(pattern=r"^[^\x00]*\Z")]  # as the system takes it for a program
_ShimName = Literal[
    "aad", "alias", "datakey", "digest", "envelope", "lifecycle", "random", "reencrypt", "tags", "verify",
    "versioning", "wrap",
]  # fmt: skip

# They load code into a process, or write its secrets somewhere.
_REFUSED: Final = frozenset({
    "NODE_OPTIONS", "NODE_PATH", "GODEBUG", "OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ENGINES",
    "GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH", "SSLKEYLOGFILE", "BASH_ENV", "ENV", "IFS",
    "SHELLOPTS", "PERL5LIB", "PERL5OPT", "RUBYLIB", "RUBYOPT", "JAVA_TOOL_OPTIONS",
    "AWS_DATA_PATH", "BOTO_CONFIG", "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES",
})  # fmt: skip
_REFUSED_BEGINNINGS: Final = (
    "LD_PRELOAD", "LD_AUDIT", "LD_DEBUG", "LD_PROFILE", "DYLD_", "MALLOC_", "PYTHON", "AWS_ENDPOINT_URL",
    "AWS_CSM_", "CLOUDSDK_",
)  # fmt: skip


class RecycleSettings(Table, frozen=True):
    """``recycle`` of a plugin: when a process is replaced, without a call being lost.

    Attributes:
        rss_bytes: Resident memory that it may reach.
        age_s: Seconds that it may run.
        calls: Calls that it may be given.
    """

    rss_bytes: Annotated[int, Meta(ge=1)] | None = None
    age_s: Annotated[float, Meta(gt=0)] | None = None
    calls: Annotated[int, Meta(ge=1)] | None = None


class Isolation(StrEnum):
    """How far a driver process is kept from the rest of the machine."""

    PROCESS = "process"
    """Faults only: a crash, leak or hang stays in its process. No protection from malice."""
    LANDLOCK = "landlock"
    """The kernel's Landlock: only its own files; no reading, tracing or (Linux 6.12) signalling of others."""
    BWRAP = "bwrap"
    """Bubblewrap: namespaces of its own, so that nothing else is there; needs the program ``bwrap``."""
    AUTO = "auto"
    """Landlock where the kernel has it, else ``process`` with a warning."""


class Limits(Table, frozen=True):
    """``limits = { ... }``: what the kernel lets each process of a plugin use.

    Attributes:
        data_mb: Megabytes of memory of its own, of which Go and Node reserve more than they use.
        open_files: Descriptors.
        file_mb: Megabytes of the longest file that it can write, a database included.
    """

    data_mb: Annotated[int, Meta(ge=16, le=1024 * 1024)] = 2048
    open_files: Annotated[int, Meta(ge=16, le=1024 * 1024)] = 256
    file_mb: Annotated[int, Meta(ge=1, le=1024 * 1024)] = 1024


class PluginSettings(Table, frozen=True):
    """``[plugins.NAME]``: one driver and its configuration.

    Attributes:
        driver: A bundled driver, or any installed entry point of the group ``kmsplug.drivers``.
        command: Any executable that speaks the protocol, with its arguments. Instead of ``driver``.
        config: The driver's own settings; relative paths in it are relative to the file.
        env: Names of environment variables that the driver may inherit.
        set_env: Environment variables that the driver gets with these values. Not for secrets.
        deadline_s: Seconds that a call may take where the caller says nothing.
        processes: How many processes of this driver work.
        spares: How many more wait, configured and idle, to take over when one dies.
        recycle: When a process is replaced.
        max_crashes: How many crashes of a process within ``crash_window_s`` are followed by a restart.
        crash_window_s: Seconds.
        grace_s: Seconds for a sign of life from a driver that missed a deadline.
        overdue_s: Seconds past their deadline after which calls are not expected back.
        deep_check_s: Seconds between deep health checks; default: only when asked.
        isolation: How far they are kept from the rest of the machine. A command must say it.
        read_paths: Files and folders that a confined driver may read, besides its own.
        write_paths: Files and folders that it may write, besides those in ``config``.
        limits: What the kernel lets each process use.
        sha256: Pin of the command's executable, in hexadecimal.
        files: Pins of other files that the command uses, by path.
    """

    driver: _Name | None = None
    command: Annotated[list[_Text], Meta(min_length=1)] | None = None
    config: dict[str, Any] = {}
    env: list[_Variable] = []
    set_env: dict[_Variable, _Text] = {}
    deadline_s: Annotated[float, Meta(gt=0, le=3600)] = 10.0
    processes: Annotated[int, Meta(ge=1, le=64)] = 1
    spares: Annotated[int, Meta(ge=0, le=64)] = 0
    recycle: RecycleSettings | None = None
    max_crashes: Annotated[int, Meta(ge=0)] = 5
    crash_window_s: Annotated[float, Meta(gt=0)] = 60.0
    grace_s: Annotated[float, Meta(gt=0, le=60)] = 2.0
    overdue_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    deep_check_s: Annotated[float, Meta(ge=1)] | None = None
    isolation: Isolation | None = None
    read_paths: list[_Text] = []
    write_paths: list[_Text] = []
    limits: Limits = field(default_factory=Limits)
    sha256: _Sha256 | None = None
    files: dict[_Text, _Sha256] = {}

    def __post_init__(self) -> None:
        if (self.driver is None) == (self.command is None):
            raise ValueError('expected either driver = "NAME" or command = ["/path", ...]')
        for name in (*self.env, *self.set_env):
            if name in _REFUSED or name.startswith(_REFUSED_BEGINNINGS):
                raise ValueError(
                    f"{name} is never handed on: it changes what code a driver runs or what it reveals"
                )
        if self.command is None and (self.sha256 is not None or self.files):
            raise ValueError("sha256 and files pin a command; a driver is code of this Python environment")
        if self.command is not None and self.isolation is None:
            raise ValueError(
                'a command needs isolation = "auto", "landlock" or "bwrap", '
                'or "process", which protects from faults and not from malice'
            )


class RetrySettings(Table, frozen=True):
    """``retry`` of a keystore: how often a failed call is repeated, and how soon.

    Attributes:
        max_attempts: Attempts of one call at most; 1: nothing is ever repeated.
        first_delay_s: Upper bound of the random wait before the second attempt; it doubles with each.
        max_delay_s: Where it stops to double. A provider's own hint is waited in addition, and bounds it too.
        max_reconnects: How often a call goes to another process because one ended with it in flight.
        budget: Repetitions that are possible at once, over all calls.
        budget_per_call: What each new call adds to the budget, up to ``budget``.
    """

    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 16
    first_delay_s: Annotated[float, Meta(gt=0, le=60)] = 0.05
    max_delay_s: Annotated[float, Meta(gt=0, le=600)] = 2.0
    max_reconnects: Annotated[int, Meta(ge=0, le=1000)] = 2
    budget: Annotated[float, Meta(ge=0)] = 100.0
    budget_per_call: Annotated[float, Meta(ge=0, le=10)] = 0.5


class BreakerSettings(Table, frozen=True):
    """``breaker`` of a keystore: when it is left alone. Throttling and callers' errors do not count.

    Attributes:
        failures: Failures in a row that open it; 0: none ever does.
        cool_down_s: Seconds until one call is let through to see whether the keystore is well again.
    """

    failures: Annotated[int, Meta(ge=0)] = 5
    cool_down_s: Annotated[float, Meta(gt=0, le=3600)] = 1.5


class DataKeySettings(Table, frozen=True):
    """``data_key_cache`` of a keystore: how long a data key is used again; whichever bound comes first.

    Attributes:
        max_age_s: Seconds since it was made.
        max_uses: Messages that it encrypts.
        max_bytes: Bytes that it encrypts.
        max_entries: Keys that are kept at most; the least recently used one goes first.
        decrypt: Whether opened data keys are kept too; the provider then neither checks nor logs each use.
    """

    max_age_s: Annotated[float, Meta(gt=0, le=3600)] = 300.0
    max_uses: Annotated[int, Meta(ge=1, le=2**32)] = 2**16
    max_bytes: Annotated[int, Meta(ge=1, le=2**40)] = 2**36
    max_entries: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    decrypt: bool = False


class KeystoreSettings(Table, frozen=True):
    """``[keystores.NAME]``: what an application opens under this name.

    Attributes:
        plugin: The plugin behind it. Moving a tenant is changing this line.
        auto_decrypt: Whether `Host.decrypt` may use it.
        accept_public_key_wrap: Whether ciphertexts whose data key anybody could have wrapped (RSA) open.
        allow_raw: Whether provider ciphertexts without an envelope (``format="raw"``) are allowed.
        context: Entries merged into every encryption context; a caller's conflicting value is refused.
        context_binding: What of it a provider that authenticates maps gets to see.
        identity: Overrides the identity that the driver reports.
        suite: ``auto``: what is small is encrypted by the provider where it binds a context; or never.
        data_key_cache: How long data keys are used again; default: each encrypts one message.
        require: Operations without which it does not open, as ``crypto.sign`` or ``crypto.sign:EC_P256``.
        probe_keys: Ids of keys that may be used to try out, at every open, what the driver promises.
        auto_destroy: Whether a deletion that the host keeps is finished without an operator.
        shims: Whether the host may do what the provider lacks: ``allow``, ``forbid``, or by which shims only.
        attempt_timeout_s: Seconds that one attempt of a call may take; default: a third of its deadline.
        max_in_flight: Calls at once.
        max_queued: Calls that may wait for a place; further ones are refused.
        retry: How failed calls are repeated.
        breaker: When the keystore is left alone.
    """

    plugin: _Name
    auto_decrypt: bool = True
    accept_public_key_wrap: bool = False
    allow_raw: bool = False
    context: dict[str, str] = {}
    context_binding: Literal["context", "label"] = "context"
    identity: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    suite: Literal["auto", "cobblestone-256"] = "auto"
    data_key_cache: DataKeySettings | None = None
    require: list[str] = []
    probe_keys: list[_KeyId] = []
    auto_destroy: bool = False
    shims: Literal["allow", "forbid"] | list[_ShimName] = "allow"
    attempt_timeout_s: Annotated[float, Meta(gt=0, le=3600)] | None = None
    max_in_flight: Annotated[int, Meta(ge=1)] = 64
    max_queued: Annotated[int, Meta(ge=0)] = 1024
    retry: RetrySettings = field(default_factory=RetrySettings)
    breaker: BreakerSettings = field(default_factory=BreakerSettings)

    def __post_init__(self) -> None:
        known = {operation.wire for operation in KEYSTORE_API}
        for demand in self.require:
            wire, colon, algorithm = demand.partition(":")
            if wire not in known:
                raise ValueError(f"require: there is no operation {wire!r}")
            if colon and algorithm not in set(KeyAlgorithm):
                raise ValueError(f"require: there is no key algorithm {algorithm!r}")


class CatalogSettings(Table, frozen=True):
    """``[catalog]``: where shims keep what they must remember. Without it none of them keeps anything.

    Attributes:
        url: ``sqlite:////path``, or ``postgresql://...`` where several hosts share it; as a reference
            ``{ env = "X" }`` where it holds a password. Default: SQLite in a file beside plugins.toml.
        key_file: File with the key of the rows' MACs; made where there is none.
    """

    url: _Text | dict[Literal["env", "file"], str] | None = None
    key_file: _Text | None = None


class Settings(Table, frozen=True):
    """The whole file."""

    plugins: Annotated[dict[_Name, PluginSettings], Meta(min_length=1)]
    keystores: dict[_Name, KeystoreSettings] = {}
    catalog: CatalogSettings | None = None
    driver_folders: list[str] = []

    def __post_init__(self) -> None:
        for name, keystore in self.keystores.items():
            if keystore.plugin not in self.plugins:
                known = ", ".join(sorted(self.plugins))
                raise ValueError(f"keystores.{name}.plugin: no such plugin, expected one of: {known}")
            if not keystore.auto_destroy:
                continue
            without = "[catalog]" if self.catalog is None else None
            if keystore.shims != "allow" and "lifecycle" not in keystore.shims:
                without = "the shim lifecycle"
            if without is not None:
                raise ValueError(f"keystores.{name}.auto_destroy: nothing keeps deletions without {without}")

    def all_keystores(self) -> dict[str, KeystoreSettings]:
        """Return the keystores, with one of its own name for each plugin that no entry names."""
        named = {keystore.plugin for keystore in self.keystores.values()}
        own = {name: KeystoreSettings(plugin=name) for name in self.plugins if name not in named}
        return {**own, **self.keystores}


class Source(Struct, frozen=True):
    """Settings and where they came from.

    Attributes:
        settings: The parsed file.
        name: What error messages call it.
        folder: What relative paths are relative to.
        path: The file, if it is one.
    """

    settings: Settings
    name: str
    folder: Path
    path: Path | None = None

    def release_file(self, plugin: str) -> Path | None:
        """Return what ends a quarantine of a plugin when it is touched: a file beside this one.

        Who can write there can change the configuration as well, so this gives nobody a new power.
        """
        return self.path and self.path.with_name(f"{self.path.name}.release-{plugin}")


def load(source: str | Path | Mapping[str, Any]) -> Source:
    """Read settings from a file or a mapping.

    Raises:
        ConfigurationError: The file cannot be read or parsed, or says something that has no meaning.
    """
    if isinstance(source, Mapping):
        return Source(settings=_validate(dict(source), "settings"), name="settings", folder=Path.cwd())
    path = Path(source)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path}: no such file", hint="name one with --config, or see docs/configuration.md"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or 'cannot be read'}") from error
    except ValueError:
        raise ConfigurationError(f"{str(path)!r}: not a path") from None
    return Source(
        settings=_validate(_parse(data, path), str(path)),
        name=str(path),
        folder=path.resolve().parent,
        path=path.absolute(),
    )


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - an application may configure its host without a file

    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        problem = ConfigurationError(f"{path}: not UTF-8")
    except tomllib.TOMLDecodeError as error:
        problem = ConfigurationError(f"{path}: {error}")
    raise problem  # out here: the other exception may hold the text, and would hang on to this one


def _validate(document: dict[str, Any], name: str) -> Settings:
    mistakes: list[str] = []
    settings = read(document, Settings, "", mistakes)
    if settings is None:
        raise ConfigurationError("\n".join(f"{name}: {mistake}" for mistake in mistakes))
    return settings
