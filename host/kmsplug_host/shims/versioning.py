"""Shim ``versioning@1``: versions of a key that are keys of their own at the provider.

The provider writes names and ids; the number of a version, which one is current and the state of each are
the catalog's. A number is burnt before its key is made, so that a crash at any step costs a number and
leaves a key at the provider that nobody uses, never a key without a usable version. Each version is pinned
by a proof: whoever may write to the provider cannot put a key that he knows in its place.
"""

import base64
import copy
import hashlib
import hmac
from typing import Any, Final

from kmsplug_protocol import Key, KeyState, KeyUsage, Secret

from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import InvalidCiphertext, KeyNotFound, KeystoreCorrupt

from .shim import Provider

Body = dict[str, Any]

_MAX_BASE: Final = 200  # characters of the key's name in the names of its versions
_QUESTION: Final = b"kmsplug/v1/known-answer"


def burnt(body: Body, first: Key, proof: dict[str, str]) -> tuple[Body, int]:
    """Return the row with the next number burnt, and the number.

    Args:
        body: The row.
        first: The key as the provider knows it, which is the first version.
        proof: Of it.
    """
    after = copy.deepcopy(body)
    if "versions" not in after:
        name = first.key_version
        number = int(name) if name.isascii() and name.isdigit() and len(name) < 10 else 1  # noqa: PLR2004
        after["versions"] = {name: {"n": number, "key": first.key_id, "at": first.created_at, "proof": proof}}
        after["current"] = name
        after["next"] = number + 1
        uses = after.setdefault("uses", {})
        uses[name] = uses.pop("*", 0)
    number = after["next"]
    after["next"] = number + 1
    return after, number


def added(body: Body, number: int, made: Key, proof: dict[str, str]) -> Body:
    """Return the row with a version that was made, current unless a newer one is by now."""
    after = copy.deepcopy(body)
    versions, name = after["versions"], str(number)
    versions[name] = {"n": number, "key": made.key_id, "at": made.created_at, "proof": proof}
    states = after.setdefault("states", {})
    if number > versions[after["current"]]["n"]:
        states.setdefault(name, [KeyState.ACTIVE.value, None])
        after["current"] = name
    else:
        states.setdefault(name, [KeyState.DEACTIVATED.value, None])
    for other in versions:
        found = states.get(other) or states.get("*") or [KeyState.ACTIVE.value, None]
        if other != after["current"] and found[0] == KeyState.ACTIVE:
            states[other] = [KeyState.DEACTIVATED.value, None]
    return after


def name_of(key: Key, number: int) -> str:
    """Return the name of a version's key at the provider."""
    return f"{(key.name or key.key_id)[:_MAX_BASE]}-v{number}"


def newest_first(body: Body) -> list[str]:
    """Return the names of the versions."""
    versions = body["versions"]
    return sorted(versions, key=lambda name: versions[name]["n"], reverse=True)


def keys_of(key_id: str, body: Body, only: str = "1") -> dict[str, str]:
    """Return the provider's key of each version, oldest first; of a key that has *only* one, itself."""
    if "versions" not in body:
        return {only: key_id}
    return {name: body["versions"][name]["key"] for name in reversed(newest_first(body))}


def part(body: Body, version: str) -> dict[str, Any]:
    """Return what is known of a version.

    Raises:
        KeyNotFound: There is none of this name.
    """
    try:
        found: dict[str, Any] = body["versions"][version]
    except KeyError:
        raise KeyNotFound(f"the key has no version {version!r}", key_version=version) from None
    return found


def prove(provider: Provider, key: Key, deadline: Deadline) -> dict[str, str]:
    """Return by what this very key is known again: its public key, or an answer that only it gives."""
    if provider.rows.find("key.get_public_key", key.algorithm):
        public = provider.ask("key.get_public_key", deadline, key_id=key.key_id)
        return {"public": hashlib.sha256(public.public_key).hexdigest()}
    answer = _answer(provider, key, deadline)
    return {} if answer is None else {"answer": base64.b64encode(answer).decode("ascii")}


def check(provider: Provider, key: Key, proof: dict[str, str], deadline: Deadline) -> None:
    """See that a version is still the key that was proven.

    Raises:
        KeystoreCorrupt: It is another one.
    """
    if "public" in proof:
        same = prove(provider, key, deadline) == proof
    elif "answer" in proof:
        same = _gives(provider, key, base64.b64decode(proof["answer"]), deadline)
    else:
        same = True
    if not same:
        raise KeystoreCorrupt(
            f"the keystore has another key in the place of {key.key_id}",
            hint="somebody replaced it: find out who before anything is encrypted with it",
        )


def _known(key: Key) -> Secret:
    return Secret(hashlib.sha256(_QUESTION + key.key_id.encode()).digest())


def _answer(provider: Provider, key: Key, deadline: Deadline) -> bytes | None:
    """Return what only this key makes of something known."""
    if key.usage is KeyUsage.ENCRYPT_DECRYPT and provider.rows.find("crypto.encrypt", key.algorithm):
        made = provider.ask("crypto.encrypt", deadline, key_id=key.key_id, plaintext=_known(key))
        return bytes(made.ciphertext)
    if key.usage is KeyUsage.WRAP_UNWRAP and provider.rows.find("crypto.wrap_key", key.algorithm):
        made = provider.ask("crypto.wrap_key", deadline, key_id=key.key_id, key=_known(key))
        return bytes(made.wrapped_key)
    if key.usage is KeyUsage.GENERATE_VERIFY_MAC and provider.rows.find("crypto.mac", key.algorithm):
        made = provider.ask("crypto.mac", deadline, key_id=key.key_id, message=_known(key))
        return hashlib.sha256(made.mac).digest()
    return None


def _gives(provider: Provider, key: Key, answer: bytes, deadline: Deadline) -> bool:
    try:
        if key.usage is KeyUsage.ENCRYPT_DECRYPT:
            if not provider.rows.find("crypto.decrypt", key.algorithm):
                return True
            opened = provider.ask("crypto.decrypt", deadline, key_id=key.key_id, ciphertext=answer).plaintext
        elif key.usage is KeyUsage.WRAP_UNWRAP:
            if not provider.rows.find("crypto.unwrap_key", key.algorithm):
                return True
            opened = provider.ask("crypto.unwrap_key", deadline, key_id=key.key_id, wrapped_key=answer).key
        else:
            return hmac.compare_digest(_answer(provider, key, deadline) or b"", answer)
    except InvalidCiphertext:
        return False
    return hmac.compare_digest(bytes(opened), bytes(_known(key)))
