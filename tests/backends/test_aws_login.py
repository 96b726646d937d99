"""Every way to log in to AWS, end to end: STS and IAM by moto, servers of our own where nobody has one."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

import botocore.session
import pytest
import trustme
from backends.aws import REGION, SECRET, STATIC
from backends.aws_logins import Agent, RolesAnywhere, answering
from backends.fault_proxy import Fault, FaultProxy, fault_proxy, once
from kmsplug_host import Host, Keystore
from kmsplug_host.errors import AccessDenied, AuthenticationFailed, ConfigurationError, ProviderUnavailable
from support.host import LONG_S, nothing_left
from support.loopback import free_port

ACCOUNT = "123456789012"  # moto's
ROLE = f"arn:aws:iam::{ACCOUNT}:role/app"
OUTDATED = Fault(
    status=400, body=b'{"__type":"ExpiredTokenException","message":"The security token is expired"}'
)
DENIED = Fault(
    status=403,
    body=b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>canary-message</Message></Error></ErrorResponse>",
)


@pytest.fixture
def kms(moto_url: str) -> Iterator[FaultProxy]:
    with fault_proxy(moto_url) as proxy:
        yield proxy


@pytest.fixture
def sts(moto_url: str) -> Iterator[FaultProxy]:
    with fault_proxy(moto_url) as proxy:
        yield proxy


@contextmanager
def opened(
    kms: FaultProxy | str, login: dict[str, Any], sts: FaultProxy | None = None, **config: Any
) -> Iterator[Keystore]:
    given = {
        "region": REGION,
        "account": ACCOUNT,
        "endpoint": kms if isinstance(kms, str) else kms.url,
        "login": login,
        **({} if sts is None else {"sts_endpoint": sts.url}),
        **config,
    }
    plugin = {"driver": "aws", "config": given, "deadline_s": LONG_S}
    table = {"plugin": "aws", "allow_raw": True}
    with nothing_left(), Host.open({"plugins": {"aws": plugin}, "keystores": {"main": table}}) as host:
        yield host.keystore("main")


def works(keystore: Keystore) -> None:
    key_id = keystore.create_key("AES_256_GCM").key_id
    sealed = keystore.encrypt(key_id, b"data", format="raw").ciphertext
    assert bytes(keystore.decrypt(sealed, key_id=key_id, format="raw").plaintext) == b"data"


def asked(proxy: FaultProxy) -> list[dict[str, str]]:
    """Return the forms that STS was sent."""
    return [{name: values[0] for name, values in parse_qs(one.body.decode()).items()} for one in proxy.seen]


def signed_by(proxy: FaultProxy) -> list[str]:
    """Return the access keys by which requests were signed, in order, each once."""
    found = [one.headers["authorization"].split("Credential=")[1].split("/")[0] for one in proxy.seen]
    return list(dict.fromkeys(found))


def static() -> dict[str, Any]:
    return {**STATIC, "secret_access_key": {"env": "KMSPLUG_T"}}


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMSPLUG_T", SECRET)


def irsa(token_file: Path) -> dict[str, Any]:
    login = {"method": "web_identity", "role_arn": ROLE, "session_name": "app-1"}
    return {**login, "token_file": str(token_file)}


def test_irsa_takes_the_token_that_is_in_the_file_at_each_login_without_a_restart(
    kms: FaultProxy, sts: FaultProxy, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first.token.x\n")
    with opened(kms, irsa(token), sts) as keystore:
        works(keystore)
        token.with_suffix(".new").write_text("second.token.x")
        token.with_suffix(".new").rename(token)  # as Kubernetes does it
        works(keystore)
        assert len(sts.seen) == 1  # the credentials were still good

        kms.plan = once(OUTDATED)
        works(keystore)

    forms = asked(sts)
    assert [form["WebIdentityToken"] for form in forms] == ["first.token.x", "second.token.x"]
    assert {(form["RoleArn"], form["RoleSessionName"]) for form in forms} == {(ROLE, "app-1")}
    assert all("authorization" not in one.headers for one in sts.seen)  # a token signs nothing
    assert len({one.headers["x-amz-security-token"] for one in kms.seen}) == 2


def test_credentials_that_cannot_be_renewed_are_not_tried_again_and_again(
    kms: FaultProxy, sts: FaultProxy, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first.token.x")
    with opened(kms, irsa(token), sts) as keystore:
        sts.plan = lambda _seen: DENIED
        kms.plan = lambda _seen: OUTDATED

        with pytest.raises(AuthenticationFailed):
            keystore.random(8)

    assert len(sts.seen) == 2


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe", b"x" * 100_000], ids=["none", "empty", "bytes", "long"]
)
def test_a_token_that_is_none_is_refused_before_anybody_is_asked(
    kms: FaultProxy, sts: FaultProxy, tmp_path: Path, content: bytes | None
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)

    with pytest.raises((ConfigurationError, AuthenticationFailed)), opened(kms, irsa(token), sts):
        pass

    assert sts.seen == kms.seen == []


def test_a_login_that_is_refused_is_tried_once_and_nothing_of_it_is_shown(
    kms: FaultProxy, sts: FaultProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = tmp_path / "token"
    token.write_text("canary.token.x")
    sts.plan = lambda _seen: DENIED

    with pytest.raises(AuthenticationFailed) as caught, opened(kms, irsa(token), sts):
        pass

    assert len(sts.seen) == 1
    assert kms.seen == []
    shown = f"{caught.value!r} {caught.value} {caught.value.__dict__} {caplog.text}"
    assert "canary" not in shown


def test_an_sts_that_cannot_be_reached_is_unavailable(kms: FaultProxy, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("token")

    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ProviderUnavailable), opened(kms, irsa(token), sts_endpoint=nobody):
        pass


def test_a_role_is_taken_with_the_external_id_that_its_owner_asks_for(
    kms: FaultProxy, sts: FaultProxy
) -> None:
    role = {"role_arn": ROLE, "external_id": "agreed-7", "duration_s": 900}
    with opened(kms, static(), sts, assume_role=role) as keystore:
        works(keystore)

    (form,) = asked(sts)
    assert (form["Action"], form["ExternalId"], form["DurationSeconds"]) == ("AssumeRole", "agreed-7", "900")
    assert signed_by(sts) == ["AKIAIOSFODNN7EXAMPLE"]
    assert signed_by(kms) != signed_by(sts)


def test_pod_identity_reads_its_token_again_at_each_login(kms: FaultProxy, tmp_path: Path) -> None:
    token, agent = tmp_path / "token", Agent("one")
    token.write_text("one")
    with answering(agent.answer) as url:
        login = {"method": "pod_identity", "token_file": str(token), "url": f"{url}/v1/credentials"}
        with opened(kms, login) as keystore:
            works(keystore)
            agent.token = "two"
            token.write_text("two")
            kms.plan = once(OUTDATED)
            works(keystore)

    assert agent.tokens == ["one", "two"]
    assert len(signed_by(kms)) == 2


@pytest.mark.parametrize("kind", [trustme.KeyType.ECDSA, trustme.KeyType.RSA], ids=["EC", "RSA"])
def test_roles_anywhere_signs_with_the_key_of_a_certificate(
    kms: FaultProxy, tmp_path: Path, kind: trustme.KeyType, caplog: pytest.LogCaptureFixture
) -> None:
    authority = trustme.CA(key_type=kind)
    issued = authority.create_child_ca(key_type=kind).issue_cert("app.example.org", key_type=kind)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    anywhere = RolesAnywhere()
    with answering(anywhere.answer) as url:
        login = {
            "method": "roles_anywhere",
            "role_arn": ROLE,
            "certificate_file": str(chain),
            "private_key_file": str(key),
            "trust_anchor_arn": f"arn:aws:rolesanywhere:{REGION}:{ACCOUNT}:trust-anchor/a",
            "profile_arn": f"arn:aws:rolesanywhere:{REGION}:{ACCOUNT}:profile/b",
            "url": url,
        }
        with opened(kms, login) as keystore:
            works(keystore)
        other = trustme.CA().issue_cert("app.example.org")
        key.write_bytes(other.private_key_pem.bytes())
        with pytest.raises(ConfigurationError, match="not that of the first certificate"), opened(kms, login):
            pass

    assert anywhere.refusals == []
    assert "roles_anywhere is documented only" in caplog.text
    assert len(anywhere.issuers) == 1
    assert signed_by(kms) == ["ASIAANYWHERE00000001"]


def test_a_profile_is_read_from_the_file_that_is_named(kms: FaultProxy, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[app]\naws_access_key_id = AKIAPROFILE000000001\naws_secret_access_key = {SECRET}\n"
    )
    login = {"method": "profile", "profile": "app", "credentials_file": str(credentials)}
    with opened(kms, login) as keystore:
        works(keystore)
    with pytest.raises(ConfigurationError), opened(kms, {**login, "profile": "other"}):
        pass

    assert signed_by(kms) == ["AKIAPROFILE000000001"]


def test_nothing_of_the_environment_or_the_home_folder_counts(
    kms: FaultProxy, moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = f"http://127.0.0.1:{free_port()}"
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(f"[default]\nendpoint_url = {evil}\nretry_mode = legacy\n")
    variables = {
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "AKIAEVIL000000000001",
        "AWS_SECRET_ACCESS_KEY": "evil",
        "AWS_ENDPOINT_URL": evil,
        "AWS_PROFILE": "evil",
        "AWS_MAX_ATTEMPTS": "9",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    driver = [sys.executable, "-m", "kmsplug_plugins.aws_kms", "--check", str(tmp_path / "config.json")]
    login = {**static(), "secret_access_key": SECRET}
    config = {"region": REGION, "account": ACCOUNT, "endpoint": kms.url, "login": login}
    (tmp_path / "config.json").write_text(json.dumps(config))

    done = subprocess.run(driver, env={**os.environ, **variables}, capture_output=True, check=False)

    assert json.loads(done.stdout)["healthy"], done.stdout
    assert signed_by(kms) == ["AKIAIOSFODNN7EXAMPLE"]
    assert all("/eu-west-1/kms/" in one.headers["authorization"] for one in kms.seen)


def test_what_iam_does_not_allow_is_denied_and_told_so(
    own_moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = _user_who_may_not_decrypt(own_moto_url, monkeypatch)
    with opened(own_moto_url, login) as keystore:
        key_id = keystore.create_key("AES_256_GCM").key_id
        sealed = keystore.encrypt(key_id, b"data", format="raw").ciphertext

        with pytest.raises(AccessDenied) as caught:
            keystore.decrypt(sealed, key_id=key_id, format="raw")

    assert caught.value.outcome == "not_applied"


def _user_who_may_not_decrypt(url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    session = botocore.session.Session()
    session.set_credentials("AKIAIOSFODNN7EXAMPLE", "x")
    iam = session.create_client("iam", region_name="us-east-1", endpoint_url=url)
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["kms:*"], "Resource": "*"},
            {"Effect": "Deny", "Action": ["kms:Decrypt"], "Resource": "*"},
        ],
    }
    iam.create_user(UserName="app")
    iam.put_user_policy(UserName="app", PolicyName="p", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="app")["AccessKey"]
    # From the first request on, moto checks signatures and permissions.
    reset = Request(f"{url}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
    with urlopen(reset, timeout=10) as answer:
        assert answer.status == 200
    monkeypatch.setenv("KMSPLUG_T", key["SecretAccessKey"])
    return {**static(), "access_key_id": key["AccessKeyId"]}
