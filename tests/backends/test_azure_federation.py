"""Workload Identity end to end, with a Keycloak that judges the platform's token and gives the driver's."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from backends.aws_logins import answering
from backends.azure_entra import AUDIENCE, CLIENT, SUBJECT, TENANT, Issuer
from backends.azure_fake import AzureFake, azure_fake
from backends.keycloak import KeycloakEntra, keycloak
from kmsplug_host import Host
from kmsplug_host.errors import AuthenticationFailed
from support.azure import VAULT, led_to, session, workload
from support.cache import UnavailableError


class Cluster(Issuer):
    """Whose service account stands for the application."""

    def __init__(self) -> None:
        super().__init__("https://oidc.cluster.example")

    def identity(self, *, sub: str = SUBJECT, aud: str = AUDIENCE, lifetime_s: float = 3600) -> str:
        """Return a token of the service account."""
        return self.token(sub=sub, aud=aud, lifetime_s=lifetime_s)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture(scope="module")
def entra(cluster: Cluster) -> Iterator[KeycloakEntra]:
    try:
        with keycloak() as server, answering(lambda *_: (200, cluster.jwks())) as jwks:
            server.federate(
                TENANT, CLIENT, issuer=cluster.url, jwks=jwks, subject=SUBJECT, audience=AUDIENCE,
                service="https://vault.azure.net",
            )  # fmt: skip
            yield KeycloakEntra(server)
    except UnavailableError as error:
        pytest.skip(f"KEYCLOAK NOT CHECKED: {error}")


@pytest.fixture
def fake(entra: KeycloakEntra, tmp_path: Path) -> Iterator[AzureFake]:
    with azure_fake(tmp_path) as running, led_to(running):
        running.entra = entra
        entra.presented.clear()
        entra.expires_in = None
        yield running


def test_a_host_works_with_the_token_in_the_file_and_with_the_one_that_replaces_it(
    fake: AzureFake, entra: KeycloakEntra, cluster: Cluster, tmp_path: Path
) -> None:
    entra.expires_in = 0  # so each call asks for another one
    token_file = tmp_path / "azure-identity-token"
    first = cluster.identity()
    token_file.write_text(first)
    settings = {
        "plugins": {"azure": {"driver": "azure", "config": {**VAULT, "login": workload(token_file)}}},
        "keystores": {"main": {"plugin": "azure", "allow_raw": True}},
    }
    with Host.open(settings) as host:
        keystore = host.keystore("main")
        key_id = keystore.create_key("RSA_2048", usage="ENCRYPT_DECRYPT").key_id
        sealed = keystore.encrypt(key_id, b"secret", format="raw").ciphertext

        token_file.write_text(cluster.identity(lifetime_s=-60))
        with pytest.raises(AuthenticationFailed):
            keystore.decrypt(sealed, key_id=key_id, format="raw")
        cluster.rotate()
        second = cluster.identity()
        token_file.write_text(second)

        assert keystore.decrypt(sealed, key_id=key_id, format="raw").plaintext == b"secret"
    assert (entra.presented[0], entra.presented[-1]) == (first, second)


FORGERIES: dict[str, Callable[[Cluster], str]] = {
    "another issuer": lambda _: Issuer("https://evil.example").token(sub=SUBJECT, aud=AUDIENCE),
    "another subject": lambda it: it.identity(sub="system:serviceaccount:evil:api"),
    "another audience": lambda it: it.identity(aud="api://else"),
    "over": lambda it: it.identity(lifetime_s=-60),
    "not signed by the issuer": lambda it: Issuer(it.url).token(sub=SUBJECT, aud=AUDIENCE),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_token_that_is_not_good_is_refused_once_and_not_quoted(
    fake: AzureFake, entra: KeycloakEntra, cluster: Cluster, tmp_path: Path, forgery: str
) -> None:
    token_file = tmp_path / "azure-identity-token"
    token_file.write_text(cluster.identity())
    entra.expires_in = 0
    with session(login=workload(token_file)) as driver:
        key_id = driver.make()["key_id"]
        entra.presented.clear()
        token_file.write_text(FORGERIES[forgery](cluster))

        found = driver.refused("key.get", key_id=key_id)

    assert (found["code"], found["outcome"]) == ("AUTHENTICATION_FAILED", "not_applied")
    assert entra.presented == [token_file.read_text()]
    assert token_file.read_text() not in str(found)
