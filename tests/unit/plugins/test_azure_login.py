"""How the Azure driver logs in: by what its settings name, checked by an Entra that really checks."""

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backends.azure_entra import AUDIENCE, CLIENT, SUBJECT, TENANT, Issuer
from backends.azure_fake import AzureFake, azure_fake
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from kmsplug_plugins.azure_keyvault.config import AzureConfig
from kmsplug_plugins.azure_keyvault.driver import AzureKeyVaultDriver
from kmsplug_protocol import ConfigureResult, ErrorCode, Outcome
from kmsplug_sdk import DriverError
from pydantic import ValidationError
from support.azure import SECRET_LOGIN, VAULT, led_to, session, workload

TOKEN = "POST .*/oauth2/v2.0/token"


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[AzureFake]:
    with azure_fake(tmp_path) as running, led_to(running):
        yield running


@pytest.fixture
def cluster(fake: AzureFake) -> Issuer:
    """A cluster whose service account stands for the application."""
    issuer = Issuer("https://oidc.cluster.example/")
    fake.entra.applications[CLIENT].federated.append((issuer, SUBJECT, AUDIENCE))
    return issuer


@pytest.fixture
def token_file(tmp_path: Path, cluster: Issuer) -> Path:
    path = tmp_path / "azure-identity-token"
    path.write_text(cluster.token(sub=SUBJECT, aud=AUDIENCE))
    return path


def opened(**settings: Any) -> ConfigureResult:
    driver = AzureKeyVaultDriver()
    with contextlib.closing(driver):
        return driver.configure(AzureConfig.model_validate({**VAULT, **settings}), dry_run=False)


def refused(**settings: Any) -> DriverError:
    with pytest.raises(DriverError) as caught:
        opened(**settings)
    return caught.value


def test_workload_identity_end_to_end(fake: AzureFake, token_file: Path) -> None:
    with session(login=workload(token_file)) as driver:
        key = driver.make()
        sealed = driver.ask("crypto.encrypt", key_id=key["key_id"], plaintext="c2VjcmV0")
        opened = driver.ask("crypto.decrypt", key_id=key["key_id"], ciphertext=sealed["ciphertext"])

    assert opened["plaintext"] == "c2VjcmV0"
    assert fake.entra.given == [{"aud": "https://vault.azure.net", "tid": TENANT, "appid": CLIENT}]


FORGERIES: dict[str, tuple[Callable[[Issuer], str], str]] = {
    "another issuer": (lambda _: Issuer("https://evil.example/").token(sub=SUBJECT, aud=AUDIENCE), "70021"),
    "another subject": (lambda it: it.token(sub="system:serviceaccount:evil", aud=AUDIENCE), "70021"),
    "another audience": (lambda it: it.token(sub=SUBJECT, aud="api://else"), "70021"),
    "over": (lambda it: it.token(sub=SUBJECT, aud=AUDIENCE, lifetime_s=-1), "700024"),
    "not signed by the issuer": (
        lambda it: Issuer(it.url).token(sub=SUBJECT, aud=AUDIENCE), "50013",
    ),
    "claims changed after it was signed": (
        lambda it: ".".join([
            it.token(sub=SUBJECT, aud=AUDIENCE).split(".")[0],
            it.token(sub=SUBJECT, aud=AUDIENCE, lifetime_s=9e6).split(".")[1],
            it.token(sub=SUBJECT, aud=AUDIENCE).split(".")[2],
        ]), "50013",
    ),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_platforms_token_that_is_not_good_is_refused_once_and_by_its_reason(
    fake: AzureFake, token_file: Path, cluster: Issuer, forgery: str
) -> None:
    make, code = FORGERIES[forgery]
    token_file.write_text(make(cluster))

    found = refused(login=workload(token_file))

    assert (found.code, found.data.outcome) == (ErrorCode.AUTHENTICATION_FAILED, Outcome.NOT_APPLIED)
    assert found.data.vendor is not None
    assert found.data.vendor.code == f"AADSTS{code}"
    assert len(fake.seen(TOKEN)) == 1
    assert token_file.read_text() not in found.message + found.data.model_dump_json()


def test_a_token_file_that_is_replaced_while_the_driver_runs_counts_at_once(
    fake: AzureFake, token_file: Path, cluster: Issuer
) -> None:
    fake.entra.expires_in = 0  # so each call asks for another one
    with session(login=workload(token_file)) as driver:
        key = driver.make()["key_id"]
        cluster.rotate()  # the token in the file is signed by a key that is no longer published
        assert driver.refused("key.get", key_id=key)["code"] == "AUTHENTICATION_FAILED"

        token_file.write_text(cluster.token(sub=SUBJECT, aud=AUDIENCE))

        assert driver.ask("key.get", key_id=key)["key_id"] == key


@pytest.mark.parametrize("content", [None, "", "\n", "é".encode()])
def test_a_token_file_without_a_token_is_told_apart_and_nothing_is_asked(
    fake: AzureFake, token_file: Path, content: str | bytes | None
) -> None:
    token_file.unlink()
    if content is not None:
        token_file.write_bytes(content.encode() if isinstance(content, str) else content)

    found = refused(login=workload(token_file))

    assert (found.code, found.data.outcome) == (ErrorCode.AUTHENTICATION_FAILED, Outcome.NOT_APPLIED)
    assert not fake.seen(TOKEN)


def test_a_token_that_the_vault_no_longer_takes_is_replaced_for_the_next_attempt(fake: AzureFake) -> None:
    with session() as driver:
        key = driver.make()["key_id"]
        fake.entra.issuer.rotate()  # every token that was given is void

        found = driver.refused("key.get", key_id=key)

        assert (found["code"], found["credential_renewed"]) == ("AUTHENTICATION_FAILED", True)
        assert driver.ask("key.get", key_id=key)["key_id"] == key
        assert len(fake.seen(TOKEN)) == 2


def test_a_managed_identity_by_the_platforms_endpoint(fake: AzureFake) -> None:
    with led_to(fake, **fake.identity_environment):
        assert opened(login={"method": "managed_identity"}).identity == "azure:kmsplug-test.vault.azure.net"

    assert fake.entra.given == [{"aud": "https://vault.azure.net", "tid": TENANT, "appid": "the machine"}]


def test_a_managed_identity_never_becomes_a_token_exchange(fake: AzureFake, token_file: Path) -> None:
    exchange = {
        "AZURE_FEDERATED_TOKEN_FILE": str(token_file), "AZURE_CLIENT_ID": CLIENT, "AZURE_TENANT_ID": TENANT,
    }  # fmt: skip
    with led_to(fake, **exchange):
        found = refused(login={"method": "managed_identity"})

    assert (found.code, found.data.path) == (ErrorCode.CONFIGURATION_ERROR, "login.method")
    assert fake.requests == []


def certificate(folder: Path, password: bytes | None = None) -> tuple[Path, bytes]:
    """Make a certificate; return the file with its key, and the public part."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an application")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    sealed = NoEncryption() if password is None else BestAvailableEncryption(password)
    public = made.public_bytes(Encoding.PEM)
    path = folder / "application.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed) + public)
    return path, public


@pytest.mark.parametrize("password", [None, "open-sesame"])
def test_a_client_certificate(fake: AzureFake, tmp_path: Path, password: str | None) -> None:
    path, public = certificate(tmp_path, password.encode() if password else None)
    fake.entra.applications[CLIENT].certificate = public
    login = {"method": "client_certificate", "tenant_id": TENANT, "client_id": CLIENT}

    opened(login={**login, "certificate_file": str(path), "password": password})

    assert len(fake.entra.given) == 1


def test_a_certificate_of_somebody_else_is_refused(fake: AzureFake, tmp_path: Path) -> None:
    path, _ = certificate(tmp_path)
    _, fake.entra.applications[CLIENT].certificate = certificate(tmp_path_of(tmp_path))
    login = {"method": "client_certificate", "tenant_id": TENANT, "client_id": CLIENT}

    found = refused(login={**login, "certificate_file": str(path)})

    assert found.code is ErrorCode.AUTHENTICATION_FAILED
    assert len(fake.seen(TOKEN)) == 1


def tmp_path_of(folder: Path) -> Path:
    (folder / "other").mkdir()
    return folder / "other"


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_certificate_that_cannot_be_used_is_a_setting_and_asks_nobody(
    fake: AzureFake, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "application.pem"
    if content is not None:
        path.write_bytes(content)
    login = {"method": "client_certificate", "tenant_id": TENANT, "client_id": CLIENT}

    found = refused(login={**login, "certificate_file": str(path)})

    assert (found.code, found.data.path) == (ErrorCode.CONFIGURATION_ERROR, "login.certificate_file")
    assert fake.requests == []


def test_a_wrong_secret_is_tried_once_and_quoted_nowhere(fake: AzureFake) -> None:
    found = refused(login={**SECRET_LOGIN, "client_secret": "canary-canary"})

    assert found.code is ErrorCode.AUTHENTICATION_FAILED
    assert found.data.vendor is not None
    assert found.data.vendor.code == "AADSTS7000215"
    assert "canary" not in found.message + found.data.model_dump_json()
    assert len(fake.seen(TOKEN)) == 1


@pytest.mark.parametrize(
    ("member", "value"), [("tenant_id", TENANT.replace("1", "9")), ("client_id", CLIENT.replace("6", "9"))]
)
def test_an_unknown_tenant_or_application_is_a_setting(fake: AzureFake, member: str, value: str) -> None:
    found = refused(login={**SECRET_LOGIN, member: value})

    assert found.code in (ErrorCode.CONFIGURATION_ERROR, ErrorCode.AUTHENTICATION_FAILED)
    assert found.data.outcome is Outcome.NOT_APPLIED
    assert len(fake.seen(TOKEN)) <= 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vault_url": "http://acme.vault.azure.net"}, "https"),
        ({"vault_url": "https://acme.vault.azure.net/keys"}, "without a path"),
        ({"vault_url": "https://user@acme.vault.azure.net"}, "without a path"),
        ({"vault_url": "https://acme.vault.azure.net:x"}, "port"),
        ({"vault_url": "https://a{b}c.example"}, "letters"),
        ({"vault_url": "https://acme.managedhsm.azure.net"}, "managed_hsm"),
        ({"kind": "managed_hsm", "premium": True}, "premium"),
        ({"login": {"method": "guess"}}, "guess"),
        ({"login": {"method": "managed_identity", "client_id": "a", "object_id": "b"}}, "one of"),
        (
            {"login": {"method": "workload_identity", "tenant_id": "t", "client_id": "c", "token_file": "x"}},
            "absolute",
        ),
        ({"authority": "login.example/path"}, "host"),
        ({"recoverable_days": 6}, "7"),
        ({"retries": 3}, "retries"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        AzureConfig.model_validate({**VAULT, **settings})


def test_one_vault_has_one_identity_however_it_is_written() -> None:
    spellings = (
        "https://Acme.vault.azure.net",
        "https://acme.vault.azure.net/",
        "https://acme.vault.azure.net:443",
    )

    assert {AzureConfig.model_validate({**VAULT, "vault_url": one}).namespace for one in spellings} == {
        "https://acme.vault.azure.net/keys/"
    }
