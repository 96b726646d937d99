"""Driver processes, and the host's ends of their pipes."""

import contextlib
import os
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kmsplug_protocol import FrameReader, Oversize, decode_base64, decode_frame
from unit.sdk.wire import INITIALIZE, line

TESTS = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONPATH": str(TESTS), "PATH": "/usr/bin:/bin"}
WAIT_S = 20.0


def command(target: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "kmsplug_sdk", f"unit.sdk.{target}", *arguments]


class Child:
    """A driver process, and the host's ends of its three pipes. stderr is always read."""

    def __init__(self, target: str) -> None:
        self.process = subprocess.Popen(
            command(target),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            bufsize=0,
        )
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stderr
        self.stdin, self._stdout, self._stderr = (
            self.process.stdin,
            self.process.stdout,
            self.process.stderr,
        )
        self._frames = FrameReader(2**24)
        self._received: list[bytes | Oversize] = []
        self._ids = iter(range(1, 10_000))
        self.log: list[str] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._drain = threading.Thread(target=self._read_stderr)
        self._drain.start()

    def _read_stderr(self) -> None:
        for data in self._stderr:
            text = data.decode()
            self.log.append(text)
            self._lines.put(text)

    def wait_for_log(self, text: str) -> str:
        while text not in (found := self._lines.get(timeout=WAIT_S)):
            pass
        return found

    def send(self, data: bytes) -> None:
        self.stdin.write(data)

    def receive(self) -> dict[str, Any]:
        while not self._received:
            assert select.select([self._stdout], [], [], WAIT_S)[0], "no answer"
            data = os.read(self._stdout.fileno(), 65536)
            assert data, "the process has ended"
            self._received += self._frames.feed(data)
        frame = self._received.pop(0)
        assert isinstance(frame, bytes)
        return decode_frame(frame)

    def call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        request_id = next(self._ids)
        self.send(line(method, request_id, params))
        answer = self.receive()
        assert answer["id"] == request_id
        return answer

    def configure(self) -> "Child":
        assert "result" in self.call("plugin.initialize", INITIALIZE)
        assert "result" in self.call("plugin.configure", {"config": {}})
        return self

    def trick(self, name: str) -> str:
        return decode_base64(self.call("crypto.encrypt", trick(name))["result"]["ciphertext"]).decode()

    def rest(self) -> bytes:
        """What is left on standard output when the process has closed it."""
        data = b""
        while select.select([self._stdout], [], [], WAIT_S)[0] and (
            more := os.read(self._stdout.fileno(), 65536)
        ):
            data += more
        return data

    def wait(self) -> int:
        status = self.process.wait(WAIT_S)
        self._drain.join(WAIT_S)
        assert not self._drain.is_alive()
        return status

    def end(self) -> list[str]:
        """End the session as a host does, and return the log."""
        self.stdin.close()
        assert self.wait() == 0
        assert self.rest() == b""
        return self.log

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)
        self._drain.join(WAIT_S)
        for stream in (self.stdin, self._stdout, self._stderr):
            with contextlib.suppress(OSError):
                stream.close()


@contextlib.contextmanager
def child(target: str) -> Iterator[Child]:
    process = Child(target)
    try:
        yield process
    finally:
        process.close()


def trick(name: str) -> dict[str, Any]:
    return {"key_id": name, "plaintext": ""}


def run(
    *arguments: str, target: str = "drivers:Checked", stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(target, *arguments),
        check=False,
        input=stdin,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd="/",
        timeout=WAIT_S,
    )
