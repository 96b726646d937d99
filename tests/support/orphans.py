"""An application whose drivers leave children, for a test to kill.

Run as ``python -m support.orphans FOLDER LEVELS``. It prints the numbers of each plugin's processes as JSON,
and then does what its stdin says: ``fork`` makes a child of the application that stays, ``exit`` ends it
without closing the host.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmsplug_host import Host

TESTS = Path(__file__).resolve().parents[1]
KINDS = ("plain", "session", "twice")
MADE_BY = ("sdk", "plain")


@dataclass(frozen=True)
class Case:
    """A driver of the application."""

    level: str
    kind: str
    made_by: str

    @property
    def name(self) -> str:
        """Name of its plugin, and of its folder."""
        return f"{self.level}-{self.kind}-{self.made_by}"


def cases(levels: list[str]) -> Iterator[Case]:
    """Yield all drivers."""
    for level in levels:
        for kind in KINDS:
            for made_by in MADE_BY:
                yield Case(level, kind, made_by)


class Application:
    """The application, in a process of its own."""

    def __init__(self, folder: Path, levels: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.orphans", str(folder), ",".join(levels)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(TESTS), "TMPDIR": str(folder)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.pids: dict[str, dict[str, int]] = json.loads(self.process.stdout.readline())

    def fork(self) -> None:
        """Let it fork a child that stays, and wait until it has."""
        self._tell("fork")
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def exit(self) -> None:
        """Let it end without closing the host, and wait until it has."""
        self._tell("exit")
        self.process.wait(30)

    def _tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End it, however far it got."""
        self.process.kill()
        self.process.wait(30)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def _main(folder: Path, levels: list[str]) -> None:
    plugins = {}
    for case in cases(levels):
        (folder / case.name).mkdir()
        command = [sys.executable, "-I", str(TESTS / "drivers" / "leaves_children.py"),
                   case.made_by, case.kind, str(folder / case.name)]  # fmt: skip
        code = [str(path) for path in TESTS.parent.iterdir() if path.name in ("sdk", "protocol")]
        plugins[case.name] = {"command": command, "isolation": case.level, "read_paths": code,
                              "write_paths": [str(folder / case.name)]}  # fmt: skip
    host = Host.open({"plugins": plugins})
    pids: dict[str, dict[str, Any]] = {}
    for name, plugin in host._plugins.items():
        process = plugin._fleet.replicas[0].process
        assert process is not None
        pids[name] = {"driver": process.pid, "guardian": process._popen.pid}
    print(json.dumps(pids), flush=True)
    for line in sys.stdin:
        if line.strip() == "fork":
            child = multiprocessing.get_context("fork").Process(target=_stay)
            child.start()
            print(child.pid, flush=True)
        elif line.strip() == "exit":
            os._exit(0)


def _stay() -> None:
    signal.alarm(120)
    signal.pause()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2].split(","))
