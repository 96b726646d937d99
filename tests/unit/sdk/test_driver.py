import copy
import inspect
from typing import Any, get_type_hints

import pytest
from kmsplug_protocol import (
    KEYSTORE_API,
    AssociatedData,
    Capability,
    ConfigureResult,
    DecryptParams,
    DecryptResult,
    EncryptParams,
    EncryptResult,
    ErrorCode,
    HealthDepth,
    KeyAlgorithm,
    Mechanism,
    Outcome,
    Protection,
    RandomParams,
    RandomResult,
    Vendor,
)
from kmsplug_sdk import Driver, DriverError, NoConfig, provides
from kmsplug_sdk.driver import CapabilityRow, capabilities, operations
from pydantic import ValidationError
from unit.sdk.drivers import Echo


class Small(Driver[NoConfig]):
    name = "small"
    version = "1"

    @provides(mechanism=Mechanism.AES_128_GCM, max_input_bytes=1)
    @provides(mechanism=Mechanism.AES_256_GCM, max_input_bytes=2, associated_data=AssociatedData.BYTES)
    def encrypt(self, request: EncryptParams) -> EncryptResult:
        raise NotImplementedError

    def decrypt(self, request: DecryptParams) -> DecryptResult:
        """Not offered: there is no row."""
        raise NotImplementedError

    @provides(inline=True)
    def random(self, request: RandomParams) -> RandomResult:
        raise NotImplementedError

    @provides()
    def no_operation_of_the_protocol(self) -> None:
        raise NotImplementedError


def offered(driver: type[Driver[Any]]) -> dict[str, bool]:
    return {operation.api: inline for operation, inline in operations(driver)}


def test_a_method_without_a_row_is_not_offered() -> None:
    assert offered(Small) == {"encrypt": False, "random": True}


def test_rows_are_read_from_the_top_down() -> None:
    assert capabilities(Small) == (
        Capability(operation="crypto.encrypt", mechanism=Mechanism.AES_128_GCM, max_input_bytes=1),
        Capability(
            operation="crypto.encrypt",
            mechanism=Mechanism.AES_256_GCM,
            max_input_bytes=2,
            associated_data=AssociatedData.BYTES,
        ),
        Capability(operation="crypto.random"),
    )


def test_one_inline_row_makes_the_method_inline_wherever_it_stands() -> None:
    class First(Small):
        @provides(inline=True)
        @provides()
        def encrypt(self, request: EncryptParams) -> EncryptResult:
            raise NotImplementedError

    class Last(Small):
        @provides()
        @provides(inline=True)
        def encrypt(self, request: EncryptParams) -> EncryptResult:
            raise NotImplementedError

    assert offered(First)["encrypt"] is offered(Last)["encrypt"] is True


def test_rows_are_inherited_with_their_method_and_replaced_with_it() -> None:
    class Same(Small):
        pass

    class Other(Small):
        @provides(max_input_bytes=9)
        def encrypt(self, request: EncryptParams) -> EncryptResult:
            raise NotImplementedError

    class Less(Small):
        def encrypt(self, request: EncryptParams) -> EncryptResult:
            raise NotImplementedError

    assert capabilities(Same) == capabilities(Small)
    assert [row.max_input_bytes for row in capabilities(Other)] == [9, None]
    assert offered(Less) == {"random": True}
    assert len(capabilities(Small)) == 3


def test_a_driver_without_methods_offers_nothing() -> None:
    assert offered(Driver) == {}
    assert capabilities(Driver) == ()


def test_no_operation_has_the_name_of_a_method_that_every_driver_has() -> None:
    own = {name for name, _ in inspect.getmembers(Driver) if not name.startswith("_")}

    assert own.isdisjoint(operation.api for operation in KEYSTORE_API)


def test_a_row_can_say_all_that_a_capability_has() -> None:
    assert set(get_type_hints(CapabilityRow)) | {"operation"} == set(Capability.model_fields)


def test_the_class_itself_keeps_its_method_as_it_is() -> None:
    assert Echo().random(RandomParams(length_bytes=3)).data == b"\0\0\0"
    assert Echo.random.__name__ == "random"


def test_the_defaults_of_a_driver_open_nothing_and_find_nothing() -> None:
    driver = Small()

    assert driver.configure(NoConfig(), dry_run=True) == ConfigureResult(identity="small")
    assert list(driver.health(HealthDepth.DEEP)) == []
    driver.close()
    assert driver.max_concurrency == 4


def test_a_driver_that_has_no_settings_takes_none() -> None:
    assert NoConfig.model_validate({}) == NoConfig()
    with pytest.raises(ValidationError):
        NoConfig.model_validate({"pin": "1234"})


def test_a_driver_error_is_what_was_said() -> None:
    vendor = Vendor(code="Throttling")
    error = DriverError(
        ErrorCode.RATE_LIMIT_EXCEEDED,
        "slow down",
        outcome=Outcome.UNKNOWN,
        retry_after_ms=5,
        hint="h",
        path="p",
        vendor=vendor,
    )

    assert str(error) == error.message == "slow down"
    assert error.code is ErrorCode.RATE_LIMIT_EXCEEDED
    assert error.data.model_dump(exclude_defaults=True) == {
        "code": "RATE_LIMIT_EXCEEDED",
        "outcome": Outcome.UNKNOWN,
        "retry_after_ms": 5,
        "hint": "h",
        "path": "p",
        "vendor": vendor.model_dump(exclude_defaults=True),
    }
    assert copy.copy(error.data) == error.data


@pytest.mark.parametrize("row", [{"protection": Protection.HSM}, {"key_algorithm": KeyAlgorithm.RSA_2048}])
def test_a_row_reaches_the_capability_as_it_was_written(row: Any) -> None:
    class One(Small):
        @provides(**row)
        def encrypt(self, request: EncryptParams) -> EncryptResult:
            raise NotImplementedError

    assert capabilities(One)[0] == Capability(operation="crypto.encrypt", **row)
