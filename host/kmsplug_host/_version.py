"""Which version of this library runs."""

import functools
from importlib import metadata


@functools.cache
def version() -> str:
    """Return the version of this library, as it was installed."""
    try:
        return metadata.version("kmsplug")
    except metadata.PackageNotFoundError:  # a source tree on the path, not installed
        return "0"
