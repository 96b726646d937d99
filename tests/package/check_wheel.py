"""Builds sdist and wheel, checks that the wheel holds exactly our packages, and tries it: ``make package``.

A wheel that builds empty builds with exit status 0, so the file list is compared, not looked at.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "host/kmsplug_host", "plugins/kmsplug_plugins", "protocol/kmsplug_protocol", "sdk/kmsplug_sdk",
}  # fmt: skip

TRIAL = """
import sys
from kmsplug_host import Host
with Host.open({"plugins": {"local": {"driver": "local", "config": {"path": sys.argv[1]}}}}) as host:
    keystore = host.keystore("local")
    key = keystore.create_key("AES_256_GCM")
    sealed = keystore.encrypt(key.key_id, b"secret", context={"a": "b"})
    assert host.decrypt(sealed.ciphertext, context={"a": "b"}).plaintext == b"secret"
"""


def expected() -> set[str]:
    """Return the files of the packages as git knows them, and new ones that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *sorted(PACKAGES)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return {name.split("/", 1)[1] for name in listed if (ROOT / name).exists()}


def main() -> int:
    """Build, compare, install, try."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        found = {name for name in names if ".dist-info/" not in name}
        missing, foreign = sorted(expected() - found), sorted(found - expected())
        for name in missing:
            print(f"missing in the wheel: {name}")
        for name in foreign:
            print(f"does not belong in the wheel: {name}")
        if missing or foreign:
            return 1
        licence = any(name.endswith("/licenses/LICENSE") for name in names)
        entry_points = any(name.endswith("/entry_points.txt") for name in names)
        if not (licence and entry_points):
            print("the wheel lacks its licence or its entry points")
            return 1
        _try(wheel, Path(folder))
    print(f"{wheel.name}: {len(found)} files, installed and tried")
    return 0


def _try(wheel: Path, folder: Path) -> None:
    """Install the wheel with the locked dependencies in an environment of its own, and run the main job."""
    venv = folder / "venv"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = str(venv / "bin" / "python")
    install = [str(uv), "pip", "install", "--quiet", "--python", python]
    subprocess.run(
        [*install, "--require-hashes", "--requirement", str(ROOT / "requirements" / "runtime.txt")],
        check=True,
    )
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)
    # Away from the checkout, so that nothing but the wheel can be imported.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(
        [python, "-I", "-c", TRIAL, str(folder / "store")],
        check=True,
        cwd=folder,
        env=environment,
        timeout=60,
    )
    command = [str(venv / "bin" / "kmsplug"), "--version"]
    subprocess.run(command, check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL, timeout=60)


if __name__ == "__main__":
    sys.exit(main())
