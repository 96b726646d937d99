"""What the host adds to AWS KMS: boto3 called directly in process, beside the same call through the host.

LocalStack's KMS answers on this machine. A proxy in a process of its own makes every request 10 ms longer, a
cloud's distance; without it the server's own few milliseconds are left, and what is added shows in
microseconds. Rounds alternate, because machines drift; the median of the rounds is printed. Compare ratios.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config
from kmsplug_host import Host, Keystore
from measure import Call
from rich.console import Console
from rich.progress import track
from rich.table import Table

TESTS: Final = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from backends.aws import SECRET, STATIC, settings  # noqa: E402 - the folder was added just now
from backends.servers import localstack  # noqa: E402

RESULTS: Final = Path(__file__).parent / "results"
SECRET_VARIABLE: Final = "KMSPLUG_BENCH_SECRET"  # noqa: S105 - a name
LATENCY_MS: Final = 10.0
ROUNDS: Final = 10
GOAL_SHARE: Final = 0.08
GOAL_ADDED_US: Final = 700.0


@contextlib.contextmanager
def slowed(upstream: str) -> Iterator[str]:
    """Yield the URL of a proxy that makes every request longer."""
    command = [
        sys.executable,
        TESTS / "backends" / "fault_proxy.py",
        upstream,
        "--latency-ms",
        str(LATENCY_MS),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.stdin is not None
        process.stdin.close()


def direct(url: str) -> Any:
    """Return a boto3 client that tries once, and keeps its connections as the driver's does."""
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=2,
        read_timeout=10,
        max_pool_connections=16,
        tcp_keepalive=True,
    )
    session = boto3.Session(STATIC["access_key_id"], SECRET, region_name="eu-west-1")
    return session.client("kms", endpoint_url=url, config=config)


@contextlib.contextmanager
def through_host(url: str) -> Iterator[Keystore]:
    """Open the host on the same server."""
    config = settings(url)
    config["login"] = {**config["login"], "secret_access_key": {"env": SECRET_VARIABLE}}
    plugin = {"driver": "aws", "config": config}
    keystore = {"plugin": "aws", "allow_raw": True}
    with Host.open({"plugins": {"aws": plugin}, "keystores": {"main": keystore}}) as host:
        yield host.keystore("main")


def p50_us(call: Call, count: int) -> float:
    """Return the median of *count* calls, in microseconds."""
    samples = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        samples.append((time.perf_counter() - began) * 1e6)
    return statistics.median(samples)


def compare(url: str, count: int, rounds: int, title: str) -> dict[str, float]:
    """Time both in alternating rounds."""
    client = direct(url)
    key_id = client.create_key()["KeyMetadata"]["Arn"]
    with through_host(url) as keystore:
        calls: dict[str, Call] = {
            "direct": lambda: client.encrypt(KeyId=key_id, Plaintext=bytes(64)),
            "host": lambda: keystore.encrypt(key_id, bytes(64), format="raw"),
        }
        for call in calls.values():
            p50_us(call, 10)
        found: dict[str, list[float]] = {name: [] for name in calls}
        for number in track(range(rounds), description=title):
            for name in sorted(calls, reverse=bool(number % 2)):
                found[name].append(p50_us(calls[name], count))
    pairs = [*zip(found["direct"], found["host"], strict=True)]
    return {
        "direct_p50_us": statistics.median(found["direct"]),
        "host_p50_us": statistics.median(found["host"]),
        "added_us": statistics.median(host - alone for alone, host in pairs),
        "added_share": statistics.median(host / alone - 1 for alone, host in pairs),
    }


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="calls of a round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    os.environ[SECRET_VARIABLE] = SECRET
    with localstack() as url:
        with slowed(url) as far:
            distant = compare(far, asked.count, asked.rounds, f"{LATENCY_MS:.0f} ms away")
        near = compare(url, asked.count * 4, asked.rounds, "on this machine")
    table = Table(title="AWS KMS: Encrypt of 64 bytes, p50")
    for column in ("", "boto3 directly", "through the host", "added", "goal"):
        table.add_column(column, justify="right")
    for name, one, goal in (
        (f"{LATENCY_MS:.0f} ms away", distant, f"< {GOAL_SHARE:.0%}"),
        ("on this machine", near, f"< {GOAL_ADDED_US:.0f} us"),
    ):
        added = f"{one['added_us']:.0f} us ({one['added_share']:+.1%})"
        table.add_row(name, f"{one['direct_p50_us']:.0f} us", f"{one['host_p50_us']:.0f} us", added, goal)
    Console().print(table)
    asked.out.mkdir(exist_ok=True)
    document = {"at": datetime.now(UTC).isoformat(), "distant": distant, "near": near}
    (asked.out / "aws.json").write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
