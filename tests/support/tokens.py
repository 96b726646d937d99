"""Tokens for the tests of the PKCS#11 driver: real ones in files of a test, and modules that it compiles."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any

import psutil
import pytest
from support import kryoptic
from support.lifeline import running

SOURCES = Path(__file__).parents[1] / "pkcs11"

_LIBRARIES = (
    Path("/usr/lib"),
    Path("/usr/lib64"),
    Path("/usr/lib/x86_64-linux-gnu"),
    Path("/usr/lib/aarch64-linux-gnu"),
)


@dataclass(frozen=True)
class Tokens:
    """A module and a token in it.

    Attributes:
        module: The module.
        label: The token's.
        pin: Its user's.
        env: What the module reads.
    """

    module: Path
    label: str
    pin: str
    env: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        """Settings of the driver, for a session in which secrets are resolved already."""
        return {"module": str(self.module), "token_label": self.label, "pin": self.pin}

    def plugin(self, folder: Path, **settings: Any) -> dict[str, Any]:
        """Return a table for ``[plugins.NAME]``."""
        pin = folder / "pin"
        pin.write_text(self.pin)
        pin.chmod(0o600)
        return {
            "driver": "pkcs11",
            "isolation": "process",
            "config": {**self.config, "pin": {"file": str(pin)}},
            "set_env": self.env,
            **settings,
        }


def library(*names: str) -> Path | None:
    """Return the first of these shared libraries that is installed."""
    found = (folder / name for name in names for folder in _LIBRARIES)
    return next((path for path in found if path.exists()), None)


def softhsm(folder: Path, label: str = "kmsplug", pin: str = "4321") -> Tokens:
    """Make a SoftHSM token in a folder, or skip the test."""
    module, tool = library("softhsm/libsofthsm2.so"), shutil.which("softhsm2-util")
    if module is None or tool is None:
        pytest.skip("SOFTHSM NOT CHECKED: install softhsm2")
    (folder / "tokens").mkdir(parents=True, exist_ok=True)
    conf = folder / "softhsm2.conf"
    conf.write_text(
        f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    env = {"SOFTHSM2_CONF": str(conf)}
    run([tool, "--init-token", "--free", "--label", label, "--so-pin", "87654321", "--pin", pin], env)
    return Tokens(module, label, pin, env)


@cache
def compiled(source: str) -> Path:
    """Compile one of the modules in ``tests/pkcs11``, once in a run, or skip the test."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("COMPILED MODULE NOT CHECKED: install a C compiler")
    # Left to the system's own cleaning: it is loaded until the process ends.
    target = Path(mkdtemp(prefix="kmsplug-")) / source.replace(".c", ".so")
    run([compiler, "-O1", "-shared", "-fPIC", "-o", str(target), str(SOURCES / source), "-ldl"])
    return target


class Faults:
    """A token behind a module that fails when it is told to. ``tests/pkcs11/fault_module.c`` says how.

    Args:
        behind: The token.
        folder: For the file that tells the module, and the one in which the module tells.
    """

    def __init__(self, behind: Tokens, folder: Path) -> None:
        self._control, self._log = folder / "faults", folder / "calls"
        self.tell()
        env = {
            "FAULT_MODULE": str(behind.module),
            "FAULT_CONTROL": str(self._control),
            "FAULT_LOG": str(self._log),
        }
        self.tokens = replace(behind, module=compiled("fault_module.c"), env={**behind.env, **env})

    def tell(self, *lines: str) -> None:
        """Say which faults there are from now on."""
        new = self._control.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in lines))
        new.replace(self._control)

    def count(self, function: str) -> int:
        """Return how often C_Initialize, C_Finalize or C_Login was called, by all processes."""
        return self._log.read_text().split().count(function) if self._log.exists() else 0


def run(command: list[str], env: dict[str, str] | None = None, text: str | None = None) -> str:
    """Run a tool of a token's maker; it has to succeed."""
    done = subprocess.run(
        command,
        env={**os.environ, **(env or {})},
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} failed: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def _softhsm(folder: Path) -> Iterator[Tokens]:
    yield softhsm(folder)


@contextmanager
def _nss(folder: Path) -> Iterator[Tokens]:
    """NSS softokn, behind a module that tells it where its database is."""
    module, tool = library("libsoftokn3.so", "nss/libsoftokn3.so"), shutil.which("certutil")
    if module is None or tool is None:
        pytest.skip("NSS NOT CHECKED: install libnss3 and libnss3-tools")
    password = "Passw0rd!"
    (folder / "password").write_text(f"{password}\n")
    run([tool, "-N", "-d", f"sql:{folder}", "-f", str(folder / "password")])
    where = f"configdir='sql:{folder}' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
    env = {"NSS_MODULE": str(module), "NSS_MODULE_PARAMETERS": where}
    yield Tokens(compiled("nss_module.c"), "NSS Certificate DB", password, env)


@contextmanager
def _kryoptic(folder: Path) -> Iterator[Tokens]:
    module = kryoptic.module()
    if module is None or shutil.which("pkcs11-tool") is None:
        pytest.skip("KRYOPTIC NOT CHECKED: `make test` builds it where there is cargo; and install opensc")
    conf = folder / "kryoptic.conf"
    conf.write_text(f'[[slots]]\nslot = 1\ndbtype = "sqlite"\ndbargs = "{folder}/token.sql"\n')
    yield _initialised(Tokens(module, "kmsplug", "12345678", {"KRYOPTIC_CONF": str(conf)}), slot=1)


_START_S = 20
_OPENCRYPTOKI_SLOT = 3  # of the soft token, in the configuration that is installed


@contextmanager
def _opencryptoki(folder: Path) -> Iterator[Tokens]:
    """openCryptoki's soft token. Its state is the machine's, so that one test at a time may have it.

    A token that was initialised by somebody else is left alone.
    """
    module = library("pkcs11/libopencryptoki.so")
    daemon, tool = shutil.which("pkcsslotd"), shutil.which("pkcs11-tool")
    if module is None or daemon is None or tool is None:
        pytest.skip("OPENCRYPTOKI NOT CHECKED: install opencryptoki, libopencryptoki0 and opensc")
    if os.geteuid() != 0:
        pytest.skip("OPENCRYPTOKI NOT CHECKED: its daemon is run by root")
    with (Path(gettempdir()) / "kmsplug-opencryptoki.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _slot_daemon(daemon):
            there = run([tool, "--module", str(module), "--list-token-slots"])
            if "kmsplug" not in there and "uninitialized" not in there:
                pytest.skip("OPENCRYPTOKI NOT CHECKED: its soft token is in use by somebody else")
            yield _initialised(Tokens(module, "kmsplug", "12345678"), slot=_OPENCRYPTOKI_SLOT)


@contextmanager
def _slot_daemon(program: str) -> Iterator[None]:
    """Run openCryptoki's daemon, unless it runs already."""
    if psutil.pid_exists(_daemon_pid()):
        yield
        return
    with running([program, "-f"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        until = time.monotonic() + _START_S
        while _daemon_pid() != daemon.pid:
            if daemon.poll() is not None:
                pytest.skip("OPENCRYPTOKI NOT CHECKED: its daemon does not start here")
            assert time.monotonic() < until, "openCryptoki's daemon does not get ready"
            time.sleep(0.01)
        yield


def _daemon_pid() -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/run/pkcsslotd.pid").read_text())
    return 0


def _initialised(tokens: Tokens, slot: int) -> Tokens:
    """Initialise a token with OpenSC's tool, as its security officer would."""
    tool = ["pkcs11-tool", "--module", str(tokens.module), "--slot", str(slot)]
    officer = ["--so-pin", "87654321"]
    run([*tool, "--init-token", "--label", tokens.label, *officer], tokens.env)
    login = ["--login", "--login-type", "so", *officer]
    run([*tool, *login, "--init-pin", "--new-pin", tokens.pin], tokens.env)
    return tokens


TOKENS: dict[str, Callable[[Path], AbstractContextManager[Tokens]]] = {
    "softhsm": _softhsm,
    "nss": _nss,
    "kryoptic": _kryoptic,
    "opencryptoki": _opencryptoki,
}
"""Makes a token of each maker, in a folder of the test's own, or skips the test."""
