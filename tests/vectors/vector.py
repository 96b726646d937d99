"""A vector: what one operation with one key from outside must answer, and how it is asked of a driver."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from kmsplug_protocol import encode_base64
from unit.plugins.local_support import Keystore, imported


@dataclass(frozen=True, slots=True)
class Vector:
    """One answer that is known beforehand.

    Attributes:
        source: Where it is published: file or document, and its number there.
        algorithm: The key's.
        usage: The key's.
        material: The key, in the form in which it is imported.
        method: The operation.
        params: Its params; bytes stand for their base64.
        answer: Members of the result, or the code of the refusal.
    """

    source: str
    algorithm: str
    usage: str
    material: bytes
    method: str
    params: Mapping[str, bytes | str]
    answer: Mapping[str, bytes | bool] | str

    @property
    def row(self) -> tuple[str, str, str | None]:
        """The capability that it tries: operation, key algorithm, mechanism if it names one."""
        mechanism = self.params.get("mechanism")
        return self.method, self.algorithm, mechanism if isinstance(mechanism, str) else None

    @property
    def positive(self) -> bool:
        """Whether something works, rather than is refused or found invalid."""
        return not isinstance(self.answer, str) and self.answer.get("valid") is not False


def of_keys(vectors: Iterable[Vector], keys: int | None) -> list[Vector]:
    """Return the vectors of so many keys, evenly spread over all of them; None: all vectors.

    Taking in a key costs far more than using it, so it is keys that are chosen. Where no refusal is among
    their vectors and the source has any, one more key comes with one.
    """
    by_key: dict[tuple[str, bytes], list[Vector]] = {}
    for vector in vectors:
        by_key.setdefault((vector.usage, vector.material), []).append(vector)
    lists = list(by_key.values())
    if keys is None or keys >= len(lists):
        return [vector for each in lists for vector in each]
    chosen = [vector for number in range(keys) for vector in lists[number * len(lists) // keys]]
    if all(vector.positive for vector in chosen):
        chosen += next((each for each in lists if not all(vector.positive for vector in each)), [])
    return chosen


def failures(session: Keystore, vectors: Iterable[Vector]) -> Iterator[str]:
    """Drive vectors through a session, each key imported once, and tell what was not as published."""
    for (algorithm, usage, material), group in groupby(vectors, lambda v: (v.algorithm, v.usage, v.material)):
        key_id = imported(session, algorithm, material, usage)
        for vector in group:
            found = _ask(session, key_id, vector)
            wanted = vector.answer if isinstance(vector.answer, str) else _encoded(vector.answer)
            if found != wanted:
                yield f"{vector.source}: {vector.method} gave {found}, not {wanted}"


def _ask(session: Keystore, key_id: str, vector: Vector) -> dict[str, Any] | str:
    answer = session.client.call(vector.method, {"key_id": key_id, **_encoded(vector.params)})
    if "error" in answer:
        code: str = answer["error"]["data"]["code"]
        return code
    if isinstance(vector.answer, str):
        return "a result"
    return {member: answer["result"].get(member) for member in vector.answer}


def _encoded(members: Mapping[str, bytes | str | bool]) -> dict[str, Any]:
    return {
        name: encode_base64(value) if isinstance(value, bytes) else value for name, value in members.items()
    }
