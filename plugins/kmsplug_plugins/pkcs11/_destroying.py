"""Destroying the objects of a key. What this driver did not make is left to the program that did."""

from typing import Final

from kmsplug_protocol import ErrorCode, Outcome
from kmsplug_sdk import DriverError

from . import _keys
from ._client import Attribute, Object, Session
from ._keys import read
from ._kinds import Kind
from ._link import Worker

_NOT_OURS: Final = "the key was made by another program: destroy it with that one's tool"
_KEPT: Final = "the token does not let this key be destroyed (CKA_DESTROYABLE)"


class Destruction:
    """The destruction of one key, which may be begun more than once: by a repetition, or by another process.

    Args:
        key_id: Its id in the protocol.

    Attributes:
        begun: Whether any object of the key was destroyed.
    """

    def __init__(self, key_id: str) -> None:
        self._key_id = key_id
        self.begun = False

    def run(self, worker: Worker) -> None:
        """Destroy the secret objects, then the public ones, and see that none is left.

        Raises:
            DriverError: KEY_NOT_FOUND: nothing of it is there. UNSUPPORTED_OPERATION: it must not be,
                KEY_INVALID_STATE: the id is not its alone. Nothing was destroyed in either case.
            PKCS11Error: The module failed, or nobody is logged in any more.
        """
        key_id = _keys.bytes_of(self._key_id)
        worker.found.pop(key_id, None)
        objects = _keys.objects(worker, key_id)
        if objects and not self.begun:
            _require_destroyable(worker, key_id, objects)
        for each in objects:
            each.destroy()
            self.begun = True
        if _keys.objects(worker, key_id):
            raise DriverError(
                ErrorCode.PROVIDER_INTERNAL,
                "the token says that the key is destroyed, and still has it",
                outcome=Outcome.UNKNOWN,
            )
        if not self.begun:
            raise _keys.not_found()


def destroys(session: Session, kind: Kind, curve: bytes | None) -> bool:
    """Tell whether a key is gone that a session made and destroyed."""
    made = _keys.make(session, kind, b"", "", curve=curve, store=False)
    objects = [each for each in made if each is not None]
    handles = {each.handle for each in objects}
    for each in objects:
        each.destroy()
    return handles.isdisjoint(each.handle for each in session.get_objects({Attribute.TOKEN: False}))


def _require_destroyable(worker: Worker, key_id: bytes, objects: list[Object]) -> None:
    if not _keys.is_own(key_id):
        raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, _NOT_OURS)
    try:
        _keys.look_up(worker, key_id)
    except DriverError as error:
        if error.code is not ErrorCode.KEY_USAGE_MISMATCH:  # of a half that an interruption left behind
            raise
    if not all(read(each, Attribute.DESTROYABLE, default=True) for each in objects):
        raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, _KEPT)
