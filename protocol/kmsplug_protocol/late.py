"""Names of a package whose modules are loaded when the first of them is asked for (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any


def late(
    package: str, modules: Sequence[str], names: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: Its ``__name__``.
        modules: Modules inside it, ``.relative``, in the order in which a name is looked for.
        names: All that the package exports; no other name loads anything.
    """

    def get(name: str) -> Any:
        if name in names:
            for module in modules:
                try:
                    found = getattr(importlib.import_module(module, package), name)
                except AttributeError:
                    continue
                setattr(sys.modules[package], name, found)
                return found
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def list_names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names})

    return get, list_names
