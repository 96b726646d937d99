"""Callers who check every answer, and keep account of what became of each change."""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from kmsplug_host import Keystore
from kmsplug_host.errors import KmsplugError
from kmsplug_protocol import Outcome

LONG_S = 10.0
"""What a repeatable call is given; it never fails."""

SHORT_S = 1.0
"""What the impatient and the changes are given; they may fail, by a typed error that is true."""


@dataclass
class Account:
    """What happened, of all callers together.

    Attributes:
        answers: Right answers, by operation.
        errors: Typed errors, by operation and code.
        faults: What should not have happened.
        outcomes: What became of the keys that were to be made, by their names.
    """

    answers: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)


class Caller:
    """Makes calls of all kinds until told to stop."""

    def __init__(self, number: int, seed: int, keystore: Keystore, keys: dict[str, str]) -> None:
        self._number = number
        self._random = random.Random(seed * 1000 + number)  # noqa: S311 - to be repeated, not to be secret
        self._keystore = keystore
        self._keys = keys
        self._made = 0
        self.account = Account()

    def run(self, stop: threading.Event) -> None:
        """Make calls."""
        kinds: list[tuple[str, Callable[[float], bool]]] = [
            ("encrypt", self._encrypt), ("mac", self._mac), ("sign", self._sign),
            ("random", self._draw), ("get_key", self._get_key),
        ]  # fmt: skip
        while not stop.is_set():
            name, make = self._random.choice(kinds)
            chance = self._random.random()
            if chance < 0.05:
                self._create()
            else:
                self._try(name, make, patient=chance < 0.4)

    def _try(self, name: str, make: Callable[[float], bool], *, patient: bool) -> None:
        began = time.monotonic()
        try:
            if make(LONG_S if patient else SHORT_S):
                self.account.answers[name] += 1
            else:
                self.account.faults.append(f"a wrong answer to {name}")
        except KmsplugError as error:
            self.account.errors[f"{name} {error.code}"] += 1
            if patient:
                self.account.faults.append(f"{name} failed after {time.monotonic() - began:.1f} s: {error!r}")
            if error.outcome is not Outcome.NOT_APPLIED:
                self.account.faults.append(f"{name} changes nothing, but says {error.outcome}")
        except Exception as error:  # noqa: BLE001 - no other kind of error may reach a caller
            self.account.faults.append(f"{name}: {error!r}")

    def _encrypt(self, timeout: float) -> bool:
        text, context = os.urandom(64), {"caller": str(self._number)}
        sealed = self._keystore.encrypt(self._keys["aes"], text, context=context, timeout=timeout)
        return self._keystore.decrypt(sealed.ciphertext, context=context, timeout=timeout).plaintext == text

    def _mac(self, timeout: float) -> bool:
        text = os.urandom(64)
        made = self._keystore.mac(self._keys["hmac"], text, timeout=timeout)
        return bool(self._keystore.verify_mac(self._keys["hmac"], text, made.mac, timeout=timeout).valid)

    def _sign(self, timeout: float) -> bool:
        text = os.urandom(64)
        made = self._keystore.sign(self._keys["ec"], text, timeout=timeout)
        return bool(self._keystore.verify(self._keys["ec"], text, made.signature, timeout=timeout).valid)

    def _draw(self, timeout: float) -> bool:
        return len(self._keystore.random(32, timeout=timeout)) == 32

    def _get_key(self, timeout: float) -> bool:
        return self._keystore.get_key(self._keys["aes"], timeout=timeout).key_id == self._keys["aes"]

    def _create(self) -> None:
        self._made += 1
        name = f"made-{self._number}-{self._made}"
        try:
            self._keystore.create_key("AES_256_GCM", name=name, timeout=SHORT_S)
            self.account.outcomes[name] = Outcome.APPLIED
        except KmsplugError as error:
            self.account.errors[f"create_key {error.code}"] += 1
            self.account.outcomes[name] = error.outcome
        except Exception as error:  # noqa: BLE001 - no other kind of error may reach a caller
            self.account.faults.append(f"create_key: {error!r}")
