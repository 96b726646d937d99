"""The command line as its users run it: the installed script, in a folder of its own."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPT = str(Path(sys.executable).with_name("kmsplug"))

CONFIG = """\
[plugins.local]
driver = "local"
config = { path = "store" }
"""


@dataclass
class Cli:
    """Runs ``kmsplug`` in one folder."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def new(cls, folder: Path, config: str = CONFIG) -> "Cli":
        """Return one that runs in *folder*, with a configuration."""
        (folder / "plugins.toml").write_text(config)
        return cls(folder)

    def __call__(
        self, *arguments: str | Path, stdin: bytes = b"", code: int | None = 0
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run it; *code* is the exit status that it must have."""
        environment = {name: value for name, value in os.environ.items() if name != "KMSPLUG_CONFIG"}
        done = subprocess.run(
            [SCRIPT, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env={**environment, "XDG_CONFIG_HOME": str(self.folder / "home"), **self.environment},
            timeout=60,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, done.stderr.decode()
        return done

    def json(self, *arguments: str | Path) -> Any:
        """Run it with ``--json`` and return the document on stdout."""
        return json.loads(self("--json", *arguments).stdout)

    def error(self, *arguments: str | Path, code: int = 1) -> Any:
        """Run it with ``--json`` and return the error on stderr."""
        done = self("--json", *arguments, code=code)
        assert done.stdout == b""
        return json.loads(done.stderr)

    def on_a_terminal(self, *arguments: str | Path, typed: bytes = b"") -> tuple[bytes, int]:
        """Run it on a terminal, type something, and return what it showed and its exit status."""
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            [SCRIPT, *map(str, arguments)],
            cwd=self.folder,
            stdin=follower if typed else subprocess.DEVNULL,
            stdout=follower,
            stderr=follower,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", **self.environment},
        )
        os.close(follower)
        os.write(leader, typed)
        shown = bytearray()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and select.select([leader], [], [], 30)[0]:
            try:
                data = os.read(leader, 65536)
            except OSError:  # EIO: Linux tells the end of a terminal this way
                break
            if not data:
                break
            shown += data
        os.close(leader)
        return bytes(shown), process.wait(30)

    def left_over(self) -> list[str]:
        """Return files that no command should leave behind."""
        return [path.name for path in self.folder.iterdir() if path.name[0] == "." or path.suffix == ".tmp"]
