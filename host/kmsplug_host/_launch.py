"""What is run for a plugin: the command and the environment, and nothing of the application's own."""

import os
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from .config import PluginSettings, Source
from .errors import ConfigurationError

DRIVER_GROUP: Final = "kmsplug.drivers"

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Harmless, and needed to reach a provider through a company's proxy and certificate authority.
_INHERITED: Final = (
    "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Launch:
    """A command and its environment.

    Attributes:
        command: The executable's absolute path, and its arguments.
        env: The whole environment of the process.
    """

    command: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PluginSpec:
    """A configured plugin, ready to be started.

    Attributes:
        name: Its name.
        settings: Its table.
        launch: What to run.
        folder: What relative paths in its settings are relative to.
        where: Where its table stands, for errors: ``plugins.toml: plugins.main``.
        release_file: What ends its quarantine when it is touched.
    """

    name: str
    settings: PluginSettings
    launch: Launch
    folder: Path
    where: str
    release_file: Path | None = None


def prepare_plugins(source: Source, names: Collection[str]) -> list[PluginSpec]:
    """Find the executables of the plugins of these names, in the order of the file.

    Raises:
        ConfigurationError: There is no such driver or executable.
    """
    specs = []
    for name, settings in source.settings.plugins.items():
        if name in names:
            where = f"{source.name}: plugins.{name}"
            launch = _prepare_launch(settings, source.folder, where)
            release_file = source.release_file(name)
            specs.append(PluginSpec(name, settings, launch, source.folder, where, release_file))
    return specs


def _prepare_launch(settings: PluginSettings, folder: Path, where: str) -> Launch:
    """Find the executable of a plugin.

    Raises:
        ConfigurationError: There is no such driver or executable.
    """
    env = {"PATH": _PATH, "LANG": "C.UTF-8"}
    env.update({name: os.environ[name] for name in (*_INHERITED, *settings.env) if name in os.environ})
    env.update(settings.set_env)
    if settings.command is not None:
        program = _find_program(settings.command[0], folder, f"{where}.command")
        return Launch((program, *settings.command[1:]), env)
    target = available_drivers().get(settings.driver or "")
    if target is None:
        known = ", ".join(sorted(available_drivers())) or "none"
        raise ConfigurationError(f"{where}.driver: no such driver, installed are: {known}")
    # -I: neither the working folder nor PYTHON* variables nor the user's site packages can add code.
    return Launch((sys.executable, "-I", "-m", "kmsplug_sdk", target), env)


def available_drivers() -> dict[str, str]:
    """Return the installed drivers: entry point name to ``module:Class``. None of them is imported."""
    return {point.name: point.value for point in entry_points(group=DRIVER_GROUP)}


def _find_program(program: str, folder: Path, key: str) -> str:
    if os.sep in program:
        path = folder / program
        if not path.is_file() or not os.access(path, os.X_OK):
            raise ConfigurationError(f"{key}: {path} is not an executable file")
        return str(path)
    found = shutil.which(program, path=_PATH)
    if found is None:
        raise ConfigurationError(f"{key}: {program!r} is not on {_PATH}", hint="give an absolute path")
    return found
