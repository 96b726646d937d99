"""What is done with a key itself: labels, backup, states, deletion."""

from collections.abc import Callable

import pytest
from kmsplug_host import KeyAlgorithm, KeyUsage
from kmsplug_host.errors import (
    KeyDestroyed,
    KeyDisabled,
    KeyInvalidState,
    KeyNotFound,
    KeyPendingDeletion,
    UnsupportedOperation,
)
from kmsplug_protocol import Key, KeyState, Outcome
from support.portable_witness import Witness

_A = KeyAlgorithm
_U = KeyUsage


class Lifecycle(Witness):
    """Takes a key through its life."""

    def _labels(self, key: Key) -> None:
        keystore, alias = self.keystore, f"alias/portable-{key.key_id[-8:]}"
        if self.done("key.set_alias", key, lambda: keystore.set_alias(key.key_id, alias)) is not None:
            assert self.got(alias, "key_id") in (None, key.key_id)
            if key.usage is _U.ENCRYPT_DECRYPT and keystore.can_do("crypto.encrypt", key.key_id):
                assert keystore.encrypt(alias, b"", format="raw").key_id == key.key_id
            if (
                self.done("key.remove_alias", key, lambda: keystore.remove_alias(key.key_id, alias))
                is not None
            ):
                with pytest.raises((KeyNotFound, UnsupportedOperation)):
                    keystore.get_key(alias)
        else:
            self.done("key.remove_alias", key, lambda: keystore.remove_alias(key.key_id, alias))
        tagged = self.done("key.tag", key, lambda: keystore.tag_key(key.key_id, {"cost": "r&d", "b": "2"}))
        if tagged is not None:
            assert tagged.tags["cost"] == "r&d"
            assert "b" not in keystore.tag_key(key.key_id, {"cost": "new"}, remove=["b"]).tags
            assert (self.got(key.key_id, "tags") or {"cost": "new"})["cost"] == "new"

    def _keeping(self, key: Key) -> None:
        """Backup, and what else is asked about a key."""
        keystore = self.keystore
        self.done("key.get", key, lambda: keystore.get_key(key.key_id))
        backup = self.done("key.backup", key, lambda: keystore.backup_key(key.key_id))
        if not keystore.can_do("key.restore"):
            self.done("key.restore", None, lambda: keystore.restore_key(b"nothing"))
        elif backup is None:
            self.seen["key.restore"].add("refused")  # there is nothing to try it with
        else:
            with self.may_fail():  # a key that is still there may not come back beside itself
                self.took("key.restore", keystore.restore_key(backup.backup))
            self.seen["key.restore"].add("native")
        valid = self.done("key.validate", key, lambda: keystore.validate_key(key.key_id))
        assert valid is None or valid.valid
        with self.may_fail():
            self.done("key.get_region", key, lambda: keystore.get_key_region(key.key_id))
        with self.may_fail():
            self.seen["key.transform_access"].update()  # tried, whatever the provider says of no data
            self.done("key.transform_access", key, lambda: keystore.transform_key_access(key.key_id, {}))
        self.done("key.validate_access", key, lambda: keystore.validate_key_access({}))
        found = self.done("key.reconcile", key, lambda: keystore.reconcile("key.create", "0" * 32))
        assert found is None or found.outcome is not Outcome.APPLIED

    def _states(self, key: Key, reopen: list[Callable[[], object]]) -> None:
        keystore = self.keystore
        use = self._making(key)
        if self.done("key.disable", key, lambda: keystore.disable_key(key.key_id)) is not None:
            assert self.got(key.key_id, "state") in (None, KeyState.SUSPENDED)
            if use is not None:
                with pytest.raises(KeyDisabled):
                    use()
            if self.done("key.enable", key, lambda: keystore.enable_key(key.key_id)) is not None:
                assert self.got(key.key_id, "state") in (None, KeyState.ACTIVE)
                for again in [*reopen, *([use] if use else [])]:
                    again()
            else:  # this one is of no use any more
                key = self.make(key.algorithm, key.usage)
                use, reopen = self._making(key), []
        else:
            self.done("key.enable", key, lambda: keystore.enable_key(key.key_id))
        for state in (KeyState.DEACTIVATED, KeyState.ACTIVE):
            try:
                moved = self.done(
                    "key.set_state",
                    key,
                    lambda to=state: keystore.set_key_state(key.key_id, to),  # type: ignore[misc]
                )
            except (KeyInvalidState, UnsupportedOperation):  # the provider has no such state
                self.seen["key.set_state"].add("refused")
                break
            if moved is None:
                break
            assert moved.state is state
            if state is KeyState.DEACTIVATED and use is not None:
                with pytest.raises((KeyInvalidState, KeyDisabled)):
                    use()
                for again in reopen:
                    again()
        self._ending(key, use)

    def _ending(self, key: Key, use: Callable[[], object] | None) -> None:
        keystore = self.keystore
        ended = self.done("key.schedule_deletion", key, lambda: keystore.schedule_key_deletion(key.key_id))
        if ended is None:
            with self.may_fail():
                self.done("key.cancel_deletion", key, lambda: keystore.cancel_key_deletion(key.key_id))
            if not keystore.can_do("key.purge", key.key_id):
                self.done("key.purge", key, lambda: keystore.purge_key(key.key_id))
            return
        assert ended.state is KeyState.DESTROY_SCHEDULED
        if use is not None:
            with pytest.raises((KeyPendingDeletion, KeyDisabled)):
                use()
        cancelled = self.done("key.cancel_deletion", key, lambda: keystore.cancel_key_deletion(key.key_id))
        if cancelled is not None:
            assert cancelled.state in (KeyState.SUSPENDED, KeyState.ACTIVE)
            if keystore.can_do("key.enable", key.key_id):
                keystore.enable_key(key.key_id)
                if use is not None:
                    use()
            keystore.schedule_key_deletion(key.key_id)
        self._purging(key, use, due_at_once=ended.executed_by.startswith("shim:"))

    def _purging(self, key: Key, use: Callable[[], object] | None, *, due_at_once: bool) -> None:
        keystore = self.keystore
        if due_at_once:  # the host keeps the window, and destroys nothing before it is over
            if keystore.can_do("key.purge", key.key_id):
                with pytest.raises(KeyInvalidState, match="not due"):
                    keystore.purge_key(key.key_id)
            keystore.cancel_key_deletion(key.key_id)
            keystore.schedule_key_deletion(key.key_id, window_days=0)
        purged = self.done("key.purge", key, lambda: keystore.purge_key(key.key_id))
        if purged is not None and use is not None:
            with pytest.raises((KeyDestroyed, KeyNotFound)):
                use()

    def _making(self, key: Key) -> Callable[[], object] | None:
        """Return what makes something with a key, if it can."""
        keystore = self.keystore
        uses: dict[KeyUsage, tuple[str, Callable[[], object]]] = {
            _U.ENCRYPT_DECRYPT: ("crypto.encrypt", lambda: keystore.encrypt(key.key_id, b"", format="raw")),
            _U.WRAP_UNWRAP: ("crypto.wrap_key", lambda: keystore.wrap_key(key.key_id, bytes(32))),
            _U.SIGN_VERIFY: ("crypto.sign", lambda: keystore.sign(key.key_id, b"message")),
            _U.GENERATE_VERIFY_MAC: ("crypto.mac", lambda: keystore.mac(key.key_id, b"message")),
            _U.KEY_ENCAPSULATION: ("crypto.encapsulate", lambda: keystore.encapsulate(key.key_id)),
        }
        wire, use = uses.get(key.usage, ("", None))
        return use if use is not None and keystore.can_do(wire, key.key_id) else None
