"""Cases about bytes that are presented as something else: foreign labels, joined, swapped (SPEC.md 5.3)."""

import base64
from typing import Any, Final

from kmsplug_protocol import AssociatedData, jsonrpc

from .bench import Bench
from .case import Cases, Need, offers
from .cases_hostile import STRINGS
from .uses import ENCRYPTS, SAMPLE, Made, Use, bound, encryptions, two_keys, uses
from .verdict import Failed, Skipped, check

RELABELLED: Final = Cases("relabelled")

_EITHER: Final = (jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR)
_CAPTIONS: Final = ("kmsplug/wrap/v1", "kmsplug/native/v1", "kmsplug/payload/v1", "kmsplug/tag/v1")

_BINDS: Final = Need(
    "needs a row that binds associated data",
    lambda found: any(use.target.associated_data is not AssociatedData.NONE for use in encryptions(found)),
)


def _binding(bench: Bench) -> list[Use]:
    return [
        use
        for use in encryptions(bench.capabilities)
        if use.target.associated_data is not AssociatedData.NONE
    ]


def _refused(use: Use, bench: Bench, key_id: str, made: Made, what: str, **params: Any) -> None:
    answer = use.try_open(bench.session, key_id, made, **params)
    if answer.result is not None:
        raise Failed(f"{use}: {what}, and it was opened all the same")
    answer.refused("INVALID_CIPHERTEXT")


@RELABELLED.case(
    "labels", "5.3-2", _BINDS, hint="bind the whole label, not a prefix, a hash of a part, or a length"
)
def labels(bench: Bench) -> None:
    """What was made under one label is not opened under another: an envelope rests on that."""
    for use in _binding(bench):
        key_id, _ = two_keys(bench, use)
        kind = use.target.associated_data
        for mine in _CAPTIONS:
            made = use.make(bench.session, key_id, **bound(kind, mine))
            for other in (*_CAPTIONS, mine + "1", mine[:-1], "/" + mine, mine.upper()):
                if other != mine:
                    _refused(
                        use,
                        bench,
                        key_id,
                        made,
                        f"made for {mine!r}, presented as {other!r}",
                        **bound(kind, other),
                    )


@RELABELLED.case(
    "data_keys", "5.3-2 4.7-4", _BINDS, offers("crypto.generate_data_key"), hint="bind them in the same way"
)
def data_keys(bench: Bench) -> None:
    """A data key that was made under one label is not opened under another, nor as another key's."""
    for target in bench.capabilities.targets("crypto.generate_data_key"):
        mine, other = bench.key(target, 0), bench.key(target, 1)
        tie = bound(target.associated_data, _CAPTIONS[0])
        sealed = bench.session.ask("crypto.generate_data_key", {"key_id": mine, **tie}).ciphertext
        body = {"key_id": mine, "ciphertext": sealed}
        bench.session.ask("crypto.decrypt", {**body, **tie})
        if tie:
            wrong = bound(target.associated_data, _CAPTIONS[1])
            bench.session.call("crypto.decrypt", {**body, **wrong}).refused("INVALID_CIPHERTEXT")
        bench.session.call("crypto.decrypt", {**body, **tie, "key_id": other}).refused("INVALID_CIPHERTEXT")


@RELABELLED.case(
    "moved_border", "5.3-2", _BINDS, hint="write lengths before parts, or use a canonical encoding"
)
def moved_border(bench: Bench) -> None:
    """Where one part ends and the next begins is bound too."""
    pairs: dict[AssociatedData, list[tuple[Any, Any]]] = {
        AssociatedData.BYTES: [(b"ab\0c", b"a\0bc"), (b"\0", b"\0\0"), (b"a" * 256, b"a" * 257)],
        AssociatedData.MAP: [
            ({"a": "b", "c": "d"}, {"a": "bc", "": "d"}),
            ({"a": "b=c"}, {"a=b": "c"}),
            ({"a": "1,b=2"}, {"a": "1", "b": "2"}),
            ({"a": '","b":"'}, {"a": "", "b": ""}),
            ({"a": ""}, {"": "a"}),
        ],
    }
    names = {AssociatedData.BYTES: "associated_data", AssociatedData.MAP: "context"}
    for use in _binding(bench):
        key_id, _ = two_keys(bench, use)
        name = names[use.target.associated_data]
        for pair in pairs[use.target.associated_data]:
            for mine, other in (pair, pair[::-1]):
                answer = use.try_make(bench.session, key_id, **{name: mine})
                if answer.result is None:  # a provider may not know empty names
                    answer.refused("INVALID_ARGUMENT", number=_EITHER)
                    continue
                made = Made(SAMPLE, {name: mine}, answer.result)
                use.require_open(bench.session, key_id, made)
                again = use.try_open(bench.session, key_id, made, **{name: other})
                if again.result is not None:
                    raise Failed(f"{use}: bound {mine!r}, opened with {other!r}")
                again.refused("INVALID_CIPHERTEXT", "INVALID_ARGUMENT", number=_EITHER)


@RELABELLED.case(
    "hostile_strings", "5.3-4 5.3-2", _BINDS, hint="compare bytes, without normalisation or trimming"
)
def hostile_strings(bench: Bench) -> None:
    """Whatever stands in associated data is bound as it is, or refused when it is to be bound."""
    for use in _binding(bench):
        key_id, _ = two_keys(bench, use)
        kind = use.target.associated_data
        for text in STRINGS:
            tie = bound(kind, text)
            answer = use.try_make(bench.session, key_id, **tie)
            if answer.result is None:
                answer.refused("INVALID_ARGUMENT", number=_EITHER)
                continue
            made = Made(SAMPLE, tie, answer.result)
            use.require_open(bench.session, key_id, made)
            for other in (text.strip() + "x", text + " ", "\u00e9" if text == "e\u0301" else text[1:] + "!"):
                if other != text:
                    _refused(
                        use, bench, key_id, made, f"bound {text!r}, presented {other!r}", **bound(kind, other)
                    )


@RELABELLED.case(
    "malformed",
    "4.1-1 5.3-1 2.6-2",
    _BINDS,
    hint="a context is a map of strings, and nothing is made a string",
)
def malformed(bench: Bench) -> None:
    """A context that is no map of strings, and associated data that are no bytes, are refused."""
    wrong: dict[str, tuple[Any, ...]] = {
        "context": ({"a": 1}, {"a": None}, {"a": ["b"]}, {"a": {"b": "c"}}, ["a"], "a", 1, True),
        "associated_data": ("\u00e9", "AA", [1], {"a": "b"}, 1, True),
    }
    for use in _binding(bench):
        key_id, _ = two_keys(bench, use)
        for name, values in wrong.items():
            for value in values:
                answer = use.try_make(bench.session, key_id, **{name: value})
                answer.refused("INVALID_ARGUMENT", "UNSUPPORTED_OPERATION", number=_EITHER)


@RELABELLED.case("spliced", "4.7-3 7.5-1", ENCRYPTS, hint="authenticate all of it, the IV included")
def spliced(bench: Bench) -> None:
    """Two good ciphertexts joined at any place are not a third one."""
    for use in encryptions(bench.capabilities):
        key_id, _ = two_keys(bench, use)
        first, second = (
            base64.b64decode(use.make(bench.session, key_id, given * 32).result["ciphertext"])
            for given in (b"a", b"b")
        )
        made = use.make(bench.session, key_id)
        for place in sorted({1, 12, 13, 16, len(first) // 2, len(first) - 16, len(first) - 1}):
            joined = first[:place] + second[place:]
            if joined not in (first, second):
                _refused(use, bench, key_id, made, f"two were joined at byte {place}", ciphertext=joined)


@RELABELLED.case(
    "swapped", "4.7-3 4.7-5", ENCRYPTS, hint="what a key wraps and what it encrypts are two things"
)
def swapped(bench: Bench) -> None:
    """What one operation made is not opened by another, with whatever key."""
    found = [use for use in uses(bench.capabilities) if not use.shape.verifies]
    if len({use.shape.opens for use in found}) < 2:  # noqa: PLR2004
        raise Skipped("there is one way of opening something only")
    for use in found:
        made = use.make(bench.session, bench.key(use.target))
        for other in found:
            if other.shape.opens == use.shape.opens:
                continue
            sample = other.make(bench.session, bench.key(other.target))
            foreign = base64.b64decode(made.result[use.shape.made])
            answer = other.try_open(
                bench.session, bench.key(other.target), sample, **{other.shape.made: foreign}
            )
            check(answer.result is None, f"{other} opens what was made by {use}")
            answer.refused("INVALID_CIPHERTEXT")


@RELABELLED.case("text", "4.7-3", ENCRYPTS, hint="any bytes may come; decide nothing by how they begin")
def text(bench: Bench) -> None:
    """Texts, tokens and formats of others are no ciphertexts."""
    for use in encryptions(bench.capabilities):
        key_id, _ = two_keys(bench, use)
        made = use.make(bench.session, key_id)
        for foreign in (
            b"vault:v1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            b"AQICAHh" + bytes(150),
            b"-----BEGIN PGP MESSAGE-----\n\n-----END PGP MESSAGE-----\n",
            b"age-encryption.org/v1\n",
            b"{}",
            b"\x30\x82\x01\x00" + bytes(256),
            bytes(range(256)) * 8,
        ):
            answer = use.try_open(bench.session, key_id, made, ciphertext=foreign)
            if len(foreign) > 1024 and answer.result is None:  # noqa: PLR2004 - longer than anything it can have made
                answer.refused("INVALID_CIPHERTEXT", "INVALID_ARGUMENT", number=_EITHER)
            else:
                answer.refused("INVALID_CIPHERTEXT")


@RELABELLED.case(
    "withheld", "7.5-3 7.5-1", ENCRYPTS, hint="set vendor.withheld, and leave code and message out"
)
def withheld(bench: Bench) -> None:
    """Where the mechanism is RSA or key wrap, a refused ciphertext comes without the provider's words."""
    found = [
        use
        for use in uses(bench.capabilities)
        if not use.shape.verifies
        and str(use.target.mechanism or use.algorithm).startswith(("RSA", "AES_256_KW"))
    ]
    if not found:
        raise Skipped("neither RSA nor key wrap opens anything here")
    for use in found:
        key_id = bench.key(use.target)
        made = use.make(bench.session, key_id)
        length = len(base64.b64decode(made.result[use.shape.made]))
        for bad in (bytes(length), b"\xff" * length, b"x"):
            answer = use.try_open(bench.session, key_id, made, **{use.shape.made: bad}).refused(
                "INVALID_CIPHERTEXT"
            )
            vendor = answer.data.get("vendor") or {}
            check(
                "code" not in vendor and "message" not in vendor, f"{use}: the provider's words are an oracle"
            )
            check(not vendor or vendor.get("withheld") is True, f"{use}: vendor does not say withheld")
