"""The fuzzers run for a few seconds each, for minutes in ``make soak``, from the corpus that is kept here."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.zoo import SOAK

HERE = Path(__file__).parent
SECONDS = 300 if SOAK else 4


@pytest.mark.parametrize("target", ["framing", "reader", "envelope"])
def test_a_fuzzer_finds_nothing_in(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not there for this platform")
    corpus = shutil.copytree(HERE / "corpus" / target, tmp_path / "corpus")  # it grows in every run
    done = subprocess.run(
        [sys.executable, str(HERE / f"fuzz_{target}.py"), str(corpus), f"-max_total_time={SECONDS}",
         "-timeout=10", "-rss_limit_mb=1024", f"-artifact_prefix={tmp_path}/"],
        capture_output=True, timeout=SECONDS + 120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    assert b"DONE" in done.stderr or b"Done " in done.stderr
