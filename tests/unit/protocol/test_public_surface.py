import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import kmsplug_protocol
import kmsplug_sdk
import pytest

PACKAGES = [kmsplug_protocol, kmsplug_sdk]
each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
MODULES = [
    module.name
    for package in PACKAGES
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")  # importing it is running it
]


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, each sorted: as the formatter keeps it."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def imported(package: ModuleType) -> list[str]:
    body = ast.parse(inspect.getsource(package)).body
    late = [node for found in body if isinstance(found, ast.If) for node in found.body]  # TYPE_CHECKING
    body = [node for node in body if not isinstance(node, ast.If)] + late
    assert all(isinstance(node, (ast.Expr, ast.ImportFrom, ast.Assign)) for node in body), "imports only"
    return [
        alias.asname or alias.name
        for node in body
        if isinstance(node, ast.ImportFrom) and node.module not in ("typing", "late")
        for alias in node.names
        if not alias.name.startswith("_")
    ]


@each_package
def test_all_is_sorted_and_names_exactly_what_the_package_imports(package: ModuleType) -> None:
    names = package.__all__

    assert names == sorted(names, key=order)
    assert len(names) == len(set(names))
    assert sorted(names) == sorted(imported(package))
    assert all(hasattr(package, name) for name in names)


@each_package
def test_a_star_import_brings_exactly_all(package: ModuleType) -> None:
    namespace: dict[str, object] = {}
    exec(f"from {package.__name__} import *", namespace)  # noqa: S102 - a star import needs a module

    assert sorted(set(namespace) - {"__builtins__"}) == sorted(package.__all__)


@each_package
def test_a_package_says_what_it_is_and_that_it_is_typed(package: ModuleType) -> None:
    assert package.__doc__
    assert package.__file__
    assert Path(package.__file__).with_name("py.typed").is_file()


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported_and_says_what_it_is(name: str) -> None:
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", [module for module in MODULES if "._" not in module])
def test_what_a_public_module_defines_is_described(name: str) -> None:
    module = importlib.import_module(name)

    for member, value in vars(module).items():
        if member.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, member


@pytest.mark.parametrize("name", [*MODULES, *(package.__name__ for package in PACKAGES)])
def test_a_module_can_be_the_first_that_is_imported(name: str) -> None:
    # Importing in another order hides a cycle; a fresh interpreter each would take too long, so the
    # modules alone are forgotten.
    kept = {key: module for key, module in sys.modules.items() if key.startswith("kmsplug_")}
    for key in kept:
        del sys.modules[key]
    try:
        importlib.import_module(name)
    finally:
        for key in [key for key in sys.modules if key.startswith("kmsplug_")]:
            del sys.modules[key]
        sys.modules.update(kept)


def test_the_protocol_brings_in_no_library_that_only_the_sdk_or_the_host_needs() -> None:
    program = "import sys, kmsplug_protocol; print(*{name.partition('.')[0] for name in sys.modules})"

    found = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )

    others = {
        "jsonrpcserver",
        "jsonschema",
        "psutil",
        "sqlalchemy",
        "asyncio",
        "typer",
        "rich",
        "kmsplug_sdk",
    }
    assert others & set(found.stdout.split()) == set()


def test_windows_is_refused_with_one_sentence() -> None:
    program = "import sys; sys.platform = 'win32'\nimport kmsplug_protocol"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)

    assert done.stderr.decode().splitlines()[-1] == (
        "ImportError: kmsplug does not run on Windows, because drivers need POSIX process groups and pipes"
    )
