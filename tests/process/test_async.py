"""The asynchronous host: the same operations under asyncio and trio; a cancelled task cancels its call."""

import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from kmsplug_host import Keystore
from kmsplug_host.aio import AsyncHost, AsyncKeystore
from kmsplug_host.errors import InvalidCiphertext, KeyNotFound, PluginUnavailable

ROOT = Path(__file__).resolve().parents[2]

# A driver that tells when a call has come in and whether it was cancelled, through two named pipes.
SLOW = """
import os, sys
from kmsplug_protocol import RandomParams, RandomResult
from kmsplug_sdk import Driver, current_call, provides, serve

class Slow(Driver):
    name, version = "slow", "0"

    @provides()
    def random(self, request: RandomParams) -> RandomResult:
        if request.length_bytes == 1:
            with open(os.environ["CAME"], "w") as came:
                came.write("x")
            cancelled = current_call().cancelled.wait(20)
            with open(os.environ["SAW"], "w") as saw:
                saw.write("cancelled" if cancelled else "not")
        return RandomResult(data=b"x" * request.length_bytes)

serve("__main__:Slow")
"""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def local(tmp_path: Path) -> dict[str, Any]:
    return {"plugins": {"local": {"driver": "local", "config": {"path": str(tmp_path / "store")}}}}


@pytest.mark.anyio
async def test_the_main_job_works_awaited(local: dict[str, Any]) -> None:
    async with await AsyncHost.open(local) as host:
        keystore = host.keystore("local")
        key = await keystore.create_key("AES_256_GCM", name="app")
        sealed = await keystore.encrypt(key.key_id, b"secret", context={"tenant": "acme"})
        await keystore.rotate_key(key.key_id)

        opened = await host.decrypt(sealed.ciphertext, context={"tenant": "acme"})

        assert opened.plaintext == b"secret"
        assert [found.key_id async for found in keystore.keys()] == [key.key_id]  # noqa: SIM118 - no mapping
        assert (await host.health("local", deep=True)).healthy
        with pytest.raises(InvalidCiphertext):
            await host.decrypt(sealed.ciphertext, context={"tenant": "mallory"})
        with pytest.raises(KeyNotFound):
            await keystore.get_key("key-" + "0" * 32)


@pytest.mark.anyio
async def test_many_tasks_each_get_their_own_answer(local: dict[str, Any]) -> None:
    async with await AsyncHost.open(local, most_at_once=8) as host:
        keystore = host.keystore("local")
        lengths: dict[int, int] = {}

        async def ask(length: int) -> None:
            lengths[length] = len(await keystore.random(length))

        async with anyio.create_task_group() as tasks:
            for length in range(1, 101):
                tasks.start_soon(ask, length)

        assert lengths == {length: length for length in range(1, 101)}


@pytest.fixture
def slow(tmp_path: Path) -> tuple[dict[str, Any], Path, Path]:
    came, saw = tmp_path / "came", tmp_path / "saw"
    os.mkfifo(came)
    os.mkfifo(saw)
    program = tmp_path / "slow.py"
    program.write_text(SLOW)
    settings = {
        "plugins": {
            "slow": {
                "command": [sys.executable, str(program)],
                "isolation": "process",
                "set_env": {"CAME": str(came), "SAW": str(saw)},
                "deadline_s": 30,
            }
        }
    }
    return settings, came, saw


@pytest.mark.anyio
async def test_cancelling_a_task_cancels_its_call_in_the_driver(
    slow: tuple[dict[str, Any], Path, Path],
) -> None:
    settings, came, saw = slow
    with anyio.fail_after(30):
        async with await AsyncHost.open(settings) as host:
            keystore = host.keystore("slow")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(keystore.random, 1)
                assert await anyio.Path(came).read_text() == "x"  # the call is in the driver
                tasks.cancel_scope.cancel()

            assert await anyio.Path(saw).read_text() == "cancelled"
            assert len(await keystore.random(5)) == 5


@pytest.mark.anyio
async def test_a_timeout_of_the_caller_frees_the_caller_at_once(
    slow: tuple[dict[str, Any], Path, Path],
) -> None:
    settings, came, saw = slow
    with anyio.fail_after(30):
        async with await AsyncHost.open(settings) as host:
            with anyio.move_on_after(0.2) as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anyio.Path(came).read_text)
                    await host.keystore("slow").random(1)

            assert scope.cancelled_caught
            assert await anyio.Path(saw).read_text() == "cancelled"


@pytest.mark.anyio
async def test_leaving_the_block_by_cancellation_still_ends_the_driver(local: dict[str, Any]) -> None:
    with anyio.CancelScope() as scope:
        async with await AsyncHost.open(local) as host:
            keystore = host.keystore("local")
            scope.cancel()
            await anyio.lowlevel.checkpoint()

    with pytest.raises(PluginUnavailable):
        await keystore.random(1)


def test_every_operation_of_a_keystore_has_its_asynchronous_form_with_the_same_signature() -> None:
    def shape(function: Any) -> list[tuple[str, Any, Any]]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    operations = [
        name
        for name, method in inspect.getmembers(Keystore, inspect.isfunction)
        if not name.startswith("_")
        and (timeout := inspect.signature(method).parameters.get("timeout")) is not None
        and timeout.kind is inspect.Parameter.KEYWORD_ONLY
    ]

    assert len(operations) > 40
    for name in operations:
        asynchronous = getattr(AsyncKeystore, name)
        assert shape(asynchronous) == shape(getattr(Keystore, name)), name
        assert inspect.iscoroutinefunction(asynchronous) or inspect.isasyncgenfunction(asynchronous), name


def test_the_generated_module_is_fresh() -> None:
    spec = importlib.util.spec_from_file_location("write_async", ROOT / "host" / "write_async.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert module.TARGET.read_text(encoding="utf-8") == module.formatted()


def test_without_anyio_the_import_names_the_extra() -> None:
    program = "import sys; sys.modules['anyio'] = None\nimport kmsplug_host.aio"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)

    assert b"kmsplug[async]" in done.stderr
