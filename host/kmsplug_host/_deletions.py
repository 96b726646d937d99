"""The thread that looks now and then for keys to destroy, in keystores whose configuration says so."""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

from ._deadline import Deadline
from .errors import KmsplugError
from .keystore import Keystore
from .shims.auto_destroy import INTERVAL_S

_LOOK_S: Final = 60.0  # for one keystore
_END_S: Final = 2.0

_log = logging.getLogger("kmsplug.shims")


class Deletions:
    """Looks at the keystores with ``auto_destroy``, if there are any.

    The first look comes after an interval: a host that lives for one command never looks.

    Args:
        keystores: Returns all keystores as they are.
    """

    def __init__(self, keystores: Callable[[], Iterable[Keystore]]) -> None:
        self._keystores = keystores
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self) -> None:
        """Begin, unless nothing is to be destroyed without an operator."""
        if self._thread is None and any(each.settings.auto_destroy for each in self._keystores()):
            self._thread = threading.Thread(target=self._run, name="kmsplug-deletions", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End. Bounded: what is under way is finished by the next host."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(_END_S)

    def _run(self) -> None:
        while not self._end.wait(INTERVAL_S):
            for keystore in self._keystores():
                if keystore.settings.auto_destroy:
                    self._look(keystore)

    def _look(self, keystore: Keystore) -> None:
        try:
            keystore.destroy_due(Deadline.after(_LOOK_S))
        except KmsplugError as error:
            _log.warning("%s: nobody looked for keys to destroy: %s", keystore.name, error)
        except Exception:  # noqa: BLE001 - a defect must not end the looks at the others
            _log.exception("%s: nobody looked for keys to destroy", keystore.name)
