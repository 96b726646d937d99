"""What a case works with: sessions on demand, the driver's promises, and keys that are made once."""

import contextlib
import os
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from kmsplug_protocol import (
    ConfigureResult,
    ErrorCode,
    InitializeResult,
    Key,
    KeyAlgorithm,
    KeyUsage,
)

from .capabilities import Capabilities, Target
from .session import Budget, Session, read_result
from .verdict import Failed
from .wire import Wire

_CLEANUP_S: Final = 5.0
_LEAVE_S: Final = 2.0  # time for a driver to close its provider before it is killed


class Bench:
    """One driver under test.

    Args:
        command: What starts it.
        config: Its settings.
        timeout_s: How long one case may take.
        provider: Settings in which ``{address}`` stands for a provider's address; None: it has none.
        wrong_login: Settings whose login the provider rejects; None: there are none.
        variables: Environment variables that a vendor's library needs, beside PATH, HOME and LANG.

    Attributes:
        config: Its settings.
        provider: See above.
        wrong_login: See above.
        variables: See above.
        hello: What it said to `plugin.initialize`.
        opened: What it said to `plugin.configure`.
        capabilities: Its rows, as probed.
        budget: Time left, and strays.
    """

    hello: InitializeResult
    opened: ConfigureResult

    def __init__(
        self,
        command: Sequence[str],
        config: Mapping[str, Any],
        timeout_s: float,
        *,
        provider: Mapping[str, Any] | None = None,
        wrong_login: Mapping[str, Any] | None = None,
        variables: Collection[str] = (),
    ) -> None:
        self._command = command
        self.config = dict(config)
        self.provider = provider
        self.wrong_login = wrong_login
        self.variables = tuple(variables)
        self._timeout_s = timeout_s
        self.budget = Budget()
        self.capabilities = Capabilities(())
        self._shared: Session | None = None
        self._keys: dict[tuple[KeyAlgorithm, KeyUsage, int], Key] = {}
        self._made: list[str] = []

    def discover(self) -> None:
        """Open the shared session for the first time and learn what the driver promises."""
        self._open_shared()

    def begin(self) -> None:
        """Start the clock of a case."""
        self.budget.restart(self._timeout_s)

    @contextlib.contextmanager
    def fresh(self, env: Mapping[str, str] | None = None, folder: str | None = None) -> Iterator[Session]:
        """Start a process, in an environment and a folder of its own if asked; nothing has been said yet."""
        # A driver whose keystore takes one process at a time must not meet itself.
        self.close_shared()
        with Wire(self._command if folder is None else _absolute(self._command), env, folder) as wire:
            yield Session(wire, self.budget)

    @contextlib.contextmanager
    def initialized(self, **params: Any) -> Iterator[Session]:
        """Start a process and initialize it."""
        with self.fresh() as session:
            session.initialize(**params)
            yield session

    @contextlib.contextmanager
    def ready(self, **params: Any) -> Iterator[Session]:
        """Start a process, initialize and configure it."""
        with self.initialized(**params) as session:
            session.configure(self.config)
            yield session

    @property
    def session(self) -> Session:
        """The session that harmless cases share; opened when it is needed."""
        return self._shared or self._open_shared()

    def settle(self) -> None:
        """After a case: the shared session, if there is one, must be quiet and answer."""
        if self._shared is not None:
            self._shared.settle()

    def close_shared(self) -> None:
        """End the shared session, politely; keys that were made in it are forgotten here."""
        if self._shared is not None:
            self._shared.wire.leave(_LEAVE_S)
            self._shared = None
            self._keys.clear()

    def key(self, target: Target, which: int = 0) -> str:
        """Return the id of a key for *target*, always the same; *which* tells apart keys of one kind.

        Nobody may change the state of such a key.
        """
        kind = (target.algorithm, target.usage, which)
        if kind not in self._keys:
            self._keys[kind] = self.make_key(target.algorithm, target.usage)
        return self._keys[kind].key_id

    def make_key(self, algorithm: KeyAlgorithm, usage: KeyUsage, **params: Any) -> Key:
        """Make a key that nobody else uses."""
        body = {"algorithm": algorithm, "usage": usage, **params}
        named = self.session.call("key.create", {**body, "name": key_name()})
        if named.result is None and named.code == ErrorCode.UNSUPPORTED_OPERATION:
            named = self.session.call("key.create", body)  # a driver may refuse names, honestly
        key: Key = read_result("key.create", named.granted())
        self.will_delete(key)
        return key

    def will_delete(self, key: Key) -> None:
        """Remember a key that was made for the test, so that it can be deleted at the end."""
        self._made.append(key.key_id)

    def close(self) -> None:
        """Delete what was made, as far as that is offered, and end the shared session."""
        for operation in ("key.schedule_deletion", "key.purge"):  # the latter alone, where no window is kept
            if self.capabilities.offers(operation) and self._made:
                with contextlib.suppress(Failed):
                    self._delete_keys(operation)
                break
        self.close_shared()

    def _delete_keys(self, operation: str) -> None:
        self.budget.restart(_CLEANUP_S)
        session = self.session
        for key_id in self._made:
            if time.monotonic() >= self.budget.deadline:
                return
            session.call(operation, {"key_id": key_id})

    def _open_shared(self) -> Session:
        wire = Wire(self._command)
        try:
            session = Session(wire, self.budget)
            self.hello = session.initialize()
            self.opened = session.configure(self.config)
        except BaseException:
            wire.close()
            raise
        rows = self.hello.capabilities if self.opened.capabilities is None else self.opened.capabilities
        self.capabilities = Capabilities(rows)
        self._shared = session
        return session


def _absolute(command: Sequence[str]) -> list[str]:
    """Return a command whose arguments that are files here name the same files from anywhere."""
    return [os.path.abspath(part) if os.path.exists(part) else part for part in command]  # noqa: PTH100, PTH110 - links stay


def key_name() -> str:
    """Return a name that no key has yet."""
    return f"kmsplug-conformance-{secrets.token_hex(8)}"
