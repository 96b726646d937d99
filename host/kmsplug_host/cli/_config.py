"""The global options, and where the configuration is looked for."""

import os
from dataclasses import dataclass
from pathlib import Path

from kmsplug_host.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Options:
    """The global options.

    Attributes:
        config: What ``--config`` said.
        json: Print one JSON document on stdout.
    """

    config: Path | None
    json: bool


def find_config(options: Options) -> Path:
    """Return the configuration to use.

    Raises:
        ConfigurationError: There is none in any of the places.
    """
    if options.config is not None:
        return options.config
    places = [Path("plugins.toml")]
    if os.environ.get("KMSPLUG_CONFIG"):
        places.append(Path(os.environ["KMSPLUG_CONFIG"]))
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    places.append(folder / "kmsplug" / "plugins.toml")
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(str(place) for place in places)
    raise ConfigurationError(f"no configuration found, looked for: {looked}", hint="name one with --config")
