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


def test_the_tested_application_passes_its_tests(tmp_path: Path) -> None:
    copy = tmp_path / "test_your_app"
    shutil.copytree(ROOT / "examples" / "test_your_app", copy, ignore=shutil.ignore_patterns("__pycache__"))

    command = [sys.executable, "-m", "pytest", "-q", str(copy)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)

    assert done.returncode == 0, done.stdout.decode()
    assert "5 passed" in done.stdout.decode()
