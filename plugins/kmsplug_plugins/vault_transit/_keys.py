"""What the server knows of a key, and which state that is.

Transit keeps thresholds, not states: below ``min_available_version`` a version is gone, below
``min_decryption_version`` it does nothing, below ``min_encryption_version`` it makes nothing new. OpenBao can
also delete a key softly, which suspends all of it. A key that is deleted softly *and* may be deleted for good
(``deletion_allowed``) is one whose deletion is scheduled.

An imported key cannot exist without its material. What waits for it is a placeholder, a key of another name
that nobody uses.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from kmsplug_protocol import ErrorCode, Key, KeyAlgorithm, KeyState, KeyUsage, Origin, Protection, Vendor
from kmsplug_sdk import DriverError

from kmsplug_plugins._software.refusals import REFUSALS

from ._algorithms import RSA, USAGES, algorithm_of

_S = KeyState

# As the server takes them, and short enough that a placeholder's is one too.
NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,430}[A-Za-z0-9_])?")
VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")

PLACEHOLDER: Final = ".import-pending"
ENCRYPTS: Final = ".encrypt"
"""End of the names of RSA keys that encrypt: the server keeps no usage, and one key must not have two."""


@dataclass(frozen=True, slots=True)
class TransitKey:
    """One key as it was when it was read.

    Attributes:
        key_id: Its id in the protocol.
        name: Its name in the mount; without the end that marks a placeholder.
        algorithm: What it is.
        usage: Its one purpose.
        latest: The newest version.
        min_available: The oldest version that is left.
        min_decryption: The oldest version that opens something.
        min_encryption: The oldest version that makes something.
        soft_deleted: Whether all of it is suspended.
        deletion_allowed: Whether it may be deleted for good.
        imported: Whether its material came from outside.
        exportable: Whether its material may leave the server.
        pending: Whether it waits for its material.
        versions: What the server tells of each usable version.
        vendor: Of the answer that told all this.
    """

    key_id: str
    name: str
    algorithm: KeyAlgorithm
    usage: KeyUsage
    latest: int
    min_available: int
    min_decryption: int
    min_encryption: int
    soft_deleted: bool
    deletion_allowed: bool
    imported: bool
    exportable: bool
    pending: bool
    versions: dict[str, Any]
    vendor: Vendor

    @property
    def state(self) -> KeyState:
        """State of the current version."""
        return self.state_of(self.latest)

    @property
    def stored_name(self) -> str:
        """Its name in the mount."""
        return self.name + PLACEHOLDER if self.pending else self.name

    @property
    def openers(self) -> range:
        """The versions that open something, newest first; empty where the whole key does nothing."""
        return range(self.latest, self.min_decryption - 1, -1)

    def state_of(self, version: int) -> KeyState:
        """Return the state of a version."""
        if version < self.min_available:
            return _S.DESTROYED
        if self.soft_deleted and self.deletion_allowed:
            return _S.DESTROY_SCHEDULED
        if self.pending:
            return _S.PRE_ACTIVE
        if self.soft_deleted or version < self.min_decryption:
            return _S.SUSPENDED
        return _S.DEACTIVATED if version < self.min_encryption else _S.ACTIVE

    def refusal(self, version: int | None = None, vendor: Vendor | None = None) -> DriverError:
        """Return the refusal that belongs to the state of a version, or of the current one."""
        version = self.latest if version is None else version
        code, reason = REFUSALS[self.state_of(version)]
        return DriverError(code, f"version {version} of key {self.key_id} {reason}", vendor=vendor)

    def opening(self, version: int) -> int:
        """Return a version if it opens something.

        Raises:
            DriverError: KEY_NOT_FOUND, or the refusal that belongs to its state.
        """
        if version > self.latest:
            raise no_version(self.key_id, str(version))
        if self.soft_deleted or version < self.min_decryption:
            raise self.refusal(version)
        return version

    def created_at(self, version: int) -> str | None:
        """Return when a version was made, where the server tells."""
        found = self.versions.get(str(version))
        moment = found.get("creation_time") if isinstance(found, dict) else found
        if isinstance(moment, int):
            return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if isinstance(moment, str) and (parts := _MOMENT.match(moment)):
            return f"{parts[1]}Z"
        return None

    def described(self) -> Key:
        """Return what the protocol says of it."""
        return Key(
            key_id=self.key_id,
            key_version=str(self.latest),
            algorithm=self.algorithm,
            usage=self.usage,
            state=self.state,
            name=self.name,
            origin=Origin.IMPORTED if self.imported or self.pending else Origin.GENERATED,
            exportable=self.exportable,
            created_at=self.created_at(1),
            protection=Protection.SOFTWARE,
            vendor=self.vendor,
        )


_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")


def version_number(key_id: str, wanted: str) -> int:
    """Read the name of a version.

    Raises:
        DriverError: KEY_NOT_FOUND: no version has this name.
    """
    if not VERSION.fullmatch(wanted):
        raise no_version(key_id, wanted)
    return int(wanted)


def no_version(key_id: str, wanted: str, vendor: Vendor | None = None) -> DriverError:
    """Return the error for a version that does not exist."""
    return DriverError(ErrorCode.KEY_NOT_FOUND, f"key {key_id} has no version {wanted}", vendor=vendor)


def usage_of(name: str, algorithm: KeyAlgorithm, told: dict[str, KeyUsage]) -> KeyUsage:
    """Return the usage of a key: by its name, or as the settings say of keys made elsewhere."""
    if algorithm not in RSA:
        return USAGES[algorithm][0]
    if name.endswith(ENCRYPTS):
        return KeyUsage.ENCRYPT_DECRYPT
    usage = told.get(name, KeyUsage.SIGN_VERIFY)
    return usage if usage in USAGES[algorithm] else KeyUsage.SIGN_VERIFY


def parsed(
    prefix: str, name: str, data: dict[str, Any], vendor: Vendor, told: dict[str, KeyUsage]
) -> TransitKey | None:
    """Read the server's description of a key; None: the protocol has no name for what it is."""
    algorithm = algorithm_of(str(data.get("type")), int(data.get("key_size") or 0))
    if algorithm is None or data.get("derived"):
        return None
    pending = name.endswith(PLACEHOLDER)
    name = name.removesuffix(PLACEHOLDER)
    versions = data.get("keys")
    return TransitKey(
        key_id=prefix + name,
        name=name,
        algorithm=algorithm,
        usage=usage_of(name, algorithm, told),
        latest=int(data["latest_version"]),
        min_available=int(data.get("min_available_version") or 0),
        min_decryption=int(data.get("min_decryption_version") or 1),
        min_encryption=int(data.get("min_encryption_version") or 0),
        soft_deleted=bool(data.get("soft_deleted")),
        deletion_allowed=bool(data.get("deletion_allowed")),
        imported=bool(data.get("imported_key")),
        exportable=bool(data.get("exportable")),
        pending=pending,
        versions=versions if isinstance(versions, dict) else {},
        vendor=vendor,
    )
