"""The examples run as they stand."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_embedded_application_runs_and_refuses_another_tenant(tmp_path: Path) -> None:
    copy = tmp_path / "examples" / "embed_in_app"
    shutil.copytree(ROOT / "examples" / "embed_in_app", copy, ignore=shutil.ignore_patterns("__pycache__"))

    done = subprocess.run([sys.executable, copy / "app.py"], capture_output=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().splitlines() == [
        "after the rotation: the secret of tenant-3",
        "another tenant is refused: INVALID_CIPHERTEXT",
    ]
