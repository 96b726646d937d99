"""How the application behaves when its keystore does not: ``pytest examples/test_your_app``."""

import contextlib
import time

import pytest
from kmsplug_host import KmsplugError
from kmsplug_plugins.mock.pytest_plugin import MockProvider
from notes import Notes, TryLater


def add_when_it_is_back(notes: Notes, text: str, seconds: float = 20.0) -> None:
    """Try later, as the application asks for."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            notes.add(text)
        except TryLater:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_notes_come_back(kmsplug_mock: MockProvider) -> None:
    notes = Notes(kmsplug_mock.keystore, "acme")

    notes.add("buy milk")

    assert notes.all() == ["buy milk"]


def test_a_busy_keystore_is_waited_for_and_nobody_notices(kmsplug_mock: MockProvider) -> None:
    notes = Notes(kmsplug_mock.keystore, "acme")
    kmsplug_mock.play({"effect": "throttle", "operations": ["crypto.*"], "times": 2, "retry_after_ms": 10})

    notes.add("buy milk")

    assert kmsplug_mock.calls("crypto.encrypt") == 3
    assert notes.all() == ["buy milk"]


def test_a_keystore_that_throttles_for_too_long_costs_a_note_and_nothing_else(
    kmsplug_mock: MockProvider,
) -> None:
    notes = Notes(kmsplug_mock.keystore, "acme")
    kmsplug_mock.play({"effect": "throttle", "operations": ["crypto.*"], "retry_after_ms": 60_000})

    with pytest.raises(TryLater):
        notes.add("lost")
    kmsplug_mock.play()
    add_when_it_is_back(notes, "kept")

    assert notes.all() == ["kept"]


def test_an_outage_is_told_and_survived(kmsplug_mock: MockProvider) -> None:
    notes = Notes(kmsplug_mock.keystore, "acme")
    notes.add("before")
    kmsplug_mock.play({"effect": "fail", "code": "PROVIDER_UNAVAILABLE"})

    with pytest.raises(TryLater):
        notes.add("during")
    kmsplug_mock.play()
    add_when_it_is_back(notes, "after")

    assert notes.all() == ["before", "after"]


def test_a_tenant_whose_keys_birth_was_not_heard_of_has_one_key(kmsplug_mock: MockProvider) -> None:
    kmsplug_mock.play({"effect": "lose_reply", "operations": ["key.create"], "times": 1})

    with contextlib.suppress(KmsplugError):  # the host may find out by itself what became of it, or say so
        Notes(kmsplug_mock.keystore, "acme")
    notes = Notes(kmsplug_mock.keystore, "acme")
    notes.add("buy milk")

    assert notes.all() == ["buy milk"]
    assert [key.name for key in kmsplug_mock.keystore.list_keys().keys] == ["acme"]
