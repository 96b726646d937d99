"""What the Azure driver makes, shows and takes in, against a scripted vault and Managed HSM."""

import base64
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from backends.azure_entra import CLIENT, TENANT
from backends.azure_fake import REGION, AzureFake, azure_fake
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)
from kmsplug_plugins.azure_keyvault.config import AzureConfig
from kmsplug_plugins.azure_keyvault.driver import AzureKeyVaultDriver
from kmsplug_protocol import Capability, HealthDepth
from support.azure import HSM, VAULT, Session, led_to, session

SHA1 = hashes.SHA1()  # noqa: S303 - of Azure's own transfer format
MISFIT = "the import token or the material does not fit this key: ask for import parameters again"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureFake]:
    with azure_fake(tmp_path_factory.mktemp("azure")) as running, led_to(running):
        yield running


@pytest.fixture(scope="module")
def vault_session(server: AzureFake) -> Iterator[Session]:
    with session() as driver:
        yield driver


@pytest.fixture(scope="module")
def hsm_session(server: AzureFake) -> Iterator[Session]:
    with session(HSM) as driver:
        yield driver


@pytest.fixture
def fake(server: AzureFake) -> AzureFake:
    server.settle()
    return server


@pytest.fixture
def driver(fake: AzureFake, vault_session: Session) -> Session:
    return vault_session


@pytest.fixture
def hsm(fake: AzureFake, hsm_session: Session) -> Session:
    return hsm_session


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def rows(**settings: Any) -> tuple[Capability, ...]:
    made = AzureKeyVaultDriver()
    try:
        found = made.configure(AzureConfig.model_validate({**VAULT, **settings}), dry_run=True).capabilities
    finally:
        made.close()
    assert found is not None
    return found


def test_rows_are_what_the_vault_has_under_its_settings(fake: AzureFake) -> None:
    plain, sha1, premium = rows(), rows(allow_oaep_sha1=True), rows(premium=True)
    managed = rows(**HSM)

    assert {str(row.mechanism) for row in plain if row.operation == "crypto.encrypt"} == {"RSA_OAEP_SHA_256"}
    assert {str(row.mechanism) for row in sha1 if row.operation == "crypto.encrypt"} == {
        "RSA_OAEP_SHA_256", "RSA_OAEP_SHA_1",
    }  # fmt: skip
    assert {str(row.protection) for row in plain if row.operation == "key.create"} == {"software"}
    assert {str(row.protection) for row in premium if row.operation == "key.create"} == {"software", "hsm"}
    assert {str(row.protection) for row in managed if row.operation == "key.create"} == {"hsm"}
    assert not any(row.operation == "crypto.random" for row in plain)
    limits = {row.key_algorithm: row.max_input_bytes for row in plain if row.operation == "crypto.encrypt"}
    assert list(limits.values()) == [190, 318, 446]
    assert all(row.documented_only for row in (*plain, *managed))


def test_pkcs1_encryption_is_not_to_be_had_and_sha1_only_where_it_was_allowed(driver: Session) -> None:
    key = driver.make()["key_id"]
    body = {"key_id": key, "plaintext": "AAAA"}

    assert (
        driver.refused("crypto.encrypt", **body, mechanism="RSA_PKCS1_SHA_256")["code"]
        == "KEY_USAGE_MISMATCH"
    )
    assert (
        driver.refused("crypto.encrypt", **body, mechanism="RSA_OAEP_SHA_1")["code"]
        == "UNSUPPORTED_OPERATION"
    )
    with session(allow_oaep_sha1=True) as other:
        sealed = other.ask("crypto.encrypt", **body, mechanism="RSA_OAEP_SHA_1")
        opening = {"key_id": key, "ciphertext": sealed["ciphertext"]}
        assert other.ask("crypto.decrypt", **opening, mechanism="RSA_OAEP_SHA_1")["plaintext"] == "AAAA"
        assert other.refused("crypto.decrypt", **opening)["code"] == "INVALID_CIPHERTEXT"


def test_what_the_vault_is_told_about_a_new_key(fake: AzureFake, driver: Session) -> None:
    driver.make("RSA_3072", "WRAP_UNWRAP", name="made", tags={"team": "payments"})
    version = fake.vault.keys["made"].versions[0]

    assert (version.kty, version.key_ops) == ("RSA", ["wrapKey", "unwrapKey"])
    assert version.material.private is not None
    assert version.material.private.key_size == 3072
    assert version.tags["team"] == "payments"


@pytest.mark.parametrize("name", ["with space", "under_score", "a" * 128, "../x", "ü"])
def test_a_name_that_the_vault_cannot_have_is_refused_before_it_is_asked(
    fake: AzureFake, driver: Session, name: str
) -> None:
    found = driver.refused("key.create", algorithm="EC_P256", name=name)

    assert (found["code"], found["path"]) == ("INVALID_ARGUMENT", "name")
    assert fake.requests == []


@pytest.mark.parametrize(
    "demand",
    [{"protection": "hsm"}, {"exportable": True}, {"usage": "KEY_AGREEMENT"}, {"algorithm": "ED25519"}],
)
def test_a_demand_that_cannot_be_met_is_refused_never_lowered(
    fake: AzureFake, driver: Session, demand: dict[str, Any]
) -> None:
    found = driver.refused("key.create", **{"algorithm": "EC_P256", **demand})

    assert found["code"] == "UNSUPPORTED_OPERATION"
    assert fake.requests == []


def test_fourteen_tags_are_the_callers_and_one_is_ours(fake: AzureFake, driver: Session) -> None:
    key = driver.make("EC_P256", "SIGN_VERIFY", tags={f"t{number}": "x" for number in range(14)})

    assert len(fake.vault.keys[key["name"]].versions[0].tags) == 15
    assert driver.refused("key.tag", key_id=key["key_id"], set={"one": "more"})["code"] == "LIMIT_EXCEEDED"
    assert driver.refused("key.tag", key_id=key["key_id"], set={"kmsplug": "x"})["code"] == "INVALID_ARGUMENT"
    assert (
        driver.refused("key.tag", key_id=key["key_id"], set={"t0": "x" * 257})["code"] == "INVALID_ARGUMENT"
    )
    found = driver.ask("key.tag", key_id=key["key_id"], remove=["t0"], set={"t1": "y"})
    assert (len(found["tags"]), found["tags"]["t1"]) == (13, "y")


@pytest.mark.parametrize(
    "note", ["nonsense", "g=x b=y", "a=" + "x" * 250, "=", "w=SIGN_VERIFY", "w=x a=EC_P256"]
)
def test_a_note_that_somebody_wrote_over_does_no_harm(fake: AzureFake, driver: Session, note: str) -> None:
    key = driver.make("EC_P256", "SIGN_VERIFY")
    fake.vault.keys[key["name"]].versions[0].tags["kmsplug"] = note

    driver.ask("crypto.sign", key_id=key["key_id"], message="AAAA")
    assert driver.ask("key.rotate", key_id=key["key_id"])["key_version"] != key["key_version"]


def test_keys_of_other_tools_are_used_for_what_they_are_for(fake: AzureFake, driver: Session) -> None:
    both = {"kty": "RSA", "key_size": 2048, "key_ops": ["sign", "verify", "wrapKey", "unwrapKey"]}
    fake.vault.answer("POST", "/keys/foreign/create", {}, both)

    driver.ask("crypto.sign", key_id="foreign", message="AAAA")
    driver.ask("crypto.wrap_key", key_id="foreign", key=b64(bytes(32)))
    assert (
        driver.refused("crypto.encrypt", key_id="foreign", plaintext="AAAA")["code"] == "KEY_USAGE_MISMATCH"
    )
    assert driver.ask("key.get", key_id="foreign")["usage"] == "WRAP_UNWRAP"


def test_a_kind_of_key_without_a_name_here_is_left_out_of_lists(fake: AzureFake, driver: Session) -> None:
    strange = {"kty": "EC", "crv": "P-256K", "key_ops": ["sign", "verify"]}
    fake.vault.answer("POST", "/keys/strange/create", {}, strange)

    assert driver.refused("key.get", key_id="strange")["code"] == "UNSUPPORTED_OPERATION"
    assert "strange" not in [key["name"] for key in walk(driver)]
    assert driver.ask("key.validate", key_id="strange")["valid"] is False


def walk(driver: Session, limit: int = 1000) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = driver.ask("key.list", limit=limit, **cursor)
        found += page["keys"]
        if "next_cursor" not in page:
            return found
        cursor = {"cursor": page["next_cursor"]}


def test_a_list_holds_more_keys_than_a_page_of_the_service_and_the_deleted_ones(fake: AzureFake) -> None:
    with session(HSM) as driver:
        names = {driver.make("EC_P256", "SIGN_VERIFY")["key_id"] for _ in range(30)}
        gone = min(names)
        driver.ask("key.schedule_deletion", key_id=gone)

        found = {key["key_id"]: key["state"] for key in walk(driver)}

    assert names <= found.keys()
    assert found[gone] == "DESTROY_SCHEDULED"


def test_a_key_is_known_by_one_id_and_by_its_bare_name_and_by_nothing_else(
    fake: AzureFake, driver: Session
) -> None:
    key = driver.make("EC_P256", "SIGN_VERIFY", name="by-name")

    assert key["key_id"] == "https://kmsplug-test.vault.azure.net/keys/by-name"
    assert driver.ask("key.get", key_id="by-name")["key_id"] == key["key_id"]
    fake.settle()
    for strange in (
        key["key_id"] + "/" + key["key_version"],
        "https://else.vault.azure.net/keys/by-name",
        "a/b",
    ):
        assert driver.refused("key.get", key_id=strange)["code"] == "KEY_NOT_FOUND"
    assert (
        driver.refused("key.get_public_key", key_id="by-name", key_version="../x")["code"] == "KEY_NOT_FOUND"
    )
    assert fake.requests == []


def test_deleted_keys_that_may_not_be_seen_are_keys_that_are_not_there(
    fake: AzureFake, driver: Session
) -> None:
    fake.script("^GET /deletedkeys/", status=403, body='{"error":{"code":"Forbidden","message":"m"}}')

    assert driver.refused("key.get", key_id="unseen")["code"] == "KEY_NOT_FOUND"


def test_those_who_only_use_keys_list_the_live_ones(fake: AzureFake) -> None:
    denied = '{"error":{"code":"Forbidden","message":"m","innererror":{"code":"ForbiddenByRbac"}}}'
    with session(HSM) as driver:
        key = driver.make("EC_P256", "SIGN_VERIFY")
        fake.script("^GET /deletedkeys ?", status=403, body=denied)

        assert key["key_id"] in [one["key_id"] for one in walk(driver)]


def test_rights_to_use_keys_without_listing_them_are_enough(fake: AzureFake) -> None:
    body = '{"error":{"code":"Forbidden","message":"m","innererror":{"code":"%s"}}}'
    fake.script("^GET /keys$", status=403, body=body % "ForbiddenByRbac")
    with session() as driver:
        key = driver.make()
        driver.ask("crypto.encrypt", key_id=key["key_id"], plaintext="AAAA")

    fake.script("^GET /keys$", status=403, body=body % "ForbiddenByFirewall")
    with pytest.raises(AssertionError, match="ACCESS_DENIED"), session():
        pass


def test_a_backup_brings_a_purged_key_back_with_all_its_versions(fake: AzureFake, driver: Session) -> None:
    key = driver.make()
    sealed = driver.ask("crypto.encrypt", key_id=key["key_id"], plaintext="AAAA")["ciphertext"]
    driver.ask("key.rotate", key_id=key["key_id"])
    copy = driver.ask("key.backup", key_id=key["key_id"])["backup"]
    assert driver.refused("key.restore", backup=copy)["code"] == "ALREADY_EXISTS"
    driver.ask("key.schedule_deletion", key_id=key["key_id"])
    driver.ask("key.purge", key_id=key["key_id"])
    assert driver.refused("key.get", key_id=key["key_id"])["code"] == "KEY_NOT_FOUND"

    assert driver.ask("key.restore", backup=copy)["key_id"] == key["key_id"]
    driver.ask("key.enable", key_id=key["key_id"])

    assert driver.ask("crypto.decrypt", key_id=key["key_id"], ciphertext=sealed)["plaintext"] == "AAAA"
    assert driver.refused("key.restore", backup=b64(b"no backup"))["code"] == "INVALID_ARGUMENT"


def test_a_policy_that_could_not_be_set_is_set_when_the_key_is_asked_about(fake: AzureFake) -> None:
    with session(rotate_after_days=30) as driver:
        fake.script("rotationpolicy", status=503)
        create = {"algorithm": "EC_P256", "meta": {"idempotency_key": "with policy"}}
        assert driver.refused("key.create", **create)["outcome"] == "unknown"

        found = driver.ask("key.reconcile", method="key.create", idempotency_key="with policy")

    assert found["outcome"] == "applied"
    assert fake.vault.keys[found["key"]["name"]].policy is not None


def test_new_keys_get_the_rotation_policy_of_the_settings(fake: AzureFake) -> None:
    with session(rotate_after_days=90) as driver:
        key = driver.make("EC_P256", "SIGN_VERIFY")

    policy = fake.vault.keys[key["name"]].policy
    assert policy is not None
    assert policy["lifetimeActions"] == [
        {"trigger": {"timeAfterCreate": "P90D"}, "action": {"type": "Rotate"}}
    ]


# Importing.


def wrapped_material(terms: dict[str, Any], material: bytes, hash_: hashes.HashAlgorithm) -> str:
    """Wrap material as ``RSA_AES_KEY_WRAP_SHA_n`` says."""
    public = load_der_public_key(base64.b64decode(terms["public_key"]))
    assert isinstance(public, rsa.RSAPublicKey)
    ephemeral = os.urandom(32)
    sealed = public.encrypt(ephemeral, padding.OAEP(padding.MGF1(hash_), hash_, None))
    return b64(sealed + keywrap.aes_key_wrap_with_padding(ephemeral, material))


def pkcs8(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def waiting(
    driver: Session, algorithm: str, usage: str, wrapping: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    key = driver.make(algorithm, usage, origin="imported")
    terms = driver.ask("key.get_import_parameters", key_id=key["key_id"], wrapping_algorithm=wrapping)
    body = {"key_id": key["key_id"], "wrapping_algorithm": wrapping, "import_token": terms["import_token"]}
    return terms, body


SOFTWARE: dict[str, tuple[str, Callable[[], rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]]] = {
    "RSA_2048": ("SIGN_VERIFY", lambda: rsa.generate_private_key(65537, 2048)),
    "EC_P256": ("SIGN_VERIFY", lambda: ec.generate_private_key(ec.SECP256R1())),
    "EC_P521": ("SIGN_VERIFY", lambda: ec.generate_private_key(ec.SECP521R1())),
}


@pytest.mark.parametrize("algorithm", SOFTWARE)
def test_an_imported_key_is_the_key_that_was_handed_in(
    fake: AzureFake, driver: Session, algorithm: str
) -> None:
    usage, make = SOFTWARE[algorithm]
    material = make()
    terms, body = waiting(driver, algorithm, usage, "RSA_AES_KEY_WRAP_SHA_256")
    name = {"key_id": body["key_id"]}
    before = driver.ask("key.get", **name)
    assert (before["state"], before["origin"], before["algorithm"]) == ("PRE_ACTIVE", "imported", algorithm)
    assert driver.refused("crypto.sign", **name, message="AAAA")["code"] == "KEY_INVALID_STATE"

    sealed = wrapped_material(terms, pkcs8(material), hashes.SHA256())
    done = driver.ask("key.import", **body, wrapped_key=sealed, meta={"idempotency_key": algorithm})

    assert (done["state"], done["origin"], done["usage"]) == ("ACTIVE", "imported", usage)
    signature = driver.ask("crypto.sign", **name, message=b64(b"a message"))["signature"]
    public = load_der_public_key(base64.b64decode(driver.ask("key.get_public_key", **name)["public_key"]))
    assert public == material.public_key()
    assert driver.ask("crypto.verify", **name, message=b64(b"a message"), signature=signature)["valid"]
    versions = driver.ask("key.list_versions", **name)["versions"]
    assert [one["key_version"] for one in versions] == [done["key_version"]]  # the wrapping key is none
    wrapping = fake.vault.keys[done["name"]].versions[0]
    assert wrapping.attributes["enabled"] is False
    asked = {"method": "key.import", "idempotency_key": algorithm, **name}
    assert driver.ask("key.reconcile", **asked)["outcome"] == "applied"
    assert driver.refused("key.rotate", **name)["code"] == "UNSUPPORTED_OPERATION"
    assert driver.refused("key.import", **body, wrapped_key=sealed)["code"] == "KEY_INVALID_STATE"


def test_material_that_does_not_fit_is_refused_in_one_sentence(fake: AzureFake, driver: Session) -> None:
    terms, body = waiting(driver, "EC_P256", "SIGN_VERIFY", "RSA_AES_KEY_WRAP_SHA_256")
    sealed = wrapped_material(terms, pkcs8(ec.generate_private_key(ec.SECP384R1())), hashes.SHA256())
    flipped = base64.b64decode(sealed)
    unfit = {
        "another curve": {"wrapped_key": sealed},
        "no key": {"wrapped_key": wrapped_material(terms, b"nothing of the kind", hashes.SHA256())},
        "another hash": {"wrapped_key": wrapped_material(terms, bytes(32), SHA1)},
        "a bit flipped": {"wrapped_key": b64(bytes([flipped[0] ^ 1]) + flipped[1:])},
        "cut": {"wrapped_key": b64(flipped[:100])},
        "nothing": {"wrapped_key": ""},
        "too much": {"wrapped_key": b64(bytes(20_000))},
        "another token": {"wrapped_key": sealed, "import_token": b64(bytes(32))},
    }

    found = {what: driver.refused("key.import", **{**body, **members}) for what, members in unfit.items()}

    assert {(one["code"], one["message"]) for one in found.values()} == {("INVALID_ARGUMENT", MISFIT)}
    assert driver.ask("key.get", key_id=body["key_id"])["state"] == "PRE_ACTIVE"


def test_an_import_whose_answer_was_lost_is_found(fake: AzureFake, driver: Session) -> None:
    terms, body = waiting(driver, "EC_P256", "SIGN_VERIFY", "RSA_AES_KEY_WRAP_SHA_256")
    sealed = wrapped_material(terms, pkcs8(ec.generate_private_key(ec.SECP256R1())), hashes.SHA256())
    asked = {"method": "key.import", "idempotency_key": "import lost", "key_id": body["key_id"]}
    assert driver.ask("key.reconcile", **asked)["outcome"] == "not_applied"
    fake.script("^PUT /keys/", after=True)

    driver.refused("key.import", **body, wrapped_key=sealed, meta={"idempotency_key": "import lost"})

    found = driver.ask("key.reconcile", **asked)
    assert found["outcome"] == "applied"
    wrapping, _ = fake.vault.keys[found["key"]["name"]].versions
    assert wrapping.attributes["enabled"] is False


def test_what_goes_into_an_hsm_is_opened_in_there_and_nowhere_else(fake: AzureFake, hsm: Session) -> None:
    """Azure's own transfer format: this process never has the material."""
    material = bytes(range(32))
    terms, body = waiting(hsm, "AES_256_GCM", "ENCRYPT_DECRYPT", "RSA_AES_KEY_WRAP_SHA_1")
    assert fake.hsm.keys[body["key_id"].rpartition("/")[2]].versions[0].key_ops == ["import"]
    fake.settle()

    hsm.ask("key.import", **body, wrapped_key=wrapped_material(terms, material, SHA1))

    assert not fake.seen("unwrapkey|decrypt")
    made = hsm.ask("crypto.encrypt", key_id=body["key_id"], plaintext="AAAA", associated_data=b64(b"bound"))
    sealed = base64.b64decode(made["ciphertext"])
    assert AESGCM(material).decrypt(sealed[:12], sealed[12:], b"bound") == bytes(3)
    other = {"key_id": body["key_id"], "ciphertext": made["ciphertext"]}
    assert (
        hsm.refused("crypto.decrypt", **other, associated_data=b64(b"else"))["code"] == "INVALID_CIPHERTEXT"
    )
    assert hsm.refused("crypto.decrypt", **other)["code"] == "INVALID_CIPHERTEXT"


# Reaching keys, and health.


def test_access_data_are_judged_without_reaching_anything(fake: AzureFake, driver: Session) -> None:
    key = driver.make("EC_P256", "SIGN_VERIFY")["key_id"]
    good = {"vault_url": VAULT["vault_url"] + "/", "tenant_id": TENANT, "client_id": CLIENT.upper()}
    fake.settle()

    assert driver.ask("key.validate_access", access_data=good)["valid"]
    for bad in (
        {},
        {**good, "tenant_id": "canary"},
        {**good, "vault_url": "https://x"},
        {**good, "more": "x"},
    ):
        found = driver.ask("key.validate_access", access_data=bad)
        assert (found["valid"], "canary" in found["reason"]) == (False, False)
        assert (
            driver.refused("key.transform_access", key_id=key, access_data=bad)["code"] == "INVALID_ARGUMENT"
        )
    assert fake.requests == []
    found = driver.ask("key.transform_access", key_id=key, access_data=good)["access_data"]
    assert found == {"vault_url": VAULT["vault_url"], "tenant_id": TENANT, "client_id": CLIENT}
    assert driver.ask("key.get_region", key_id=key)["region"] == REGION
    assert driver.ask("key.validate", key_id=key, region="mars")["valid"] is False


def test_a_deep_check_encrypts_and_decrypts_where_a_key_is_set_for_it(fake: AzureFake) -> None:
    made = AzureKeyVaultDriver()
    made.configure(AzureConfig.model_validate({**VAULT, "health_key": "probe"}), dry_run=False)
    try:
        assert [check.healthy for check in made.health(HealthDepth.DEEP)] == [False]
        create = {"kty": "RSA", "key_size": 2048, "key_ops": ["encrypt", "decrypt"]}
        fake.vault.answer("POST", "/keys/probe/create", {}, create)
        fake.settle()
        assert [check.healthy for check in made.health(HealthDepth.DEEP)] == [True]
        assert (len(fake.seen("/encrypt")), len(fake.seen("/decrypt"))) == (1, 1)
        fake.settle()
        assert made.health(HealthDepth.SHALLOW) == ()
        assert fake.requests == []
    finally:
        made.close()
