"""Builds kryoptic, a PKCS#11 token in Rust: the one here that has EdDSA, ML-DSA and ML-KEM.

`make test` does that once, which takes some minutes. Where it cannot be, as without cargo, the tests that
want it are skipped and say so.
"""

import contextlib
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from support.cache import UnavailableError, cached, is_made, place
from support.lifeline import running

_SOURCES: Final = Path(__file__).parents[1] / "pkcs11" / "kryoptic"
_LOCK: Final = _SOURCES / "lock.toml"
_BUILT: Final = "libkryoptic_pkcs11.so"
_SOURCE: Final = "source = "  # a line of a lock
_NEEDED: Final = ("cargo", "cc", "make", "perl", "pkg-config")
_BOUND_S: Final = 1800


def module() -> Path | None:
    """Return the module, where it is built."""
    return place(_name()) / _BUILT if is_made(_name()) else None


def build() -> None:
    """Build it, unless it is there.

    Raises:
        UnavailableError: It cannot be built here.
    """
    cached(_name(), _make)


def _name() -> str:
    sources = b"".join(path.read_bytes() for path in sorted(_SOURCES.iterdir()))
    return f"kryoptic-{hashlib.sha256(sources).hexdigest()[:12]}"


def _make(folder: Path) -> None:
    missing = [tool for tool in _NEEDED if shutil.which(tool) is None]
    if missing:
        raise UnavailableError(f"there is no {' or '.join(missing)}")
    print("building kryoptic, a token for the tests: once, some minutes", flush=True)
    folder.mkdir(exist_ok=True)
    with _project() as project:
        # Our lock names versions and checksums. What cargo calls its registry is written into it here.
        resolved = (project / "Cargo.lock").read_text(encoding="utf-8")
        source = next(line for line in resolved.splitlines() if line.startswith(_SOURCE))
        pinned = _LOCK.read_text(encoding="utf-8").replace("\nchecksum = ", f"\n{source}\nchecksum = ")
        (project / "Cargo.lock").write_text(pinned, encoding="utf-8")
        _run(project, "build", "--release", "--locked", "--target-dir", "target")
        shutil.copy(project / "target" / "release" / _BUILT, folder)


def lock() -> None:
    """Resolve its dependencies anew.

    Raises:
        UnavailableError: They cannot be had.
    """
    with _project() as folder:
        resolved = (folder / "Cargo.lock").read_text(encoding="utf-8").splitlines(keepends=True)
        text = "".join(line for line in resolved if not line.startswith(_SOURCE))
        _LOCK.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _project() -> Iterator[Path]:
    """Yield a folder with the sources and the newest dependencies that fit."""
    with tempfile.TemporaryDirectory(prefix="kmsplug-kryoptic-") as name:
        for source in ("Cargo.toml", "module.rs"):
            shutil.copy(_SOURCES / source, name)
        _run(Path(name), "generate-lockfile")
        yield Path(name)


def _run(folder: Path, *arguments: str) -> None:
    until = time.monotonic() + _BOUND_S
    with tempfile.TemporaryFile("w+") as output:
        with running(["cargo", *arguments, "--quiet"], cwd=folder, stdout=output, stderr=output) as process:
            try:
                status = process.wait(until - time.monotonic())
            except subprocess.TimeoutExpired:
                raise UnavailableError(f"cargo did not end within {_BOUND_S} s") from None
        if status:
            output.seek(0)
            raise UnavailableError(f"cargo {arguments[0]} failed: {_told(output.read())}")


def _told(text: str) -> str:
    """Return the line that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next(
        (line for line in lines if line.startswith("error")), lines[-1] if lines else "it does not say why"
    )


if __name__ == "__main__":
    try:
        lock() if sys.argv[1:] == ["lock"] else build()
    except UnavailableError as error:
        print(f"kryoptic is not built ({error}): what only it can do is not tested")
        sys.exit(1)
