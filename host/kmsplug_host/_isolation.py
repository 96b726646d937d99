"""Isolation levels: what of the machine a driver process can reach, and how that is enforced.

``process`` keeps faults apart and protects from no malice: processes of one user can read each other's
memory, environment and files. ``landlock`` and ``bwrap`` leave a driver the system, read-only, its own
files, its working folder, and the paths of its configuration.
"""

import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from . import _trust
from .config import Isolation
from .errors import ConfigurationError

_log = logging.getLogger("kmsplug.isolation")

SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for, and the drivers' ``PATH``; never that of the application."""

# What any program needs to start, to resolve names and to check certificates; nothing that holds secrets. Not
# the whole of /etc: applications keep key files there.
_SYSTEM: Final = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives",
    "/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/openssl.cnf", "/etc/ca-certificates",
    "/etc/pki/tls/certs", "/etc/pki/ca-trust", "/etc/crypto-policies",
    "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf",
    "/etc/services", "/etc/protocols", "/etc/passwd", "/etc/group", "/etc/localtime", "/etc/timezone",
)  # fmt: skip
_KERNEL: Final = ("/proc", "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage")
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

_TOKEN_FILES: Final = ("token_file", "jwt_file")
_PATH_NAMES: Final = ("path", "file", "folder", "directory", "dir", "module", "socket")
_BWRAP_SHM_BYTES: Final = 64 * 1024 * 1024


class Access(Struct, frozen=True):
    """The files that a confined driver may use, besides the system's and its working folder.

    Attributes:
        read: To read and execute, with all that is in them.
        write: To write, too.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


def choose(level: Isolation, *, third_party: bool, key: str) -> Isolation:
    """Return the level that *level* means on this machine.

    Args:
        level: As configured.
        third_party: Whether the driver is a command: then nothing weaker than asked for is chosen.
        key: What to call it in an error.

    Raises:
        ConfigurationError: This machine does not have it.
    """
    from ._guardian import landlock  # noqa: PLC0415 - ctypes, which only this question needs

    if level is Isolation.BWRAP and shutil.which("bwrap", path=SYSTEM_PATH) is None:
        raise ConfigurationError(f"{key}: there is no program bwrap", hint="install bubblewrap")
    if level not in (Isolation.LANDLOCK, Isolation.AUTO):
        return level
    if landlock.abi() > 0:
        return Isolation.LANDLOCK
    if level is Isolation.LANDLOCK or third_party:
        raise ConfigurationError(
            f"{key}: this kernel has no Landlock",
            hint='isolation = "bwrap", or "process", which protects from faults and not from malice',
        )
    _warn_once()
    return Isolation.PROCESS


_warned: Final[set[str]] = set()


def _warn_once() -> None:
    if not _warned:
        _warned.add("no landlock")
        _log.warning("this kernel has no Landlock: drivers are isolated as processes only, see SECURITY.md")


def system_rules() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what every Landlocked driver may read, and what it may write."""
    return (*_SYSTEM, *_KERNEL), _DEVICES


def configured_paths(config: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Yield the paths in a driver's settings, and make what is missing: they must be known before it runs.

    The driver's schema, which tells paths for certain, comes from the driver itself. So a member counts as
    a path when its name is one of ``path``, ``file``, ``folder``, ``directory``, ``dir``, ``module``,
    ``socket``, or ends in ``_`` and one of them. Of a file that does not exist the folder is yielded, for
    the driver may be about to make it. Files with tokens are not among them: see `token_folders`.
    """
    for name, value in config.items():
        kind = name.rpartition("_")[2]
        if isinstance(value, Mapping):
            yield from configured_paths(value, folder)
        elif kind in _PATH_NAMES and not name.endswith(_TOKEN_FILES):
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    yield str(_prepare(folder / Path(text).expanduser(), kind))


def token_folders(config: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Yield the folders of files with tokens in a driver's settings: ``..._token_file``, ``..._jwt_file``.

    Such a file is replaced by another one while the driver runs, as Kubernetes does it, and what is allowed
    by Landlock or bound by bwrap is the file that was there at the start.
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from token_folders(value, folder)
        elif isinstance(value, str) and name.endswith(_TOKEN_FILES):
            yield str((folder / Path(value).expanduser()).parent)


def _prepare(path: Path, kind: str) -> Path:
    if path.exists():
        return path
    wanted = path.parent if kind in ("file", "module", "socket") or path.suffix else path
    try:
        make_private(wanted)
    except OSError:
        return path  # the driver tells what is wrong with it
    return wanted


def make_private(folder: Path) -> str:
    """Make a folder and what is missing above it, each for this user alone.

    Raises:
        OSError: It cannot be made.
    """
    if not folder.exists():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)


def code_of(modules: Iterable[str]) -> Iterator[str]:
    """Yield where this interpreter and these top-level modules are; none of them is imported."""
    yield from {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent.parent)} - {"/"}
    for module in modules:
        found = importlib.util.find_spec(module)
        for place in (found.submodule_search_locations or ()) if found else ():
            yield str(Path(place).parent)  # an interpreter lists the folder that it searches


def files_of(command: Iterable[str]) -> Iterator[str]:
    """Yield the files that a command names, and for its programs what they need to start."""
    for index, word in enumerate(command):
        path = Path(word)
        if path.is_absolute() and path.is_file():
            yield word
            yield os.path.realpath(word)
            if index == 0:
                yield from _prefixes(path)


def _prefixes(program: Path) -> Iterator[str]:
    """Yield the Python environment of a program, if it has one: ``PREFIX/bin/program``, or by its ``#!``."""
    with program.open("rb") as file:
        words = _trust.interpreter(file.read(4096))
    for path in (program, *(Path(word) for word in words[:1])):
        for place in (path, path.resolve()):
            prefix = place.parent.parent
            is_python = (prefix / "pyvenv.cfg").is_file() or any(prefix.glob("lib/python3*"))
            if is_python and prefix != Path("/"):
                yield str(prefix)


def bwrap_command(command: tuple[str, ...], folder: str, access: Access, image: int | None) -> list[str]:
    """Return how bubblewrap runs a driver, in namespaces of its own.

    Args:
        command: The driver and its arguments.
        folder: Its working folder.
        access: The files that it may use.
        image: A descriptor of the sealed executable.
    """
    words = [
        shutil.which("bwrap", path=SYSTEM_PATH) or "bwrap",
        "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--disable-userns", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
    ]  # fmt: skip
    for path in _SYSTEM:
        if os.path.islink(path):  # noqa: PTH114 - as /lib, a link into /usr
            words += _link(path)
        else:
            words += ["--ro-bind-try", path, path]
    words += ["--proc", "/proc", "--dev", "/dev", "--size", str(_BWRAP_SHM_BYTES), "--tmpfs", "/tmp"]  # noqa: S108 - its own
    for path in dict.fromkeys(access.read):
        words += ["--ro-bind-try", path, path]
    for path in dict.fromkeys((*access.write, folder)):
        words += ["--dev-bind-try" if path.startswith("/dev/") else "--bind-try", path, path]
    words += ["--chdir", folder]
    program = command[0]
    if image is not None:
        program = "/.driver"
        words += ["--perms", "0555", "--ro-bind-data", str(image), program]
    return [*words, "--", program, *command[1:]]


def _link(path: str) -> list[str]:
    target = os.readlink(path)  # noqa: PTH115
    if path.startswith("/etc/"):  # maybe into /run, which is not there
        return ["--ro-bind-try", os.path.realpath(path), path]
    return ["--symlink", target, path]
