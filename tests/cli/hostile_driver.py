"""A driver whose every text is an attack on a terminal."""

import hashlib

from kmsplug_protocol import (
    ErrorCode,
    Key,
    KeyAlgorithm,
    KeyParams,
    KeyState,
    KeyUsage,
    KeyVersion,
    ListVersionsParams,
    ListVersionsResult,
    Mechanism,
    ScheduleDeletionParams,
    SignParams,
    SignResult,
)
from kmsplug_sdk import Driver, DriverError, NoConfig, provides, serve

ATTACK = "\x1b]0;owned\x07\x1b[2J\u202eevil\r\nsecond line\ttab"


class Hostile(Driver[NoConfig]):
    name, version = "hostile", "1"

    @provides()
    def get_key(self, request: KeyParams) -> Key:
        return Key(
            key_id=request.key_id,
            key_version=ATTACK,
            algorithm=KeyAlgorithm.EC_P256,
            usage=KeyUsage.SIGN_VERIFY,
            state=KeyState.ACTIVE,
            name=ATTACK,
            region=ATTACK,
            aliases=(ATTACK,),
            tags={ATTACK: ATTACK},
        )

    @provides()
    def list_key_versions(self, request: ListVersionsParams) -> ListVersionsResult:
        version = KeyVersion(key_version=ATTACK, state=KeyState.ACTIVE, current=True)
        return ListVersionsResult(key_id=request.key_id, versions=(version,))

    @provides()
    def schedule_key_deletion(self, request: ScheduleDeletionParams) -> Key:
        raise DriverError(ErrorCode.ACCESS_DENIED, ATTACK)

    @provides(key_algorithm=KeyAlgorithm.EC_P256, mechanism=Mechanism.ECDSA_SHA_256, max_input_bytes=16)
    def sign(self, request: SignParams) -> SignResult:
        """Return the digest for a signature, so that a test sees which one it was."""
        if request.digest is None and len(request.message or b"") > 16:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, "too long")
        return SignResult(
            key_id=ATTACK,
            key_version=ATTACK,
            mechanism=Mechanism.ECDSA_SHA_256,
            signature=request.digest or hashlib.sha256(request.message or b"").digest(),
        )


if __name__ == "__main__":
    serve("__main__:Hostile")
