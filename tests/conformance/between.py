"""What stands between the kit and a good driver: passes lines on, both ways, and lets rules change them."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from conformance import mutations, zygote

Message = dict[str, Any]
LINE_BYTES: Final = 2 * 1024 * 1024


class Between:
    """Passes lines on, both ways; what a subclass has for a case changes them."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.out = threading.Lock()
        self.requests: dict[str, Message] = {}  # in progress, by id
        self.counts: dict[str, int] = {}
        self.injected = 0
        self.to_driver, self.from_driver, self.wait = zygote.start(case)
        self.answers = mutations.ANSWERS.get(case)
        self.heard = mutations.REQUESTS.get(case)
        self.on_line: Callable[[bytes], bytes | None] = getattr(
            self, "line_" + case.replace(".", "_"), lambda _: None
        )
        self.on_request: Callable[[Message], None] = getattr(
            self, "request_" + case.replace(".", "_"), lambda _: None
        )
        self.on_answer: Callable[[Message, Message], None] = getattr(
            self, "answer_" + case.replace(".", "_"), lambda *_: None
        )
        self.doubled: set[str] = set()
        self.state: Path | None = None
        self.before: bytes | None = None
        self.status = 0
        self.kept = bytearray()

    def write(self, *messages: Message | bytes) -> None:
        with self.out:
            for message in messages:
                line = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
                view = memoryview(line)
                while view:
                    view = view[os.write(1, view) :]

    def count(self, what: str) -> int:
        self.counts[what] = self.counts.get(what, 0) + 1
        return self.counts[what]

    def inject(self, method: str, params: Message) -> None:
        """Make a call of our own, of which the host learns nothing."""
        self.injected += 1
        request = {"jsonrpc": "2.0", "id": f"injected-{self.injected}", "method": method, "params": params}
        self.send(json.dumps(request).encode() + b"\n")

    def send(self, line: bytes) -> None:
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self.to_driver, view) :]
        except BrokenPipeError:
            pass

    def run(self) -> int:
        reader = threading.Thread(target=self.read_driver)
        reader.start()
        buffer = bytearray()
        long = False
        while data := os.read(0, 65_536):
            if self.case == "process.bounded_memory":
                self.kept += data
            buffer += data
            while (end := buffer.find(b"\n")) >= 0:
                line = bytes(buffer[: end + 1])
                del buffer[: end + 1]
                self.from_host(line, whole=not long)
                long = False
            if len(buffer) > LINE_BYTES:  # passed on in pieces, never kept
                self.send(bytes(buffer))
                buffer.clear()
                long = True
        if self.case == "framing.unfinished_line" and buffer:
            self.from_host(bytes(buffer) + b"\n", whole=True)
            time.sleep(0.3)  # else the driver drops it at its own end of stdin
        os.close(self.to_driver)
        reader.join()  # it ends the process
        return 1

    def status_at_end(self) -> int:
        health = self.counts.get("plugin.health", 0)
        return 4 if self.case == "session.end_of_stdin_with_requests" and health >= 50 else self.status

    def from_host(self, line: bytes, *, whole: bool) -> None:
        if whole and (answer := self.on_line(line)) is not None:
            self.write(answer)
            return
        try:
            message = json.loads(line) if whole else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or not isinstance(message.get("method"), str):
            self.send(line)
            return
        self.count(message["method"])
        if "id" in message and isinstance(message["id"], (str, int)):
            self.requests[json.dumps(message["id"])] = message
        if self.heard is not None:
            before = json.dumps(message)
            self.heard(message)
            if json.dumps(message) != before:
                line = json.dumps(message).encode() + b"\n"
        self.on_request(message)
        self.send(line)

    def read_driver(self) -> None:
        buffer = bytearray()
        while data := os.read(self.from_driver, 65_536):
            buffer += data
            while (end := buffer.find(b"\n")) >= 0:
                line = bytes(buffer[: end + 1])
                del buffer[: end + 1]
                self.from_the_driver(line)
        self.wait()
        os._exit(self.status_at_end())  # the other thread may wait for a host that has nothing to say

    def from_the_driver(self, line: bytes) -> None:
        message = json.loads(line)
        if str(message.get("id")).startswith("injected-"):
            return
        request = self.requests.pop(json.dumps(message.get("id")), None)
        if request is not None:
            before = json.dumps(message)
            if self.answers is not None:
                self.answers(request, message)
            self.on_answer(request, message)
            if json.dumps(message) != before:
                line = json.dumps(message).encode() + b"\n"
        if json.dumps(message.get("id")) in self.doubled:
            line = line * 2
        self.write(line)
