"""What a PKCS#11 module does to its process costs a plugin, for a moment, and nobody else anything."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import Host, Keystore
from kmsplug_host.errors import KeystoreError, PluginCrashed, PluginError, ProviderUnavailable
from kmsplug_protocol import ErrorCode
from support.host import LONG_S, nothing_left, wait_until
from support.tokens import Faults, softhsm
from support.zoo import SOAK

CALLERS = 16
ROUNDS = 20_000 if SOAK else 1_000
LOAD_S = 60.0 if SOAK else 1.5
THREADS = 6


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(softhsm(tmp_path), tmp_path)


@contextmanager
def opened(
    faults: Faults, folder: Path, *, keystore: dict[str, Any] | None = None, **plugin: Any
) -> Iterator[Host]:
    """Open a host with the token, and with a software keystore that has nothing to do with it."""
    other = {"driver": "local", "isolation": "process", "config": {"path": str(folder / "store")}}
    configuration = {
        "plugins": {"hsm": faults.tokens.plugin(folder, **plugin), "other": other},
        "keystores": {
            "main": {"plugin": "hsm", "allow_raw": True, **(keystore or {})},
            "other": {"plugin": "other", "allow_raw": True},
        },
    }
    with nothing_left(), Host.open(configuration) as host:
        yield host


def at_once(callers: int, call: Callable[[], object]) -> None:
    """Make a call by so many threads at once, and raise what the first one raised."""
    with ThreadPoolExecutor(callers) as pool:
        for ended in [pool.submit(call) for _ in range(callers)]:
            ended.result()


def round_trip(keystore: Keystore, key_id: str) -> None:
    sealed = keystore.encrypt(key_id, b"data", format="raw", timeout=10).ciphertext
    assert keystore.decrypt(sealed, key_id=key_id, format="raw", timeout=10).plaintext == b"data"


def test_a_segfault_every_500_calls_of_c_encrypt_costs_no_call_of_this_plugin_or_of_another(
    faults: Faults, tmp_path: Path
) -> None:
    patient = {"retry": {"max_reconnects": 8}}
    with opened(faults, tmp_path, processes=2, max_crashes=1_000_000, keystore=patient) as host:
        main, other = host.keystore("main"), host.keystore("other")
        key, its = main.create_key("AES_256_GCM").key_id, other.create_key("AES_256_GCM").key_id
        faults.tell("C_Encrypt segv every 500")
        left, lock, ended = iter(range(ROUNDS)), threading.Lock(), threading.Event()

        def caller() -> None:
            while True:
                with lock:
                    if next(left, None) is None:
                        return
                round_trip(main, key)

        def bystander() -> int:
            served = 0
            while not ended.is_set():
                round_trip(other, its)
                served += 1
            return served

        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(bystander)
            try:
                at_once(CALLERS, caller)
            finally:
                ended.set()
            served = watching.result()
        crashed = main.resilience.stats().failures[ErrorCode.PLUGIN_CRASHED]
        innocent = other.resilience.stats().failures

    assert crashed > 0
    assert served > 0
    assert sum(innocent.values()) == 0


@pytest.mark.parametrize("fault", ["segv", "abort", "exit"])
def test_a_module_that_ends_its_process_is_named_and_the_next_call_works(
    faults: Faults, tmp_path: Path, fault: str
) -> None:
    with opened(faults, tmp_path, keystore={"retry": {"max_attempts": 1}}) as host:
        main = host.keystore("main")
        key = main.create_key("AES_256_GCM").key_id
        faults.tell(f"C_Encrypt {fault} first 1")

        with pytest.raises(PluginCrashed):
            main.encrypt(key, b"data", format="raw")
        faults.tell()

        round_trip(main, key)


@pytest.mark.parametrize("fault", ["hang", "busy"])
def test_a_module_that_never_returns_costs_one_call_its_deadline(
    faults: Faults, tmp_path: Path, fault: str
) -> None:
    with opened(
        faults, tmp_path, overdue_s=0.2, grace_s=0.5, keystore={"retry": {"max_attempts": 1}}
    ) as host:
        main, other = host.keystore("main"), host.keystore("other")
        key, its = main.create_key("AES_256_GCM").key_id, other.create_key("AES_256_GCM").key_id
        faults.tell(f"C_Encrypt {fault} always")

        began = time.monotonic()
        with pytest.raises((KeystoreError, PluginError)):
            main.encrypt(key, b"data", format="raw", timeout=1)
        assert time.monotonic() - began < LONG_S / 2
        faults.tell()

        round_trip(other, its)
        # The one that hangs still holds one of eight threads, if it has not been replaced.
        round_trip(main, key)


def load(main: Keystore, keys: dict[str, str], seconds: float) -> int:
    """Use all kinds of key by six threads for a while; return how many calls were made."""
    end = time.monotonic() + seconds
    made = 0
    lock = threading.Lock()

    def caller() -> None:
        nonlocal made
        calls = 0
        while time.monotonic() < end:
            round_trip(main, keys["AES_256_GCM"])
            signature = main.sign(keys["EC_P256"], b"message").signature
            assert main.verify(keys["EC_P256"], b"message", signature).valid
            code = main.mac(keys["HMAC_SHA_256"], b"message").mac
            assert main.verify_mac(keys["HMAC_SHA_256"], b"message", code).valid
            calls += 6
        with lock:
            made += calls

    at_once(THREADS, caller)
    return made


def test_six_threads_lose_no_session_and_crash_nothing_before_and_after_the_token_was_out(
    faults: Faults, tmp_path: Path
) -> None:
    with opened(faults, tmp_path) as host:
        main = host.keystore("main")
        keys = {name: main.create_key(name).key_id for name in ("AES_256_GCM", "EC_P256", "HMAC_SHA_256")}
        (plugin,) = (each for each in host.plugins() if each.name == "hsm")
        pid = plugin.replicas[0].pid

        assert load(main, keys, LOAD_S) > 0
        assert sum(main.resilience.stats().failures.values()) == 0

        faults.tell("token removed")
        with pytest.raises(ProviderUnavailable):
            main.encrypt(keys["AES_256_GCM"], b"data", format="raw", timeout=1)
        faults.tell()
        wait_until(lambda: is_back(main, keys["AES_256_GCM"]), "the token to be found again")
        before = sum(main.resilience.stats().failures.values())

        assert load(main, keys, LOAD_S) > 0
        assert sum(main.resilience.stats().failures.values()) == before
        (plugin,) = (each for each in host.plugins() if each.name == "hsm")
        assert plugin.replicas[0].pid == pid
    assert faults.count("C_Login") == 2


def is_back(main: Keystore, key_id: str) -> bool:
    try:
        round_trip(main, key_id)
    except (KeystoreError, PluginError):
        return False
    return True


def test_a_wrong_pin_is_shown_once_by_all_processes_of_a_plugin(faults: Faults, tmp_path: Path) -> None:
    plugin = faults.tokens.plugin(tmp_path, processes=3, spares=1)
    (tmp_path / "pin").write_text("9999")

    with pytest.raises(KeystoreError) as caught, Host.open({"plugins": {"hsm": plugin}}) as host:
        host.keystore("hsm").random(8)

    assert caught.value.code is ErrorCode.AUTHENTICATION_FAILED
    assert "9999" not in str(caught.value)
    assert faults.count("C_Login") == 1
