import keyword
import re

import pytest
from kmsplug_protocol import BY_API, BY_WIRE, CANCEL, KEYSTORE_API, Nature, Operation
from kmsplug_protocol.operations import (
    CRYPTO_OPERATIONS,
    KEY_OPERATIONS,
    KEYSTORE_OPERATIONS,
    PLUGIN_OPERATIONS,
)

EVERY = (*KEYSTORE_API, *PLUGIN_OPERATIONS)

# The contract of version 1: an operation is added here, and never changed or taken away.
TABLE = """
key.create                 create_key               mutation
key.get                    get_key                  read
key.list                   list_keys                read
key.enable                 enable_key               idempotent
key.disable                disable_key              idempotent
key.set_state              set_key_state            idempotent
key.schedule_deletion      schedule_key_deletion    mutation
key.cancel_deletion        cancel_key_deletion      idempotent
key.restore                restore_key              mutation
key.purge                  purge_key                mutation
key.backup                 backup_key               read
key.rotate                 rotate_key               mutation
key.list_versions          list_key_versions        read
key.get_import_parameters  get_import_parameters    read
key.import                 import_key               mutation
key.get_public_key         get_public_key           read
key.set_alias              set_alias                idempotent
key.remove_alias           remove_alias             idempotent
key.tag                    tag_key                  idempotent
key.validate               validate_key             read
key.validate_access        validate_key_access      read
key.transform_access       transform_key_access     read
key.get_region             get_key_region           read
key.reconcile              reconcile                read
crypto.encrypt             encrypt                  crypto
crypto.decrypt             decrypt                  crypto
crypto.generate_data_key   generate_data_key        crypto
crypto.wrap_key            wrap_key                 crypto
crypto.unwrap_key          unwrap_key               crypto
crypto.reencrypt           reencrypt                crypto
crypto.sign                sign                     crypto
crypto.verify              verify                   crypto
crypto.mac                 mac                      crypto
crypto.verify_mac          verify_mac               crypto
crypto.random              random                   crypto
crypto.encapsulate         encapsulate              crypto
crypto.decapsulate         decapsulate              crypto
crypto.derive              derive                   crypto
crypto.batch               batch                    crypto
keystore.provision         provision_keystore       mutation
keystore.deprovision       deprovision_keystore     mutation
keystore.grant_trust       grant_trust              idempotent
keystore.remove_trust      remove_trust             idempotent
plugin.initialize          initialize               read
plugin.configure           configure                mutation
plugin.ping                ping                     read
plugin.health              health                   read
plugin.shutdown            shutdown                 idempotent
"""


def test_the_operations_are_those_of_version_1() -> None:
    rows = [(operation.wire, operation.api, operation.nature.value) for operation in EVERY]

    assert rows == [tuple(line.split()) for line in TABLE.strip().splitlines()]


def test_wire_names_and_api_names_map_one_to_one() -> None:
    assert list(BY_WIRE.values()) == list(BY_API.values()) == list(EVERY)
    assert all(BY_WIRE[operation.wire] is operation for operation in EVERY)
    assert all(BY_API[operation.api] is operation for operation in EVERY)


@pytest.mark.parametrize("operation", EVERY, ids=lambda operation: operation.wire)
def test_names_are_well_formed(operation: Operation) -> None:
    assert re.fullmatch(r"(key|crypto|keystore|plugin)\.[a-z]+(_[a-z]+)*", operation.wire)
    assert operation.api.isidentifier()
    assert not keyword.iskeyword(operation.api)
    assert operation.api == operation.api.lower()
    assert not operation.api.startswith("_")


@pytest.mark.parametrize(
    ("namespace", "operations"),
    [
        ("key", KEY_OPERATIONS),
        ("crypto", CRYPTO_OPERATIONS),
        ("keystore", KEYSTORE_OPERATIONS),
        ("plugin", PLUGIN_OPERATIONS),
    ],
)
def test_a_table_holds_its_namespace_and_nothing_else(
    namespace: str, operations: tuple[Operation, ...]
) -> None:
    assert {operation.wire.partition(".")[0] for operation in operations} == {namespace}


def test_the_api_of_keystores_has_no_operation_of_the_plugin_itself() -> None:
    assert set(KEYSTORE_API).isdisjoint(PLUGIN_OPERATIONS)


def test_cancel_is_a_notification_and_no_operation() -> None:
    assert CANCEL == "plugin.cancel"
    assert CANCEL not in BY_WIRE


def test_only_what_twice_is_not_once_may_not_be_repeated() -> None:
    assert {operation.wire for operation in EVERY if not operation.repeatable} == {
        operation.wire for operation in EVERY if operation.nature is Nature.MUTATION
    }


@pytest.mark.parametrize("operation", EVERY, ids=lambda operation: operation.wire)
def test_a_summary_is_a_sentence(operation: Operation) -> None:
    assert operation.summary[0].isupper()
    assert operation.summary.endswith(".")
    assert "\n" not in operation.summary
