"""What a call through the host costs, beside Python gRPC and the MCP SDK doing the same: ``make bench``.

Rounds alternate between the candidates in one run, because machines drift; the median of the rounds is
printed and written to benchmarks/results/. Compare ratios, not microseconds.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pair
import psutil
from kmsplug_host import Host
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from measure import PARTS, Call, calls_a_second, latencies_us, summary
from plot import draw, percentiles
from rich.console import Console
from rich.progress import track
from rich.table import Table

HERE = Path(__file__).parent
PEERS = HERE / "peers"
RESULTS = HERE / "results"


@contextlib.contextmanager
def kmsplug(folder: str) -> Iterator[tuple[dict[str, Call], dict[str, Any]]]:
    """Yield the host's calls, and facts about it."""
    settings = {
        "plugins": {"local": {"driver": "local", "config": {"path": f"{folder}/store"}}},
        "keystores": {"main": {"plugin": "local", "allow_raw": True}},
    }
    began = time.perf_counter()
    with Host.open(settings) as host:
        keystore = host.keystore("main")
        key = keystore.create_key("AES_256_GCM").key_id
        cold_ms = (time.perf_counter() - began) * 1000
        pid = host.plugins()[0].replicas[0].pid
        facts = {
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
def grpc_peer(folder: str) -> Iterator[dict[str, Call]]:
    """Yield calls of a Python gRPC server on a unix socket."""
    address = f"{folder}/grpc.sock"
    command = [sys.executable, str(PEERS / "grpc_peer.py"), address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        with grpc.insecure_channel(f"unix:{address}") as channel:
            encrypt = channel.unary_unary("/bench.Crypto/Encrypt")
            yield {"Python gRPC 64 B": lambda: encrypt(bytes(64), timeout=10)}
        process.stdin.close()


@contextlib.contextmanager
def mcp_peer() -> Iterator[dict[str, Call]]:
    """Yield calls of an MCP tool over stdio; its client is asynchronous, so a loop runs on a thread."""
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
        yield {"MCP SDK 64 B": call}
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)


async def _wait_for(future: "asyncio.Future[ClientSession]") -> ClientSession:
    return await future


def import_facts() -> dict[str, Any]:
    """Return how long ``import kmsplug_host`` takes, as the median of 5, and how many modules it loads."""
    program = (
        "import time, sys; t = time.perf_counter(); before = set(sys.modules); import kmsplug_host; "
        "print((time.perf_counter() - t) * 1000, len(set(sys.modules) - before))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(5)
    ]
    return {
        "import_ms": statistics.median(float(run[0]) for run in runs),
        "import_modules": int(runs[0][1]),
    }


def measure(rounds: int, count: int) -> dict[str, Any]:
    """Run all candidates in turn, *rounds* times."""
    with (
        tempfile.TemporaryDirectory() as folder,
        kmsplug(folder) as (ours, facts),
        grpc_peer(folder) as theirs,
        mcp_peer() as mcp,
    ):
        calls = {**ours, **theirs, **mcp}
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
        distribution: dict[str, list[float]] = {name: [] for name in calls}
        for _ in track(range(rounds), description="rounds", console=Console(stderr=True)):
            for name, call in calls.items():
                samples = latencies_us(call, count)
                distribution[name] += samples
                seen[name].append({**summary(samples), "calls_s_16": calls_a_second(call, 4 * count)})
    medians = {
        name: {metric: statistics.median(found[metric] for found in samples) for metric in samples[0]}
        for name, samples in seen.items()
    }
    base = medians["crypto.encrypt 64 B"]
    ratios = {
        f"{name}: {metric}": medians[name][metric] / base[metric]
        if metric == "p50"
        else base[metric] / medians[name][metric]
        for name in ("Python gRPC 64 B", "MCP SDK 64 B")
        for metric in ("p50", "calls_s_16")
    }
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()} {platform.python_implementation()} {platform.python_version()}",
        "rounds": rounds,
        "calls_a_round": count,
        "facts": {**facts, **import_facts()},
        "microseconds": medians,
        "times_better_than": ratios,
        "percentiles_us": {name: percentiles(samples) for name, samples in distribution.items()},
        "rounds_seen": seen,
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console(highlight=False)
    table = Table(
        title="One caller (us), and 16 callers (calls/s): median of the rounds", title_justify="left"
    )
    for column in ("call", "p50", "p99", "p99.9", "calls/s", "16 callers"):
        table.add_column(column, justify="left" if column == "call" else "right")
    for name, row in result["microseconds"].items():
        table.add_row(name, *(f"{row[key]:,.0f}" for key in (*PARTS, "calls_s", "calls_s_16")))
    console.print(table)
    for name, ratio in result["times_better_than"].items():
        console.print(f"  {ratio:5.1f} times better than {name}")
    for name, value in result["facts"].items():
        console.print(f"  {name}: {value:,.0f}")


def main() -> None:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=2000, help="calls of each candidate in a round")
    parser.add_argument("--pair", metavar="REF", help="instead: this tree against another commit")
    arguments = parser.parse_args()
    if arguments.pair is not None:
        name, result = "pair", pair.measure(arguments.pair, arguments.rounds, arguments.count)
        pair.show(result)
    else:
        name, result = "bench", measure(arguments.rounds, arguments.count)
        show(result)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path.relative_to(HERE.parent)}")
    if arguments.pair is None:
        picture = path.with_suffix(".png")
        draw(result["percentiles_us"], picture)
        print(f"written: {picture.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
