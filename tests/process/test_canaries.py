"""No secret of a whole run stands in anything that came out of it, however it may be written."""

import base64
import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from kmsplug_host import Host, Keystore
from kmsplug_host.errors import KmsplugError, PluginCrashed
from support.canaries import found, writings
from support.cli import Cli
from support.host import DRIVERS, nothing_left, wait_until

PASSPHRASE = b"pass-phrase \xc3\xa4 /+$ canary"
PIN = "pin-canary/1234+"
PLAINTEXT = b"plaintext canary \x00\xff of this test"
CONTEXT = {"tenant": "acme"}


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Collect all that is logged, fields and traces included, on every level."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(f"{self.format(record)} {record.__dict__}")

    root, ear = logging.getLogger(), Ear()
    level = root.level
    root.addHandler(ear)
    root.setLevel(logging.DEBUG)
    try:
        yield heard
    finally:
        root.setLevel(level)
        root.removeHandler(ear)


def told(error: BaseException) -> str:
    """Return all that an application may print of an exception."""
    parts = ["".join(traceback.format_exception(error)), repr(error), str(error)]
    if isinstance(error, KmsplugError):
        parts.append(json.dumps(error.to_dict(), default=str))
    return "\n".join(parts)


# The search itself.


def in_base64(encode: Callable[[bytes], bytes], before: int) -> Callable[[bytes], bytes]:
    """Write a secret in base64 with so many bytes before it."""
    return lambda secret: encode(b"abcd"[:before] + secret + b"behind")


PLACES: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "hex": lambda secret: secret.hex().encode(),
    "HEX": lambda secret: secret.hex().upper().encode(),
    "url": lambda secret: quote(secret, safe="").encode(),
    "repr": lambda secret: repr([secret]).encode(),
    **{f"base64 + {before}": in_base64(base64.b64encode, before) for before in range(5)},
    **{f"base64url + {before}": in_base64(base64.urlsafe_b64encode, before) for before in range(5)},
}


@pytest.mark.parametrize("secret", [PASSPHRASE, PLAINTEXT, bytes(range(250, 256)) + b"~?>" * 9], ids=repr)
@pytest.mark.parametrize("place", PLACES)
def test_the_search_finds_a_planted_secret(place: str, secret: bytes) -> None:
    assert found({"planted": secret}, b"before " + PLACES[place](secret) + b" after")


def test_the_search_finds_nothing_where_nothing_is() -> None:
    assert (
        found({"a": PASSPHRASE, "b": PLAINTEXT}, b"pass-phrase plaintext canary " + bytes(range(256))) == []
    )


def test_the_search_looks_for_every_writing_whole() -> None:
    assert all(len(written) >= 8 for _, written in writings(b"12345678"))


# The interface for programs.


def use_everything(keystore: Keystore, host: Host, canaries: dict[str, bytes]) -> Iterator[object]:
    """Use every kind of operation with canaries; yield what came that is no payload."""
    aes = imported(keystore, "AES_256_GCM", canaries["imported AES key"])
    hmac = imported(keystore, "HMAC_SHA_256", canaries["imported HMAC key"])
    wrapper = keystore.create_key("AES_256_KW").key_id
    sealed = keystore.encrypt(aes, PLAINTEXT, context=CONTEXT)
    assert host.decrypt(sealed.ciphertext, context=CONTEXT).plaintext == PLAINTEXT
    raw = keystore.encrypt(aes, PLAINTEXT, format="raw").ciphertext
    canaries["data key"] = bytes(keystore.generate_data_key(aes).plaintext or b"")
    wrapped = keystore.wrap_key(wrapper, canaries["wrapped key"]).wrapped_key
    assert bytes(keystore.unwrap_key(wrapper, wrapped).key) == canaries["wrapped key"]
    agreeing = keystore.create_key("EC_P256", usage="KEY_AGREEMENT").key_id
    peer = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    canaries["shared secret"] = bytes(keystore.derive(agreeing, peer).shared_secret)
    kem = keystore.create_key("ML_KEM_768").key_id
    canaries["encapsulated secret"] = bytes(keystore.encapsulate(kem).shared_secret)
    canaries["random bytes"] = bytes(keystore.random(32))
    keystore.mac(hmac, PLAINTEXT)
    keystore.rotate_key(wrapper)
    yield from (keystore.get_key(aes), keystore.list_keys(), host.plugins(), host.health("local", deep=True))
    mistakes: list[Callable[[], object]] = [
        lambda: host.decrypt(sealed.ciphertext, context={"tenant": "evil"}),
        lambda: host.decrypt(sealed.ciphertext[:-1], context=CONTEXT),
        lambda: keystore.decrypt(raw[:-1], key_id=aes, format="raw"),
        lambda: keystore.unwrap_key(wrapper, canaries["wrapped key"]),
        lambda: keystore.wrap_key(hmac, canaries["wrapped key"]),
        lambda: keystore.encrypt("no such key", PLAINTEXT),
        lambda: keystore.encrypt(hmac, PLAINTEXT, format="raw"),
        lambda: keystore.encrypt(aes, PLAINTEXT * 10_000, format="raw"),
        lambda: keystore.encrypt(aes, PLAINTEXT.decode("latin-1"), format="raw"),  # type: ignore[call-overload]
        lambda: keystore.mac(aes, PLAINTEXT),
        lambda: keystore.mac(hmac, PLAINTEXT * 100_000),
        lambda: keystore.sign(aes, message=PLAINTEXT),
        lambda: keystore.import_key(aes, canaries["imported AES key"], canaries["imported HMAC key"]),
        lambda: keystore.derive(agreeing, PLAINTEXT),
        lambda: keystore.restore_key(PLAINTEXT),
        lambda: keystore.batch(
            [("crypto.encrypt", {"key_id": "x", "plaintext": base64.b64encode(PLAINTEXT)})]
        ),
        lambda: keystore.random(32, timeout=1e-9),
    ]
    for mistake in mistakes:
        with pytest.raises(KmsplugError) as caught:
            mistake()
        yield caught.value
    text = base64.b64encode(PLAINTEXT).decode()
    yield keystore.batch([("crypto.encrypt", {"key_id": "x", "plaintext": text}),
                          ("crypto.encrypt", {"key_id": aes, "plaintext": f"?{text}"})])  # fmt: skip


def imported(keystore: Keystore, algorithm: str, material: bytes) -> str:
    """Make a key of this material."""
    key_id = keystore.create_key(algorithm, origin="imported").key_id
    parameters = keystore.get_import_parameters(key_id)
    public = serialization.load_der_public_key(parameters.public_key)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    keystore.import_key(key_id, public.encrypt(material, oaep), parameters.import_token)  # type: ignore[union-attr]
    return key_id


def fresh() -> dict[str, bytes]:
    return {
        "passphrase": PASSPHRASE,
        "plaintext": PLAINTEXT,
        "imported AES key": b"\x9eAES key that was imported".ljust(32, b"\xa0"),
        "imported HMAC key": b"\x9eHMAC key that was imported".ljust(32, b"\xa0"),
        "wrapped key": b"\x9ekey that was wrapped".ljust(32, b"\xa0"),
    }


def passphrase_file(folder: Path) -> str:
    path = folder / "passphrase"
    path.touch(0o600)
    path.write_bytes(PASSPHRASE + b"\n")
    return str(path)


def test_a_whole_run_of_the_library_shows_no_secret(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    canaries, seen = fresh(), []
    config = {"path": str(tmp_path / "store"), "passphrase": {"file": passphrase_file(tmp_path)}}
    settings = {
        "plugins": {"local": {"driver": "local", "config": config, "deadline_s": 60.0}},
        "keystores": {"main": {"plugin": "local", "allow_raw": True, "accept_public_key_wrap": True}},
    }
    with listening() as heard, Host.open(settings) as host:
        for answer in use_everything(host.keystore("main"), host, canaries):
            seen += [told(answer) if isinstance(answer, BaseException) else repr(answer)]
        driver = psutil.Process(host.plugins()[0].replicas[0].pid)
        seen += driver.cmdline()
        driver.kill()
        with contextlib.suppress(KmsplugError):
            host.keystore("main").encrypt("no such key", PLAINTEXT)
    printed = capfd.readouterr()
    output = "\n".join([*seen, *heard, printed.out, printed.err]).encode("utf-8", "surrogateescape")

    assert found(canaries, output) == []
    assert found({"the search works here too": b"no such key"}, output)


def test_a_wrong_passphrase_is_refused_without_showing_it_or_the_right_one(tmp_path: Path) -> None:
    right = {"path": str(tmp_path / "store"), "passphrase": {"file": passphrase_file(tmp_path)}}
    Host.open({"plugins": {"local": {"driver": "local", "config": right}}}).close()
    (tmp_path / "passphrase").write_bytes(b"another canary of a passphrase")

    with listening() as heard, pytest.raises(KmsplugError) as caught:
        Host.open({"plugins": {"local": {"driver": "local", "config": right}}})
    output = "\n".join([told(caught.value), *heard]).encode()

    assert found({"right": PASSPHRASE, "wrong": b"another canary of a passphrase"}, output) == []
    assert caught.value.code == "AUTHENTICATION_FAILED"


def test_a_driver_that_tells_its_pin_everywhere_is_not_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIN_OF_THIS_TEST", PIN)
    command = [sys.executable, "-I", "-S", str(DRIVERS / "leaky_driver.py")]
    plugin = {
        "command": command,
        "isolation": "process",
        "config": {"pin": {"env": "PIN_OF_THIS_TEST"}},
        "deadline_s": 20.0,
    }
    seen: list[str] = []
    with listening() as heard, nothing_left(), Host.open({"plugins": {"leaky": plugin}}) as host:
        keystore = host.keystore("leaky")
        for length in (3, 4, 1):
            with pytest.raises(KmsplugError) as caught:
                keystore.random(length)
            seen.append(told(caught.value))
        assert isinstance(caught.value, PluginCrashed)
        assert caught.value.diagnosis is not None
        assert "last words [redacted]" in caught.value.diagnosis.stderr[-1]
        with pytest.raises(KmsplugError) as caught:
            keystore.get_key("k")
        seen += [told(caught.value), repr(keystore.batch([("crypto.random", {"length_bytes": 8})]))]
        seen += [repr(host.health("leaky", deep=True)), repr(host.plugins())]
        payload = keystore.random(64)
        for what in ("stray", "plain", "record", "warning"):
            wait_until(lambda what=what: any(f"{what} [redacted]" in line for line in heard), what)  # type: ignore[misc]
    output = "\n".join([*seen, *heard]).encode()

    assert found({"pin": PIN.encode()}, output) == []
    assert output.count(b"[redacted]") > 50
    assert bytes(payload).startswith(PIN.encode())  # which is the caller's business


# The command line.


def test_a_whole_run_of_the_command_shows_no_secret(tmp_path: Path) -> None:
    canaries = fresh()
    passphrase_file(tmp_path)
    cli = Cli.new(tmp_path, '[plugins.local]\ndriver = "local"\n[plugins.local.config]\npath = "store"\n'
                  '[plugins.local.config.passphrase]\nfile = "passphrase"\n')  # fmt: skip
    for name, content in (("plain", PLAINTEXT), ("aes.key", canaries["imported AES key"])):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(content)
    output: list[bytes] = []

    def run(*arguments: str, code: int | None = 0) -> dict[str, Any]:
        done = cli("-v", "--json", *arguments, code=code)
        output.extend((done.stdout, done.stderr))
        answer: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        return answer

    key_id = run("key", "create", "--algorithm", "AES_256_GCM", "--origin", "imported")["key_id"]
    run("key", "import", key_id, "--in", "aes.key")
    run("encrypt", "--key", key_id, "--context", "a=b", "--in", "plain", "--out", "sealed")
    run("decrypt", "--context", "a=b", "--in", "sealed", "--out", "opened")
    run("decrypt", "--context", "a=c", "--in", "sealed", "--out", "not-opened", code=1)
    run("data-key", "--key", key_id, "--out", "data.key", "--ciphertext-out", "data.key.wrapped")
    run("random", "32", "--out", "seed")
    run("health", "--deep")
    run("key", "import", key_id, "--in", "plain", code=None)
    (tmp_path / "passphrase").write_bytes(b"another canary of a passphrase")
    run("key", "list", code=1)
    canaries |= {
        "data key": (tmp_path / "data.key").read_bytes(),
        "random bytes": (tmp_path / "seed").read_bytes(),
        "wrong passphrase": b"another canary of a passphrase",
    }

    assert (tmp_path / "opened").read_bytes() == PLAINTEXT
    assert found(canaries, b"\n".join(output)) == []
    assert found({"the search works here too": key_id.encode()}, b"\n".join(output))
