"""Cases about encrypting, wrapping, data keys and random bytes (SPEC.md sections 4.7, 5.3, 5.4, 7.5)."""

import base64
from typing import Any, Final

from kmsplug_protocol import (
    INVALID_CIPHERTEXT_MESSAGE,
    MAX_RANDOM_BYTES,
    AssociatedData,
    Mechanism,
    jsonrpc,
)

from .bench import Bench
from .case import Cases, offers
from .session import Answer, read_result
from .uses import ENCRYPTS, Made, Use, bound, encryptions, two_keys, uses
from .verdict import Failed, Skipped, check, quote

CRYPTO: Final = Cases("crypto")

_EITHER: Final = (jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR)
_GCM_OVERHEAD: Final = 12 + 16
_RANDOM: Final = offers("crypto.random")


def _fitting(bench: Bench, limit: int) -> int:
    """Return as much of *limit* as goes through a line, with room for the rest of the request."""
    return min(limit, (bench.session.max_frame_bytes - 4096) * 3 // 4)


@CRYPTO.case("round_trip", "4.7-1 5.4-1", ENCRYPTS, hint="nothing at all is a plaintext too")
def round_trip(bench: Bench) -> None:
    """Every plaintext from none at all to the declared limit comes back."""
    for use in encryptions(bench.capabilities):
        key_id, _ = two_keys(bench, use)
        limit = _fitting(bench, use.row.max_input_bytes or 4096)
        for given in (b"\0", b"\n", bytes(range(256))[:limit], b"x" * (limit - 1), b"\xff" * limit):
            use.require_open(bench.session, key_id, use.make(bench.session, key_id, given))
        empty = use.try_make(bench.session, key_id, b"")
        if empty.result is None:
            empty.refused("INVALID_ARGUMENT", number=_EITHER)
        else:
            use.require_open(bench.session, key_id, Made(b"", {}, empty.result))


@CRYPTO.case("over_the_limit", "5.4-1", ENCRYPTS, hint="never cut, never envelope: refuse")
def over_the_limit(bench: Bench) -> None:
    """One byte more than the declared limit is refused with INVALID_ARGUMENT."""
    limits = [(use, use.row.max_input_bytes) for use in uses(bench.capabilities)]
    testable = [(use, limit) for use, limit in limits if limit and limit < _fitting(bench, limit + 1)]
    if not testable:
        raise Skipped("no row has a limit that fits into a line")
    for use, limit in testable:
        for length in (limit + 1, _fitting(bench, 2 * limit)):
            answer = use.try_make(bench.session, bench.key(use.target), b"x" * length)
            answer.refused("INVALID_ARGUMENT", number=_EITHER)


@CRYPTO.case("layout", "4.4-1", ENCRYPTS, hint="iv || ciphertext || tag, without any header")
def layout(bench: Bench) -> None:
    """A ciphertext of a row with wrap algorithm A256GCM is 12 bytes IV, ciphertext, 16 bytes tag."""
    found = [use for use in encryptions(bench.capabilities) if use.row.wrap_algorithm == "A256GCM"]
    if not found:
        raise Skipped("no row has wrap algorithm A256GCM")
    for use in found:
        for length in (0, 1, 100):
            result = use.make(bench.session, bench.key(use.target), b"x" * length).result
            sealed = base64.b64decode(result["ciphertext"])
            check(len(sealed) == length + _GCM_OVERHEAD, f"{length} bytes became {len(sealed)}")


@CRYPTO.case("never_the_same", "4.7-2 4.4-1 11-7", ENCRYPTS, hint="draw a fresh random IV for each call")
def never_the_same(bench: Bench) -> None:
    """The same plaintext never has the same ciphertext twice, nor the same IV in rows with A256GCM."""
    for use in encryptions(bench.capabilities):
        key_id, _ = two_keys(bench, use)
        sealed = [base64.b64decode(use.make(bench.session, key_id).result["ciphertext"]) for _ in range(16)]
        check(len(set(sealed)) == len(sealed), f"{use}: two of 16 ciphertexts are the same")
        if use.row.wrap_algorithm == "A256GCM":  # only there is it known where an IV stands
            fresh = len({one[:12] for one in sealed}) == len(sealed)
            check(fresh, f"{use}: two of 16 ciphertexts begin alike")


@CRYPTO.case(
    "wrong_key", "4.7-3 4.7-5", ENCRYPTS, hint="map your provider's code for it; it may be a general error"
)
def wrong_key(bench: Bench) -> None:
    """What one key made, another key of the same kind refuses with INVALID_CIPHERTEXT."""
    for use in _openers(bench):
        mine, other = two_keys(bench, use)
        made = use.make(bench.session, mine)
        use.try_open(bench.session, other, made).refused("INVALID_CIPHERTEXT")
        use.require_open(bench.session, mine, made)


@CRYPTO.case("damaged", "4.7-3 4.7-5 11-4", ENCRYPTS, hint="check the length before you cut it into parts")
def damaged(bench: Bench) -> None:
    """A ciphertext with a bit flipped anywhere, cut, lengthened or empty is INVALID_CIPHERTEXT."""
    for use in _openers(bench):
        key_id, _ = two_keys(bench, use)
        made = use.make(bench.session, key_id)
        for what, bytes_ in _damages(base64.b64decode(made.result[use.shape.made])).items():
            answer = use.try_open(bench.session, key_id, made, **{use.shape.made: bytes_})
            if answer.result is not None:
                raise Failed(f"{use}: {what}, and it was opened all the same")
            answer.refused("INVALID_CIPHERTEXT")


def _openers(bench: Bench) -> list[Use]:
    return [use for use in uses(bench.capabilities) if not use.shape.verifies]


def _damages(sealed: bytes) -> dict[str, bytes]:
    last = len(sealed) - 1
    found = {"no bytes at all": b"", "one byte": sealed[:1], "the last byte only": sealed[-1:]}
    for position in sorted({0, 5, 11, 12, last // 2, last - 16, last - 15, last - 1, last}):
        if position >= 0:
            flipped = bytes([sealed[position] ^ (1 << position % 8)])
            found[f"a bit of byte {position} flipped"] = sealed[:position] + flipped + sealed[position + 1 :]
    for length in sorted({8, 11, 12, 16, 27, 28, len(sealed) - 16, last - 1, last}):
        if 0 < length < len(sealed):
            found[f"cut to {length} of {len(sealed)} bytes"] = sealed[:length]
    found["one byte longer"] = sealed + b"\0"
    found["twice as long"] = sealed + sealed
    found["its first byte missing"] = sealed[1:]
    found["zeros of the same length"] = bytes(len(sealed))
    return found


@CRYPTO.case(
    "one_sentence", "7.5-1", ENCRYPTS, hint="one error for all: whoever tells steps apart gives an oracle"
)
def one_sentence(bench: Bench) -> None:
    """All refusals of a ciphertext are word for word the same, whatever is wrong with it."""
    for use in _openers(bench):
        mine, other = two_keys(bench, use)
        made = use.make(bench.session, mine, **bound(use.target.associated_data, "a"))
        answers = {"another key": use.try_open(bench.session, other, made)}
        for what, bytes_ in _damages(base64.b64decode(made.result[use.shape.made])).items():
            answers[what] = use.try_open(bench.session, mine, made, **{use.shape.made: bytes_})
        if use.target.associated_data is not AssociatedData.NONE:
            wrong = bound(use.target.associated_data, "b")
            answers["other associated data"] = use.try_open(bench.session, mine, made, **wrong)
        for what, answer in answers.items():
            answer.refused("INVALID_CIPHERTEXT")
            said = quote(answer.message)
            check(answer.message == INVALID_CIPHERTEXT_MESSAGE, f"for {what} the message is {said!r}")
            check(_told(answer) == _told(answers["another key"]), f"for {what} the error has other members")


def _told(answer: Answer) -> dict[str, Any]:
    """Return what an error tells, apart from what differs from call to call."""
    return {name: value for name, value in answer.data.items() if name not in ("vendor", "correlation_id")}


@CRYPTO.case(
    "mismatch",
    "4.1-8 5.2-2",
    ENCRYPTS,
    hint="compare the key's usage with the operation before anything else",
)
def mismatch(bench: Bench) -> None:
    """A key of another usage is KEY_USAGE_MISMATCH; a mechanism that does not fit is refused."""
    found = uses(bench.capabilities)
    for use in found:
        for foreign in {other.target for other in found if other.usage is not use.usage}:
            answer = use.try_make(bench.session, bench.key(foreign), mechanism=use.target.mechanism)
            answer.refused("KEY_USAGE_MISMATCH")
        declared = {row.mechanism for row in bench.capabilities.of(use.shape.makes)}
        for mechanism in (
            Mechanism.ECDH,
            Mechanism.ML_KEM_768,
            Mechanism.RSA_OAEP_SHA_1,
            Mechanism.HMAC_SHA_384,
        ):
            if mechanism not in declared:
                answer = use.try_make(bench.session, bench.key(use.target), mechanism=mechanism)
                answer.refused("KEY_USAGE_MISMATCH", "UNSUPPORTED_OPERATION")


@CRYPTO.case(
    "data_key",
    "4.7-4 5.3-2",
    ENCRYPTS,
    offers("crypto.generate_data_key"),
    hint="encrypt it as crypto.encrypt would, with the same associated data",
)
def data_key(bench: Bench) -> None:
    """A data key has the length asked for, is new each time, is bound, and crypto.decrypt opens it."""
    for target in bench.capabilities.targets("crypto.generate_data_key"):
        key_id = bench.key(target)
        tie = bound(target.associated_data, "data key")
        seen = set()
        for length in (16, 32, 32):
            body = {"key_id": key_id, "length_bytes": length, **tie}
            made = bench.session.ask("crypto.generate_data_key", body)
            check(
                made.plaintext is not None and len(made.plaintext) == length, f"{length} bytes were asked for"
            )
            seen.add(bytes(made.plaintext))
            opening = {"key_id": key_id, "ciphertext": made.ciphertext}
            opened = bench.session.ask("crypto.decrypt", {**opening, **tie})
            check(opened.plaintext == made.plaintext, "crypto.decrypt does not give the data key back")
            if tie:
                bench.session.call("crypto.decrypt", opening).refused("INVALID_CIPHERTEXT")
        check(len(seen) == 3, "a data key came twice")  # noqa: PLR2004
        blind = bench.session.call(
            "crypto.generate_data_key", {"key_id": key_id, "with_plaintext": False}
        ).granted()
        check("plaintext" not in blind, "the plaintext was not asked for and is there")
        for length in (0, 15, 1025):
            answer = bench.session.call(
                "crypto.generate_data_key", {"key_id": key_id, "length_bytes": length}
            )
            answer.refused("INVALID_ARGUMENT", "UNSUPPORTED_OPERATION", number=_EITHER)


@CRYPTO.case(
    "wrap",
    "5.1-1 4.4-1",
    offers("key.create", "crypto.wrap_key", "crypto.unwrap_key"),
    hint="RFC 3394 adds eight bytes",
)
def wrap(bench: Bench) -> None:
    """Keys of 16 and 32 bytes are wrapped and come back."""
    for use in uses(bench.capabilities):
        if use.shape.makes == "crypto.wrap_key":
            for length in (16, 32):
                key_id = bench.key(use.target)
                made = use.make(bench.session, key_id, bytes(range(length)))
                use.require_open(bench.session, key_id, made)
                if use.target.mechanism is Mechanism.AES_256_KW:
                    wrapped = base64.b64decode(made.result["wrapped_key"])
                    check(len(wrapped) == length + 8, f"{length} bytes were wrapped to {len(wrapped)}")


@CRYPTO.case(
    "reencrypt",
    "4.7-6 5.3-2",
    ENCRYPTS,
    offers("crypto.reencrypt"),
    hint="verify the source's associated data, bind the destination's",
)
def reencrypt(bench: Bench) -> None:
    """A ciphertext moves to another key, or within its own, to other associated data, not without its own."""
    found = encryptions(bench.capabilities)
    rows = [(use, bench.capabilities.row_for("crypto.reencrypt", use.target)) for use in found]
    for use, row in rows:
        if row is None:
            continue
        source, destination = two_keys(bench, use)
        old, new = bound(row.associated_data, "old"), bound(row.associated_data, "new")
        made = use.make(bench.session, source, **old)
        body = {
            "source_key_id": source,
            "key_id": destination,
            "ciphertext": made.result["ciphertext"],
            **new,
        }
        sources = {f"source_{name}": value for name, value in old.items()}
        if row.within_key:
            bench.session.call("crypto.reencrypt", {**body, **sources}).refused("UNSUPPORTED_OPERATION")
            destination, body = source, {**body, "key_id": source}
        moved = bench.session.call("crypto.reencrypt", {**body, **sources}).granted()
        read_result("crypto.reencrypt", moved)
        use.require_open(bench.session, destination, Made(made.given, new, moved))
        if destination != source:
            use.try_open(bench.session, source, Made(made.given, new, moved)).refused("INVALID_CIPHERTEXT")
        if sources:
            bench.session.call("crypto.reencrypt", body).refused("INVALID_CIPHERTEXT")


@CRYPTO.case("concurrent", "2.3-3 3.4-1 3.4-3", ENCRYPTS, hint="guard what your threads share")
def concurrent(bench: Bench) -> None:
    """Of many requests in flight each is answered once, with its own result."""
    use = encryptions(bench.capabilities)[0]
    key_id = bench.key(use.target)
    limit = use.row.max_input_bytes or 64
    given = {f"c{number}": f"{number}".encode().rjust(16, b".")[:limit] for number in range(100)}
    session = bench.session
    lines = [
        session.frame("crypto.encrypt", {"key_id": key_id, "plaintext": text}, i) for i, text in given.items()
    ]
    session.send(b"".join(lines))
    sealed = {answer.id: answer.granted() for answer in (session.next("crypto.encrypt") for _ in given)}
    check(sealed.keys() == given.keys(), "not every request was answered exactly once")
    lines = [
        session.frame("crypto.decrypt", {"key_id": key_id, "ciphertext": one["ciphertext"]}, i)
        for i, one in sealed.items()
    ]
    session.send(b"".join(lines))
    opened = {answer.id: answer.granted() for answer in (session.next("crypto.decrypt") for _ in given)}
    check(opened.keys() == given.keys(), "not every request was answered exactly once")
    for name, text in given.items():
        check(
            base64.b64decode(opened[name]["plaintext"]) == text,
            "a request was answered with another's result",
        )


@CRYPTO.case(
    "random",
    "4.7-9 5.4-1 11-7",
    _RANDOM,
    hint="loop where your provider gives fewer bytes a call than you declare",
)
def random(bench: Bench) -> None:
    """Random bytes come in every declared length, and never the same twice."""
    limit = max(row.max_input_bytes or MAX_RANDOM_BYTES for row in bench.capabilities.of("crypto.random"))
    for length in {1, 2, 31, 32, min(limit, 1024), _fitting(bench, limit)}:
        if length <= limit:
            data = bench.session.ask("crypto.random", {"length_bytes": length}).data
            check(len(data) == length, f"{length} bytes were asked for, {len(data)} came")
    seen = {
        bytes(bench.session.ask("crypto.random", {"length_bytes": min(limit, 32)}).data) for _ in range(16)
    }
    check(len(seen) == 16 or limit < 16, "the same random bytes came twice")  # noqa: PLR2004
    for wrong in (0, -1, limit + 1, MAX_RANDOM_BYTES + 1, "many", [32], 2**53 - 1):
        answer = bench.session.call("crypto.random", {"length_bytes": wrong})
        answer.refused("INVALID_ARGUMENT", number=_EITHER)
    bench.session.call("crypto.random").refused("INVALID_ARGUMENT", number=jsonrpc.INVALID_PARAMS)


@CRYPTO.case(
    "batch",
    "4.7-11 4.7-12",
    _RANDOM,
    offers("crypto.batch"),
    hint="answer each call as if it had come alone, errors included",
)
def batch(bench: Bench) -> None:
    """A batch answers every call in order; one that fails does not harm the others, and none is a batch."""
    good = {"method": "crypto.random", "params": {"length_bytes": 8}}
    bad = {"method": "crypto.random", "params": {"length_bytes": 0}}
    items = bench.session.ask(
        "crypto.batch", {"calls": [good, bad, good, {**good, "method": "no.such"}]}
    ).items
    seen = [item.result is not None for item in items]
    check(seen == [True, False, True, False], f"which calls have a result: {seen}")
    check(
        all((item.error is None) != (item.result is None) for item in items), "an item is not one of the two"
    )
    codes = [item.error["data"]["code"] for item in items if item.error is not None]
    check(codes == ["INVALID_ARGUMENT", "UNSUPPORTED_OPERATION"], f"the calls that fail say {codes}")
    for method in ("crypto.batch", "key.create", "plugin.shutdown"):
        answer = bench.session.call("crypto.batch", {"calls": [{"method": method, "params": {}}]})
        if answer.result is not None:
            check("error" in answer.result["items"][0], f"{method} was carried out in a batch")
    bench.session.call("crypto.batch", {"calls": []}).refused("INVALID_ARGUMENT", number=_EITHER)


@CRYPTO.case("batch_bounds", "4.7-11 4.1-1", _RANDOM, offers("crypto.batch"), hint="1 to 1,000 calls")
def batch_bounds(bench: Bench) -> None:
    """A batch of a hundred calls has a hundred answers; one of 1,001, or of no calls at all, has none."""
    call = {"method": "crypto.random", "params": {"length_bytes": 4}}
    items = bench.session.ask("crypto.batch", {"calls": [call] * 100}).items
    check(len(items) == 100, f"100 calls have {len(items)} answers")  # noqa: PLR2004
    check(len({str(item.result) for item in items}) == 100, "calls of one batch share their answers")  # noqa: PLR2004
    wrong: tuple[Any, ...] = (
        [{"method": "", "params": {}}] * 1001,
        [7],
        "calls",
        [{"params": {}}],
        [{"method": "crypto.random", "params": []}],
    )
    for calls in wrong:
        bench.session.call("crypto.batch", {"calls": calls}).refused("INVALID_ARGUMENT", number=_EITHER)


@CRYPTO.case("two_keys_at_once", "2.3-3 3.4-1", ENCRYPTS, hint="keep nothing about a request outside of it")
def two_keys_at_once(bench: Bench) -> None:
    """Requests for two keys that overlap do not get each other's key."""
    use = encryptions(bench.capabilities)[0]
    names = two_keys(bench, use)
    session = bench.session
    asked = {number: names[number % 2] for number in range(40)}
    session.send(
        b"".join(
            session.frame("crypto.encrypt", {"key_id": key_id, "plaintext": b"x"}, number)
            for number, key_id in asked.items()
        )
    )
    answers = [session.next("crypto.encrypt") for _ in asked]
    check(sorted(answer.id for answer in answers) == sorted(asked), "not every request was answered once")
    for answer in answers:
        sealed = answer.granted()
        check(sealed["key_id"] == asked[answer.id], "a request was answered with another key")
        use.require_open(session, asked[answer.id], Made(b"x", {}, sealed))


@CRYPTO.case(
    "data_key_lengths",
    "4.7-4",
    offers("key.create", "crypto.generate_data_key"),
    hint="16 to 1,024 bytes, or what your row covers",
)
def data_key_lengths(bench: Bench) -> None:
    """Data keys of every length are as long as asked for, or refused; none is cut or filled up."""
    for target in bench.capabilities.targets("crypto.generate_data_key"):
        for length in (16, 17, 31, 64, 1024):
            body = {"key_id": bench.key(target), "length_bytes": length}
            answer = bench.session.call("crypto.generate_data_key", body)
            if answer.result is None:
                answer.refused("INVALID_ARGUMENT", "UNSUPPORTED_OPERATION", number=_EITHER)
            else:
                made = read_result("crypto.generate_data_key", answer.result).plaintext or b""
                check(len(made) == length, f"{length} bytes were asked for, {len(made)} came")


@CRYPTO.case("used_key", "4.3-4 4.3-2", ENCRYPTS, hint="tell the version that was used, not the newest one")
def used_key(bench: Bench) -> None:
    """A result names the version that was used, which opens it, and the protection that the row promises."""
    for use in uses(bench.capabilities):
        key_id = bench.key(use.target)
        made = use.make(bench.session, key_id)
        if "key_version" in made.result:
            version = made.result["key_version"]
            answer = use.try_open(bench.session, key_id, made, key_version=version)
            opened = answer.granted().get("key_version", version)
            check(opened == version, f"{use}: made by version {version!r}, opened by {opened!r}")
        promised, said = use.row.protection, made.result.get("protection")
        check(promised is None or said in (None, promised), f"{use}: {promised} was promised, {said} is said")


_CANARY: Final = b"kmsplug-canary-7d1f"


@CRYPTO.case(
    "nothing_leaks", "7.6-1 8-4 11-1", ENCRYPTS, hint="never put a value into an error or a log line"
)
def nothing_leaks(bench: Bench) -> None:
    """Plaintext, associated data and secret settings are in no error and not on stderr."""
    secrets = [_CANARY, base64.b64encode(_CANARY)[:-4], _CANARY.hex().encode()]
    schema = bench.hello.config_schema.get("properties", {})
    secrets += [
        str(value).encode()
        for name, value in bench.config.items()
        if schema.get(name, {}).get("writeOnly") and len(str(value)) >= 6  # noqa: PLR2004 - shorter ones are found anywhere
    ]
    errors = []
    for use in encryptions(bench.capabilities):
        key_id, other = two_keys(bench, use)
        made = use.make(bench.session, key_id, _CANARY)
        errors += [
            use.try_make(bench.session, "no-such-key", _CANARY),
            use.try_make(bench.session, key_id, _CANARY, key_version="no-such-version"),
            use.try_make(bench.session, key_id, _CANARY, mechanism=_CANARY.decode()),
            use.try_make(bench.session, key_id, _CANARY, associated_data=_CANARY.decode() + "!"),
            use.try_make(bench.session, key_id, _CANARY, context={"a": [_CANARY.decode()]}),
            use.try_open(bench.session, other, made, **bound(use.target.associated_data, _CANARY.decode())),
            bench.session.call("crypto.encrypt", {"key_id": key_id, "plaintext": _CANARY.decode() + "!"}),
        ]
        use.require_open(bench.session, key_id, made)
    bench.session.settle()
    text = "".join(answer.message + str(answer.data) for answer in errors if answer.result is None).encode()
    for secret in secrets:
        check(secret not in text, "a secret stands in an error")
        check(secret not in bytes(bench.session.wire.stderr), "a secret stands on stderr")
