"""Data keys that are used again: every bound holds before use, and nothing that ended one is overlooked."""

import os
import threading
import warnings
from typing import Any

import pytest
from kmsplug_host._deadline import Deadline
from kmsplug_host.config import DataKeySettings
from kmsplug_host.errors import InvalidCiphertext, KeyDisabled, ProviderUnavailable, Timeout
from kmsplug_host.shims import data_keys
from kmsplug_host.shims.data_keys import DataKeys, Witness
from support.envelopes import MemoryKeystore, encrypt, parts, seal, unseal


class Clock:
    """A monotonic clock that a test moves."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(data_keys, "time", clock)
    return clock


def keeping(**bounds: Any) -> MemoryKeystore:
    """A keystore that keeps data keys, and has been asked for its binding already."""
    keystore = MemoryKeystore(data_key_cache=DataKeySettings(**bounds))
    keystore.evidence.note_bound(keystore.wrap_row_of_aes())
    return keystore


def uses(keystore: MemoryKeystore, count: int, **arguments: Any) -> list[str | None]:
    return [encrypt(keystore, b"x" * 10, **arguments).data_key for _ in range(count)]


def test_many_messages_cost_one_call_and_each_has_a_salt_of_its_own() -> None:
    keystore = keeping()

    sealed = [encrypt(keystore, bytes([number])) for number in range(20)]

    assert keystore.wraps == 1
    assert (keystore.data_keys.hits, keystore.data_keys.misses) == (19, 1)
    assert [each.data_key for each in sealed] == ["fresh"] + ["cached"] * 19
    assert len({parts(each.ciphertext)[1][:24] for each in sealed}) == 20
    for number, each in enumerate(sealed):
        assert unseal([keystore], each.ciphertext)[0] == bytes([number])


def test_without_a_cache_each_message_has_its_own_data_key() -> None:
    keystore = MemoryKeystore()

    assert uses(keystore, 2) == ["fresh", "fresh"]
    assert keystore.wraps == 2


@pytest.mark.parametrize(
    "other",
    [
        {"context": {"a": "2"}},
        {"context": {"a": "1", "b": ""}},
        {"context": None},
        {"tenant": "acme"},
        {"store_context": True},
        {"key_id": "key-other-aes"},
        {"recipients": [MemoryKeystore(identity="ks:2").handle()]},
        {"require_same_strength": False},
    ],
)
def test_messages_that_differ_in_anything_bound_share_no_data_key(other: dict[str, Any]) -> None:
    keystore = keeping()
    uses(keystore, 1, context={"a": "1"})

    assert encrypt(keystore, **{"context": {"a": "1"}, **other}).data_key == "fresh"


def test_the_order_of_a_context_does_not_matter() -> None:
    keystore = keeping()

    encrypt(keystore, context={"a": "1", "b": "2"})

    assert encrypt(keystore, context={"b": "2", "a": "1"}).data_key == "cached"


def test_a_data_key_ends_after_its_uses() -> None:
    assert uses(keeping(max_uses=3), 7) == ["fresh", "cached", "cached"] * 2 + ["fresh"]


def test_a_data_key_ends_before_it_would_encrypt_too_many_bytes() -> None:
    assert uses(keeping(max_bytes=25), 4) == ["fresh", "cached", "fresh", "cached"]
    assert uses(keeping(max_bytes=9), 2) == ["fresh", "fresh"]


def test_a_data_key_ends_at_its_age_also_when_the_provider_is_down(clock: Clock) -> None:
    keystore = keeping(max_age_s=10)
    uses(keystore, 1)
    keystore.failure = ProviderUnavailable("down")

    clock.now += 9.9
    assert uses(keystore, 1) == ["cached"]
    clock.now += 0.1
    with pytest.raises(ProviderUnavailable):
        uses(keystore, 1)
    keystore.failure = None
    assert uses(keystore, 1) == ["fresh"]


def test_the_least_recently_used_goes_first_and_the_expired_are_swept(clock: Clock) -> None:
    keystore = keeping(max_entries=2, max_age_s=10)
    for name in ("a", "b", "a", "c"):
        encrypt(keystore, context={"k": name})

    assert encrypt(keystore, context={"k": "a"}).data_key == "cached"
    assert encrypt(keystore, context={"k": "b"}).data_key == "fresh"
    clock.now += 10
    encrypt(keystore, context={"k": "d"})
    assert len(keystore.data_keys) == 1


def test_what_is_forgotten_is_not_used_again() -> None:
    keystore = keeping()
    uses(keystore, 2)

    keystore.data_keys.forget()

    assert uses(keystore, 1) == ["fresh"]


def test_what_a_further_recipients_keystore_forgets_is_not_used_again() -> None:
    keystore, other = keeping(), MemoryKeystore("other", "ks:2")
    wanted = {"recipients": [other.handle()]}
    assert uses(keystore, 2, **wanted) == ["fresh", "cached"]

    other.data_keys.forget()

    assert uses(keystore, 1, **wanted) == ["fresh"]


def test_a_key_that_was_begun_before_something_was_forgotten_is_not_kept() -> None:
    """A key is disabled while a data key is being wrapped under it: the late answer is not kept."""
    keys: DataKeys[str] = DataKeys(DataKeySettings())
    witness = Witness(keys, keys.epoch, "key")

    def make() -> tuple[str, list[Witness]]:
        keys.forget()
        return "data key", [witness]

    assert keys.obtain("name", 1, Deadline.after(5), make) == ("data key", False)
    assert keys.take("name", 1) is None


def test_whoever_knows_a_keys_state_is_asked_at_most_every_five_seconds(clock: Clock) -> None:
    keystore = keeping()
    asked: list[str] = []
    keystore.data_keys.check = asked.append
    uses(keystore, 3)
    assert asked == []

    clock.now += 5
    uses(keystore, 3)
    assert asked == ["key-aes"]
    clock.now += 5

    def disabled(key_id: str) -> None:
        raise KeyDisabled(f"{key_id} is disabled")

    keystore.data_keys.check = disabled
    with pytest.raises(KeyDisabled):
        uses(keystore, 1)
    keystore.data_keys.check = None
    assert uses(keystore, 1) == ["fresh"]


def test_many_callers_make_one_data_key_and_a_failure_is_not_remembered() -> None:
    keys: DataKeys[int] = DataKeys(DataKeySettings())
    began, go_on = threading.Event(), threading.Event()
    made: list[int] = []
    results: list[tuple[int, bool]] = []

    def make() -> tuple[int, list[Witness]]:
        made.append(1)
        began.set()
        assert go_on.wait(10)
        return len(made), []

    def call() -> None:
        results.append(keys.obtain("name", 1, Deadline.after(10), make))

    first = threading.Thread(target=call)
    first.start()
    assert began.wait(10)
    others = [threading.Thread(target=call) for _ in range(8)]
    for thread in others:
        thread.start()
    with pytest.raises(Timeout):
        keys.obtain("name", 1, Deadline.after(0), make)
    go_on.set()
    for thread in (first, *others):
        thread.join(10)

    assert made == [1]
    assert sorted(results) == [(1, False)] + [(1, True)] * 8

    def fail() -> tuple[int, list[Witness]]:
        raise ProviderUnavailable("down")

    with pytest.raises(ProviderUnavailable):
        keys.obtain("other", 1, Deadline.after(10), fail)
    assert keys.obtain("other", 1, Deadline.after(10), make) == (2, False)


def test_a_forked_child_has_no_data_keys_even_if_a_lock_was_held() -> None:
    keystore = keeping()
    uses(keystore, 1)
    with keystore.data_keys._lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside other tests' threads
        child = os.fork()
        if child == 0:
            os._exit(0 if keystore.data_keys.take("any", 0) is None and len(keystore.data_keys) == 0 else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert uses(keystore, 1) == ["cached"]


def test_opened_data_keys_are_kept_only_when_asked_for_and_found_genuine() -> None:
    keystore, forgetful = keeping(decrypt=True), keeping()
    for each in (keystore, forgetful):
        ciphertext = seal(each, b"secret", {"a": "1"})
        each.calls.clear()

        opened = [unseal([each], ciphertext, {"a": "1"})[1].data_key for _ in range(3)]

        kept = each is keystore
        assert opened == (["fresh", "cached", "cached"] if kept else ["fresh"] * 3)
        assert len(each.calls) == (1 if kept else 3)
    broken = bytearray(seal(keystore, b"secret", {"a": "2"}))
    broken[-20] ^= 1  # in the payload: the header is genuine
    header_broken = bytearray(seal(keystore, b"secret", {"a": "3"}))
    header_broken[len(header_broken) - 16 - 6 - 56 - 1] ^= 1  # the tag
    keystore.opened_keys.forget()

    with pytest.raises(InvalidCiphertext):
        unseal([keystore], bytes(header_broken), {"a": "3"})
    assert len(keystore.opened_keys) == 0
    with pytest.raises(InvalidCiphertext):
        unseal([keystore], bytes(broken), {"a": "2"})


def test_a_kept_data_key_does_not_open_for_another_context() -> None:
    keystore = keeping(decrypt=True)
    ciphertext = seal(keystore, b"secret", {"a": "1"})
    unseal([keystore], ciphertext, {"a": "1"})

    with pytest.raises(InvalidCiphertext):
        unseal([keystore], ciphertext, {"a": "2"})


def test_recipients_of_another_message_with_the_same_data_key_are_refused() -> None:
    """Both messages have one data key: only the tag tells whose header it is."""
    keystore = keeping()
    one, two = (seal(keystore, text, {"a": "1"}) for text in (b"first", b"other"))
    header, payload = parts(one)
    start = len(one) - len(payload)

    with pytest.raises(InvalidCiphertext):
        unseal([keystore], two[:start] + payload, {"a": "1"})
    assert header.recipients == parts(two)[0].recipients
