"""Operations that sign and authenticate. Signatures and codes are bare bytes, without the server's text."""

from dataclasses import dataclass
from typing import Any, Final, cast

from kmsplug_protocol import (
    KeyUsage,
    MacParams,
    MacResult,
    Mechanism,
    Protection,
    SignParams,
    SignResult,
    Vendor,
    VerifyMacParams,
    VerifyParams,
    VerifyResult,
    encode_base64,
)
from kmsplug_sdk import DriverError
from kmsplug_sdk.driver import provides_each

from kmsplug_plugins._software.requests import choose, to_sign

from . import _capabilities as rows
from ._algorithms import MACS, SIGNERS, digest_bytes
from ._keyring import Keyring, Kind
from ._keys import version_number
from ._prepared import Prepared, batch_results, item_error, run
from ._texts import made, written

_SIGN: Final = "crypto.sign"
_VERIFY: Final = "crypto.verify"
_MAC: Final = "crypto.mac"
_VERIFY_MAC: Final = "crypto.verify_mac"

_VERSIONS_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class _Question:
    """Whether something is good.

    Attributes:
        operation: Ours.
        kind: The key.
        path: Below the mount.
        common: Parameters that all versions share.
        item: What each version is asked about, but for the proof.
        proof: Name of the parameter for the proof.
    """

    operation: str
    kind: Kind
    path: str
    common: dict[str, Any]
    item: dict[str, str]
    proof: str


class SigningOperations:
    """The part of the driver that signs."""

    _keys: Keyring

    @provides_each(rows.SIGNATURE)
    def sign(self, request: SignParams) -> SignResult:
        """Sign a message or its digest by the current version, or by the ACTIVE one that was asked for."""
        return cast("SignResult", run(self._keys, self.prepared_sign(request)))

    @provides_each(rows.SIGNATURE)
    def verify(self, request: VerifyParams) -> VerifyResult:
        """Verify by the version that was asked for, else by each usable one, newest first."""
        kind = self._keys.use(_VERIFY, request.key_id, KeyUsage.SIGN_VERIFY)
        mechanism = choose(kind.algorithm, SIGNERS[kind.algorithm], request.mechanism)
        data, hashed = to_sign(mechanism, request, digest_bytes(mechanism))
        question = _Question(
            _VERIFY,
            kind,
            f"verify/{kind.name}",
            {"prehashed": hashed, **_how(mechanism)},
            {"input": encode_base64(data)},
            "signature",
        )
        return self._verified(question, request.signature, request.key_version)

    @provides_each(rows.MAC)
    def mac(self, request: MacParams) -> MacResult:
        """Authenticate a message by the current version, or by the ACTIVE one that was asked for."""
        return cast("MacResult", run(self._keys, self.prepared_mac(request)))

    @provides_each(rows.MAC)
    def verify_mac(self, request: VerifyMacParams) -> VerifyResult:
        """Verify as `verify` does; the server compares the codes."""
        kind = self._keys.use(_VERIFY_MAC, request.key_id, KeyUsage.GENERATE_VERIFY_MAC)
        mechanism = choose(kind.algorithm, (MACS[kind.algorithm],), request.mechanism)
        question = _Question(
            _VERIFY_MAC,
            kind,
            f"verify/{kind.name}/{_hash(mechanism)}",
            {},
            {"input": encode_base64(request.message)},
            "hmac",
        )
        return self._verified(question, request.mac, request.key_version)

    def prepared_sign(self, request: SignParams) -> Prepared:
        """Return a signature, ready to be asked for."""
        kind = self._keys.use(_SIGN, request.key_id, KeyUsage.SIGN_VERIFY)
        mechanism = choose(kind.algorithm, SIGNERS[kind.algorithm], request.mechanism)
        data, hashed = to_sign(mechanism, request, digest_bytes(mechanism))
        common = {"prehashed": hashed, **_how(mechanism), **_version(kind, request.key_version)}
        item = {"input": encode_base64(data)}

        def finish(data: dict[str, Any], vendor: Vendor) -> SignResult:
            version, signature = made(data, "signature")
            return SignResult(
                key_id=kind.key_id,
                key_version=str(version),
                mechanism=mechanism,
                signature=signature,
                protection=Protection.SOFTWARE,
                vendor=vendor,
            )

        version = common.get("key_version")
        return Prepared(_SIGN, kind, f"sign/{kind.name}", tuple(common.items()), item, version, finish)

    def prepared_mac(self, request: MacParams) -> Prepared:
        """Return a code, ready to be asked for."""
        kind = self._keys.use(_MAC, request.key_id, KeyUsage.GENERATE_VERIFY_MAC)
        mechanism = choose(kind.algorithm, (MACS[kind.algorithm],), request.mechanism)
        item = {"input": encode_base64(request.message)}

        def finish(data: dict[str, Any], vendor: Vendor) -> MacResult:
            version, code = made(data, "hmac")
            return MacResult(
                key_id=kind.key_id,
                key_version=str(version),
                mechanism=mechanism,
                mac=code,
                protection=Protection.SOFTWARE,
                vendor=vendor,
            )

        version = _version(kind, request.key_version)
        path = f"hmac/{kind.name}/{_hash(mechanism)}"
        return Prepared(_MAC, kind, path, tuple(version.items()), item, version.get("key_version"), finish)

    def _verified(self, question: _Question, proof: bytes, wanted: str | None) -> VerifyResult:
        """Ask about several versions in one request: the bytes do not tell which made them."""
        operation, kind = question.operation, question.kind
        versions = self._openers(operation, kind, wanted)
        vendor = None
        for first in range(0, len(versions), _VERSIONS_AT_ONCE):
            some = versions[first : first + _VERSIONS_AT_ONCE]
            items = [{**question.item, question.proof: written(version, proof)} for version in some]
            body = {**question.common, "batch_input": items}
            with self._keys.explaining(operation, kind):
                answer = self._keys.transit.post(operation, question.path, body)
            vendor = answer.vendor
            for version, item in zip(some, batch_results(answer, len(some)), strict=True):
                error = item_error(operation, item)
                if isinstance(error, DriverError):
                    raise error
                if error is None and item.get("valid") is True:
                    return _verdict(kind, version, vendor)
        return _verdict(kind, None, vendor)

    def _openers(self, operation: str, kind: Kind, wanted: str | None) -> list[int]:
        key = self._keys.read(operation, kind.key_id)
        if key.soft_deleted:
            raise key.refusal()
        if wanted is None:
            return list(key.openers)
        return [key.opening(version_number(kind.key_id, wanted))]


def _how(mechanism: Mechanism) -> dict[str, Any]:
    """Return the server's parameters for a mechanism."""
    if mechanism is Mechanism.ED25519:
        return {}
    how: dict[str, Any] = {"hash_algorithm": _hash(mechanism)}
    if mechanism.startswith("RSA_PSS"):
        how |= {"signature_algorithm": "pss", "salt_length": "hash"}
    elif mechanism.startswith("RSA"):
        how |= {"signature_algorithm": "pkcs1v15"}
    else:
        how |= {"marshaling_algorithm": "asn1"}
    return how


def _hash(mechanism: Mechanism) -> str:
    return f"sha2-{mechanism.rpartition('_')[2]}"


def _version(kind: Kind, wanted: str | None) -> dict[str, int]:
    return {} if wanted is None else {"key_version": version_number(kind.key_id, wanted)}


def _verdict(kind: Kind, version: int | None, vendor: Vendor | None) -> VerifyResult:
    return VerifyResult(
        key_id=kind.key_id,
        key_version=None if version is None else str(version),
        valid=version is not None,
        protection=Protection.SOFTWARE,
        vendor=vendor,
    )
