"""What the benchmarks compare: each in a process of its own, as an application would have one of them.

``python candidates.py NAME FOLDER`` opens one, writes its facts as a line of JSON, and then runs a round for
each line of stdin: ``{"call": ..., "count": ...}``.
"""

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
from measure import Call, calls_a_second, latencies_us

if TYPE_CHECKING:
    from mcp import ClientSession

PEERS: Final = Path(__file__).parent / "peers"


class Candidate:
    """A candidate's process, seen from the benchmark.

    Attributes:
        facts: What it told of itself when it was open, ``calls`` among it: the names of its calls.
    """

    def __init__(self, name: str, folder: str | Path, python: str | Path = sys.executable) -> None:
        self._process = subprocess.Popen(
            [python, __file__, name, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.facts: dict[str, Any] = json.loads(self._stdout.readline())

    def round(self, call: str, count: int) -> dict[str, Any]:
        """Let it make *count* calls by one caller and 4 times as many by 16; return what it measured."""
        self._stdin.write(json.dumps({"call": call, "count": count}) + "\n")
        self._stdin.flush()
        found: dict[str, Any] = json.loads(self._stdout.readline())
        return found

    def close(self) -> None:
        """Let it end."""
        self._process.communicate(timeout=30)


@contextlib.contextmanager
def kmsplug(folder: str) -> Iterator[tuple[dict[str, Call], dict[str, Any]]]:
    """Yield the host's calls, and facts about it. Uses the public API only, which other commits have too."""
    from kmsplug_host import Host  # noqa: PLC0415 - each candidate loads its own only

    settings = {
        "plugins": {
            "local": {
                "driver": "local",
                "config": {"path": f"{folder}/store"},
                # A pair's other side has its libraries in this side's environment.
                "read_paths": [path for path in sys.path if path.endswith("site-packages")],
            }
        },
        "keystores": {"main": {"plugin": "local", "allow_raw": True}},
    }
    began = time.perf_counter()
    with Host.open(settings) as host:
        keystore = host.keystore("main")
        key = keystore.create_key("AES_256_GCM").key_id
        cold_ms = (time.perf_counter() - began) * 1000
        pid = host.plugins()[0].replicas[0].pid
        facts = {
            "pid": pid,
            "cold_start_to_first_key_ms": cold_ms,
            "host_rss_mb": psutil.Process().memory_info().rss / 1e6,
            "driver_rss_mb": psutil.Process(pid).memory_info().rss / 1e6,
        }
        yield (
            {
                "crypto.encrypt 64 B": lambda: keystore.encrypt(key, bytes(64), format="raw"),
                "crypto.encrypt 4 KiB": lambda: keystore.encrypt(key, bytes(4096), format="raw"),
                "crypto.random 32": lambda: keystore.random(32),
                "ks.encrypt 64 B (envelope)": lambda: keystore.encrypt(key, bytes(64)),
            },
            facts,
        )


@contextlib.contextmanager
def grpc_peer(folder: str) -> Iterator[tuple[dict[str, Call], dict[str, Any]]]:
    """Yield calls of a Python gRPC server on a unix socket."""
    import grpc  # noqa: PLC0415

    address = f"{folder}/grpc.sock"
    command = [sys.executable, str(PEERS / "grpc_peer.py"), address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        with grpc.insecure_channel(f"unix:{address}") as channel:
            encrypt = channel.unary_unary("/bench.Crypto/Encrypt")
            yield {"Python gRPC 64 B": lambda: encrypt(bytes(64), timeout=10)}, {"pid": process.pid}
        process.stdin.close()


@contextlib.contextmanager
def mcp_peer(_folder: str) -> Iterator[tuple[dict[str, Call], dict[str, Any]]]:
    """Yield calls of an MCP tool over stdio; its client is asynchronous, so a loop runs on a thread."""
    from mcp import ClientSession, StdioServerParameters  # noqa: PLC0415
    from mcp.client.stdio import stdio_client  # noqa: PLC0415

    loop = asyncio.new_event_loop()
    ready: asyncio.Future[ClientSession] = loop.create_future()
    done = asyncio.Event()

    async def serve() -> None:
        server = StdioServerParameters(command=sys.executable, args=[str(PEERS / "mcp_peer.py")])
        async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            ready.set_result(session)
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    session = asyncio.run_coroutine_threadsafe(_wait_for(ready), loop).result(30)
    text = base64.b64encode(bytes(64)).decode()

    def call() -> object:
        request = session.call_tool("encrypt", {"plaintext": text})
        return asyncio.run_coroutine_threadsafe(request, loop).result(10)

    try:
        yield {"MCP SDK 64 B": call}, {}
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)


async def _wait_for(future: "asyncio.Future[ClientSession]") -> "ClientSession":
    return await future


CANDIDATES: Final = {"kmsplug": kmsplug, "grpc": grpc_peer, "mcp": mcp_peer}


def _cpu_s(pids: list[int]) -> Callable[[], float]:
    processes = [psutil.Process(pid) for pid in pids]
    return lambda: sum(times.user + times.system for times in (each.cpu_times() for each in processes))


def main() -> None:
    """Serve rounds until stdin ends."""
    name, folder = sys.argv[1:]
    with CANDIDATES[name](folder) as (calls, facts):
        pid = facts.pop("pid", None)
        cpu_s = _cpu_s([os.getpid(), *([] if pid is None else [pid])])
        print(json.dumps({**facts, "calls": list(calls)}), flush=True)
        for line in sys.stdin:
            wanted = json.loads(line)
            call, count = calls[wanted["call"]], wanted["count"]
            before = cpu_s()
            samples = latencies_us(call, count)
            found = {"samples_us": samples, "cpu_us": (cpu_s() - before) / count * 1e6}
            print(json.dumps({**found, "calls_s_16": calls_a_second(call, 4 * count)}), flush=True)


if __name__ == "__main__":
    main()
