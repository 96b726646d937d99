"""Keys on the token: making, finding and describing them.

A key is one object, or a pair of them, with a CKA_ID of its own; CKA_LABEL is its name and may repeat. Its id
in the protocol is ``p11-`` and the CKA_ID in hexadecimal digits, so that keys which other programs made are
found too. A key has one version: generations are kept by the host, as several keys of one label.

A CKA_ID that is made here ends in four bytes that follow from the others: only what bears this mark is ever
destroyed here.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from kmsplug_protocol import ErrorCode, KeyUsage
from kmsplug_sdk import DriverError

from ._client import Attribute, KeyType, Object, ObjectClass, PKCS11Error, Session
from ._kinds import EDWARDS_NAME, EDWARDS_OID, KINDS, Kind
from ._link import Worker

NAMESPACE: Final = "p11-"
VERSION: Final = "1"
WAITING: Final = "kmsplug-import/1/"

_BODY_BYTES: Final = 12
_MARK_BYTES: Final = 4
_MAX_ID_BYTES: Final = 255
_EDWARDS: Final = (EDWARDS_OID, EDWARDS_NAME)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is on the token.

    Attributes:
        key_id: CKA_ID.
        kind: What it is.
        secret: The secret or private object.
        public: The public one; None: it is symmetric, or its public half is not on the token.
        name: CKA_LABEL.
        generated: Whether the token made it.
        exportable: Whether it may leave the token (CKA_EXTRACTABLE).
        modulus: CKA_MODULUS of an RSA key, else 0.
        waits_until: The key waits for its material until then, in seconds since 1970, and its objects are the
            pair under which that comes (see `_imports`); None: it has its material.
    """

    key_id: bytes
    kind: Kind
    secret: Object
    public: Object | None
    name: str | None
    generated: bool
    exportable: bool
    modulus: int
    waits_until: int | None = None


def text_of(key_id: bytes) -> str:
    """Return the id in the protocol of a CKA_ID."""
    return NAMESPACE + key_id.hex()


def is_id(text: str) -> bool:
    """Tell whether a text could be the id of a key."""
    return _id_of(text) is not None


def new_id(change: str | None) -> bytes:
    """Return a CKA_ID for a new key: random, or of the change that asks for it, to find it again."""
    if change is None:
        body = os.urandom(_BODY_BYTES)
    else:
        body = hashlib.sha512(b"kmsplug-pkcs11/v1/key-id\0" + change.encode("utf-8")).digest()[:_BODY_BYTES]
    return body + _mark(body)


def is_own(key_id: bytes) -> bool:
    """Tell whether a CKA_ID is one that this driver makes."""
    body = key_id[:_BODY_BYTES]
    return key_id == body + _mark(body)


def _mark(body: bytes) -> bytes:
    return hashlib.sha512(b"kmsplug-pkcs11/v1/key-id-mark\0" + body).digest()[:_MARK_BYTES]


def bytes_of(text: str) -> bytes:
    """Return the CKA_ID of an id in the protocol.

    Raises:
        DriverError: KEY_NOT_FOUND: it is none.
    """
    key_id = _id_of(text)
    if key_id is None:
        raise not_found()
    return key_id


def find(worker: Worker, text: str) -> StoredKey:
    """Return a key by its id in the protocol.

    Raises:
        DriverError: KEY_NOT_FOUND, KEY_INVALID_STATE (the id is not its alone), KEY_USAGE_MISMATCH (it is of
            a kind that has no name here).
        PKCS11Error: The module failed, or nobody is logged in any more.
    """
    key_id = bytes_of(text)
    known: StoredKey | None = worker.found.get(key_id)
    if known is None:
        known = look_up(worker, key_id)
        if known is None:
            raise not_found()
        if known.waits_until is None:  # else it is another one as soon as its material has come
            worker.found[key_id] = known
    return known


def look_up(worker: Worker, key_id: bytes, *, surely: bool = True) -> StoredKey | None:
    """Return a key by its CKA_ID as it is now, or None.

    Args:
        worker: Where to look.
        key_id: CKA_ID.
        surely: Whether it matters that what was not found is not there.

    Raises:
        DriverError: As `find`.
        PKCS11Error: As `find`.
    """
    objects = _objects(worker.session, key_id)
    secrets = _counting(each for each in objects if each[Attribute.CLASS] is not ObjectClass.PUBLIC_KEY)
    if not secrets:
        if surely:
            worker.require_sight()
        return None
    if len(secrets) > 1:
        raise DriverError(
            ErrorCode.KEY_INVALID_STATE,
            "several keys of the token have this CKA_ID: give each one of its own (pkcs11-tool --set-id)",
        )
    public = next((each for each in objects if each[Attribute.CLASS] is ObjectClass.PUBLIC_KEY), None)
    found = _described(key_id, secrets[0], public)
    if found is None:
        raise DriverError(
            ErrorCode.KEY_USAGE_MISMATCH,
            "the key is of a kind, or has a combination of uses, that has no name here",
        )
    return found


def objects(worker: Worker, key_id: bytes) -> list[Object]:
    """Return every object of a key, what it consists of first, then what is public.

    Raises:
        PKCS11Error: As `find`.
    """
    found = _objects(worker.session, key_id)
    if not found:
        worker.require_sight()
    return found


def everything(worker: Worker) -> Iterator[StoredKey]:
    """Yield every key of a known kind, in the order of their ids. Those that share an id are left out.

    Raises:
        PKCS11Error: The module failed, or nobody is logged in any more.
    """
    objects: dict[bytes, list[Object]] = {}
    publics: dict[bytes, Object] = {}
    for each in _objects(worker.session):
        if key_id := bytes(read(each, Attribute.ID, b"")):
            if each[Attribute.CLASS] is ObjectClass.PUBLIC_KEY:
                publics[key_id] = each
            else:
                objects.setdefault(key_id, []).append(each)
    if not objects:
        worker.require_sight()
    for key_id in sorted(objects):
        secrets = _counting(objects[key_id])
        if len(secrets) == 1:
            found = _described(key_id, secrets[0], publics.get(key_id))
            if found is not None:
                yield found


def make(
    session: Session, kind: Kind, key_id: bytes, label: str, *, curve: bytes | None, store: bool
) -> tuple[Object, Object | None]:
    """Make a key on the token: private, sensitive, not extractable.

    Args:
        session: Where.
        kind: What.
        key_id: Its CKA_ID.
        label: Its CKA_LABEL.
        curve: CKA_EC_PARAMS, as this token wants the curve to be named.
        store: Whether it is to outlive the session.

    Returns:
        The secret or private object, and the public one.

    Raises:
        PKCS11Error: The token refused.
    """
    closed = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True}
    named: dict[str, Any] = {"id": key_id, "label": label, "store": store, "capabilities": kind.flags}
    if kind.symmetric:
        secret = session.generate_key(
            kind.key_type, kind.size, mechanism=kind.made_by, template=closed, **named
        )
        return secret, None
    pair: dict[str, Any] = {
        **named,
        "mechanism": kind.made_by,
        "private_template": closed,
        "public_template": {Attribute.PRIVATE: False},
    }
    if curve is not None:
        domain = session.create_domain_parameters(kind.key_type, {Attribute.EC_PARAMS: curve}, local=True)
        public, private = domain.generate_keypair(**pair)
    else:
        if kind.parameter_set is not None:
            pair["public_template"][Attribute.PARAMETER_SET] = kind.parameter_set
        public, private = session.generate_keypair(kind.key_type, kind.size, **pair)
    return private, public


def read(each: Object, attribute: Attribute, default: Any = None) -> Any:
    """Return an attribute, or *default* where the token does not have it."""
    try:
        return each[attribute]
    except (PKCS11Error, ValueError):  # ValueError: of a value that the library has no name for
        return default


def is_generated(secret: Object) -> bool:
    """Tell whether the token made a key itself.

    NSS sets CKA_LOCAL of none. No token sets CKA_NEVER_EXTRACTABLE of what came from outside; what was made
    there and could once leave it is taken for such.
    """
    local = read(secret, Attribute.LOCAL, default=False)
    return bool(local or read(secret, Attribute.NEVER_EXTRACTABLE, default=False))


def _id_of(text: str) -> bytes | None:
    digits = text.removeprefix(NAMESPACE)
    if digits == text or not 0 < len(digits) <= 2 * _MAX_ID_BYTES:
        return None
    try:
        key_id = bytes.fromhex(digits)
    except ValueError:
        return None
    return key_id if key_id.hex() == digits else None  # one spelling for a key


def not_found() -> DriverError:
    """Return what is said where there is no such key."""
    return DriverError(ErrorCode.KEY_NOT_FOUND, "the token has no key of this id")


def _objects(session: Session, key_id: bytes | None = None) -> list[Object]:
    """Return the key objects of the token, of all ids or of one.

    They are searched for class by class: a token may hold objects of classes that the library has no name
    for.
    """
    wanted: dict[Attribute, Any] = {Attribute.TOKEN: True}
    if key_id is not None:
        wanted[Attribute.ID] = key_id
    return [
        found
        for each in (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
        for found in session.get_objects({**wanted, Attribute.CLASS: each})
    ]


def _counting(secrets: Iterable[Object]) -> list[Object]:
    """Leave out the pair under which a key's material came, once it has come."""
    found = list(secrets)
    arrived = [each for each in found if not is_waiting_label(read(each, Attribute.LABEL))]
    return arrived or found


def is_waiting_label(label: str | None) -> bool:
    """Tell whether an object is one of a pair under which the material of a key is to come."""
    return label is not None and label.startswith(WAITING)


def waiting_label(kind: Kind, name: str, until: int) -> str:
    """Return the label of such a pair, which says all that is known of the key before it is there."""
    return f"{WAITING}{kind.algorithm}/{kind.usage}/{until}/{name}"


def _waiting(label: str) -> tuple[Kind, int, str] | None:
    """Read such a label; None: nobody of us wrote it."""
    algorithm, usage, until, name = [*label.removeprefix(WAITING).split("/", 3), "", "", "", ""][:4]
    kind = next((each for each in KINDS if (each.algorithm, each.usage) == (algorithm, usage)), None)
    if kind is None or not (until.isascii() and until.isdigit()):
        return None
    return kind, int(until), name


def _described(key_id: bytes, secret: Object, public: Object | None) -> StoredKey | None:
    label = read(secret, Attribute.LABEL)
    if is_waiting_label(label):
        waiting = _waiting(label)
        if waiting is None:
            return None
        kind, until, name = waiting
        return StoredKey(
            key_id,
            kind,
            secret,
            public,
            name or None,
            generated=False,
            exportable=False,
            modulus=0,
            waits_until=until,
        )
    found = _kind_of(secret, public)
    if found is None:
        return None
    kind = found
    return StoredKey(
        key_id,
        kind,
        secret,
        public,
        name=label or None,
        generated=is_generated(secret),
        exportable=bool(read(secret, Attribute.EXTRACTABLE, default=False)),
        modulus=_modulus(secret) if kind.key_type is KeyType.RSA else 0,
    )


def _kind_of(secret: Object, public: Object | None) -> Kind | None:
    key_type = read(secret, Attribute.KEY_TYPE)
    usage = _usage_of(key_type, secret)
    size, curve, parameter_set = None, None, None
    if key_type in (KeyType.AES, KeyType.GENERIC_SECRET):
        size = 8 * int(read(secret, Attribute.VALUE_LEN, 0))
    elif key_type is KeyType.RSA:
        size = _modulus(secret).bit_length()
    elif key_type in (KeyType.EC, KeyType.EC_EDWARDS):
        halves = [secret] if public is None else [secret, public]  # some tokens keep it with one of them only
        curve = next((bytes(found) for half in halves if (found := read(half, Attribute.EC_PARAMS))), b"")
        curve = EDWARDS_OID if curve in _EDWARDS else curve
    else:
        parameter_set = read(secret, Attribute.PARAMETER_SET)
    for kind in KINDS:
        if (kind.key_type, kind.usage) == (key_type, usage) and (
            kind.size,
            kind.curve,
            kind.parameter_set,
        ) == (
            size,
            curve,
            parameter_set,
        ):
            return kind
    return None


def _modulus(secret: Object) -> int:
    return int.from_bytes(read(secret, Attribute.MODULUS, b""), "big")


# What the attributes of a key permit, in the order in which they count: a key has one purpose here, however
# many its maker gave it.
_PURPOSES: Final = {
    KeyType.AES: ((Attribute.DECRYPT, KeyUsage.ENCRYPT_DECRYPT), (Attribute.UNWRAP, KeyUsage.WRAP_UNWRAP)),
    KeyType.RSA: ((Attribute.SIGN, KeyUsage.SIGN_VERIFY), (Attribute.DECRYPT, KeyUsage.ENCRYPT_DECRYPT)),
    KeyType.EC: ((Attribute.SIGN, KeyUsage.SIGN_VERIFY), (Attribute.DERIVE, KeyUsage.KEY_AGREEMENT)),
    KeyType.EC_EDWARDS: ((Attribute.SIGN, KeyUsage.SIGN_VERIFY),),
    KeyType.GENERIC_SECRET: ((Attribute.SIGN, KeyUsage.GENERATE_VERIFY_MAC),),
    KeyType.ML_DSA: ((Attribute.SIGN, KeyUsage.SIGN_VERIFY),),
    KeyType.ML_KEM: ((Attribute.DECAPSULATE, KeyUsage.KEY_ENCAPSULATION),),
}


def _usage_of(key_type: Any, secret: Object) -> KeyUsage | None:
    for attribute, usage in _PURPOSES.get(key_type, ()):
        if read(secret, attribute, default=False):
            return usage
    return None
