"""Cases about associated data: bound in full, or refused; never ignored (SPEC.md section 5.3)."""

from typing import Any, Final

from kmsplug_protocol import AssociatedData

from .bench import Bench
from .case import Cases
from .uses import ENCRYPTS, Made, Use, bound, encryptions, two_keys
from .verdict import Failed, Skipped

BINDING: Final = Cases("binding")


def _binding(bench: Bench) -> list[Use]:
    found = [
        use
        for use in encryptions(bench.capabilities)
        if use.target.associated_data is not AssociatedData.NONE
    ]
    if not found:
        raise Skipped("needs a row that binds associated data")
    return found


@BINDING.case(
    "associated_data", "5.3-2 5.3-4 5.1-1", ENCRYPTS, hint="prove it: open with other data and see it fail"
)
def associated_data(bench: Bench) -> None:
    """What was bound has to be presented exactly: anything else, or nothing, is INVALID_CIPHERTEXT."""
    for use in _binding(bench):
        key_id, _ = two_keys(bench, use)
        name, values, wrongs = _BOUND[use.target.associated_data]
        for value in values:
            made = use.make(bench.session, key_id, **{name: value})
            use.require_open(bench.session, key_id, made)
            for wrong in (*wrongs, *values):
                if wrong != value:
                    answer = use.try_open(bench.session, key_id, made, **{name: wrong})
                    if answer.result is not None:
                        raise Failed(f"{use}: bound {value!r}, opened with {wrong!r}")
                    answer.refused("INVALID_CIPHERTEXT")
            use.try_open(bench.session, key_id, Made(made.given, {}, made.result)).refused(
                "INVALID_CIPHERTEXT"
            )
        unbound = use.make(bench.session, key_id)
        use.try_open(bench.session, key_id, unbound, **{name: values[0]}).refused("INVALID_CIPHERTEXT")


# Composed and decomposed letters, a split that moves, a prefix, another case, a swap of name and value.
_BOUND: Final[dict[AssociatedData, tuple[str, tuple[Any, ...], tuple[Any, ...]]]] = {
    AssociatedData.BYTES: (
        "associated_data",
        (b"a", "\u00e9".encode(), bytes(range(256)), b"\0"),
        (b"A", b"a ", b"aa", "e\u0301".encode(), b"\0\0", b""),
    ),
    AssociatedData.MAP: (
        "context",
        ({"a": "bc"}, {"a": "1", "b": "2"}, {"caf\u00e9": "\u4f60\U0001f511"}, {"a": ""}),
        ({"ab": "c"}, {"a": "2", "b": "1"}, {"cafe\u0301": "\u4f60\U0001f511"}, {"A": "bc"}, {"bc": "a"}, {}),
    ),
}


@BINDING.case("order", "5.3-2", ENCRYPTS, hint="make the map canonical before you bind it")
def order(bench: Bench) -> None:
    """The order of the members of a context has no meaning."""
    found = [use for use in _binding(bench) if use.target.associated_data is AssociatedData.MAP]
    if not found:
        raise Skipped("needs a row that binds a map")
    names = ("b", "a", "\u00e9", "aa", "B", "\U0001f511")
    for use in found:
        key_id, _ = two_keys(bench, use)
        made = use.make(bench.session, key_id, context={name: f"{name}!" for name in names})
        for again in (sorted(names), names[::-1]):
            use.require_open(bench.session, key_id, made, context={name: f"{name}!" for name in again})


@BINDING.case(
    "nothing_bound", "5.3-3", ENCRYPTS, hint="pass empty bytes to your provider where nothing was given"
)
def nothing_bound(bench: Bench) -> None:
    """Empty associated data and none are the same."""
    for use in _binding(bench):
        key_id, _ = two_keys(bench, use)
        name = _BOUND[use.target.associated_data][0]
        empty: Any = b"" if use.target.associated_data is AssociatedData.BYTES else {}
        made = use.make(bench.session, key_id)
        use.require_open(bench.session, key_id, made, **{name: empty})
        made = use.make(bench.session, key_id, **{name: empty})
        use.require_open(bench.session, key_id, Made(made.given, {}, made.result))


@BINDING.case(
    "undeclared_binding", "5.3-1 4.1-2", ENCRYPTS, hint="refuse it: the caller believes that it was bound"
)
def undeclared_binding(bench: Bench) -> None:
    """Associated data of a kind that the row does not name are refused with UNSUPPORTED_OPERATION."""
    for use in encryptions(bench.capabilities):
        key_id, _ = two_keys(bench, use)
        made = use.make(bench.session, key_id)
        for kind in (AssociatedData.BYTES, AssociatedData.MAP):
            if kind is not use.target.associated_data:
                other = bound(kind, "x")
                use.try_make(bench.session, key_id, **other).refused("UNSUPPORTED_OPERATION")
                use.try_open(bench.session, key_id, made, **other).refused("UNSUPPORTED_OPERATION")
