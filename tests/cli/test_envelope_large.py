"""Files of any size, by the command, in memory that does not grow with them."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import SCRIPT, Cli
from support.zoo import SOAK

SIZE = 4 * 2**30 if SOAK else 300 * 2**20
MOST_RSS = 200 * 10**6


# Starts a command and tells its exit status and peak. A process inherits the peak of the one that forked it,
# which would be all that the tests ever had.
METER = """
import os, sys
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
"""


def peak_rss(folder: Path, *arguments: str) -> int:
    """Run the command and return the most memory that it, or a driver that it started, had at once."""
    meter = [sys.executable, "-I", "-S", "-c", METER, SCRIPT, *arguments]
    done = subprocess.run(meter, cwd=folder, stdout=subprocess.PIPE, check=True)
    status, peak = map(int, done.stdout.split())
    assert status == 0
    return peak


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture
def plain(cli: Cli) -> Path:
    """A file with holes, so that only its ciphertext takes room on the disk."""
    path = cli.folder / "plain"
    with path.open("wb") as file:
        file.write(os.urandom(1000))
        file.seek(SIZE // 2)
        file.write(os.urandom(1000))
        file.truncate(SIZE)
    return path


def test_a_large_file_is_encrypted_and_decrypted_in_little_memory(cli: Cli, plain: Path) -> None:
    key = cli.json("key", "create", "--algorithm", "AES_256_GCM")["key_id"]

    sealing = peak_rss(cli.folder, "encrypt", "--key", key, "--in", "plain", "--out", "sealed")
    opening = peak_rss(cli.folder, "decrypt", "--in", "sealed", "--out", "opened")

    assert (cli.folder / "opened").stat().st_size == SIZE
    assert digest(cli.folder / "opened") == digest(plain)
    assert max(sealing, opening) < MOST_RSS, (sealing, opening)
    for name in ("sealed", "opened"):
        (cli.folder / name).unlink()  # pytest keeps the folders of three runs
