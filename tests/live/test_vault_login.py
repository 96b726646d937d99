"""Every login of the Vault driver, on a real OpenBao: obtained, renewed, lost, replaced once, given back."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from backends.fault_proxy import FaultProxy, fault_proxy
from backends.kubernetes import Cluster, kubernetes, signed_jwt, signing_key
from backends.openbao import OpenBao, Refused, documented_policy, openbao
from kmsplug_plugins.vault_transit.driver import VaultTransitDriver
from kmsplug_protocol import decode_base64
from kmsplug_sdk.testing import run_driver
from support.host import wait_until
from support.vault import Vault, new_name, settings


def enable(bao: OpenBao, method: str, **where: Any) -> None:
    """Mount an auth method, if it is not there yet."""
    with contextlib.suppress(Refused):
        bao.api("POST", f"sys/auth/{method}", {"type": method}, **where)


def approle(bao: OpenBao, *, namespace: str = "", policy: str = "app", **role: Any) -> dict[str, Any]:
    """Make a role, and return the settings of its login."""
    name = new_name()
    enable(bao, "approle", namespace=namespace)
    bao.policy(policy, namespace=namespace)
    bao.api("POST", f"auth/approle/role/{name}", {"token_policies": policy, **role}, namespace=namespace)
    role_id = bao.api("GET", f"auth/approle/role/{name}/role-id", namespace=namespace)["data"]["role_id"]
    secret = bao.api("POST", f"auth/approle/role/{name}/secret-id", {}, namespace=namespace)["data"][
        "secret_id"
    ]
    return {"method": "approle", "role_id": role_id, "secret_id": secret}


@contextlib.contextmanager
def opened(address: str, login: dict[str, Any], **more: Any) -> Iterator[Vault]:
    with run_driver(VaultTransitDriver, {"address": address, "login": login, **more}) as client:
        yield Vault(client)


def refusal(address: str, login: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the error with which a login is refused."""
    with run_driver(VaultTransitDriver) as client:
        host = {"name": "test", "version": "0"}
        client.call("plugin.initialize", {"protocol_versions": ["1"], "host": host})
        answer = client.call("plugin.configure", {"config": {"address": address, "login": login, **more}})
    error: dict[str, Any] = answer["error"]
    return error


def logins(proxy: FaultProxy) -> int:
    return sum(one.path.endswith("/login") for one in proxy.seen)


def token_of(proxy: FaultProxy) -> str:
    return proxy.seen[-1].headers["x-vault-token"]


@pytest.fixture
def key_id(vault: Vault) -> str:
    return vault.make()


@pytest.fixture
def proxy(bao: OpenBao) -> Iterator[FaultProxy]:
    with fault_proxy(bao.url) as running:
        yield running


def test_the_policy_of_the_documentation_is_enough_to_use_keys_and_nothing_more(
    bao: OpenBao, vault: Vault
) -> None:
    keys = {algorithm: vault.make(algorithm) for algorithm in ("AES_256_GCM", "ED25519", "HMAC_SHA_256")}
    with opened(bao.url, approle(bao)) as app:
        aes = keys["AES_256_GCM"]
        sealed = app.encrypt(aes, associated_data=b"a")
        assert app.decrypt(aes, sealed, associated_data=b"a") == b"text"
        app.ask("crypto.generate_data_key", key_id=aes)
        moved = {"source_key_id": aes, "key_id": aes, "ciphertext": app.encrypt(aes)}
        app.ask("crypto.reencrypt", **moved)
        signature = decode_base64(app.ask("crypto.sign", key_id=keys["ED25519"], message=b"m")["signature"])
        assert app.ask("crypto.verify", key_id=keys["ED25519"], message=b"m", signature=signature)["valid"]
        mac = decode_base64(app.ask("crypto.mac", key_id=keys["HMAC_SHA_256"], message=b"m")["mac"])
        assert app.ask("crypto.verify_mac", key_id=keys["HMAC_SHA_256"], message=b"m", mac=mac)["valid"]
        app.ask("crypto.random", length_bytes=32)
        assert app.client.call("plugin.health", {"depth": "deep"})["result"]["healthy"] is True
        # And not: a mistyped name makes no key, and the lifecycle is somebody else's.
        assert app.code("crypto.encrypt", key_id=new_name(), plaintext=b"p") == "KEY_NOT_FOUND"
        assert app.code("key.create", algorithm="AES_256_GCM", name=new_name()) == "ACCESS_DENIED"
        for method in ("key.rotate", "key.disable", "key.schedule_deletion"):
            assert app.code(method, key_id=aes) == "ACCESS_DENIED"
        assert app.code("key.list") == "ACCESS_DENIED"


def test_a_denied_right_is_no_lost_login(bao: OpenBao, key_id: str, proxy: FaultProxy) -> None:
    bao.policy("encrypts", documented_policy().replace('"transit/decrypt/*"', '"transit/nothing/*"'))
    login = approle(bao)
    bao.policy("app")
    role = {**login}
    name = new_name()
    bao.api("POST", f"auth/approle/role/{name}", {"token_policies": "encrypts"})
    role["role_id"] = bao.api("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
    role["secret_id"] = bao.api("POST", f"auth/approle/role/{name}/secret-id", {})["data"]["secret_id"]
    with opened(proxy.url, role) as app:
        sealed = app.encrypt(key_id)
        error = app.try_("crypto.decrypt", key_id=key_id, ciphertext=sealed)["error"]["data"]

    assert (error["code"], error["vendor"]["http_status"]) == ("ACCESS_DENIED", 403)
    assert logins(proxy) == 1


def test_a_revoked_token_is_replaced_once_and_the_caller_is_told_to_repeat(
    bao: OpenBao, key_id: str, proxy: FaultProxy
) -> None:
    with opened(proxy.url, approle(bao)) as app:
        app.encrypt(key_id)
        bao.api("POST", "auth/token/revoke", {"token": token_of(proxy)})
        error = app.try_("crypto.encrypt", key_id=key_id, plaintext=b"p")["error"]["data"]
        assert (error["code"], error["credential_renewed"]) == ("AUTHENTICATION_FAILED", True)
        assert error["vendor"]["withheld"] is True
        assert app.encrypt(key_id).startswith(b"vault:v1:")
    assert logins(proxy) == 2


def test_when_many_notice_the_revocation_at_once_there_is_one_login(
    bao: OpenBao, key_id: str, proxy: FaultProxy
) -> None:
    from kmsplug_protocol import encode_frame, jsonrpc

    with opened(proxy.url, approle(bao)) as app:
        app.encrypt(key_id)
        bao.api("POST", "auth/token/revoke", {"token": token_of(proxy)})
        body = {"key_id": key_id, "plaintext": ""}
        for number in range(12):
            app.client.send(encode_frame(jsonrpc.request("crypto.encrypt", body, f"n{number}")))
        answers = [app.client.receive(20) for _ in range(12)]
        assert all(
            "result" in answer or answer["error"]["data"].get("credential_renewed") is True
            for answer in answers
        )
        assert logins(proxy) == 2


def test_a_token_from_the_settings_is_not_replaced(bao: OpenBao, key_id: str, proxy: FaultProxy) -> None:
    token = bao.token(bao.policy())
    with opened(proxy.url, {"method": "token", "token": token}) as app:
        app.encrypt(key_id)
        bao.api("POST", "auth/token/revoke", {"token": token})
        error = app.try_("crypto.encrypt", key_id=key_id, plaintext=b"p")["error"]

    assert error["data"]["code"] == "AUTHENTICATION_FAILED"
    assert "credential_renewed" not in error["data"]
    assert token not in str(error)
    assert logins(proxy) == 0


def test_a_rejected_login_is_tried_once_and_its_secret_is_told_nobody(
    bao: OpenBao, proxy: FaultProxy
) -> None:
    login = {**approle(bao), "secret_id": "canary-7d1f-secret-id"}
    error = refusal(proxy.url, login)

    assert error["data"]["code"] == "AUTHENTICATION_FAILED"
    assert "canary" not in str(error)
    assert logins(proxy) == 1


def test_a_login_that_is_lost_for_good_does_not_hammer_the_server(
    bao: OpenBao, key_id: str, proxy: FaultProxy
) -> None:
    login = approle(bao)
    with opened(proxy.url, login) as app:
        app.encrypt(key_id)
        bao.api("POST", "auth/token/revoke", {"token": token_of(proxy)})
        roles = bao.api("LIST", "auth/approle/role")["data"]["keys"]
        for role in roles:
            found = bao.api("GET", f"auth/approle/role/{role}/role-id")["data"]["role_id"]
            if found == login["role_id"]:
                bao.api("DELETE", f"auth/approle/role/{role}")
        errors = [
            app.try_("crypto.encrypt", key_id=key_id, plaintext=b"p")["error"]["data"] for _ in range(5)
        ]

    assert {error["code"] for error in errors} == {"AUTHENTICATION_FAILED"}
    assert not any(error.get("credential_renewed") for error in errors)
    assert logins(proxy) == 2


def test_a_token_is_renewed_while_nobody_uses_the_driver(bao: OpenBao, key_id: str) -> None:
    token = bao.token(bao.policy(), period="2s")

    def renewals() -> int:
        data = bao.api("POST", "auth/token/lookup", {"token": token})["data"]
        return int(data.get("last_renewal_time") or 0) - int(data["creation_time"])

    with opened(bao.url, {"method": "token", "token": token}) as app:
        wait_until(lambda: renewals() > 2, "renewals beyond the token's first life")
        assert app.decrypt(key_id, app.encrypt(key_id)) == b"text"


def test_a_token_that_is_not_prolonged_any_more_is_replaced_before_it_ends(
    bao: OpenBao, key_id: str, proxy: FaultProxy
) -> None:
    login = approle(bao, token_ttl="2s", token_max_ttl="3s")
    with opened(proxy.url, login) as app:
        app.encrypt(key_id)
        wait_until(lambda: logins(proxy) >= 2, "the second login")
        assert app.decrypt(key_id, app.encrypt(key_id)) == b"text"


def test_a_token_that_was_obtained_is_given_back_also_after_a_dry_run(bao: OpenBao, key_id: str) -> None:
    login = approle(bao)
    before = {*bao.api("LIST", "auth/token/accessors")["data"]["keys"]}
    with opened(bao.url, login) as app:
        app.encrypt(key_id)
        assert len({*bao.api("LIST", "auth/token/accessors")["data"]["keys"]} - before) == 1
    with run_driver(VaultTransitDriver) as client:
        host = {"name": "test", "version": "0"}
        client.call("plugin.initialize", {"protocol_versions": ["1"], "host": host})
        config = {"address": bao.url, "login": login}
        assert "result" in client.call("plugin.configure", {"config": config, "dry_run": True})
        assert "result" in client.call("plugin.configure", {"config": config})
    assert {*bao.api("LIST", "auth/token/accessors")["data"]["keys"]} <= before


def test_a_namespace_has_logins_and_keys_of_its_own(bao: OpenBao, vault: Vault) -> None:
    name = new_name()
    vault.ask("key.create", algorithm="AES_256_GCM", name=name)
    bao.api("POST", f"sys/namespaces/{name}", {})
    bao.api("POST", "sys/mounts/deep/transit", {"type": "transit"}, namespace=name)
    rules = documented_policy().replace("transit/", "deep/transit/")
    rules += 'path "deep/transit/keys/*" { capabilities = ["create", "read", "update"] }'
    login = approle(bao, namespace=name)
    bao.policy("app", rules, namespace=name)
    more = {"namespace": name, "mount": "deep/transit"}
    with opened(bao.url, login, **more) as app:
        assert app.code("key.get", key_id=name) == "KEY_NOT_FOUND"
        key_id = app.make()
        assert key_id.startswith(f"{name}/deep/transit/")
        assert app.decrypt(key_id, app.encrypt(key_id)) == b"text"
    assert refusal(bao.url, login)["data"]["code"] == "AUTHENTICATION_FAILED"
    assert refusal(bao.url, login, **{**more, "mount": "elsewhere"})["data"]["path"] == "mount"


def test_a_mount_that_is_not_there_or_another_engine_is_a_wrong_setting(bao: OpenBao) -> None:
    error = refusal(bao.url, {"method": "token", "token": bao.root}, mount="cubbyhole")

    assert (error["data"]["code"], error["data"]["path"]) == ("CONFIGURATION_ERROR", "mount")
    error = refusal(bao.url, {"method": "approle", "role_id": "r", "secret_id": "s", "mount": "nowhere"})
    assert error["data"]["code"] in ("CONFIGURATION_ERROR", "AUTHENTICATION_FAILED")


def test_a_json_web_token_in_a_file_logs_in_and_a_wrong_one_does_not(
    bao: OpenBao, key_id: str, tmp_path: Path
) -> None:
    key = signing_key()
    enable(bao, "jwt")
    bao.policy()
    bao.api("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [key.public]})
    role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": "app"}
    bao.api("POST", "auth/jwt/role/orders", role)
    file = tmp_path / "token"
    login = {"method": "jwt", "role": "orders", "jwt_file": str(file)}

    file.write_text(signed_jwt(key, aud="vault", sub="orders") + "\n")
    with opened(bao.url, login) as app:
        assert app.decrypt(key_id, app.encrypt(key_id)) == b"text"
    for wrong in (
        signed_jwt(key, aud="elsewhere", sub="orders"),
        signed_jwt(signing_key(), aud="vault", sub="orders"),
        signed_jwt(key, aud="vault", sub="orders", life_s=-3600),
        "no token at all",
    ):
        file.write_text(wrong)
        error = refusal(bao.url, login)
        assert error["data"]["code"] == "AUTHENTICATION_FAILED"
        assert wrong not in str(error)
    file.unlink()
    error = refusal(bao.url, login)
    assert (error["data"]["code"], error["data"]["path"]) == ("CONFIGURATION_ERROR", "login.jwt_file")
    file.write_bytes(b"\xff" * 70_000)
    assert refusal(bao.url, login)["data"]["path"] == "login.jwt_file"


@pytest.fixture
def cluster(bao: OpenBao) -> Iterator[Cluster]:
    with kubernetes() as running:
        enable(bao, "kubernetes")
        running.configure(bao, policy=bao.policy())
        yield running


def test_a_projected_token_is_read_anew_for_each_login(
    bao: OpenBao, key_id: str, proxy: FaultProxy, cluster: Cluster, tmp_path: Path
) -> None:
    file = cluster.project(tmp_path)
    with opened(proxy.url, {"method": "kubernetes", "role": "orders", "jwt_file": str(file)}) as app:
        app.encrypt(key_id)
        old = file.read_text()
        cluster.rotate(tmp_path)
        assert file.read_text() != old
        bao.api("POST", "auth/token/revoke", {"token": token_of(proxy)})
        assert app.code("crypto.encrypt", key_id=key_id, plaintext=b"p") == "AUTHENTICATION_FAILED"
        assert app.decrypt(key_id, app.encrypt(key_id)) == b"text"
    assert cluster.reviewed == [old, file.read_text()]


def test_a_service_account_that_is_not_known_or_not_allowed_is_refused(
    bao: OpenBao, cluster: Cluster, tmp_path: Path
) -> None:
    file = cluster.project(tmp_path)
    login = {"method": "kubernetes", "role": "orders", "jwt_file": str(file)}
    cluster.valid.clear()
    assert refusal(bao.url, login)["data"]["code"] == "AUTHENTICATION_FAILED"
    cluster.rotate(tmp_path, account="somebody")
    assert refusal(bao.url, login)["data"]["code"] == "AUTHENTICATION_FAILED"
    assert refusal(bao.url, {**login, "role": "nobody"})["data"]["code"] == "AUTHENTICATION_FAILED"


def test_a_client_certificate_logs_in_and_the_servers_own_is_verified(tmp_path: Path) -> None:
    authority, clients = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = authority.issue_cert("127.0.0.1")
    server.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    server.private_key_pem.write_to_path(tmp_path / "server.key")
    client = clients.issue_cert("orders.example", common_name="orders")
    client.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    client.private_key_pem.write_to_path(tmp_path / "client.key")
    tls = {
        "tls_cert_file": str(tmp_path / "server.pem"),
        "tls_key_file": str(tmp_path / "server.key"),
        "tls_disable_client_certs": False,
    }
    with openbao(tmp_path / "bao", tls=tls, ca_file=tmp_path / "ca.pem") as bao:
        enable(bao, "cert")
        bao.policy()
        certificate = clients.cert_pem.bytes().decode()
        bao.api("POST", "auth/cert/certs/orders", {"certificate": certificate, "token_policies": "app"})
        bao.api("POST", "transit/keys/k", {"type": "aes256-gcm96"})
        login = {
            "method": "cert",
            "certificate_file": str(tmp_path / "client.pem"),
            "private_key_file": str(tmp_path / "client.key"),
        }
        trusting = {"ca_file": str(tmp_path / "ca.pem")}
        with opened(bao.url, login, **trusting) as app:
            assert app.decrypt("k", app.encrypt("k")) == b"text"
        assert refusal(bao.url, login)["data"]["code"] == "CONFIGURATION_ERROR"  # the public authorities
        named = bao.url.replace("127.0.0.1", "localhost")
        assert refusal(named, login, **trusting)["data"]["code"] == "CONFIGURATION_ERROR"  # another name
        stranger = trustme.CA().issue_cert("orders.example", common_name="orders")
        stranger.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
        stranger.private_key_pem.write_to_path(tmp_path / "client.key")
        assert refusal(bao.url, login, **trusting)["data"]["code"] == "AUTHENTICATION_FAILED"


def test_the_keystore_is_the_same_under_every_address(bao: OpenBao, proxy: FaultProxy) -> None:
    found = []
    for address in (bao.url, proxy.url, bao.url.replace("127.0.0.1", "localhost")):
        with run_driver(VaultTransitDriver) as client:
            host = {"name": "test", "version": "0"}
            client.call("plugin.initialize", {"protocol_versions": ["1"], "host": host})
            answer = client.call("plugin.configure", {"config": {**settings(bao), "address": address}})
            found.append(answer["result"]["identity"])
    assert len(set(found)) == 1
    assert found[0].startswith("transit:")
