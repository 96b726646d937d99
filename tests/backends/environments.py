"""What servers need that does not go with our packages, in the user's cache: Python environments, mostly.

An environment is named after its requirements, which are pinned with hashes in a file beside this one: made
once, by whoever is first, and used by every later run and every checkout.
"""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

from support.cache import UnavailableError, cached

_HERE: Final = Path(__file__).parent
_BOUND_S: Final = 400


def python_of(name: str) -> Path:
    """Return the interpreter of the environment that ``NAME.txt`` describes.

    Raises:
        UnavailableError: It cannot be made here, as without a package registry.
    """
    requirements = _HERE / f"{name}.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(requirements.read_bytes() + version.encode()).hexdigest()[:12]
    return (
        cached(f"{name}-py{version}-{digest}", lambda folder: _make(folder, requirements)) / "bin" / "python"
    )


def _make(folder: Path, requirements: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    python = folder / "bin" / "python"
    installs: list[str | Path] = (
        [uv, "pip", "install", "--quiet", "--python", python, "--compile-bytecode"]
        if uv.exists()
        else [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    )
    commands: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", "--clear", folder],
        [*installs, "--require-hashes", "-r", requirements],
    ]
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_BOUND_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"{command[0]} did not end well: {type(error).__name__}") from None
        if done.returncode:
            raise UnavailableError(f"the packages cannot be had: {done.stderr.strip()[-300:]}")
