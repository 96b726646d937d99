"""How long a cloud driver takes from nothing to its first answer, and what it occupies, beside its bare SDK.

Both start a process each time. The bare SDK is imported and a client of it made, and that is all; the driver
is started by a host, configured, and asked for something that its provider answers on this machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil
from kmsplug_host import Host, Keystore
from rich.console import Console
from rich.progress import track
from rich.table import Table

TESTS: Final = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from backends.aws import SECRET, settings  # noqa: E402 - the folder was added just now
from backends.azure_fake import azure_fake  # noqa: E402
from backends.servers import localstack  # noqa: E402
from support.azure import VAULT, led_to  # noqa: E402

RESULTS: Final = Path(__file__).parent / "results"
_PRINT: Final = "import psutil; print(psutil.Process().memory_info().rss)"
BARE: Final = {
    "aws": "import boto3; boto3.Session('a', 'b', region_name='eu-west-1').client('kms')",
    "azure": (
        "from azure.identity import ClientSecretCredential; from azure.keyvault.keys import KeyClient; "
        "KeyClient('https://a.vault.azure.net', ClientSecretCredential('a', 'b', 'c'))"
    ),
}


@dataclass(frozen=True)
class Start:
    """One start.

    Attributes:
        ms: Until the first answer, or until the SDK's client was made.
        rss_mb: What the process then occupied.
    """

    ms: float
    rss_mb: float


def bare(program: str) -> Start:
    """Start a process that makes a client of an SDK."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", f"{program}; print(flush=True); {_PRINT}"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ms = (time.perf_counter() - began) * 1000
        return Start(ms, int(process.stdout.readline()) / 1e6)


def driven(driver: str, config: dict[str, Any], ask: Callable[[Keystore], object]) -> Start:
    """Open a host with the driver, and ask once."""
    document = {
        "plugins": {"one": {"driver": driver, "config": config}},
        "keystores": {"main": {"plugin": "one"}},
    }
    began = time.perf_counter()
    with Host.open(document) as host:
        ask(host.keystore("main"))
        ms = (time.perf_counter() - began) * 1000
        return Start(ms, psutil.Process(host.plugins()[0].replicas[0].pid).memory_info().rss / 1e6)


@contextmanager
def starts() -> Iterator[dict[str, Callable[[], Start]]]:
    """Yield what is to be measured, with the servers that it takes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        localstack() as url,
        azure_fake(Path(folder)) as fake,
        led_to(fake, KMSPLUG_BENCH_AWS=SECRET, KMSPLUG_BENCH_AZURE=VAULT["login"]["client_secret"]),
    ):
        aws, azure = settings(url), dict(VAULT)
        aws["login"] = {**aws["login"], "secret_access_key": {"env": "KMSPLUG_BENCH_AWS"}}
        azure["login"] = {**azure["login"], "client_secret": {"env": "KMSPLUG_BENCH_AZURE"}}
        yield {
            "boto3": lambda: bare(BARE["aws"]),
            "driver aws": lambda: driven("aws", aws, lambda keystore: keystore.random(32)),
            "azure SDKs": lambda: bare(BARE["azure"]),
            "driver azure": lambda: driven("azure", azure, lambda keystore: keystore.list_keys()),
        }


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    with starts() as calls:
        found: dict[str, list[Start]] = {name: [] for name in calls}
        for call in calls.values():
            call()  # the first one reads all from the disk
        for _ in track(range(asked.rounds), description="starts", console=Console(stderr=True)):
            for name, call in calls.items():
                found[name].append(call())
    table = Table(title="From nothing to the first answer, median of the rounds", title_justify="left")
    for column in ("", "ms", "MB resident"):
        table.add_column(column, justify="right" if column else "left")
    medians = {
        name: {part: statistics.median(getattr(one, part) for one in seen) for part in ("ms", "rss_mb")}
        for name, seen in found.items()
    }
    for name, row in medians.items():
        table.add_row(name, f"{row['ms']:.0f}", f"{row['rss_mb']:.0f}")
    Console(highlight=False).print(table)
    asked.out.mkdir(exist_ok=True)
    document = {"at": datetime.now(UTC).isoformat(), "rounds": asked.rounds, "medians": medians}
    (asked.out / "starts.json").write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
