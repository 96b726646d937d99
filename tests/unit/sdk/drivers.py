"""Drivers for the tests of the SDK, in this process and as children of it. Some of them behave badly."""

import ctypes
import logging
import os
import resource
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import ClassVar, Literal

from kmsplug_protocol import (
    ConfigureResult,
    EncryptParams,
    EncryptResult,
    ErrorCode,
    GetRegionParams,
    GetRegionResult,
    HealthCheck,
    HealthDepth,
    Key,
    KeyParams,
    Mechanism,
    RandomParams,
    RandomResult,
)
from kmsplug_sdk import Driver, DriverError, NoConfig, _session, current_call, provides
from pydantic import BaseModel, Field

CANARY = "canary-8d1f02"

_log = logging.getLogger(__name__)


def encrypted(request: EncryptParams, ciphertext: bytes | None = None) -> EncryptResult:
    data = request.plaintext if ciphertext is None else ciphertext
    return EncryptResult(key_id=request.key_id, mechanism=Mechanism.AES_256_GCM, ciphertext=data)


class Echo(Driver[NoConfig]):
    """Well-behaved: `random` is answered by the reading thread, `encrypt` by the pool."""

    name = "echo"
    version = "1.2.3"
    max_concurrency = 2

    @provides(inline=True, max_input_bytes=65536)
    def random(self, request: RandomParams) -> RandomResult:
        return RandomResult(data=bytes(request.length_bytes))

    @provides(mechanism=Mechanism.AES_256_GCM, max_input_bytes=4096)
    def encrypt(self, request: EncryptParams) -> EncryptResult:
        return encrypted(request)


class Gated(Echo):
    """`encrypt` says that it has begun, and goes on when the gate is opened."""

    max_concurrency = 1
    begun: ClassVar[threading.Semaphore]
    gate: ClassVar[threading.Event]
    executed: ClassVar[list[str]]
    closed: ClassVar[list[str]]

    @provides()
    def encrypt(self, request: EncryptParams) -> EncryptResult:
        self.executed.append(request.key_id)
        self.begun.release()
        assert self.gate.wait(9)
        return encrypted(request)

    def close(self) -> None:
        self.closed.append(threading.current_thread().name)

    @classmethod
    def wait_begun(cls) -> None:
        assert cls.begun.acquire(timeout=9)


class SlowToOpen(Gated):
    """The same with `configure`."""

    def configure(self, config: NoConfig, *, dry_run: bool) -> ConfigureResult:
        self.begun.release()
        assert self.gate.wait(9)
        return super().configure(config, dry_run=dry_run)


class Tricks(Echo):
    """For child processes: the id of the key says what `encrypt` does."""

    def __init__(self) -> None:
        self.released = threading.Event()

    @provides(max_input_bytes=4096)
    def encrypt(self, request: EncryptParams) -> EncryptResult:
        trick = getattr(self, f"_{request.key_id}")
        return encrypted(request, (trick() or "").encode())

    @provides(inline=True)
    def get_key_region(self, request: GetRegionParams) -> GetRegionResult:
        self.released.set()
        return GetRegionResult(region=request.key_id)

    @provides()
    def get_key(self, request: KeyParams) -> Key:
        raise ValueError(f"{CANARY} {request.key_id}")

    def close(self) -> None:
        _log.info("closed")

    def _print(self) -> None:
        print('{"jsonrpc":"2.0","id":1,"result":{}}')
        print("printed by a handler", flush=True)
        sys.stdout.buffer.write(b"written by a handler\n")
        os.write(1, b"written by a library\n")
        subprocess.run(["/bin/echo", "written by a child"], check=True, timeout=10)

    def _stdin(self) -> str:
        child = subprocess.run(["/bin/cat"], check=True, capture_output=True, timeout=10)
        return repr((sys.stdin.read(), os.read(0, 10), child.stdout))

    def _descriptors(self) -> str:
        program = "import os; print(*(fd for fd in range(3, 64) if os.path.exists(f'/proc/self/fd/{fd}')))"
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program],
            check=True,
            capture_output=True,
            timeout=10,
            text=True,
        )
        return child.stdout.strip()

    def _dumps(self) -> str:
        dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) if sys.platform == "linux" else 0
        return f"{dumpable} {resource.getrlimit(resource.RLIMIT_CORE)}"

    def _flood(self) -> None:
        for _ in range(1024):
            os.write(2, b"x" * 1023 + b"\n")

    def _log(self) -> None:
        _log.info("two\nlines and \u2028 a %s", "third\r\n{}")
        _log.error("lone surrogate \ud800, é, 鍵")
        _log.info("%d %s", CANARY)  # one argument is missing, the other of the wrong type
        _log.debug("not shown")
        _log.warning("x" * 10_000)
        warnings.warn("a\nwarning", stacklevel=1)

    def _wait(self) -> None:
        _log.info("waiting")
        if not self.released.wait(20):
            raise DriverError(ErrorCode.TIMEOUT, "nobody released the request")

    def _hang(self) -> None:
        _log.info("waiting")
        self.released.wait(60)

    def _patient(self) -> str:
        _log.info("waiting")
        return "cancelled" if current_call().cancelled.wait(20) else "not cancelled"

    def _thread(self) -> None:
        def fail() -> None:
            raise ValueError(CANARY)

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join(10)

    def _garbage(self) -> None:
        class Bad:
            def __del__(self) -> None:
                raise ValueError(CANARY)

        Bad()

    def _exit(self) -> None:
        sys.exit(3)

    def _fail(self) -> None:
        raise ValueError(CANARY)


class Impatient(Tricks):
    """Gives what is in progress little time once the host has gone."""

    def configure(self, config: NoConfig, *, dry_run: bool) -> ConfigureResult:
        _session._END_GRACE_S = 0.2  # type: ignore[misc]
        return super().configure(config, dry_run=dry_run)


class ClosesBadly(Echo):
    def close(self) -> None:
        raise ValueError(CANARY)


class FailsToStart(Echo):
    def __init__(self) -> None:
        raise ValueError(CANARY)


class Login(BaseModel):
    role: str
    pin: str = Field(json_schema_extra={"writeOnly": True})


class CheckedConfig(BaseModel):
    mode: Literal["well", "ill", "refuse", "fail", "exit", "fail in health", "fail in close"]
    login: Login | None = None


class Checked(Driver[CheckedConfig]):
    """Its settings say how well it is."""

    name = "checked"
    version = "1"
    Config = CheckedConfig

    def configure(self, config: CheckedConfig, *, dry_run: bool) -> ConfigureResult:
        print("printed by configure")
        os.write(1, b"written by configure\n")
        self.mode = config.mode
        if config.mode == "refuse":
            raise DriverError(
                ErrorCode.AUTHENTICATION_FAILED, "the login was refused", hint="ask for a new PIN"
            )
        if config.mode == "fail":
            raise ValueError(CANARY)
        if config.mode == "exit":
            sys.exit(7)
        return ConfigureResult(identity="checked:1")

    def health(self, depth: HealthDepth) -> Sequence[HealthCheck]:
        if self.mode == "fail in health":
            raise ValueError(CANARY)
        return [
            HealthCheck(name=f"{depth} round trip", healthy=self.mode != "ill", detail=None),
            HealthCheck(name="clock", healthy=True),
        ]

    def close(self) -> None:
        os.write(2, b"closed\n")
        if self.mode == "fail in close":
            raise ValueError(CANARY)


not_a_driver = Echo()
