"""The command ``kmsplug``. Exit status: 0 done, 1 the operation failed, 2 wrong usage or configuration."""

from ._app import main

__all__ = ["main"]
