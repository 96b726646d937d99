"""``kmsplug sign``, ``verify``, ``mac`` and ``verify-mac``."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from support.cli import Cli

Keys = Mapping[str, str]


def test_a_signature_fits_its_file_and_no_other(cli: Cli, keys: Keys) -> None:
    (cli.folder / "file").write_bytes(b"a contract")
    check = ("verify", "--key", keys["ec"], "--in", "file", "--signature", "file.sig")

    made = cli.json("sign", "--key", keys["ec"], "--in", "file", "--out", "file.sig")
    good = cli.json(*check)
    (cli.folder / "file").write_bytes(b"another contract")
    bad = cli("--json", *check, code=1)

    assert made["mechanism"] == "ECDSA_SHA_256"
    assert (made["sent"], made["out"]) == ("message", "file.sig")
    assert "signature" not in made
    assert good["valid"] is True
    assert json.loads(bad.stdout)["valid"] is False
    assert bad.stderr == b""
    assert cli(*check, code=1).stdout.splitlines()[0] == b"valid\tfalse"


def test_a_large_file_is_hashed_here_and_the_signature_is_that_of_the_file(cli: Cli, keys: Keys) -> None:
    content = os.urandom(3_000_001)
    (cli.folder / "file").write_bytes(content)
    (cli.folder / "digest").write_bytes(hashlib.sha256(content).digest())
    key = load_pem_public_key(cli("key", "public-key", keys["ec"]).stdout)

    made = cli.json("sign", "--key", keys["ec"], "--in", "file", "--out", "sig")
    piped = cli("sign", "--key", keys["ec"], "--digest", "--in", "digest").stdout

    assert made["sent"] == "digest"
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify((cli.folder / "sig").read_bytes(), content, ec.ECDSA(hashes.SHA256()))
    key.verify(piped, content, ec.ECDSA(hashes.SHA256()))
    assert cli("verify", "--key", keys["ec"], "--signature", "sig", stdin=content).returncode == 0


def test_where_a_key_has_several_mechanisms_a_large_file_needs_one_named(cli: Cli, keys: Keys) -> None:
    content = bytes(1_000_000)
    (cli.folder / "file").write_bytes(content)
    base = ("sign", "--key", keys["rsa"], "--in", "file", "--out", "sig")

    refused = cli.error(*base)
    made = cli.json(*base, "--mechanism", "RSA_PKCS1_SHA_384")

    key = load_pem_public_key(cli("key", "public-key", keys["rsa"]).stdout)
    assert refused["code"] == "INVALID_ARGUMENT"
    assert "RSA_PKCS1_SHA_384" in refused["hint"]
    assert made["mechanism"] == "RSA_PKCS1_SHA_384"
    assert isinstance(key, rsa.RSAPublicKey)
    key.verify((cli.folder / "sig").read_bytes(), content, padding.PKCS1v15(), hashes.SHA384())


def test_what_must_go_over_the_wire_whole_has_a_limit_and_leaves_nothing_behind(cli: Cli, keys: Keys) -> None:
    (cli.folder / "large").write_bytes(bytes(1_000_000))
    (cli.folder / "fits").write_bytes(bytes(500_000))

    signed = cli.error("sign", "--key", keys["ed25519"], "--in", "large", "--out", "out")
    authenticated = cli.error("mac", "--key", keys["hmac"], "--in", "large", "--out", "out")
    no_digest = cli.error("sign", "--key", keys["ec"], "--digest", "--in", "fits", "--out", "out")

    assert "in one message" in signed["message"]
    assert "in one message" in authenticated["message"]
    assert "64 bytes at most" in no_digest["message"]
    assert not (cli.folder / "out").exists()
    assert cli.json("sign", "--key", keys["ed25519"], "--in", "fits", "--out", "out")["sent"] == "message"
    assert cli.left_over() == []


def test_a_code_fits_its_file_and_no_other(cli: Cli, keys: Keys) -> None:
    (cli.folder / "file").write_bytes(b"a contract")
    check = ("verify-mac", "--key", keys["hmac"], "--mac", "code")

    made = cli.json("mac", "--key", keys["hmac"], "--in", "file", "--out", "code")

    assert made["mechanism"] == "HMAC_SHA_256"
    assert "mac" not in made
    assert cli(*check, stdin=b"a contract").stdout.startswith(b"valid\ttrue\n")
    assert cli(*check, stdin=b"another", code=1).stdout.startswith(b"valid\tfalse\n")


def test_wrong_usage_and_unknown_keys_are_told_in_one_line(
    cli: Cli, keys: Keys, refusal: Callable[..., str]
) -> None:
    (cli.folder / "file").write_bytes(b"x")
    unknown = cli("sign", "--key", "nobody", "--in", "file", "--out", "out", code=1).stderr
    usage = cli.error("sign", "--key", keys["aes"], "--in", "file", "--out", "out")
    shown, status = cli.on_a_terminal("sign", "--key", keys["ec"], "--in", "file")

    assert unknown.startswith(b"kmsplug: KEY_NOT_FOUND: ")
    assert len(unknown.splitlines()) == 1
    assert usage["code"] == "KEY_USAGE_MISMATCH"
    assert status == 2
    assert b"name a file" in shown
    assert "can be stdin" in refusal("verify", "--key", keys["ec"], "--signature", "-")
    assert "needs stdout" in refusal("--json", "sign", "--key", keys["ec"])
    assert not (cli.folder / "out").exists()
