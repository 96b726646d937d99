"""Whatever is wrong with a ciphertext, and whichever step refuses it, the answer is the same."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import Host, Keystore
from kmsplug_host.errors import InvalidCiphertext, KmsplugError

DATA_KEY = bytes(range(32))


@dataclass
class Mechanism:
    """One way to open something, and all the ways in which that must fail alike."""

    open: Callable[[bytes], object]
    good: bytes
    wrong_key: Callable[[bytes], object]
    foreign: bytes  # well made, but under another key
    wrong_context: Callable[[bytes], object] | None = None

    public_bytes: int = 0  # at the beginning; they name the key, and to change that is to ask for another one

    def faults(self) -> Iterator[tuple[str, Callable[[bytes], object], bytes]]:
        """Yield the name of every fault, who is to open, and what."""
        good, first, last = self.good, self.public_bytes, len(self.good) - 1
        yield "wrong key", self.wrong_key, good
        yield "made by another key", self.open, self.foreign
        if self.wrong_context is not None:
            yield "wrong context", self.wrong_context, good
        for position in sorted(
            {first, first + 1, first + 8, first + 12, (first + last) // 2, last - 16, last}
        ):
            for bit in (0, 7):
                flipped = bytearray(good)
                flipped[position] ^= 1 << bit
                yield f"bit {bit} of byte {position}", self.open, bytes(flipped)
        for length in (0, 1, 8, 15, 16, 28, last // 2, last - 16, last - 1, last):
            yield f"cut to {length}", self.open, good[:length]
        for more in (1, 8):
            yield f"{more} bytes more", self.open, good + bytes(more)


def seen(name: str, opener: Callable[[bytes], object], data: bytes) -> dict[str, Any]:
    """Return all that a caller can see of a refusal, apart from ids."""
    with pytest.raises(KmsplugError) as caught:
        opener(data)
    error = caught.value
    assert type(error) is InvalidCiphertext, f"{name}: {error.to_dict()}"
    assert error.__cause__ is None, name
    document: dict[str, Any] = json.loads(json.dumps(error.to_dict()))
    for identity in ("correlation_id", "key_id", "key_version"):
        document.pop(identity, None)
    return {**document, "text": str(error), "hint": error.hint}


@pytest.fixture(scope="module")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystore]:
    folder: Path = tmp_path_factory.mktemp("oracles")
    settings = {
        "plugins": {
            "local": {"driver": "local", "config": {"path": str(folder / "store")}, "deadline_s": 60.0}
        },
        "keystores": {
            "main": {
                "plugin": "local",
                "allow_raw": True,
                "accept_public_key_wrap": True,
                "suite": "cobblestone-256",  # the other has no tag
            }
        },
    }
    with Host.open(settings) as host:
        yield host.keystore("main")


def native(keystore: Keystore) -> Mechanism:
    one, other = (keystore.create_key("AES_256_GCM").key_id for _ in range(2))

    def opener(key_id: str, bound: bytes) -> Callable[[bytes], object]:
        return lambda data: keystore.decrypt(data, key_id=key_id, associated_data=bound, format="raw")

    sealed, foreign = (
        keystore.encrypt(key_id, b"plaintext of some length", associated_data=b"a", format="raw").ciphertext
        for key_id in (one, other)
    )
    return Mechanism(opener(one, b"a"), sealed, opener(other, b"a"), foreign, opener(one, b"b"))


def oaep(keystore: Keystore) -> Mechanism:
    one, other = (keystore.create_key("RSA_2048", usage="ENCRYPT_DECRYPT").key_id for _ in range(2))

    def opener(key_id: str) -> Callable[[bytes], object]:
        return lambda data: keystore.decrypt(data, key_id=key_id, format="raw")

    sealed, foreign = (keystore.encrypt(key_id, DATA_KEY, format="raw").ciphertext for key_id in (one, other))
    return Mechanism(opener(one), sealed, opener(other), foreign)


def key_wrap(name: str) -> Callable[[Keystore], Mechanism]:
    def make(keystore: Keystore) -> Mechanism:
        one, other = (keystore.create_key("AES_256_KW").key_id for _ in range(2))

        def opener(key_id: str) -> Callable[[bytes], object]:
            return lambda data: keystore.unwrap_key(key_id, data, mechanism=name)

        sealed, foreign = (
            keystore.wrap_key(key_id, DATA_KEY, mechanism=name).wrapped_key for key_id in (one, other)
        )
        return Mechanism(opener(one), sealed, opener(other), foreign)

    return make


def envelope(algorithm: str) -> Callable[[Keystore], Mechanism]:
    def make(keystore: Keystore) -> Mechanism:
        usage = "ENCRYPT_DECRYPT"
        one, other = (keystore.create_key(algorithm, usage=usage).key_id for _ in range(2))

        def opener(context: dict[str, str]) -> Callable[[bytes], object]:
            return lambda data: keystore.decrypt(data, context=context)

        sealed, foreign = (
            keystore.encrypt(key_id, b"plaintext" * 10, context={"a": "b"}).ciphertext
            for key_id in (one, other)
        )
        # The header names its key in clear; with another name in it, another key gets what is not its own.
        renamed = foreign.replace(other.encode(), one.encode())
        assert renamed != foreign
        good = opener({"a": "b"})
        payload = 12 + int.from_bytes(sealed[8:12], "big")  # the 32 bytes before it are the tag
        return Mechanism(
            good,
            sealed,
            lambda data: good(data.replace(one.encode(), other.encode())),
            renamed,
            opener({"a": "c"}),
            payload - 32,
        )

    return make


MECHANISMS = {
    "AES-GCM": native,
    "OAEP": oaep,
    "key wrap": key_wrap("AES_256_KW"),
    "key wrap with padding": key_wrap("AES_256_KWP"),
    "envelope under AES-GCM": envelope("AES_256_GCM"),
    "envelope under OAEP": envelope("RSA_2048"),
}


@pytest.fixture(scope="module")
def answers(keystore: Keystore) -> dict[str, dict[str, dict[str, Any]]]:
    """What is seen of every fault, by mechanism and fault."""
    found = {}
    for name, make in MECHANISMS.items():
        mechanism = make(keystore)
        mechanism.open(mechanism.good)  # else nothing below means anything
        found[name] = {
            fault: seen(f"{name}, {fault}", opener, data) for fault, opener, data in mechanism.faults()
        }
    return found


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_fault_of_a_mechanism_looks_the_same(
    answers: dict[str, dict[str, dict[str, Any]]], name: str
) -> None:
    documents = {json.dumps(document, sort_keys=True) for document in answers[name].values()}

    assert len(answers[name]) > 10
    assert len(documents) == 1, documents


def test_between_mechanisms_only_the_vendor_differs(
    answers: dict[str, dict[str, dict[str, Any]]],
) -> None:
    where = ("operation", "plugin", "driver", "keystore", "vendor")  # what was called is known to the caller
    documents = {
        json.dumps({name: value for name, value in document.items() if name not in where}, sort_keys=True)
        for faults in answers.values()
        for document in faults.values()
    }

    assert len(documents) == 1, documents


def test_mechanisms_that_could_be_a_padding_oracle_say_that_the_vendor_is_withheld(
    answers: dict[str, dict[str, dict[str, Any]]],
) -> None:
    for name in ("OAEP", "key wrap", "key wrap with padding"):
        assert all(document["vendor"] == {"withheld": True} for document in answers[name].values())
