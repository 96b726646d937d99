"""What is run for a plugin: command, environment and confinement, and nothing of the application's own."""

import contextlib
import os
import pwd
import shutil
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from . import _isolation, _trust
from ._isolation import SYSTEM_PATH, Access
from ._redaction import Redactor
from .config import Isolation, Limits, PluginSettings, Source
from .errors import ConfigurationError

DRIVER_GROUP: Final = "kmsplug.drivers"

# What this library brings: found without looking through all that is installed, which takes longer than all
# else before a start; and nothing that is installed can take its place.
BUNDLED: Final = {
    "aws": "kmsplug_plugins.aws_kms.driver:AwsKmsDriver",
    "azure": "kmsplug_plugins.azure_keyvault.driver:AzureKeyVaultDriver",
    "local": "kmsplug_plugins.local.driver:LocalDriver",
    "mock": "kmsplug_plugins.mock.driver:MockDriver",
    "pkcs11": "kmsplug_plugins.pkcs11.driver:Pkcs11Driver",
    "vault": "kmsplug_plugins.vault_transit.driver:VaultTransitDriver",
}

# Harmless, and needed to reach a provider through a company's proxy and certificate authority.
_INHERITED: Final = (
    "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy",
)  # fmt: skip


class Launch(Struct, frozen=True):
    """How a driver process is started.

    Attributes:
        command: The executable's absolute path, and its arguments.
        env: The whole environment of the process; ``HOME`` and ``TMPDIR`` are its own folder unless set.
        limits: What the kernel lets it use.
        isolation: Its level, chosen for this machine; never ``auto``.
        access: The files it may use at a level that confines it.
        sha256: Pin of the executable.
        pins: Pins of other files.
        trusted: Whether the executable is code of this Python environment, and needs no check.
    """

    command: tuple[str, ...]
    env: Mapping[str, str]
    limits: Limits
    isolation: Isolation = Isolation.PROCESS
    access: Access = Access()
    sha256: str | None = None
    pins: Mapping[Path, str] = MappingProxyType({})
    trusted: bool = True


class PluginSpec(Struct, frozen=True):
    """A configured plugin, ready to be started.

    Attributes:
        name: Its name.
        settings: Its table.
        launch: What to run.
        folder: What relative paths in its settings are relative to.
        where: Where its table stands, for errors: ``plugins.toml: plugins.main``.
        redactor: Learns the secrets of its settings, and takes them out of what any driver of the host says.
        release_file: What ends its quarantine when it is touched.
    """

    name: str
    settings: PluginSettings
    launch: Launch
    folder: Path
    where: str
    redactor: Redactor
    release_file: Path | None = None


def prepare_plugins(source: Source, names: Collection[str], redactor: Redactor) -> list[PluginSpec]:
    """Find the executables of the plugins of these names, in the order of the file.

    Args:
        source: The configuration.
        names: Which of its plugins.
        redactor: The host's: a secret of one plugin is looked for in what all of them say.

    Raises:
        ConfigurationError: There is no such driver or executable, it cannot be trusted, or this machine
            does not have the isolation that is asked for.
    """
    specs = []
    for name, settings in source.settings.plugins.items():
        if name in names:
            where = f"{source.name}: plugins.{name}"
            prepare = _prepare_driver if settings.command is None else _prepare_command
            launch = prepare(settings, source.folder, where)
            release_file = source.release_file(name)
            specs.append(PluginSpec(name, settings, launch, source.folder, where, redactor, release_file))
    return specs


def _prepare_driver(settings: PluginSettings, folder: Path, where: str) -> Launch:
    """Return how to start an installed driver.

    Raises:
        ConfigurationError: There is no such driver.
    """
    name = settings.driver or ""
    target = BUNDLED.get(name) or available_drivers().get(name)
    if target is None:
        known = ", ".join(sorted(available_drivers())) or "none"
        raise ConfigurationError(f"{where}.driver: no such driver, installed are: {known}")
    env = _environment(settings)
    isolation = _isolation.choose(
        settings.isolation or Isolation.AUTO, third_party=False, key=f"{where}.isolation"
    )
    access = Access()
    if isolation is not Isolation.PROCESS:
        modules = (target.partition(":")[0].partition(".")[0], "kmsplug_sdk", "kmsplug_protocol")
        access = _access(settings, folder, env, (*_isolation.code_of(modules),))
    home = _data_home()
    if home is None:
        env.setdefault("HOME", "")  # not its working folder: what it keeps there would go with it
    else:
        env.setdefault("XDG_DATA_HOME", str(home))
        if isolation is not Isolation.PROCESS and "path" not in settings.config:
            with contextlib.suppress(OSError):  # then it cannot keep anything
                own = _isolation.make_private(home / "kmsplug" / str(settings.driver))
                access = Access(access.read, (*access.write, own))
    # -I: neither the working folder nor PYTHON* variables nor the user's site packages can add code.
    command = (sys.executable, "-I", "-m", "kmsplug_sdk", target)
    return Launch(command, env, settings.limits, isolation, access)


def _prepare_command(settings: PluginSettings, folder: Path, where: str) -> Launch:
    """Return how to start an executable of somebody else.

    Raises:
        ConfigurationError: There is none, others could have changed it, or its pin cannot be kept.
    """
    assert settings.command is not None and settings.isolation is not None  # noqa: S101, PT018 - validated
    program = _find_program(settings.command[0], folder, f"{where}.command")
    command = (program, *settings.command[1:])
    pins = {folder / path: digest for path, digest in settings.files.items()}
    try:
        _trust.check_file(Path(program))
        if settings.sha256 is not None:
            _trust.check_runs_sealed(Path(program), f"{where}.sha256")
        for path in pins:
            _trust.check_file(path)
    except OSError as error:
        raise ConfigurationError(f"{where}.command: {_reason(error)}") from None
    isolation = _isolation.choose(settings.isolation, third_party=True, key=f"{where}.isolation")
    env = _environment(settings)
    access = Access()
    if isolation is not Isolation.PROCESS:
        own = (*_isolation.files_of(command), *(str(path) for path in pins))
        access = _access(settings, folder, env, own)
    return Launch(command, env, settings.limits, isolation, access, settings.sha256, pins, trusted=False)


def _environment(settings: PluginSettings) -> dict[str, str]:
    env = {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}
    env.update({name: os.environ[name] for name in (*_INHERITED, *settings.env) if name in os.environ})
    env.update(settings.set_env)
    return env


def _access(settings: PluginSettings, folder: Path, env: Mapping[str, str], own: tuple[str, ...]) -> Access:
    certificates = tuple(
        env[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE") if name in env
    )
    listed = tuple(str(folder / Path(path).expanduser()) for path in settings.read_paths)
    write = tuple(str(folder / Path(path).expanduser()) for path in settings.write_paths)
    configured = tuple(_isolation.configured_paths(settings.config, folder))
    tokens = tuple(_isolation.token_folders(settings.config, folder))
    return Access((*own, *certificates, *listed, *tokens), (*write, *configured))


def _data_home() -> Path | None:
    """Return where the user's programs keep their data, or None for a user without a home."""
    configured = Path(os.environ.get("XDG_DATA_HOME", ""))
    if configured.is_absolute():
        return configured
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".local" / "share"
    except KeyError:  # usual in containers that run under a bare number
        return None


def available_drivers() -> dict[str, str]:
    """Return the installed drivers: entry point name to ``module:Class``. None of them is imported."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - 10 ms that `import kmsplug_host` need not take

    return {point.name: point.value for point in entry_points(group=DRIVER_GROUP)} | BUNDLED


def describe_command(target: str) -> list[str]:
    """Return how to let an installed driver describe itself, with no settings and no host."""
    return [sys.executable, "-I", "-m", "kmsplug_sdk", target, "--describe"]


def _find_program(program: str, folder: Path, key: str) -> str:
    if os.sep in program:
        path = folder / program
        if not path.is_file() or not os.access(path, os.X_OK):
            raise ConfigurationError(f"{key}: {path} is not an executable file")
        return str(path)
    found = shutil.which(program, path=SYSTEM_PATH)
    if found is None:
        raise ConfigurationError(f"{key}: {program!r} is not on {SYSTEM_PATH}", hint="give an absolute path")
    return found


def _reason(error: OSError) -> str:
    named = f"{error.filename}: " if error.filename else ""
    return f"{named}{error.strerror or 'cannot be looked at'}"
