"""``kmsplug key import``: material goes in wrapped, and shows itself nowhere."""

import os
from collections.abc import Callable, Mapping

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from kmsplug_host.cli import _wrapping
from kmsplug_host.errors import InvalidArgument, ProtocolViolation, UnsupportedOperation
from kmsplug_protocol import KeyAlgorithm
from support.cli import Cli

Keys = Mapping[str, str]

CANARY = b"canary material, 32 bytes long.."
assert len(CANARY) == 32


def secret_file(cli: Cli, content: bytes) -> str:
    path = cli.folder / "material"
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path.name


def pkcs8(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, encoding: Encoding) -> bytes:
    return key.private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption())


def public(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_private_keys_go_in_as_pem_and_der(cli: Cli, keys: Keys) -> None:
    small = ec.generate_private_key(ec.SECP256R1())
    large = rsa.generate_private_key(65537, 2048)

    imported = cli.json(
        "key", "import", keys["ec to import"], "--in", secret_file(cli, pkcs8(small, Encoding.PEM))
    )
    cli("key", "import", keys["rsa to import"], "--in", secret_file(cli, pkcs8(large, Encoding.DER)))

    assert (imported["state"], imported["origin"]) == ("ACTIVE", "imported")
    assert cli("key", "public-key", keys["ec to import"]).stdout == public(small)
    assert cli("key", "public-key", keys["rsa to import"]).stdout == public(large)


def test_material_that_others_can_read_or_that_does_not_fit_is_refused_and_not_shown(
    cli: Cli, keys: Keys
) -> None:
    key_id = keys["aes to import"]
    name = secret_file(cli, CANARY + b"\n")
    too_long = cli("key", "import", key_id, "--in", name, code=1)
    (cli.folder / name).write_bytes(CANARY)
    (cli.folder / name).chmod(0o640)
    readable = cli("-v", "key", "import", key_id, "--in", name, code=1)

    assert b"33 bytes" in too_long.stderr
    assert readable.stderr.decode().splitlines() == [
        "kmsplug: INVALID_ARGUMENT: material holds a secret and others have access to it (mode 0640)",
        "  chmod 600 material",
    ]
    (cli.folder / name).chmod(0o600)
    done = cli("-v", "key", "import", key_id, "--in", name)
    again = cli("-v", "key", "import", key_id, "--in", name, code=1)
    assert again.stderr.splitlines()[-1].startswith(b"kmsplug: KEY_INVALID_STATE")
    for each in (too_long, readable, done, again):
        assert b"canary" not in each.stdout + each.stderr


def test_material_that_was_wrapped_elsewhere_goes_in_with_its_token(cli: Cli, keys: Keys) -> None:
    key_id = keys["hmac to import"]
    told = cli.json("key", "import-parameters", key_id, "--out-key", "key.pem", "--out-token", "token")
    public_key = load_pem_public_key((cli.folder / "key.pem").read_bytes())
    assert isinstance(public_key, rsa.RSAPublicKey)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    (cli.folder / "wrapped").write_bytes(public_key.encrypt(CANARY, oaep))

    imported = cli.json("key", "import", key_id, "--wrapped", "wrapped", "--token", "token")

    assert (told["wrapping_algorithm"], told["out_key"]) == ("RSA_OAEP_SHA_256", "key.pem")
    assert not {"public_key", "import_token"} & told.keys()
    assert (cli.folder / "token").stat().st_mode & 0o777 == 0o600
    assert imported["state"] == "ACTIVE"


def test_where_the_second_file_cannot_be_made_there_is_no_first(
    cli: Cli, keys: Keys, refusal: Callable[..., str]
) -> None:
    base = ("key", "import-parameters", keys["aes to import"])

    cli(*base, "--out-key", "no/such/folder/key", "--out-token", "token", code=1)
    assert "same file" in refusal(*base, "--out-key", "same", "--out-token", "same")
    assert "--token" in refusal("key", "import", keys["aes to import"], "--wrapped", "token")
    assert "--token" in refusal("key", "import", keys["aes to import"], "--in", "a", "--token", "b")

    assert sorted(path.name for path in cli.folder.iterdir()) == ["plugins.toml", "store"]


def test_the_wrapping_is_what_the_driver_takes_and_the_material_fits_into() -> None:
    both = ("RSA_OAEP_SHA_256", "RSA_AES_KEY_WRAP_SHA_256")

    assert _wrapping.choose_algorithm(None, both, bytes(32)) == "RSA_OAEP_SHA_256"
    assert _wrapping.choose_algorithm(None, both, bytes(1200)) == "RSA_AES_KEY_WRAP_SHA_256"
    assert _wrapping.choose_algorithm(None, both[1:], bytes(32)) == "RSA_AES_KEY_WRAP_SHA_256"
    assert _wrapping.choose_algorithm(None, (), bytes(32)) == "RSA_OAEP_SHA_256"
    assert _wrapping.choose_algorithm(both[0], both[1:], bytes(32)) == "RSA_OAEP_SHA_256"
    with pytest.raises(UnsupportedOperation, match="none of which is known"):
        _wrapping.choose_algorithm(None, ("acme/wrap",), bytes(32))
    with pytest.raises(UnsupportedOperation, match="not known here"):
        _wrapping.choose_algorithm("RSAES_PKCS1_V1_5", both, bytes(32))


def test_what_is_too_long_for_oaep_or_wrapped_under_no_rsa_key_is_refused() -> None:
    rsa_key = rsa.generate_private_key(65537, 2048).public_key()
    der = rsa_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    with pytest.raises(InvalidArgument, match="takes 190 at most"):
        _wrapping.wrap(bytes(191), der, _wrapping.OAEP)
    weak = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505 - to be refused
    weak_der = weak.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for wrong in (b"", b"nonsense", os.urandom(200), weak_der):
        with pytest.raises(ProtocolViolation, match="no RSA public key"):
            _wrapping.wrap(bytes(32), wrong, _wrapping.OAEP)


def test_a_private_key_that_cannot_be_read_is_refused_without_a_quote() -> None:
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"canary")
    )

    with pytest.raises(InvalidArgument, match="decrypt it first"):
        _wrapping.read_material(locked, KeyAlgorithm.EC_P256)
    for content in (b"canary", b"-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(InvalidArgument) as caught:
            _wrapping.read_material(content, KeyAlgorithm.EC_P256)
        assert "canary" not in str(caught.value)
