"""What an envelope costs, beside the AWS Encryption SDK, Tink and OpenSSL itself: ``make bench``.

All of them work in one process, in turn, on random data: ours and the AWS Encryption SDK with a kept data key
(its caching materials manager, a suite with key commitment and without signature, frames as long as it makes
them by itself), Tink's envelope AEAD with a data key for each message, which is all that it offers, wrapped
in memory. OpenSSL is ``openssl speed`` on chunks of 16 KiB, one core. The stream goes from memory to nowhere,
because a disk would be what is measured. Medians of the rounds; compare ratios, not microseconds.
"""

import argparse
import contextlib
import io
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aws_encryption_sdk
import tink
from aws_encryption_sdk.identifiers import Algorithm, CommitmentPolicy, EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider
from kmsplug_host import Host
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tink import aead

CONTEXT: Final = {"tenant": "acme", "purpose": "benchmark"}
SIZES: Final = {"64 B": 64, "1 KiB": 1024, "64 KiB": 65_536, "1 MiB": 2**20, "16 MiB": 2**24}
STREAM: Final = 2**30
RESULTS: Final = Path(__file__).parent / "results"
_ROUND_S: Final = 0.25  # of one candidate at one size
_BLOCK: Final = 2**20

Candidate = tuple[Callable[[bytes], bytes], Callable[[bytes], object]]
Stream = Callable[[io.RawIOBase, io.RawIOBase], object]


class Random(io.RawIOBase):
    """A source of so many bytes, the same random ones again and again."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._left = length
        self._block = os.urandom(_BLOCK)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer."""
        count = min(len(buffer), self._left, _BLOCK)
        buffer[:count] = self._block[:count]
        self._left -= count
        return count


class Nowhere(io.RawIOBase):
    """A sink that keeps nothing."""

    def write(self, data: Any, /) -> int:
        """Take everything."""
        return len(data)


@contextlib.contextmanager
def ours(folder: str) -> Iterator[tuple[Candidate, Stream]]:
    """Yield how to encrypt, decrypt, and encrypt a file."""
    settings = {
        "plugins": {"local": {"driver": "local", "config": {"path": f"{folder}/store"}}},
        "keystores": {"main": {"plugin": "local", "data_key_cache": {"decrypt": True}}},
    }
    with Host.open(settings) as host:
        keystore = host.keystore("main")
        key = keystore.create_key("AES_256_GCM").key_id

        def stream(source: io.RawIOBase, sink: io.RawIOBase) -> None:
            keystore.encrypt_stream(key, source, sink, context=CONTEXT)

        yield (
            (
                lambda data: keystore.encrypt(key, data, context=CONTEXT).ciphertext,
                lambda data: keystore.decrypt(data, context=CONTEXT).plaintext,
            ),
            stream,
        )


class _KeyProvider(RawMasterKeyProvider):  # type: ignore[misc]
    """One wrapping key in memory."""

    provider_id = "benchmark"

    def _get_raw_key(self, key_id: Any) -> WrappingKey:
        del key_id
        return WrappingKey(
            wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
            wrapping_key=bytes(range(32)),
            wrapping_key_type=EncryptionKeyType.SYMMETRIC,
        )


def aws() -> tuple[Candidate, Stream]:
    """Return the same of the AWS Encryption SDK."""
    client = aws_encryption_sdk.EncryptionSDKClient(
        commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
    )
    provider = _KeyProvider()
    provider.add_master_key("key")
    materials = aws_encryption_sdk.CachingCryptoMaterialsManager(
        master_key_provider=provider,
        cache=aws_encryption_sdk.LocalCryptoMaterialsCache(100),
        max_age=300.0,
        max_messages_encrypted=2**32,
    )
    arguments = {
        "materials_manager": materials,
        "encryption_context": CONTEXT,
        "algorithm": Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    }

    def stream(source: io.RawIOBase, sink: io.RawIOBase) -> None:
        sealing = client.stream(mode="e", source=source, source_length=STREAM, **arguments)
        while block := sealing.read(_BLOCK):
            sink.write(block)

    return (
        (
            lambda data: client.encrypt(source=data, **arguments)[0],
            lambda data: client.decrypt(source=data, materials_manager=materials)[0],
        ),
        stream,
    )


def tink_envelope() -> Candidate:
    """Return the same of Tink, which has no envelope for streams."""
    aead.register()
    template = aead.aead_key_templates.AES256_GCM
    remote = tink.new_keyset_handle(template).primitive(aead.Aead)
    envelope = aead.KmsEnvelopeAead(template, remote)
    return (lambda data: envelope.encrypt(data, b"context"), lambda data: envelope.decrypt(data, b"context"))


def openssl_gb_s() -> float:
    """Return the rate of AES-256-GCM on chunks of 16 KiB on one core, in GB/s."""
    command = ["openssl", "speed", "-seconds", "1", "-bytes", "16384", "-evp", "aes-256-gcm"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"^AES-256-GCM\s+([\d.]+)k$", done.stdout, re.MULTILINE | re.IGNORECASE)
    assert found, done.stdout
    return float(found[1]) / 1e6


def seconds(call: Callable[[bytes], object], data: bytes) -> float:
    """Return how long one call takes, over a quarter of a second of calls."""
    call(data)
    count, began = 0, time.perf_counter()
    while (now := time.perf_counter()) - began < _ROUND_S or count < 3:  # noqa: PLR2004
        call(data)
        count += 1
    return (now - began) / count


def measure(rounds: int) -> dict[str, Any]:
    """Run all candidates in turn, *rounds* times."""
    with tempfile.TemporaryDirectory() as folder, ours(folder) as (our_calls, our_stream):
        aws_calls, aws_stream = aws()
        calls = {"kmsplug": our_calls, "AWS Encryption SDK": aws_calls, "Tink envelope": tink_envelope()}
        seen: dict[str, dict[str, list[float]]] = {}
        openssl = []
        for _ in track(range(rounds), description="rounds", console=Console(stderr=True)):
            openssl.append(openssl_gb_s())
            for size, length in SIZES.items():
                plaintext = os.urandom(length)
                for name, (encrypt, decrypt) in calls.items():
                    ciphertext = encrypt(plaintext)
                    for verb, call, data in (
                        ("encrypt", encrypt, plaintext),
                        ("decrypt", decrypt, ciphertext),
                    ):
                        row = seen.setdefault(f"{verb} {size}", {})
                        row.setdefault(name, []).append(seconds(call, data))
        row = seen.setdefault("encrypt 1 GiB as a stream", {})
        for name, stream in {"kmsplug": our_stream, "AWS Encryption SDK": aws_stream}.items():
            began = time.perf_counter()
            stream(Random(STREAM), Nowhere())
            row[name] = [time.perf_counter() - began]
    medians = {
        what: {name: statistics.median(times) for name, times in row.items()} for what, row in seen.items()
    }
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": rounds,
        "openssl_gb_s": statistics.median(openssl),
        "microseconds": {
            what: {name: value * 1e6 for name, value in row.items()} for what, row in medians.items()
        },
        "rounds_seen": seen,
        "goals": goals(medians, statistics.median(openssl)),
    }


def goals(medians: dict[str, dict[str, float]], openssl: float) -> dict[str, float]:
    """Return the figures that are held against a goal, see `show`."""
    small, bulk = medians["encrypt 64 B"], medians["encrypt 16 MiB"]
    opened = medians["decrypt 16 MiB"]
    rate = SIZES["16 MiB"] / bulk["kmsplug"] / 1e9
    return {
        "encrypt 64 B, us (goal: < 20)": small["kmsplug"] * 1e6,
        "times faster than the AWS Encryption SDK at 64 B (goal: >= 4)": small["AWS Encryption SDK"]
        / small["kmsplug"],
        "encrypt 16 MiB, of OpenSSL's rate (goal: >= 0.8)": rate / openssl,
        "decrypt 16 MiB, of OpenSSL's rate": SIZES["16 MiB"] / opened["kmsplug"] / 1e9 / openssl,
        "times faster than the AWS Encryption SDK at 16 MiB (goal: >= 10)": bulk["AWS Encryption SDK"]
        / bulk["kmsplug"],
    }


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    console = Console(highlight=False)
    names = ["kmsplug", "AWS Encryption SDK", "Tink envelope"]
    table = Table(title="Envelopes: microseconds a message (GB/s)", title_justify="left")
    table.add_column("what")
    for name in names:
        table.add_column(name, justify="right")
    for what, row in result["microseconds"].items():
        length = SIZES.get(what.partition(" ")[2])
        cells = [_cell(row.get(name), length or STREAM) for name in names]
        table.add_row(what, *cells)
    console.print(table)
    console.print(f"  openssl speed, AES-256-GCM at 16 KiB: {result['openssl_gb_s']:.2f} GB/s")
    for name, value in result["goals"].items():
        console.print(f"  {value:6.2f}  {name}")


def _cell(value: float | None, length: int) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f} ({length / value / 1e3:.2f})"


def main() -> None:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    result = measure(parser.parse_args().rounds)
    show(result)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"envelope-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path.relative_to(RESULTS.parents[1])}")


if __name__ == "__main__":
    main()
