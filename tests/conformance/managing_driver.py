"""A driver in memory for what `everything_driver.py` leaves out: access data, and keystores made and ended.

It shares no code with any driver in use. What it makes dies with it.
"""

import os
import secrets
from typing import Any, ClassVar

import kmsplug_protocol as wire
from kmsplug_protocol import ErrorCode
from kmsplug_sdk import Driver, DriverError, provides
from kmsplug_sdk.serve import serve

OWN = f"managing:{os.getpid()}"
KIND = (wire.KeyAlgorithm.AES_256_GCM, wire.KeyUsage.ENCRYPT_DECRYPT)


class ManagingDriver(Driver[Any]):
    name: ClassVar[str] = "managing"
    version: ClassVar[str] = "1"

    def __init__(self) -> None:
        self.keys: dict[str, wire.Key] = {}
        self.keystores: dict[str, str] = {}

    def configure(self, config: Any, *, dry_run: bool) -> wire.ConfigureResult:
        return wire.ConfigureResult(identity=OWN, key_namespace=("m/",))

    def find(self, key_id: str) -> wire.Key:
        key = self.keys.get(key_id)
        if key is None:
            raise DriverError(ErrorCode.KEY_NOT_FOUND, "no such key")
        return key

    @provides(key_algorithm=KIND[0], usage=KIND[1])
    def create_key(self, request: wire.CreateKeyParams) -> wire.Key:
        if (request.algorithm, request.usage or wire.KeyUsage.ENCRYPT_DECRYPT) != KIND:
            raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "keys are of one kind here")
        asked = (request.origin, request.exportable, request.protection, request.tags)
        if asked != (wire.Origin.GENERATED, False, None, {}):
            raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "keys are generated here, and have no tags")
        key_id = f"m/{secrets.token_hex(8)}"
        self.keys[key_id] = wire.Key(
            key_id=key_id,
            key_version="1",
            algorithm=KIND[0],
            usage=KIND[1],
            state=wire.KeyState.ACTIVE,
            origin=wire.Origin.GENERATED,
            protection=wire.Protection.SOFTWARE,
            name=request.name,
        )
        return self.keys[key_id]

    @provides()
    def validate_key_access(self, request: wire.ValidateAccessParams) -> wire.ValidationResult:
        if request.access_data.keys() != {"role"}:
            return wire.ValidationResult(valid=False, reason="exactly a role is needed")
        return wire.ValidationResult(valid=True)

    @provides()
    def transform_key_access(self, request: wire.TransformAccessParams) -> wire.TransformAccessResult:
        self.find(request.key_id)
        if request.access_data.keys() != {"role"}:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, "exactly a role is needed")
        return wire.TransformAccessResult(access_data={"role_arn": request.access_data["role"]})

    @provides()
    def get_key_region(self, request: wire.GetRegionParams) -> wire.GetRegionResult:
        self.find(request.key_id)
        return wire.GetRegionResult(region="memory")

    @provides()
    def provision_keystore(self, request: wire.ProvisionParams) -> wire.KeystoreResult:
        if request.name in self.keystores.values():
            raise DriverError(ErrorCode.ALREADY_EXISTS, "the name is taken")
        identity = f"managing:{secrets.token_hex(8)}"
        self.keystores[identity] = request.name
        return wire.KeystoreResult(identity=identity)

    @provides()
    def deprovision_keystore(self, request: wire.KeystoreParams) -> wire.EmptyResult:
        if request.identity == OWN:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, "a session does not end its own keystore")
        self.known(request.identity)
        del self.keystores[request.identity]
        return wire.EmptyResult()

    @provides()
    def grant_trust(self, request: wire.TrustParams) -> wire.EmptyResult:
        self.known(request.identity)
        return wire.EmptyResult()

    @provides()
    def remove_trust(self, request: wire.TrustParams) -> wire.EmptyResult:
        self.known(request.identity)
        return wire.EmptyResult()

    def known(self, identity: str) -> None:
        if identity not in self.keystores:
            raise DriverError(ErrorCode.KEY_NOT_FOUND, "no such keystore")


if __name__ == "__main__":
    serve("managing_driver:ManagingDriver")
