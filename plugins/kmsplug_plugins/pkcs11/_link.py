"""The way to one token: the module, one login for the life of the process, and sessions for the threads.

A login holds for the process and ends with the session that made it, so that one is kept aside. The others
are opened without a PIN, lent to one thread at a time, and thrown away after any error: nobody knows what the
token was in the middle of. After an error the login is looked at, too; where it or the token is gone, the
next call begins anew: module, token, login. A PIN that was rejected is never shown again.

Calls are let in in the order in which they come. Where a module cannot bear it (`makes_alone`), no other call
is in while one makes or destroys what stays on the token.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from kmsplug_protocol import ErrorCode, Outcome, Vendor
from kmsplug_sdk import DriverError, current_call
from kmsplug_sdk.mapping import VendorAnswer

from . import _selection
from ._client import PROTECTED_AUTH, Module, PKCS11Error, Session, Token, TokenFlag, UserNotLoggedIn
from ._errors import GONE, PIN_REJECTED, REFUSED, STALE, TABLE, name_of, translated
from ._pin import read_pin
from .config import Pkcs11Config

_log: Final = logging.getLogger(__name__)

_WAIT_S: Final = 60.0  # for a request without a deadline; others may be making long RSA keys meanwhile
_PAUSE_S: Final = 0.5  # between two attempts to reach a token that is gone
_MOST_DEVICE_ERRORS: Final = 2  # in a row; then the module is begun anew

_MOST_REPEATS: Final = 2  # of one call: a handle may be no more, and then a login
_UNSEEN: Final = "CKR_USER_NOT_LOGGED_IN"

_T = TypeVar("_T")


class Worker:
    """A session that one thread has for the time of one call, and the keys that were found through it."""

    def __init__(self, session: Session, generation: int, sees_all: Callable[[float], bool]) -> None:
        self.session = session
        self.generation = generation
        self.found: dict[bytes, Any] = {}
        self.call_began = 0.0
        self._sees_all = sees_all

    def require_sight(self) -> None:
        """Make sure that what was not found is not there, rather than hidden from us.

        Raises:
            UserNotLoggedIn: It may be; the call is made once again, after module and login were begun anew.
        """
        if not self._sees_all(self.call_began):
            raise UserNotLoggedIn


class Link:
    """The way to one token. Threads share it; a process has one.

    Args:
        config: The settings.

    Attributes:
        makes_alone: While what stays on the token is made or destroyed, no other call may be made.
        overlooks_new: What another process made may stay unseen until the module is begun anew.
        refuses_by: What this module says of a ciphertext that does not belong to the key, beside what it
            should.
    """

    def __init__(self, config: Pkcs11Config) -> None:
        self.refuses_by: frozenset[str] = frozenset()
        self.makes_alone = False
        self.overlooks_new = False
        self._config = config
        self._changed = threading.Condition()
        self._module: Module | None = None
        self._token: Token | None = None
        self._login: Session | None = None
        self._idle: list[Worker] = []
        self._queue: deque[object] = deque()
        self._out = 0
        self._alone = False
        self._generation = 0
        self._lost = False
        self._device_errors = 0
        self._not_before = 0.0
        self._reached_at = 0.0
        self._with_login = False
        self._rejected: tuple[str, str | None] | None = None

    def open(self) -> tuple[Module, Token]:
        """Load the module, find the token and log in.

        Raises:
            DriverError: CONFIGURATION_ERROR (no such module or token), AUTHENTICATION_FAILED or
                PROVIDER_UNAVAILABLE.
        """
        with self._changed:
            return self._reach()

    def close(self) -> None:
        """Log out and give the module back. Whatever it says to that is of no use to anybody."""
        with self._changed:
            self._lost = True
            module, self._module, self._login, self._token = self._module, None, None, None
            self._idle.clear()
            if module is not None:
                try:
                    module.finalize()
                except PKCS11Error as error:
                    _log.info("the module did not end well: %s", name_of(error))

    def run(self, operation: str, act: Callable[[Worker], _T], *, makes: bool = False) -> _T:
        """Do something in a session. Only what a session or a handle that is no more prevented is done again.

        Args:
            operation: Ours, as ``crypto.decrypt``: the same value of a module means another thing in each.
            act: What is done. It may be called again, if nothing was done before.
            makes: Whether it makes or destroys what stays on the token.

        Raises:
            DriverError: What *act* raised, or what the module's error means.
            VendorAnswer: As `ErrorTable.translate`.
        """
        left, began = _MOST_REPEATS, time.monotonic()
        while True:
            worker = self._take(operation, alone=makes and self.makes_alone)
            worker.call_began = began
            try:
                result = act(worker)
            except PKCS11Error as error:
                name = name_of(error)
                refused = REFUSED.get(operation) if name in self.refuses_by else None
                healthy = self._failed(worker, refused or name)
                if left and name in STALE:
                    left -= 1
                    continue
                meant = refused if refused and healthy else name
                meaning = translated(meant, operation, healthy=healthy)
                if isinstance(meaning, VendorAnswer) and operation not in REFUSED:
                    meaning = _absurd(name)
                raise meaning from error
            except (DriverError, VendorAnswer):
                self._give(worker)
                raise
            except BaseException:
                self._failed(worker, "defect")
                raise
            self._give(worker)
            return result

    def _take(self, operation: str, *, alone: bool) -> Worker:
        deadline = time.monotonic() + current_call().remaining_s(_WAIT_S)
        with self._changed:
            self._wait_for_turn(deadline, alone=alone)
            if self._lost or self._token is None:
                self._reach()
            self._out += 1
            self._alone = alone
            if self._idle:
                return self._idle.pop()
            token, generation = self._token, self._generation
        try:
            # Read-write, because a key may be made in it, and some tokens have no others.
            session = token.open(rw=True)  # type: ignore[union-attr]  # `_reach` has found one, or has raised
        except PKCS11Error as error:
            name = name_of(error)
            if name == "CKR_SESSION_COUNT" and (worker := self._wait_for_idle(deadline)) is not None:
                return worker
            raise translated(name, operation, healthy=self._failed(None, name)) from error
        except BaseException:
            self._failed(None, "defect")
            raise
        return Worker(session, generation, self._sees_all)

    def _wait_for_turn(self, deadline: float, *, alone: bool) -> None:
        turn = object()
        self._queue.append(turn)
        try:
            # Where the token is lost, the others still use what has to be ended first.
            while self._queue[0] is not turn or (self._out and (alone or self._alone or self._lost)):
                if not self._changed.wait(deadline - time.monotonic()):
                    state = "gone" if self._lost else "busy"
                    raise _unavailable(f"the token is {state}, and a call to it still waits for an answer")
        finally:
            self._queue.remove(turn)
            self._changed.notify_all()

    def _wait_for_idle(self, deadline: float) -> Worker | None:
        """Return a session that another thread gives back in time. None: nobody of us has any."""
        with self._changed:
            while not self._idle:
                # This thread is counted as well, and has none.
                if self._lost or self._out <= 1 or not self._changed.wait(deadline - time.monotonic()):
                    return None
            return self._idle.pop()

    def _give(self, worker: Worker) -> None:
        with self._changed:
            self._out -= 1
            self._device_errors = 0
            self._changed.notify_all()
            if self._lost:
                return
            if worker.generation != self._generation:
                worker.found.clear()
                worker.generation = self._generation
            self._idle.append(worker)

    def _failed(self, worker: Worker | None, name: str) -> bool:
        """Throw a session away, and tell whether the token is well otherwise."""
        if worker is not None:
            try:
                worker.session.close()
            except PKCS11Error as error:
                _log.debug("a session did not close: %s", name_of(error))
        with self._changed:
            self._out -= 1
            self._device_errors = self._device_errors + 1 if name == "CKR_DEVICE_ERROR" else 0
            if name.endswith("HANDLE_INVALID"):  # what others found may be no more, too
                self._generation += 1
                for idle in self._idle:
                    idle.found.clear()
            healthy = (
                name not in GONE
                and self._device_errors < _MOST_DEVICE_ERRORS
                and not self._lost
                and self._logged_in()
            )
            if not healthy and not self._lost:
                # Of a module that overlooks keys this is no event: it happens whenever one is not found.
                level = logging.INFO if self.overlooks_new and name == _UNSEEN else logging.WARNING
                _log.log(level, "the token or the login is gone (%s): begun anew", name)
                self._lost = True
            self._changed.notify_all()
            return healthy

    def _sees_all(self, call_began: float) -> bool:
        return self._logged_in() and (not self.overlooks_new or self._reached_at >= call_began)

    def _logged_in(self) -> bool:
        module, login = self._module, self._login
        if module is None or login is None:
            return False
        return module.session_is_good(login, logged_in=self._with_login)

    def _reach(self) -> tuple[Module, Token]:
        """Begin anew: module, token, login. Nobody else uses any of them now."""
        if self._rejected is not None:
            raise self._refused_pin()
        if time.monotonic() < self._not_before:
            raise _unavailable("the token is gone; it was looked for just now", retry_after_s=_PAUSE_S)
        self._idle.clear()
        self._login = self._token = None
        try:
            module = self._begin()
            token = _selection.choose(module, self._config.token)
            self._log_in(token)
        except DriverError as error:
            self._not_before = time.monotonic() + _PAUSE_S
            if self._lost and error.code is ErrorCode.CONFIGURATION_ERROR:
                # It was there before: whoever takes it out does not change our settings.
                raise _unavailable("the token is not in any slot any more") from error
            raise
        except PKCS11Error as error:
            self._not_before = time.monotonic() + _PAUSE_S
            name = name_of(error)
            refusal = translated(name, "plugin.configure")
            if name in PIN_REJECTED and isinstance(refusal, DriverError):
                self._rejected = name, refusal.data.hint
                raise self._refused_pin() from error
            raise refusal from error
        self._token, self._lost, self._device_errors = token, False, 0
        self._reached_at = time.monotonic()
        self._generation += 1
        return module, token

    def _begin(self) -> Module:
        """Load the module, or end and initialise it again: that is how it learns of a token's return."""
        if self._module is not None:
            self._module.reinitialize()
            return self._module
        try:
            module = Module(str(self._config.module))
        except OSError as error:
            raise DriverError(
                ErrorCode.CONFIGURATION_ERROR,
                "the module cannot be loaded: it is missing, not readable, for another machine, or no module",
                path="module",
                vendor=Vendor(service="os", message=str(error)),
            ) from error
        self._module = module
        return module

    def _log_in(self, token: Token) -> None:
        credential = self._credential(token)
        # The library takes any number, whatever its stubs say.
        user_type: Any = None if self._config.user_type == "user" else self._config.user_type
        self._with_login = credential is not None
        if credential is None:
            self._login = token.open(rw=True)
            return
        try:
            self._login = token.open(rw=True, user_pin=credential, user_type=user_type)
        except PKCS11Error as error:
            if name_of(error) != "CKR_USER_ALREADY_LOGGED_IN":
                raise
            self._login = token.open(rw=True)

    def _credential(self, token: Token) -> Any:
        """Return the PIN, or what stands for the token's own keypad, or None: nobody logs in."""
        if self._config.pin is not None:
            return self._config.pin.get_secret_value()
        if self._config.token.pin_source is not None:
            return read_pin(Path(self._config.token.pin_source))
        if token.flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH:
            return PROTECTED_AUTH
        return None

    def _refused_pin(self) -> DriverError:
        name, hint = self._rejected or ("CKR_PIN_INCORRECT", None)
        return DriverError(
            ErrorCode.AUTHENTICATION_FAILED,
            "the token refused the PIN, and it is not shown a second time",
            outcome=Outcome.NOT_APPLIED,
            hint=hint,
            vendor=Vendor(service=TABLE.service, code=name),
        )


def _absurd(name: str) -> DriverError:
    """Return the error for an answer that has no meaning for what was asked."""
    return DriverError(
        ErrorCode.PROVIDER_INTERNAL,
        "the token's answer is none to what it was asked",
        vendor=Vendor(service=TABLE.service, code=name),
    )


def _unavailable(message: str, *, retry_after_s: float | None = None) -> DriverError:
    return DriverError(
        ErrorCode.PROVIDER_UNAVAILABLE,
        message,
        outcome=Outcome.NOT_APPLIED,
        retry_after_ms=None if retry_after_s is None else int(1000 * retry_after_s),
        hint="put the token back, or look at the way to it: network, client service, USB",
        vendor=Vendor(service=TABLE.service),
    )
