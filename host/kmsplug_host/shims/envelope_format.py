"""The bytes of an envelope, format 1 (docs/envelope.md): header, labels, tag. No I/O, no keystore.

Reading is strict: every part must be the deterministic encoding of itself, within bounds that are
checked before anything is allocated, so that two readers never see two meanings.
"""

import base64
import functools
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kmsplug_protocol import INVALID_CIPHERTEXT_MESSAGE, cobblestone, dcbor

from kmsplug_host.errors import InvalidArgument, InvalidCiphertext, UnsupportedOperation

MAGIC: Final = bytes.fromhex("8b4b504c0d0a1a01")
PREFIX_BYTES: Final = len(MAGIC) + 4
MAX_HEADER_BYTES: Final = 65_536
SUITE_NATIVE: Final = 0
SUITE_COBBLESTONE: Final = 1
SUITE_NAMES: Final = {SUITE_NATIVE: "native", SUITE_COBBLESTONE: "cobblestone-256"}

BIND_NOTHING: Final = 0
BIND_BYTES: Final = 1
BIND_MAP: Final = 2
BIND_MAP_LABEL_ONLY: Final = 3

RESERVED_TENANT: Final = "kmsplug:tenant"
LABEL_ENTRY: Final = "kmsplug:v1"
_RESERVED_PREFIXES: Final = ("kmsplug:", "aws:")
MAX_RECIPIENTS: Final = 16
MAX_NATIVE_BYTES: Final = 65_536
_MAX_TENANT_BYTES: Final = 256
_MAX_CONTEXT_ENTRIES: Final = 64
_MAX_CONTEXT_BYTES: Final = 8_192
TAG_BYTES: Final = 32

# Recipient fields: number -> (type, most bytes, whether it must be there).
_RECIPIENT_FIELDS: Final[dict[int, tuple[type, int, bool]]] = {
    1: (str, 256, True),
    2: (str, 2_048, True),
    3: (str, 256, False),
    4: (str, 64, True),
    5: (int, 0, True),
    6: (bytes, 8_192, False),
    7: (dict, 0, False),
}


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who can open the envelope: one key of one keystore.

    Attributes:
        keystore: Stable identity of the keystore.
        key_id: The driver's canonical id of the key.
        key_version: A hint.
        algorithm: How the data key is wrapped.
        bind: What the provider authenticates with it.
        wrapped_key: The wrapped data key; absent in suite native.
        share: Group, threshold and index, where this is one share of several; such a recipient is skipped.
    """

    keystore: str
    key_id: str
    key_version: str | None
    algorithm: str
    bind: int
    wrapped_key: bytes | None
    share: dict[int, int] | None = None

    def encode(self) -> dict[int, Any]:
        """Return the CBOR map, without absent fields."""
        fields: dict[int, Any] = {
            1: self.keystore,
            2: self.key_id,
            3: self.key_version,
            4: self.algorithm,
            5: self.bind,
            6: self.wrapped_key,
            7: self.share,
        }
        return {number: value for number, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Fixed:
    """What is written once and never changes.

    Attributes:
        suite: How the payload is encrypted.
        context: The context, where the sealer stored it.
        tenant: The tenant, bound everywhere.
    """

    suite: int
    context: dict[str, str] | None = None
    tenant: str | None = None

    def encode(self) -> bytes:
        """Return its deterministic bytes."""
        fields: dict[int, Any] = {1: self.suite, 2: self.context, 3: self.tenant}
        return dcbor.encode({number: value for number, value in fields.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header, with the bytes as they were received: those are hashed, never a re-encoding.

    Attributes:
        fixed: Suite, context, tenant.
        fixed_bytes: Their bytes.
        generation: How often the recipients were replaced.
        recipients: Who can open it.
        outer_bytes: Bytes of generation and recipients.
        tag: Authenticates all of it; empty in suite native.
        length: Of the whole header.
    """

    fixed: Fixed
    fixed_bytes: bytes
    generation: int
    recipients: tuple[Recipient, ...]
    outer_bytes: bytes
    tag: bytes
    length: int


def check_context(context: Mapping[str, str] | None) -> dict[str, str]:
    """Return a caller's context as a plain map.

    Raises:
        InvalidArgument: It breaks a bound; never INVALID_CIPHERTEXT, for the bounds are no secret.
    """
    checked = dict(context or {})
    if len(checked) > _MAX_CONTEXT_ENTRIES:
        raise InvalidArgument(f"the context has {len(checked)} entries, the limit is {_MAX_CONTEXT_ENTRIES}")
    for key, value in checked.items():
        if type(key) is not str or type(value) is not str:
            raise InvalidArgument("the context must map text to text")
        if not key or key.startswith(_RESERVED_PREFIXES):
            raise InvalidArgument(f"the context key {key!r} is empty or reserved")
    try:
        length = len(dcbor.encode(checked))
    except dcbor.DcborError:
        raise InvalidArgument("the context holds a lone surrogate") from None
    if length > _MAX_CONTEXT_BYTES:
        raise InvalidArgument(f"the context is {length} bytes long, the limit is {_MAX_CONTEXT_BYTES}")
    return checked


def check_tenant(tenant: str | None) -> None:
    """Refuse a tenant that is out of bounds.

    Raises:
        InvalidArgument: It is.
    """
    if tenant is None:
        return
    if type(tenant) is not str:
        raise InvalidArgument("a tenant must be text", path="tenant")
    try:
        length = len(tenant.encode())
    except UnicodeEncodeError:
        raise InvalidArgument("the tenant holds a lone surrogate", path="tenant") from None
    if not 1 <= length <= _MAX_TENANT_BYTES:
        raise InvalidArgument(f"a tenant is 1 to {_MAX_TENANT_BYTES} bytes long", path="tenant")


def effective_context(context: Mapping[str, str], tenant: str | None) -> dict[str, str]:
    """Return the context as it is bound: with the tenant under its reserved key."""
    return dict(context) if tenant is None else {**context, RESERVED_TENANT: tenant}


def wrap_binding(recipient: Recipient, context: Mapping[str, str]) -> bytes:
    """Return W, which binds a wrapped data key to its key, keystore and context."""
    parts = (recipient.keystore, recipient.key_id, recipient.algorithm, recipient.bind, dict(context))
    return _hash(["kmsplug/v1/wrap", 1, *parts])


def native_binding(fixed_bytes: bytes, recipient: Recipient, context: Mapping[str, str]) -> bytes:
    """Return N, which binds a native ciphertext; no wrapped data key has such a label."""
    parts = (recipient.keystore, recipient.key_id, recipient.algorithm, recipient.bind, dict(context))
    return _hash(["kmsplug/v1/native", fixed_bytes, *parts])


def user_wrap_binding(keystore: str, key_id: str, algorithm: str, bind: int) -> bytes:
    """Return what binds a key that a caller wrapped: another label, so that it opens no envelope."""
    return _hash(["kmsplug/v1/wrap-user", 1, keystore, key_id, algorithm, bind])


def provider_arguments(bind: int, label: bytes, context: Mapping[str, str]) -> dict[str, Any]:
    """Return the associated data of a provider call, in the form that *bind* names."""
    if bind == BIND_NOTHING:
        return {}
    if bind == BIND_BYTES:
        return {"associated_data": label}
    text = base64.urlsafe_b64encode(label).rstrip(b"=").decode("ascii")
    return {"context": {**(context if bind == BIND_MAP else {}), LABEL_ENTRY: text}}


def payload_context(fixed_bytes: bytes, context: Mapping[str, str]) -> bytes:
    """Return P, the context of the payload."""
    return _hash(["kmsplug/v1/payload", fixed_bytes, dict(context)])


class Tag:
    """The tag over a header and the payload's salt and commitment; made once for many payloads.

    Args:
        data_key: The data key.
        fixed_bytes: As in the header.
        outer_bytes: As in the header.
    """

    __slots__ = ("_state",)

    def __init__(self, data_key: bytes, fixed_bytes: bytes, outer_bytes: bytes) -> None:
        key = cobblestone.expand(data_key, b"kmsplug/envelope@v1/tag", 64)
        message = dcbor.encode(["kmsplug/v1/tag", fixed_bytes, outer_bytes, bytes(cobblestone.HEADER_BYTES)])
        # The payload's head stands last, and has one length: its encoding ends with itself.
        self._state = hmac.new(key, message[: -cobblestone.HEADER_BYTES], "sha512")

    def of(self, payload_head: bytes) -> bytes:
        """Return the tag for the first 56 bytes of a payload."""
        state = self._state.copy()
        state.update(payload_head)
        return state.digest()[:TAG_BYTES]


def header_tag(data_key: bytes, fixed_bytes: bytes, outer_bytes: bytes, payload_head: bytes) -> bytes:
    """Return the tag over the header and the payload's salt and commitment."""
    return Tag(data_key, fixed_bytes, outer_bytes).of(payload_head)


def encode_outer(generation: int, recipients: tuple[Recipient, ...]) -> bytes:
    """Return the bytes of generation and recipients."""
    outer: dict[int, Any] = {1: generation, 2: [recipient.encode() for recipient in recipients]}
    return dcbor.encode(outer)


def encode_prefix(fixed_bytes: bytes, outer_bytes: bytes, tag: bytes) -> bytes:
    """Return everything that stands before the payload."""
    header = dcbor.encode([fixed_bytes, outer_bytes, tag])
    if len(header) > MAX_HEADER_BYTES:
        raise InvalidArgument(
            "the envelope's header would be too long: fewer recipients or a shorter context"
        )
    return MAGIC + len(header).to_bytes(4) + header


def header_length(prefix: bytes) -> int:
    """Read the first 12 bytes of an envelope and return the length of the header that follows.

    Raises:
        InvalidCiphertext: This is no envelope.
        UnsupportedOperation: It is one of another format.
    """
    if len(prefix) != PREFIX_BYTES or prefix[:7] != MAGIC[:7]:
        raise refused()
    if prefix[7] != MAGIC[7]:
        raise UnsupportedOperation(f"envelope format {prefix[7]} is not known, this version reads format 1")
    length = int.from_bytes(prefix[8:])
    if not 8 <= length <= MAX_HEADER_BYTES:  # noqa: PLR2004 - docs/envelope.md 1.2
        raise refused()
    return length


def decode_header(data: bytes) -> Header:
    """Read a header.

    Raises:
        InvalidCiphertext: It is not exactly what a sealer writes.
        UnsupportedOperation: Its suite or a binding is not known.
    """
    try:
        parts = dcbor.decode(data)
        _demand(type(parts) is list and len(parts) == 3 and all(type(part) is bytes for part in parts))  # noqa: PLR2004
        fixed_bytes, outer_bytes, tag = parts
        fixed = _decode_fixed(fixed_bytes)
        generation, recipients = _decode_outer(outer_bytes)
    except dcbor.DcborError:
        raise refused() from None
    if fixed.suite == SUITE_NATIVE:
        _demand(len(recipients) == 1 and recipients[0].wrapped_key is None and generation == 0 and tag == b"")
        _demand(recipients[0].bind != BIND_NOTHING)
    else:
        _demand(len(tag) == TAG_BYTES)
    return Header(fixed, fixed_bytes, generation, recipients, outer_bytes, tag, len(data))


# Messages under one data key have these two parts in common: half of what opening a small one takes.
@functools.lru_cache(maxsize=64)
def _decode_outer(data: bytes) -> tuple[int, tuple[Recipient, ...]]:
    outer = dcbor.decode(data)
    _demand(type(outer) is dict and set(outer) == {1, 2} and type(outer[1]) is int and type(outer[2]) is list)
    _demand(1 <= len(outer[2]) <= MAX_RECIPIENTS)
    return outer[1], tuple(_decode_recipient(item) for item in outer[2])


@functools.lru_cache(maxsize=64)
def _decode_fixed(data: bytes) -> Fixed:
    value = dcbor.decode(data)
    _demand(type(value) is dict and set(value) <= {1, 2, 3} and type(value.get(1)) is int)
    if value[1] not in SUITE_NAMES:
        raise UnsupportedOperation(f"envelope suite {value[1]} is not known")
    context, tenant = value.get(2), value.get(3)
    if context is not None:
        _demand(type(context) is dict and all(type(k) is str and type(v) is str for k, v in context.items()))
        try:
            check_context(context)
        except InvalidArgument:
            raise refused() from None
    if tenant is not None:
        _demand(type(tenant) is str and 1 <= len(tenant.encode()) <= _MAX_TENANT_BYTES)
    return Fixed(value[1], context, tenant)


def _decode_recipient(value: Any) -> Recipient:
    _demand(type(value) is dict and set(value) <= set(_RECIPIENT_FIELDS))
    for number, (kind, most, needed) in _RECIPIENT_FIELDS.items():
        field = value.get(number)
        if field is None:
            _demand(not needed and number not in value)
            continue
        _demand(type(field) is kind)
        if kind in (str, bytes):
            _demand(1 <= len(field.encode() if kind is str else field) <= most)
    if value[5] not in (BIND_NOTHING, BIND_BYTES, BIND_MAP, BIND_MAP_LABEL_ONLY):
        raise UnsupportedOperation(f"envelope binding {value[5]} is not known")
    share = value.get(7)
    if share is not None:
        _demand(set(share) == {1, 2, 3} and all(type(part) is int for part in share.values()))
    fields = (value[1], value[2], value.get(3), value[4], value[5], value.get(6))
    return Recipient(*fields, share)


def _demand(holds: bool) -> None:
    if not holds:
        raise refused()


def refused() -> InvalidCiphertext:
    """Return the one refusal that is due to the bytes, whichever step refused."""
    return InvalidCiphertext(INVALID_CIPHERTEXT_MESSAGE)


def _hash(value: Any) -> bytes:
    return hashlib.sha512(dcbor.encode(value)).digest()
