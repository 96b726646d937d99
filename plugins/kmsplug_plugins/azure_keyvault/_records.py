"""What the vault tells about a version of a key, and the note that this driver keeps in one of its tags.

Everything that must outlive this process stands in the vault, in the tag ``kmsplug`` of each version: which
change made it, in which place it comes, what it is where the service does not tell.
"""

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from kmsplug_protocol import (
    Enforcement,
    ErrorCode,
    Key,
    KeyAlgorithm,
    KeyState,
    KeyUsage,
    Origin,
    Protection,
)
from kmsplug_sdk import DriverError

from ._kinds import HSM_SUFFIX, KINDS, OPERATIONS, algorithm_of, usage_of
from ._wire import Answer

NOTE_TAG: Final = "kmsplug"
MAX_TAGS: Final = 15  # of a version, ours included
OF_CHARACTERS: Final = 8
_MAX_PENDING: Final = 2  # so that a note stays within the 256 characters of a tag

_NAME: Final = re.compile(r"[0-9a-zA-Z-]{1,127}")
_VERSION: Final = re.compile(r"[0-9a-f]{32}")

_REFUSALS: Final = {
    KeyState.PRE_ACTIVE: ErrorCode.KEY_INVALID_STATE,
    KeyState.SUSPENDED: ErrorCode.KEY_DISABLED,
    KeyState.DEACTIVATED: ErrorCode.KEY_INVALID_STATE,
    KeyState.DESTROY_SCHEDULED: ErrorCode.KEY_PENDING_DELETION,
}


@dataclass(frozen=True, slots=True)
class Note:
    """What this driver wrote down about a version.

    Attributes:
        algorithm: What it is.
        generation: Its place among the versions, from 1; 0: others made it.
        created_by: Digest of the change that made the key.
        made_by: Digest of the rotation or import that made this version.
        pending: Digests of the rotations that were begun while it was the current one.
        born: When the key was made, in seconds; 0: with this version.
        waits_for: Usage of the material that it waits for: it is no more than the wrapping key of an import.
        imported: Whether its material was.
        of: The beginning of the id of the version that it is about; empty: that was not known yet.
    """

    algorithm: str = ""
    generation: int = 0
    created_by: str = ""
    made_by: str = ""
    pending: tuple[str, ...] = ()
    born: int = 0
    waits_for: str = ""
    imported: bool = False
    of: str = ""

    @classmethod
    def read(cls, text: str) -> "Note":
        """Return the note in a tag; anybody may have changed it, so nonsense is an empty note."""
        members = dict(part.partition("=")[::2] for part in text.split())
        try:
            return cls(
                algorithm=members.get("a", ""),
                generation=int(members.get("g", "0")),
                created_by=members.get("c", ""),
                made_by=members.get("m", ""),
                pending=tuple(filter(None, members.get("n", "").split(","))),
                born=int(members.get("b", "0")),
                waits_for=_waits_for(members),
                imported=members.get("o", "") == "imported",
                of=members.get("v", ""),
            )
        except ValueError:
            return cls()

    def about(self, version: str) -> "Note":
        """Return what of it holds for a version; of another version's note, only what never changes."""
        if not self.of or version.startswith(self.of):
            return self
        return replace(self, generation=0, made_by="", pending=(), waits_for="", of="")

    def write(self) -> str:
        """Return the text of the tag."""
        members = {
            "a": self.algorithm,
            "g": str(self.generation or ""),
            "c": self.created_by,
            "m": self.made_by,
            "n": ",".join(self.pending[-_MAX_PENDING:]),
            "b": str(self.born or ""),
            "w": self.waits_for,
            "o": "imported" if self.imported else "",
            "v": self.of,
        }
        return " ".join(f"{name}={value}" for name, value in members.items() if value)


@dataclass(frozen=True, slots=True)
class Record:
    """One version of a key.

    Attributes:
        name: Of the key.
        version: Its own.
        jwk: The public part as the service tells it; empty in lists.
        attributes: Of the service.
        tags: Those of the caller.
        note: Ours.
        purge_at: When the key will be gone, where it is deleted; 0: it is not told.
        deleted: Whether the key is deleted and can be recovered.
    """

    name: str
    version: str
    jwk: Mapping[str, Any]
    attributes: Mapping[str, Any]
    tags: Mapping[str, str]
    note: Note = field(default_factory=Note)
    purge_at: int = 0
    deleted: bool = False

    @property
    def enabled(self) -> bool:
        """Whether the service says so; it does not keep it up for encrypting, wrapping and verifying."""
        return self.attributes.get("enabled") is not False

    @property
    def created(self) -> int:
        """When the version was made, in seconds."""
        return int(self.attributes.get("created") or 0)

    @property
    def state(self) -> KeyState:
        """Its state in our words (SPEC.md 6.6)."""
        now = time.time()
        if self.deleted:
            return KeyState.DESTROY_SCHEDULED
        if self.note.waits_for:
            return KeyState.PRE_ACTIVE
        if not self.enabled:
            return KeyState.SUSPENDED
        if int(self.attributes.get("nbf") or 0) > now:
            return KeyState.PRE_ACTIVE
        if 0 < int(self.attributes.get("exp") or 0) <= now:
            return KeyState.DEACTIVATED
        return KeyState.ACTIVE

    @property
    def algorithm(self) -> KeyAlgorithm:
        """What it is.

        Raises:
            DriverError: UNSUPPORTED_OPERATION: a kind that this interface has no name for.
        """
        if self.note.waits_for:
            return KeyAlgorithm(self.note.algorithm)
        found = algorithm_of(self.jwk, self.note.algorithm)
        if found is None:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                f"key {self.name} is of a kind that this driver does not have",
            )
        return found

    @property
    def usage(self) -> KeyUsage:
        """Its one purpose.

        Raises:
            DriverError: UNSUPPORTED_OPERATION: it has none of those that this interface has.
        """
        if self.note.waits_for:
            return KeyUsage(self.note.waits_for)
        found = usage_of(self.jwk)
        if found is None:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION, f"key {self.name} is for nothing that this driver does"
            )
        return found

    @property
    def protection(self) -> Protection:
        """Where its material lives."""
        hsm = str(self.jwk.get("kty", "")).endswith(HSM_SUFFIX)
        return Protection.HSM if hsm else Protection.SOFTWARE

    def allows(self, usage: KeyUsage) -> bool:
        """Whether the service lets it be used so."""
        return set(OPERATIONS[usage]) <= set(self.jwk.get("key_ops") or ())

    def with_note(self, note: Note) -> "Record":
        """Return it with another note."""
        return replace(self, note=note)

    def all_tags(self) -> dict[str, str]:
        """Return the tags as the service keeps them, ours included."""
        text = self.note.write()
        return {**self.tags, NOTE_TAG: text} if text else dict(self.tags)


def _waits_for(members: Mapping[str, str]) -> str:
    """Return the usage of the material that a version waits for; of what kind, it must say too."""
    usage = members.get("w", "")
    return usage and KeyUsage(usage) if members.get("a", "") in KINDS else ""


def read(body: Mapping[str, Any]) -> Record:
    """Return the version that the service describes, alone or as an item of a list.

    Raises:
        DriverError: PROVIDER_INTERNAL: it describes none.
    """
    jwk = body.get("key") or {}
    parts = str(jwk.get("kid") or body.get("kid") or "").rstrip("/").split("/")
    tags = dict(body.get("tags") or {})
    note = Note.read(tags.pop(NOTE_TAG, ""))
    start = next((at for at, part in enumerate(parts) if part in ("keys", "deletedkeys")), None)
    if start is None or len(parts) <= start + 1:
        raise DriverError(ErrorCode.PROVIDER_INTERNAL, "the vault described a key without its id")
    version = parts[start + 2] if len(parts) > start + 2 else ""
    return Record(
        name=parts[start + 1],
        version=version,
        jwk=jwk,
        attributes=body.get("attributes") or {},
        tags=tags,
        note=note.about(version) if version else note,
        purge_at=int(body.get("scheduledPurgeDate") or 0),
        deleted="recoveryId" in body,
    )


def described(record: Record, answer: Answer, namespace: str) -> Key:
    """Return what is known about a key, from its current version and the answer that told it."""
    state = record.state
    born = record.note.born or (record.created if record.note.generation == 1 else 0)
    # The service goes on encrypting with a disabled key and knows nothing of a missing material: it is this
    # driver that refuses.
    enforced = state not in (KeyState.SUSPENDED, KeyState.PRE_ACTIVE)
    return Key(
        key_id=namespace + record.name,
        key_version=record.version,
        algorithm=record.algorithm,
        usage=record.usage,
        state=state,
        enforced_by=Enforcement.PROVIDER if enforced else Enforcement.HOST,
        name=record.name,
        origin=Origin.IMPORTED if record.note.imported else Origin.GENERATED,
        exportable=bool(record.attributes.get("exportable")),
        created_at=moment(born),
        deletion_at=moment(record.purge_at),
        region=answer.region,
        tags=dict(record.tags),
        protection=record.protection,
        vendor=answer.vendor,
    )


def moment(seconds: int) -> str | None:
    """Return a time of the service as ours; None: it did not tell."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None


def refusal(record: Record) -> DriverError:
    """Return the refusal of a version because of its state."""
    state = record.state
    which = f"key {record.name}" + (f", version {record.version}," if record.version else "")
    hint = None
    if state is KeyState.PRE_ACTIVE and record.note.waits_for:
        hint = "import its material first"
    return DriverError(_REFUSALS[state], f"{which} is {state}", hint=hint)


def name_in(key_id: str, namespace: str) -> str:
    """Return the name in a key id; the bare name of a key stands for it too.

    Raises:
        DriverError: KEY_NOT_FOUND: it can be the id of no key of this vault.
    """
    name = key_id.removeprefix(namespace)
    if not _NAME.fullmatch(name):
        raise DriverError(ErrorCode.KEY_NOT_FOUND, "this vault has no key of such an id")
    return name


def is_name(text: str) -> bool:
    """Tell whether a key can have this name."""
    return _NAME.fullmatch(text) is not None


def check_version(version: str, name: str) -> str:
    """Return a version that can be one.

    Raises:
        DriverError: KEY_NOT_FOUND.
    """
    if not _VERSION.fullmatch(version):
        raise DriverError(ErrorCode.KEY_NOT_FOUND, f"key {name} has no such version")
    return version


def digest(change: str) -> str:
    """Return what stands for an idempotency key in a tag, where others can read it."""
    return hashlib.sha256(b"kmsplug-azure/v1/change:" + change.encode()).hexdigest()[:32]
