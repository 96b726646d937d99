"""Cases about signatures, authentication codes and key agreement (SPEC.md sections 4.4, 4.7)."""

import base64
from typing import Any, Final

from kmsplug_protocol import Mechanism, SignedForm, jsonrpc

from . import reference
from .bench import Bench
from .case import Cases, Need, offers
from .session import Answer, read_result
from .uses import Made, Use, uses
from .verdict import Skipped, check

SIGNING: Final = Cases("signing")

_EITHER: Final = (jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR)


def _of(bench: Bench, operation: str) -> list[Use]:
    return [use for use in uses(bench.capabilities) if use.shape.makes == operation]


_SIGNS: Final = Need(
    "needs a key that it can make, sign and verify with",
    lambda found: any(use.shape.makes == "crypto.sign" for use in uses(found)),
)
_MACS: Final = Need(
    "needs a key that it can make, mac and verify_mac with",
    lambda found: any(use.shape.makes == "crypto.mac" for use in uses(found)),
)


@SIGNING.case(
    "round_trip",
    "5.1-1 5.4-1",
    _SIGNS,
    hint="hash long messages yourself where your provider takes digests only",
)
def round_trip(bench: Bench) -> None:
    """Messages from none at all to the declared limit are signed, and their signatures verify."""
    for use in _of(bench, "crypto.sign"):
        key_id = bench.key(use.target)
        limit = min(use.row.max_input_bytes or 4096, 65_536)
        for message in (b"", b"\0", b"\xff" * limit):
            use.require_open(bench.session, key_id, use.make(bench.session, key_id, message))


@SIGNING.case(
    "published_key",
    "4.4-1",
    _SIGNS,
    offers("key.get_public_key"),
    hint="ECDSA in DER, PSS salt as long as the hash, MGF1 with the same hash",
)
def published_key(bench: Bench) -> None:
    """A signature verifies with the published key, in the layout of SPEC.md 4.4, with another library."""
    reference.require_library()
    for use in _of(bench, "crypto.sign"):
        key_id = bench.key(use.target)
        published = bench.session.ask("key.get_public_key", {"key_id": key_id}).public_key
        key = reference.public_key(use.algorithm, published)
        for message in (b"", b"a message", bytes(1000)):
            made = use.make(bench.session, key_id, message)
            result = read_result("crypto.sign", made.result)
            if use.target.mechanism is not None:
                check(result.mechanism is use.target.mechanism, f"{use} says that it used {result.mechanism}")
            reference.require_valid(key, result.mechanism, result.signature, message)


@SIGNING.case(
    "mismatch_is_a_result", "4.7-7", _SIGNS, hint="catch your library's exception for a bad signature"
)
def mismatch_is_a_result(bench: Bench) -> None:
    """A signature that does not fit is valid: false: another message, another key, a bit flipped."""
    for use in _of(bench, "crypto.sign"):
        _mismatches(bench, use)


@SIGNING.case("strange_signatures", "4.7-7", _SIGNS, hint="a wrong length is a mismatch, not an error")
def strange_signatures(bench: Bench) -> None:
    """A signature of any other length or form is valid: false too."""
    for use in _of(bench, "crypto.sign"):
        _strange(bench, use)


def _mismatches(bench: Bench, use: Use) -> None:
    mine, other = bench.key(use.target, 0), bench.key(use.target, 1)
    made = use.make(bench.session, mine, b"a message")
    proof = base64.b64decode(made.result[use.shape.made])
    use.require_open(bench.session, mine, made)
    _invalid(bench, use, other, made, "another key")
    for message in (b"a messagf", b"a message ", b"a messag"):
        _invalid(bench, use, mine, Made(message, {}, made.result), "another message")
    if not _takes_no_empty_message(use, use.try_open(bench.session, mine, Made(b"", {}, made.result))):
        _invalid(bench, use, mine, Made(b"", {}, made.result), "no message at all")
    for position in sorted({0, 1, len(proof) // 2, len(proof) - 1}):
        flipped = proof[:position] + bytes([proof[position] ^ 1]) + proof[position + 1 :]
        _invalid(bench, use, mine, made, f"a bit of byte {position} flipped", **{use.shape.made: flipped})


def _strange(bench: Bench, use: Use) -> None:
    key_id = bench.key(use.target)
    made = use.make(bench.session, key_id, b"a message")
    proof = base64.b64decode(made.result[use.shape.made])
    lengths = (proof[:-1], proof[1:], proof[: len(proof) // 2], proof + b"\0", b"\0" + proof, proof * 2)
    for strange in (b"", b"\0", bytes(64), bytes(len(proof)), b"\xff" * len(proof), bytes(10_000), *lengths):
        what = f"{len(strange)} bytes in place of {len(proof)}"
        _invalid(bench, use, key_id, made, what, **{use.shape.made: strange})


def _invalid(bench: Bench, use: Use, key_id: str, made: Made, what: str, **params: Any) -> None:
    answer = use.try_open(bench.session, key_id, made, **params)
    result = read_result(use.shape.opens, answer.granted())
    check(not result.valid, f"{use}: {what}, and it is said to be valid")


def _takes_no_empty_message(use: Use, answer: Answer) -> bool:
    """Tell whether an answer is the refusal that a code for no message at all may have."""
    if answer.result is not None or use.shape.makes != "crypto.mac":
        return False
    answer.refused("INVALID_ARGUMENT", number=_EITHER)
    return True


@SIGNING.case("digest", "4.4-4 4.1-1 5.4-3", _SIGNS, hint="do not hash a digest again")
def digest(bench: Bench) -> None:
    """A digest may stand for its message with RSA and ECDSA; never both, never of another length."""
    message = b"a message"
    for use in _of(bench, "crypto.sign"):
        key_id = bench.key(use.target)
        made = use.make(bench.session, key_id, message)
        mechanism = Mechanism(made.result["mechanism"])
        how = {"key_id": key_id, "mechanism": mechanism}
        for neither in ({}, {"message": message, "digest": bytes(32)}):
            bench.session.call("crypto.sign", {**how, **neither}).refused("INVALID_ARGUMENT", number=_EITHER)
        hashed = reference.digest(mechanism, message)
        if hashed is None:
            answer = bench.session.call("crypto.sign", {**how, "digest": bytes(32)})
            answer.refused("INVALID_ARGUMENT", "UNSUPPORTED_OPERATION", number=_EITHER)
            continue
        if use.row.signs is not None:
            other = {"digest": hashed} if use.row.signs is SignedForm.MESSAGE else {"message": message}
            bench.session.call("crypto.sign", {**how, **other}).refused("UNSUPPORTED_OPERATION")
        if SignedForm.MESSAGE in (use.row.signs, use.opening.signs):
            continue
        signed = bench.session.call("crypto.sign", {**how, "digest": hashed}).granted()
        use.require_open(bench.session, key_id, Made(message, {}, signed))
        body = {**how, "digest": hashed, "signature": made.result["signature"]}
        verified = bench.session.ask("crypto.verify", body)
        check(verified.valid, f"{use}: a signature of a message does not verify as one of its digest")
        for length in (0, 20, len(hashed) - 1, len(hashed) + 1):
            answer = bench.session.call("crypto.sign", {**how, "digest": bytes(length)})
            answer.refused("INVALID_ARGUMENT", number=_EITHER)


@SIGNING.case(
    "wrong_digest", "4.4-4 4.7-7", _SIGNS, hint="compare with the digest that was given, not with none"
)
def wrong_digest(bench: Bench) -> None:
    """A signature does not verify as one of another digest."""
    for use in _of(bench, "crypto.sign"):
        key_id = bench.key(use.target)
        made = use.make(bench.session, key_id, b"a message")
        mechanism = Mechanism(made.result["mechanism"])
        other = reference.digest(mechanism, b"a messagf")
        if other is None or use.opening.signs is SignedForm.MESSAGE:
            continue
        body = {"key_id": key_id, "mechanism": mechanism, "signature": made.result["signature"]}
        found = bench.session.ask("crypto.verify", {**body, "digest": other})
        check(not found.valid, f"{use}: a signature verifies as one of another digest")


@SIGNING.case("other_mechanism", "4.7-7 4.1-8", _SIGNS, hint="verify with the mechanism that was named")
def other_mechanism(bench: Bench) -> None:
    """A signature by one mechanism does not verify by another."""
    found = _of(bench, "crypto.sign")
    pairs = [
        (one, other)
        for one in found
        for other in found
        if one is not other and one.algorithm == other.algorithm
    ]
    if not pairs:
        raise Skipped("no kind of key signs in two ways")
    for one, other in pairs:
        key_id = bench.key(one.target)
        made = one.make(bench.session, key_id, b"a message")
        answer = other.try_open(bench.session, key_id, made)
        result = read_result("crypto.verify", answer.granted())
        check(not result.valid, f"a signature by {one.target.mechanism} verifies by {other.target.mechanism}")


@SIGNING.case("over_the_limit", "5.4-1", _SIGNS, hint="never sign a part of a message")
def over_the_limit(bench: Bench) -> None:
    """A message longer than the declared limit is neither signed nor verified."""
    found = [use for use in _of(bench, "crypto.sign") if (use.row.max_input_bytes or 2**20) < 2**17]
    if not found:
        raise Skipped("no row of crypto.sign has a limit that fits into a line")
    for use in found:
        key_id = bench.key(use.target)
        message = bytes((use.row.max_input_bytes or 0) + 1)
        use.try_make(bench.session, key_id, message).refused("INVALID_ARGUMENT", number=_EITHER)


@SIGNING.case("concurrent", "2.3-3 3.4-3", _SIGNS, hint="guard what your threads share")
def concurrent(bench: Bench) -> None:
    """Of many messages signed at the same time each has its own signature."""
    use = _of(bench, "crypto.sign")[0]
    key_id = bench.key(use.target)
    session = bench.session
    how = {} if use.target.mechanism is None else {"mechanism": use.target.mechanism}
    texts = {f"s{number}": f"message {number}".encode() for number in range(24)}
    body = {"key_id": key_id, **how}
    session.send(
        b"".join(session.frame("crypto.sign", {**body, **use.given(text)}, i) for i, text in texts.items())
    )
    answers = [session.next("crypto.sign") for _ in texts]
    check(sorted(answer.id for answer in answers) == sorted(texts), "not every request was answered once")
    for answer in answers:
        use.require_open(session, key_id, Made(texts[answer.id], {}, answer.granted()))


@SIGNING.case("mac", "4.4-1 4.7-8 5.4-1 5.1-1", _MACS, hint="return the whole code")
def mac(bench: Bench) -> None:
    """A code is as long as its hash, the same for the same message, and verifies."""
    for use in _of(bench, "crypto.mac"):
        key_id = bench.key(use.target)
        limit = min(use.row.max_input_bytes or 4096, 65_536)
        messages = [b"", b"\0", b"\xff" * limit]
        if _takes_no_empty_message(use, use.try_make(bench.session, key_id, b"")):
            messages.remove(b"")
        for message in messages:
            made = use.make(bench.session, key_id, message)
            use.require_open(bench.session, key_id, made)
            result = read_result("crypto.mac", made.result)
            wanted = int(result.mechanism.rpartition("_")[2]) // 8
            check(len(result.mac) == wanted, f"a code of {result.mechanism} has {len(result.mac)} bytes")
            again = use.make(bench.session, key_id, message).result["mac"]
            check(again == made.result["mac"], "the same message has another code the second time")


@SIGNING.case("mac_mismatch", "4.7-8 4.7-7", _MACS, hint="a shortened code is no code")
def mac_mismatch(bench: Bench) -> None:
    """A code that does not fit, shortened ones included, is valid: false."""
    for use in _of(bench, "crypto.mac"):
        _mismatches(bench, use)
        _strange(bench, use)


@SIGNING.case(
    "encapsulate",
    "4.4-1 5.1-1",
    offers("key.create", "crypto.encapsulate", "crypto.decapsulate"),
    hint="a ciphertext of the wrong length is INVALID_CIPHERTEXT",
)
def encapsulate(bench: Bench) -> None:
    """An encapsulated secret is opened by its key, is new each time, and is another one for another key."""
    targets = bench.capabilities.targets("crypto.encapsulate")
    if not targets:
        raise Skipped("no key for it can be made")
    for target in targets:
        mine, other = bench.key(target, 0), bench.key(target, 1)
        first, second = (bench.session.ask("crypto.encapsulate", {"key_id": mine}) for _ in range(2))
        check(first.shared_secret != second.shared_secret, "two encapsulations have the same secret")
        body = {"key_id": mine, "ciphertext": first.ciphertext}
        opened = bench.session.ask("crypto.decapsulate", body)
        check(opened.shared_secret == first.shared_secret, "decapsulation gives another secret")
        answer = bench.session.call("crypto.decapsulate", {**body, "key_id": other})
        wrong = None if answer.result is None else read_result("crypto.decapsulate", answer.result)
        check(wrong is None or wrong.shared_secret != first.shared_secret, "another key opens the secret")
        bench.session.call("crypto.decapsulate", {**body, "ciphertext": b"x"}).refused("INVALID_CIPHERTEXT")


@SIGNING.case(
    "derive",
    "4.4-1 4.7-10",
    offers("key.create", "key.get_public_key", "crypto.derive"),
    hint="return the bare secret, no key derivation; check the peer's key first",
)
def derive(bench: Bench) -> None:
    """Both sides of a key agreement have the same secret; a peer's key that does not fit is refused."""
    reference.require_library()
    targets = bench.capabilities.targets("crypto.derive")
    if not targets:
        raise Skipped("no key for it can be made")
    for target in targets:
        key_id = bench.key(target)
        published = bench.session.ask("key.get_public_key", {"key_id": key_id}).public_key
        peer, secret = reference.agree(target.algorithm, published)
        result = bench.session.ask("crypto.derive", {"key_id": key_id, "peer_public_key": peer})
        check(result.shared_secret == secret, f"{target}: the two sides have different secrets")
        for wrong in (b"", peer[:-1], b"\x30\x00", bytes(len(peer))):
            answer = bench.session.call("crypto.derive", {"key_id": key_id, "peer_public_key": wrong})
            answer.refused("INVALID_ARGUMENT", number=_EITHER)
