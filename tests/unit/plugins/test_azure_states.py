"""Disabling, deleting, recovering and rotating at Azure, also when answers get lost."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from backends.azure_fake import AzureFake, azure_fake
from support.azure import Session, led_to, session


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureFake]:
    with azure_fake(tmp_path_factory.mktemp("azure")) as running, led_to(running):
        yield running


@pytest.fixture(scope="module")
def shared(server: AzureFake) -> Iterator[Session]:
    with session() as driver:
        yield driver


@pytest.fixture
def fake(server: AzureFake) -> AzureFake:
    server.settle()
    server.vault.purge_protection = server.vault.rotation_copies_tags = False
    server.vault.nowhere = 0
    return server


@pytest.fixture
def driver(fake: AzureFake, shared: Session) -> Session:
    return shared


def change(name: str) -> dict[str, Any]:
    return {"meta": {"idempotency_key": name}}


def enabled(fake: AzureFake, key: dict[str, Any]) -> list[bool]:
    """Return what the vault says of each version of a key, oldest first."""
    return [one.attributes["enabled"] for one in fake.vault.keys[key["name"]].versions]


def versions(fake: AzureFake, key: dict[str, Any]) -> list[str]:
    return [one.id for one in fake.vault.keys[key["name"]].versions]


_ZEROS = "A" * 342 + "=="  # as long as what a key of 2,048 bits makes

USES = {
    "crypto.encrypt": ("ENCRYPT_DECRYPT", {"plaintext": "AAAA"}),
    "crypto.decrypt": ("ENCRYPT_DECRYPT", {"ciphertext": _ZEROS}),
    "crypto.wrap_key": ("WRAP_UNWRAP", {"key": "AAAAAAAAAAAAAAAAAAAAAA=="}),
    "crypto.unwrap_key": ("WRAP_UNWRAP", {"wrapped_key": _ZEROS}),
    "crypto.sign": ("SIGN_VERIFY", {"message": "AAAA"}),
    "crypto.verify": ("SIGN_VERIFY", {"message": "AAAA", "signature": _ZEROS}),
}


@pytest.mark.parametrize("operation", USES)
def test_what_another_tool_disabled_is_refused_before_the_vault_would_let_it(
    fake: AzureFake, driver: Session, operation: str
) -> None:
    """The service goes on encrypting, wrapping and verifying with a disabled key."""
    usage, members = USES[operation]
    key = driver.make(usage=usage)
    fake.vault.keys[key["name"]].versions[0].attributes["enabled"] = False
    fake.settle()

    found = driver.refused(operation, key_id=key["key_id"], **members)

    assert found["code"] == "KEY_DISABLED"
    assert not fake.seen("^POST")
    told = driver.ask("key.get", key_id=key["key_id"])
    assert (told["state"], told["enforced_by"]) == ("SUSPENDED", "host")


@pytest.mark.parametrize(
    ("operation", "verb"), [("encrypt", "encrypt"), ("sign", "sign"), ("verify", "verify")]
)
def test_every_use_is_a_request_to_the_service(
    fake: AzureFake, driver: Session, operation: str, verb: str
) -> None:
    usage, members = USES[f"crypto.{operation}"]
    key = driver.make(usage=usage)
    fake.settle()

    for _ in range(2):
        driver.ask(f"crypto.{operation}", key_id=key["key_id"], **members)

    assert len(fake.seen(f"^POST .*/{verb} 200")) == 2


def test_disabling_that_was_interrupted_is_completed_by_the_same_call(
    fake: AzureFake, driver: Session
) -> None:
    key = driver.make()
    for _ in range(2):
        driver.ask("key.rotate", key_id=key["key_id"])
    fake.settle()
    fake.script(f"^PATCH /keys/{key['name']}/{versions(fake, key)[1]}", status=503)

    assert driver.refused("key.disable", key_id=key["key_id"])["code"] == "PROVIDER_UNAVAILABLE"
    assert enabled(fake, key) == [False, True, True]
    assert driver.ask("key.get", key_id=key["key_id"])["state"] == "ACTIVE"  # it is not, yet

    assert driver.ask("key.disable", key_id=key["key_id"])["state"] == "SUSPENDED"
    assert enabled(fake, key) == [False, False, False]
    assert len(fake.seen("^PATCH .* 200")) == 3  # none twice


def test_a_version_outside_its_dates_does_what_the_dates_allow(fake: AzureFake, driver: Session) -> None:
    key = driver.make()
    made = driver.ask("crypto.encrypt", key_id=key["key_id"], plaintext="AAAA")
    attributes = fake.vault.keys[key["name"]].versions[0].attributes
    for dates, state, make, opens in (
        ({"nbf": time.time() + 60}, "PRE_ACTIVE", "KEY_INVALID_STATE", "KEY_INVALID_STATE"),
        ({"nbf": time.time() - 60, "exp": time.time() - 1}, "DEACTIVATED", "KEY_INVALID_STATE", None),
    ):
        attributes.update({name: int(value) for name, value in dates.items()})
        assert driver.ask("key.get", key_id=key["key_id"])["state"] == state
        assert driver.refused("crypto.encrypt", key_id=key["key_id"], plaintext="AAAA")["code"] == make
        opening = {"key_id": key["key_id"], "ciphertext": made["ciphertext"]}
        if opens is None:
            assert driver.ask("crypto.decrypt", **opening)["plaintext"] == "AAAA"
        else:
            assert driver.refused("crypto.decrypt", **opening)["code"] == opens


def test_a_key_that_another_tool_deleted_comes_back_disabled(fake: AzureFake, driver: Session) -> None:
    key = driver.make()
    driver.ask("key.rotate", key_id=key["key_id"])
    fake.vault.answer("DELETE", f"/keys/{key['name']}", {}, {})
    assert driver.ask("key.get", key_id=key["key_id"])["state"] == "DESTROY_SCHEDULED"

    found = driver.ask("key.cancel_deletion", key_id=key["key_id"])

    assert found["state"] == "SUSPENDED"
    assert enabled(fake, key) == [False, False]


def test_a_key_is_waited_for_that_is_neither_here_nor_there(fake: AzureFake, driver: Session) -> None:
    key = driver.make()
    fake.vault.nowhere = 3

    assert driver.ask("key.schedule_deletion", key_id=key["key_id"])["state"] == "DESTROY_SCHEDULED"
    assert driver.ask("key.cancel_deletion", key_id=key["key_id"])["state"] == "SUSPENDED"


def test_waiting_ends_with_the_deadline_and_says_that_the_vault_took_the_request(
    fake: AzureFake, driver: Session
) -> None:
    key = driver.make()
    fake.vault.nowhere = 10**6

    found = driver.refused("key.schedule_deletion", key_id=key["key_id"], meta={"deadline_ms": 3000})

    assert (found["code"], found["outcome"]) == ("TIMEOUT", "applied")


def test_a_deletion_that_may_not_be_leaves_the_key_as_it_was(fake: AzureFake, driver: Session) -> None:
    key = driver.make()
    driver.ask("key.rotate", key_id=key["key_id"])
    body = '{"error":{"code":"Forbidden","message":"m","innererror":{"code":"ForbiddenByRbac"}}}'
    fake.script("^DELETE /keys/", status=403, body=body)

    found = driver.refused("key.schedule_deletion", key_id=key["key_id"])

    assert (found["code"], found["vendor"]["code"]) == ("ACCESS_DENIED", "ForbiddenByRbac")
    assert "roles" in found["hint"] or "role" in found["hint"]
    assert enabled(fake, key) == [True, True]


def test_the_window_is_the_vaults_and_any_other_is_refused(fake: AzureFake, driver: Session) -> None:
    key = driver.make()

    for days in (7, 89):
        found = driver.refused("key.schedule_deletion", key_id=key["key_id"], window_days=days)
        assert (found["code"], found["path"]) == ("INVALID_ARGUMENT", "window_days")
    assert enabled(fake, key) == [True]
    found = driver.ask("key.schedule_deletion", key_id=key["key_id"], window_days=90)
    assert found["deletion_at"] > found.get("created_at", "")


def test_a_vault_that_keeps_no_deleted_keys_destroys_none(fake: AzureFake, driver: Session) -> None:
    key = driver.make()
    fake.vault.keys[key["name"]].versions[0].attributes["recoveryLevel"] = "Purgeable"

    found = driver.refused("key.schedule_deletion", key_id=key["key_id"])

    assert found["code"] == "UNSUPPORTED_OPERATION"
    assert key["name"] in fake.vault.keys


def test_a_purge_that_the_vault_is_protected_from_is_unsupported(fake: AzureFake, driver: Session) -> None:
    fake.vault.purge_protection = True
    key = driver.make()
    driver.ask("key.schedule_deletion", key_id=key["key_id"])

    found = driver.refused("key.purge", key_id=key["key_id"])

    assert (found["code"], found["vendor"]["http_status"]) == ("UNSUPPORTED_OPERATION", 403)
    assert driver.ask("key.get", key_id=key["key_id"])["state"] == "DESTROY_SCHEDULED"


def test_a_name_that_a_deleted_key_holds_is_taken(fake: AzureFake, driver: Session) -> None:
    key = driver.make(name="held")
    driver.ask("key.schedule_deletion", key_id=key["key_id"])
    again = {"algorithm": "RSA_2048", "usage": "ENCRYPT_DECRYPT", "name": "held"}

    found = driver.refused("key.create", **again)
    assert (found["code"], "recover" in found["hint"] or "cancel" in found["hint"]) == (
        "ALREADY_EXISTS",
        True,
    )

    # The same, where the deleted key may not be seen: then it is the service that says so.
    fake.script("^GET /deletedkeys/held", status=403, body='{"error":{"code":"Forbidden","message":"m"}}')
    found = driver.refused("key.create", **again)
    assert (found["code"], found["vendor"]["code"]) == ("ALREADY_EXISTS", "ObjectIsDeletedButRecoverable")


def test_a_taken_name_never_gets_another_version(fake: AzureFake, driver: Session) -> None:
    key = driver.make(name="taken")

    found = driver.refused("key.create", algorithm="EC_P256", name="taken")

    assert found["code"] == "ALREADY_EXISTS"
    assert versions(fake, key) == [key["key_version"]]


@pytest.mark.parametrize("copies", [False, True], ids=["bare", "copied"])
class TestRotation:
    """Whether rotate copies the tags of the version before, nobody says: it has to work either way."""

    @pytest.fixture(autouse=True)
    def _copies(self, fake: AzureFake, copies: bool) -> None:
        fake.vault.rotation_copies_tags = copies

    def test_tags_outlive_a_rotation(self, driver: Session) -> None:
        key = driver.make(tags={"team": "payments"})

        found = driver.ask("key.rotate", key_id=key["key_id"])

        assert found["tags"] == {"team": "payments"}
        assert found["created_at"] == key["created_at"]

    def test_a_rotation_whose_answer_was_lost_is_found_and_not_made_twice(
        self, fake: AzureFake, driver: Session
    ) -> None:
        key = driver.make(tags={"team": "payments"})
        driver.ask("key.rotate", key_id=key["key_id"], **change("one before"))
        fake.script(f"^POST /keys/{key['name']}/rotate", after=True)

        found = driver.refused("key.rotate", key_id=key["key_id"], **change("lost"))
        assert found.get("outcome", "unknown") == "unknown"

        answer = ask_about(driver, key, "lost")
        assert (answer["outcome"], answer["key"]["key_version"]) == ("applied", versions(fake, key)[-1])
        assert answer["key"]["tags"] == {"team": "payments"}  # which the service may not have copied
        again = driver.ask("key.rotate", key_id=key["key_id"], **change("lost"))
        assert again["key_version"] == answer["key"]["key_version"]
        assert len(versions(fake, key)) == 3

    def test_a_rotation_repeated_without_asking_is_finished_and_not_made_twice(
        self, fake: AzureFake, driver: Session
    ) -> None:
        key = driver.make(tags={"team": "payments"})
        fake.script("^PATCH", times=2, status=403, body='{"error":{"code":"Forbidden","message":"m"}}')
        assert driver.refused("key.rotate", key_id=key["key_id"], **change("half"))["code"] == "ACCESS_DENIED"
        assert len(versions(fake, key)) == 1  # the first write is before the version
        fake.settle()
        fake.script(f"^PATCH /keys/{key['name']}/(?!{key['key_version']})", status=403,
                    body='{"error":{"code":"Forbidden","message":"m"}}')  # fmt: skip
        found = driver.refused("key.rotate", key_id=key["key_id"], **change("half"))
        assert (found["code"], found["outcome"]) == ("ACCESS_DENIED", "unknown")

        done = driver.ask("key.rotate", key_id=key["key_id"], **change("half"))

        assert done["tags"] == {"team": "payments"}
        assert (len(versions(fake, key)), done["key_version"]) == (2, versions(fake, key)[-1])

    def test_rotations_at_the_same_time_are_told_apart(self, fake: AzureFake, driver: Session) -> None:
        key = driver.make()
        names = [f"at once {number}" for number in range(4)]
        for name in names:
            driver.begin("key.rotate", key_id=key["key_id"], **change(name))
        assert all("result" in driver.end() for _ in names)

        assert [ask_about(driver, key, name)["outcome"] for name in names] == ["applied"] * 4
        assert len(versions(fake, key)) == 5

    def test_of_rotations_by_several_processes_none_is_taken_for_not_made(
        self, fake: AzureFake, driver: Session
    ) -> None:
        """They may write over each other's notes; then the answer is that nobody knows."""
        key = driver.make()
        names = [f"by many {number}" for number in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: rotate_in_its_own_session(key["key_id"], name), names))

        assert {ask_about(driver, key, name)["outcome"] for name in names} <= {"applied", "unknown"}
        assert len(versions(fake, key)) == 5

    def test_a_rotation_that_never_reached_the_vault_was_not_made(
        self, fake: AzureFake, driver: Session
    ) -> None:
        key = driver.make()
        fake.script(f"^POST /keys/{key['name']}/rotate")
        driver.refused("key.rotate", key_id=key["key_id"], **change("lost"))

        assert ask_about(driver, key, "lost")["outcome"] == "not_applied"
        assert ask_about(driver, key, "never sent")["outcome"] == "not_applied"
        driver.ask("key.rotate", key_id=key["key_id"], **change("lost"))
        assert ask_about(driver, key, "lost")["outcome"] == "applied"
        assert len(versions(fake, key)) == 2

    def test_a_rotation_repeated_after_its_answer_came_makes_no_other_version(
        self, fake: AzureFake, driver: Session
    ) -> None:
        key = driver.make()
        first = driver.ask("key.rotate", key_id=key["key_id"], **change("once"))

        again = driver.ask("key.rotate", key_id=key["key_id"], **change("once"))

        assert again["key_version"] == first["key_version"]
        assert len(versions(fake, key)) == 2

    def test_nothing_certain_is_said_where_another_tool_rotated_meanwhile(
        self, fake: AzureFake, driver: Session
    ) -> None:
        key = driver.make()
        fake.script(f"^POST /keys/{key['name']}/rotate", after=True)
        driver.refused("key.rotate", key_id=key["key_id"], **change("lost"))
        fake.vault.answer("POST", f"/keys/{key['name']}/rotate", {}, {})

        assert ask_about(driver, key, "lost")["outcome"] == "unknown"
        assert ask_about(driver, key, "overwritten?")["outcome"] == "unknown"

    def test_versions_made_in_one_second_keep_their_order(self, fake: AzureFake, driver: Session) -> None:
        key = driver.make()
        for _ in range(4):
            driver.ask("key.rotate", key_id=key["key_id"])

        found = driver.ask("key.list_versions", key_id=key["key_id"])["versions"]

        assert [one["key_version"] for one in found] == versions(fake, key)
        assert [one["current"] for one in found] == [False] * 4 + [True]


def rotate_in_its_own_session(key_id: str, name: str) -> None:
    with session() as driver:
        driver.ask("key.rotate", key_id=key_id, **change(name))


def ask_about(driver: Session, key: dict[str, Any], name: str, method: str = "key.rotate") -> dict[str, Any]:
    return driver.ask("key.reconcile", method=method, idempotency_key=name, key_id=key["key_id"])


@pytest.mark.parametrize("name", [None, "named-by-the-caller"])
def test_a_create_whose_answer_was_lost_is_found_and_not_made_twice(
    fake: AzureFake, driver: Session, name: str | None
) -> None:
    members = {"algorithm": "EC_P256", **({} if name is None else {"name": name})}
    lost = f"create {name}"
    fake.script("^POST /keys/.*/create", after=True)
    driver.refused("key.create", **members, **change(lost))

    found = driver.ask("key.reconcile", method="key.create", idempotency_key=lost)
    again = driver.ask("key.create", **members, **change(lost))

    assert found["outcome"] == "applied"
    assert (again["key_id"], again["key_version"]) == (found["key"]["key_id"], found["key"]["key_version"])
    assert len(versions(fake, again)) == 1
    driver.ask("key.rotate", key_id=again["key_id"])
    assert driver.ask("key.reconcile", method="key.create", idempotency_key=lost)["outcome"] == "applied"


def test_a_create_that_is_still_going_on_is_unknown(fake: AzureFake, driver: Session) -> None:
    script = fake.script("^POST /keys/.*/create", silent=True, after=True)
    slow = {"algorithm": "EC_P256", "meta": {"idempotency_key": "slow", "deadline_ms": 3000}}
    asked = {"method": "key.create", "idempotency_key": "slow"}

    driver.begin("key.create", **slow)
    assert script.reached.wait(10)
    assert driver.ask("key.reconcile", **asked)["outcome"] == "unknown"

    assert driver.end()["error"]["data"]["code"] == "TIMEOUT"
    assert driver.ask("key.reconcile", **asked)["outcome"] == "applied"
