"""An application with two plugins, one of them hostile: prints as JSON what that one could reach.

Run as ``python -m support.siblings LEVEL FOLDER``, without privileges: root reaches everything.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from kmsplug_host import Host

TESTS = Path(__file__).resolve().parents[1]
CANARY = "c4n4ry-0f-the-application"


def reached_at(level: str, folder: Path) -> dict[str, bool]:
    """Return what a hostile driver reaches at this level, as a user without privileges."""
    own = folder / level
    own.mkdir()
    # Root without capabilities is a user as any other, but can read this interpreter wherever it is. It may
    # not map itself into a user namespace, though; bwrap takes its drivers' capabilities itself.
    as_user = os.geteuid() == 0 and level != "bwrap"
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if as_user else []
    done = subprocess.run(
        [*powerless, sys.executable, "-m", "support.siblings", level, str(own)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(TESTS), "CANARY": CANARY, "TMPDIR": str(own)},
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, bool] = json.loads(done.stdout)
    return found


def _main(level: str, folder: Path) -> None:
    command = [sys.executable, "-I", "-S", str(TESTS / "drivers" / "hostile_sibling.py")]
    plugins = {
        "victim": {"driver": "local", "isolation": level, "config": {"path": str(folder / "store")}},
        "hostile": {"command": command, "isolation": level},
    }
    with Host.open({"plugins": plugins}) as host:
        host.keystore("victim").random(8)
        facts = {
            "host": os.getpid(),
            "sibling": host.plugins()[0].replicas[0].pid,
            "canary": CANARY,
            "key_file": str(folder / "store" / "master.key"),
        }
        found = host.keystore("hostile").mac("k", json.dumps(facts).encode()).mac
        assert len(host.keystore("victim").random(8)) == 8  # unharmed
    print(found.decode())


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
