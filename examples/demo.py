"""The main job on real input, in under a minute: ``make demo``.

A file is encrypted through an isolated driver process, the key is rotated, the old file still opens, and
the application is unharmed when the driver is killed.
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from kmsplug_host import Host, Keystore
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
BIG_BYTES = 64 * 1024 * 1024
CONTEXT = {"tenant": "acme", "purpose": "demo"}

console = Console(highlight=False)


def main() -> None:
    """Walk the whole way."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kmsplug-demo-") as folder:
        step("Start the host: one driver process, behind pipes, with its own environment")
        with Host.open(ROOT / "plugins.toml") as host:
            walk(host, Path(folder))
        done("the host stopped its driver; nothing is left behind")
    console.print(f"\n[bold green]All of it worked[/], in {time.monotonic() - began:.1f} s.")
    console.print("Next: README.md to embed it, protocol/SPEC.md to write a driver.")


def walk(host: Host, folder: Path) -> None:
    """Encrypt, rotate, decrypt, kill, go on."""
    plugin = host.plugins()[0]
    done(f"{plugin.driver} is {plugin.state}, process {plugin.replicas[0].pid}, keystore {plugin.identity}")
    keystore = host.keystore("local")

    step("Create a key")
    key = keystore.create_key("AES_256_GCM", name="demo")
    done(f"{key.key_id}, version {key.key_version}, {key.state}, material in {key.protection}")

    step("Encrypt README.md and a generated 64 MiB file; the context is authenticated, not stored")
    big = folder / "big.bin"
    with big.open("wb") as file:
        for _ in range(BIG_BYTES // (1024 * 1024)):
            file.write(os.urandom(1024 * 1024))
    sources = [ROOT / "README.md", big]
    for source in sources:
        encrypt(keystore, key.key_id, source, folder / f"{source.name}.sealed")

    step("Rotate the key; what the old version encrypted still opens")
    rotated = keystore.rotate_key(key.key_id)
    done(f"version {rotated.key_version} encrypts now, version {key.key_version} only decrypts")
    for source in sources:
        decrypt(host, folder / f"{source.name}.sealed", folder / f"{source.name}.opened")
        same = source.read_bytes() == (folder / f"{source.name}.opened").read_bytes()
        if not same:
            sys.exit(f"{source.name} came back changed")
        done(f"{source.name} came back byte for byte")

    step("What this keystore does by itself")
    show_capabilities(keystore)

    step("Kill the driver with SIGKILL while calls are under way")
    survive(host, keystore)


def encrypt(keystore: Keystore, key_id: str, source: Path, target: Path) -> None:
    """Encrypt a file and say how fast."""
    began = time.monotonic()
    with source.open("rb") as plain, target.open("wb") as sealed:
        facts = keystore.encrypt_stream(key_id, plain, sealed, context=CONTEXT)
    size, seconds = source.stat().st_size, time.monotonic() - began
    done(
        f"{source.name}: {size:,} bytes in {seconds * 1000:.0f} ms ({size / seconds / 1e6:,.0f} MB/s), "
        f"key version {facts.key_version}, by {facts.executed_by}"
    )


def decrypt(host: Host, source: Path, target: Path) -> None:
    """Decrypt a file; it names its keystore and key itself."""
    with source.open("rb") as sealed, target.open("wb") as plain:
        host.decrypt_stream(sealed, plain, context=CONTEXT)


def show_capabilities(keystore: Keystore) -> None:
    """Print what the driver promises, by operation."""
    offered: dict[str, list[str]] = {}
    for row in keystore.capabilities:
        what = row.mechanism or row.key_algorithm
        offered.setdefault(row.operation, []).extend([str(what)] if what else [])
    table = Table(header_style="bold")
    table.add_column("operation")
    table.add_column("for")
    for operation, kinds in offered.items():
        table.add_row(operation, ", ".join(dict.fromkeys(kinds)) or "-")
    console.print(table)


def survive(host: Host, keystore: Keystore) -> None:
    """Kill the driver process in the middle of a series of calls; every call gets its answer."""
    victim = host.plugins()[0].replicas[0].pid
    assert victim is not None
    slowest = 0.0
    for index in track(range(200), description="  200 calls", console=console, transient=True):
        if index == 100:  # noqa: PLR2004 - half way
            os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        keystore.random(32)
        slowest = max(slowest, time.monotonic() - began)
    plugin = host.plugins()[0]
    done(f"process {victim} was killed at call 100; 200 of 200 calls were answered")
    done(f"process {plugin.replicas[0].pid} took over, the slowest call waited {slowest * 1000:.0f} ms")


def step(text: str) -> None:
    """Announce what comes."""
    console.print(f"\n[bold]{text}[/]", soft_wrap=True)


def done(text: str) -> None:
    """Tell what came of it."""
    console.print(f"  [green]ok[/] {text}", soft_wrap=True, markup=True)


if __name__ == "__main__":
    main()
