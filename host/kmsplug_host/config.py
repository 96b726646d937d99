"""plugins.toml: what it may say, and errors that name the file, the key and what was expected.

Nothing is started here. Secrets are references (``{ env = "X" }``, ``{ file = "/path" }``) that stay
references until a plugin is configured.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from kmsplug_protocol import KEYSTORE_API, KeyAlgorithm
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from .errors import ConfigurationError

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
_Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{64}$")]
_KeyId = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
_Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]  # as the system takes it for a program

_SHIMS: Final = (
    "aad", "alias", "datakey", "digest", "envelope", "lifecycle", "random", "reencrypt", "tags", "verify",
    "versioning", "wrap",
)  # fmt: skip


def _demand(text: str) -> str:
    """Check ``OPERATION`` or ``OPERATION:KEY_ALGORITHM``."""
    wire, colon, algorithm = text.partition(":")
    if wire not in {operation.wire for operation in KEYSTORE_API}:
        raise ValueError(f"there is no operation {wire!r}")
    if colon and algorithm not in set(KeyAlgorithm):
        raise ValueError(f"there is no key algorithm {algorithm!r}")
    return text


def _shim(name: str) -> str:
    if name not in _SHIMS:
        raise ValueError(f"there is no shim {name!r}, but {', '.join(_SHIMS)}")
    return name


_Demand = Annotated[str, AfterValidator(_demand)]
_ShimName = Annotated[str, AfterValidator(_shim)]

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


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class RecycleSettings(_Table):
    """``recycle`` of a plugin: when a process is replaced, without a call being lost.

    Attributes:
        rss_bytes: Resident memory that it may reach.
        age_s: Seconds that it may run.
        calls: Calls that it may be given.
    """

    rss_bytes: int | None = Field(default=None, ge=1)
    age_s: float | None = Field(default=None, gt=0)
    calls: int | None = Field(default=None, ge=1)


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


class Limits(_Table):
    """``limits = { ... }``: what the kernel lets each process of a plugin use.

    Attributes:
        data_mb: Megabytes of memory of its own, of which Go and Node reserve more than they use.
        open_files: Descriptors.
        file_mb: Megabytes of the longest file that it can write, a database included.
    """

    data_mb: int = Field(default=2048, ge=16, le=1024 * 1024)
    open_files: int = Field(default=256, ge=16, le=1024 * 1024)
    file_mb: int = Field(default=1024, ge=1, le=1024 * 1024)


class PluginSettings(_Table):
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
    command: list[_Text] | None = Field(default=None, min_length=1)
    config: dict[str, Any] = {}
    env: list[_Variable] = []
    set_env: dict[_Variable, _Text] = {}
    deadline_s: float = Field(default=10.0, gt=0, le=3600)
    processes: int = Field(default=1, ge=1, le=64)
    spares: int = Field(default=0, ge=0, le=64)
    recycle: RecycleSettings | None = None
    max_crashes: int = Field(default=5, ge=0)
    crash_window_s: float = Field(default=60.0, gt=0)
    grace_s: float = Field(default=2.0, gt=0, le=60)
    overdue_s: float = Field(default=10.0, ge=0, le=3600)
    deep_check_s: float | None = Field(default=None, ge=1)
    isolation: Isolation | None = Field(default=None, strict=False)
    read_paths: list[_Text] = []
    write_paths: list[_Text] = []
    limits: Limits = Field(default_factory=Limits)
    sha256: _Sha256 | None = None
    files: dict[_Text, _Sha256] = {}

    @model_validator(mode="after")
    def _one_program(self) -> "PluginSettings":
        if (self.driver is None) == (self.command is None):
            raise ValueError('expected either driver = "NAME" or command = ["/path", ...]')
        return self

    @model_validator(mode="after")
    def _launched_knowingly(self) -> "PluginSettings":
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
        return self


class RetrySettings(_Table):
    """``retry`` of a keystore: how often a failed call is repeated, and how soon.

    Attributes:
        max_attempts: Attempts of one call at most; 1: nothing is ever repeated.
        first_delay_s: Upper bound of the random wait before the second attempt; it doubles with each.
        max_delay_s: Where it stops to double. A provider's own hint is waited in addition, and bounds it too.
        max_reconnects: How often a call goes to another process because one ended with it in flight.
        budget: Repetitions that are possible at once, over all calls.
        budget_per_call: What each new call adds to the budget, up to ``budget``.
    """

    max_attempts: int = Field(default=16, ge=1, le=1000)
    first_delay_s: float = Field(default=0.05, gt=0, le=60)
    max_delay_s: float = Field(default=2.0, gt=0, le=600)
    max_reconnects: int = Field(default=2, ge=0, le=1000)
    budget: float = Field(default=100.0, ge=0)
    budget_per_call: float = Field(default=0.5, ge=0, le=10)


class BreakerSettings(_Table):
    """``breaker`` of a keystore: when it is left alone. Throttling and callers' errors do not count.

    Attributes:
        failures: Failures in a row that open it; 0: none ever does.
        cool_down_s: Seconds until one call is let through to see whether the keystore is well again.
    """

    failures: int = Field(default=5, ge=0)
    cool_down_s: float = Field(default=1.5, gt=0, le=3600)


class DataKeySettings(_Table):
    """``data_key_cache`` of a keystore: how long a data key is used again; whichever bound comes first.

    Attributes:
        max_age_s: Seconds since it was made.
        max_uses: Messages that it encrypts.
        max_bytes: Bytes that it encrypts.
        max_entries: Keys that are kept at most; the least recently used one goes first.
        decrypt: Whether opened data keys are kept too; the provider then neither checks nor logs each use.
    """

    max_age_s: float = Field(default=300.0, gt=0, le=3600)
    max_uses: int = Field(default=2**16, ge=1, le=2**32)
    max_bytes: int = Field(default=2**36, ge=1, le=2**40)
    max_entries: int = Field(default=1000, ge=1, le=100_000)
    decrypt: bool = False


class KeystoreSettings(_Table):
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
    identity: str | None = Field(default=None, min_length=1, max_length=256)
    suite: Literal["auto", "cobblestone-256"] = "auto"
    data_key_cache: DataKeySettings | None = None
    require: list[_Demand] = []
    probe_keys: list[_KeyId] = []
    auto_destroy: bool = False
    shims: Literal["allow", "forbid"] | list[_ShimName] = "allow"
    attempt_timeout_s: float | None = Field(default=None, gt=0, le=3600)
    max_in_flight: int = Field(default=64, ge=1)
    max_queued: int = Field(default=1024, ge=0)
    retry: RetrySettings = Field(default_factory=RetrySettings)
    breaker: BreakerSettings = Field(default_factory=BreakerSettings)


class CatalogSettings(_Table):
    """``[catalog]``: where shims keep what they must remember. Without it none of them keeps anything.

    Attributes:
        url: ``sqlite:////path``, or ``postgresql://...`` where several hosts share it; as a reference
            ``{ env = "X" }`` where it holds a password. Default: SQLite in a file beside plugins.toml.
        key_file: File with the key of the rows' MACs; made where there is none.
    """

    url: _Text | dict[Literal["env", "file"], str] | None = None
    key_file: _Text | None = None


class Settings(_Table):
    """The whole file."""

    plugins: dict[_Name, PluginSettings] = Field(min_length=1)
    keystores: dict[_Name, KeystoreSettings] = {}
    catalog: CatalogSettings | None = None
    driver_folders: list[str] = []

    @model_validator(mode="after")
    def _plugins_exist(self) -> "Settings":
        for name, keystore in self.keystores.items():
            if keystore.plugin not in self.plugins:
                known = ", ".join(sorted(self.plugins))
                raise ValueError(f"keystores.{name}.plugin: no such plugin, expected one of: {known}")
        return self

    @model_validator(mode="after")
    def _deletions_are_kept(self) -> "Settings":
        for name, keystore in self.keystores.items():
            if not keystore.auto_destroy:
                continue
            without = "[catalog]" if self.catalog is None else None
            if keystore.shims != "allow" and "lifecycle" not in keystore.shims:
                without = "the shim lifecycle"
            if without is not None:
                raise ValueError(f"keystores.{name}.auto_destroy: nothing keeps deletions without {without}")
        return self

    def all_keystores(self) -> dict[str, KeystoreSettings]:
        """Return the keystores, with one of its own name for each plugin that no entry names."""
        named = {keystore.plugin for keystore in self.keystores.values()}
        own = {name: KeystoreSettings(plugin=name) for name in self.plugins if name not in named}
        return {**own, **self.keystores}


class Source(NamedTuple):
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
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        problem = ConfigurationError("\n".join(_lines(error, name)))
    raise problem  # out here: the other exception holds the values, and would hang on to this one


def _lines(error: ValidationError, name: str) -> list[str]:
    """Return one line per wrong key. Values are left out: one may be a secret in the wrong place."""
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        path = ".".join(str(part) for part in item["loc"] if part != "[key]")
        text = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            text = "unknown key"
        elif text.startswith("Input should be"):
            text = "expected" + text.removeprefix("Input should be")
        lines.append(f"{name}: {path}: {text}" if path else f"{name}: {text}")
    return lines
