"""The pair that waits for a key's material, and the unwrapping of it. `import_operations` says what for."""

import time
from typing import Any, Final

from kmsplug_protocol import Mechanism

from ._client import Attribute, Ckm, KeyType, MechanismFlag, Object, ObjectClass, Session
from ._keys import waiting_label
from ._kinds import Kind
from ._use import oaep

_WRAPPING_BITS: Final = 3072
_VALID_S: Final = 24 * 3600


def make_waiting(session: Session, kind: Kind, key_id: bytes, name: str) -> None:
    """Make the pair that waits for the material of a key."""
    label = waiting_label(kind, name, int(time.time()) + _VALID_S)
    closed = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True}
    session.generate_keypair(
        KeyType.RSA,
        _WRAPPING_BITS,
        id=key_id,
        label=label,
        store=True,
        capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
        mechanism=Ckm.RSA_PKCS_KEY_PAIR_GEN,
        private_template=closed,
        public_template={Attribute.PRIVATE: False},
    )


def unwrap_into(
    pair: Any, kind: Kind, wrapping_algorithm: str, wrapped: bytes, *, key_id: bytes, label: str, store: bool
) -> Object:
    """Unwrap material into a key that is private, sensitive and not extractable."""
    key: Object = pair.unwrap_key(
        ObjectClass.SECRET_KEY,
        kind.key_type,
        wrapped,
        id=key_id,
        label=label,
        mechanism=Ckm.RSA_PKCS_OAEP,
        mechanism_param=oaep(Mechanism(wrapping_algorithm)),
        store=store,
        capabilities=kind.flags,
        template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True},
    )
    return key
