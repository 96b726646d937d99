"""The Azure driver behind a host, with shims where the vault has gaps, and an application moved to it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from backends.azure_entra import AUDIENCE, CLIENT, SUBJECT, Issuer
from backends.azure_fake import AzureFake, azure_fake
from kmsplug_host import Host, KeyAlgorithm, Keystore, KeyUsage
from kmsplug_host.errors import InvalidCiphertext, KeyDisabled, KmsplugError, UnsupportedOperation
from support.azure import HSM, VAULT, led_to, workload
from support.portable import check

EXAMPLE = Path(__file__).parents[2] / "examples" / "embed_in_app"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureFake]:
    with azure_fake(tmp_path_factory.mktemp("azure")) as running, led_to(running):
        yield running


@pytest.fixture(scope="module")
def token_file(server: AzureFake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a platform puts into a pod, whose service account stands for the application."""
    cluster = Issuer("https://oidc.cluster.example/")
    server.entra.applications[CLIENT].federated.append((cluster, SUBJECT, AUDIENCE))
    path = tmp_path_factory.mktemp("pod") / "azure-identity-token"
    path.write_text(cluster.token(sub=SUBJECT, aud=AUDIENCE, lifetime_s=3600))
    return path


@pytest.fixture
def fake(server: AzureFake) -> AzureFake:
    server.settle()
    return server


@contextmanager
def azure(config: dict[str, Any], token_file: Path, **keystore: Any) -> Iterator[Keystore]:
    settings = {
        "plugins": {"azure": {"driver": "azure", "config": {**config, "login": workload(token_file)}}},
        "keystores": {"main": {"plugin": "azure", "allow_raw": True, **keystore}},
    }
    with Host.open(settings) as host:
        yield host.keystore("main")


def test_a_vault_is_portable_by_named_shims(fake: AzureFake, token_file: Path) -> None:
    with azure(VAULT, token_file, accept_public_key_wrap=True) as keystore:
        seen = check(keystore, rotations=1)

    assert seen["crypto.encrypt"] == {"native", "shim:envelope@1"}
    assert {"native"} <= seen["crypto.decrypt"]
    for wire in (
        "key.create",
        "key.rotate",
        "key.disable",
        "key.enable",
        "key.purge",
        "key.backup",
        "key.tag",
    ):
        assert seen[wire] == {"native"}, wire
    assert {"native"} <= seen["crypto.sign"] <= {"native", "shim:digest@1"}
    assert seen["crypto.verify"] == {"native"}
    assert seen["crypto.generate_data_key"] == {"shim:datakey@1"}
    assert seen["crypto.reencrypt"] == {"shim:reencrypt@1"}
    assert seen["crypto.random"] == {"shim:random@1"}


def test_a_managed_hsm_is_portable_with_aes_natively(fake: AzureFake, token_file: Path) -> None:
    kinds = {KeyAlgorithm.AES_256_GCM, KeyAlgorithm.AES_256_KW, KeyAlgorithm.EC_P256}
    with azure(HSM, token_file) as keystore:
        seen = check(keystore, algorithms=kinds, rotations=1)
        key = keystore.create_key("AES_256_GCM")
        sealed = keystore.encrypt(key.key_id, b"secret", associated_data=b"bound", format="raw")

        assert (sealed.executed_by, sealed.protection) == ("native", "hsm")
        with pytest.raises(InvalidCiphertext):
            keystore.decrypt(sealed.ciphertext, key_id=key.key_id, associated_data=b"else", format="raw")
    assert {"native"} <= seen["crypto.encrypt"]
    assert {"native"} <= seen["crypto.wrap_key"]


def test_rsa_keys_refuse_what_they_cannot_bind_and_the_envelope_binds_it(
    fake: AzureFake, token_file: Path
) -> None:
    with azure(VAULT, token_file, accept_public_key_wrap=True) as keystore:
        key = keystore.create_key("RSA_2048", usage="ENCRYPT_DECRYPT")
        with pytest.raises(UnsupportedOperation):
            keystore.encrypt(key.key_id, b"x", associated_data=b"bound", format="raw")

        sealed = keystore.encrypt(key.key_id, b"x" * 10_000, context={"tenant": "acme"})

        assert sealed.executed_by == "shim:envelope@1"
        with pytest.raises(InvalidCiphertext):
            keystore.decrypt(sealed.ciphertext, context={"tenant": "else"})
        assert keystore.decrypt(sealed.ciphertext, context={"tenant": "acme"}).plaintext == b"x" * 10_000
        keystore.disable_key(key.key_id)
        with pytest.raises(KeyDisabled):
            keystore.encrypt(key.key_id, b"x")


@pytest.mark.parametrize("headers", [{"Retry-After": "0"}, {}], ids=["told when", "told nothing"])
def test_a_throttled_call_is_repeated_by_the_host_and_by_nobody_else(
    fake: AzureFake, token_file: Path, headers: dict[str, str]
) -> None:
    with azure(VAULT, token_file) as keystore:
        key = keystore.create_key("RSA_2048", usage=KeyUsage.ENCRYPT_DECRYPT)
        fake.settle()
        fake.script("^POST .*/encrypt", times=3, status=429, headers=headers)

        sealed = keystore.encrypt(key.key_id, b"x", format="raw")

        assert keystore.decrypt(sealed.ciphertext, key_id=key.key_id, format="raw").plaintext == b"x"
    assert len(fake.seen("^POST .*/encrypt 429")) == 3
    assert len(fake.seen("^POST .*/encrypt 200")) == 1


def test_a_create_whose_answer_was_lost_is_made_once(fake: AzureFake, token_file: Path) -> None:
    with azure(VAULT, token_file) as keystore:
        fake.script("^POST /keys/.*/create", after=True)

        key = keystore.create_key("EC_P256", name="made-once")
        fake.script("^POST /keys/made-once/rotate", after=True)
        rotated = keystore.rotate_key(key.key_id)

    assert [one.id for one in fake.vault.keys["made-once"].versions] == [key.key_version, rotated.key_version]


def test_the_example_application_moves_by_one_line_and_its_old_records_still_open(
    fake: AzureFake, token_file: Path, tmp_path: Path
) -> None:
    """The line ``plugin =`` of [keystores.main] changes, the application does not."""
    shutil.copy(EXAMPLE / "app.py", tmp_path)
    config = ", ".join(
        f"{name} = {value}"
        for name, value in {
            "vault_url": f'"{HSM["vault_url"]}"',
            "kind": '"managed_hsm"',
            "login": "{" + ", ".join(f'{k} = "{v}"' for k, v in workload(token_file).items()) + "}",
        }.items()
    )
    text = (
        (EXAMPLE / "plugins.toml").read_text().replace("../../.kmsplug/embed_in_app", str(tmp_path / "store"))
    )
    text += f'\n[plugins.azure]\ndriver = "azure"\nconfig = {{ {config} }}\n'
    plugins = tmp_path / "plugins.toml"
    plugins.write_text(text)
    with Host.open(plugins) as host:
        before = host.keystore("main")
        old = before.encrypt(before.create_key("AES_256_GCM").key_id, b"old", context={"tenant": "t"})

    plugins.write_text(text.replace('plugin = "local"', 'plugin = "azure"'))
    ran = subprocess.run(
        [sys.executable, "app.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert ran.returncode == 0, ran.stderr
    assert "the secret of tenant-3" in ran.stdout
    assert "another tenant is refused: INVALID_CIPHERTEXT" in ran.stdout
    assert fake.seen("^POST /keys/records/.*/encrypt 200")
    with Host.open(plugins) as host:
        assert host.keystore("local").decrypt(
            old.ciphertext, context={"tenant": "t", "application": "records"}
        ).plaintext == b"old"  # fmt: skip


def test_describe_says_of_every_row_that_it_is_from_documents(
    fake: AzureFake, token_file: Path, tmp_path: Path
) -> None:
    login = "{" + ", ".join(f'{name} = "{value}"' for name, value in workload(token_file).items()) + "}"
    config = f'{{ vault_url = "{HSM["vault_url"]}", kind = "managed_hsm", login = {login} }}'
    plugins = tmp_path / "plugins.toml"
    plugins.write_text(f'[plugins.azure]\ndriver = "azure"\nconfig = {config}\n')
    command = [str(Path(sys.executable).with_name("kmsplug")), "--json", "--config", str(plugins)]

    done = subprocess.run(
        [*command, "plugin", "describe", "azure"], capture_output=True, timeout=60, check=True
    )

    rows = json.loads(done.stdout)["capabilities"]
    assert {
        row["mechanism"] for row in rows if row.get("key_algorithm") == "AES_256_GCM" and "mechanism" in row
    }
    assert all(row["documented_only"] for row in rows)


def test_a_refused_login_is_one_attempt_and_the_plugin_says_why(fake: AzureFake, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("no token of anybody")
    with pytest.raises(KmsplugError) as caught, azure(VAULT, tmp_path / "token") as keystore:
        keystore.list_keys()

    assert "no token of anybody" not in str(caught.value)
    assert len(fake.seen("oauth2/v2.0/token")) <= 1
