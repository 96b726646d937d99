"""Errors: one class per code, the tree as drawn, and a document that any program can read."""

import copy
import json
import pickle
import re
from itertools import pairwise

import pytest
from kmsplug_host import errors
from kmsplug_host.errors import (
    Attempt,
    Diagnosis,
    KeyNotFound,
    KeystoreError,
    KmsplugError,
    PluginCrashed,
    PluginError,
    Timeout,
    Unclassified,
    error_class,
    from_wire,
)
from kmsplug_protocol import ERROR_FACTS, ErrorCode, ErrorData, Outcome, Vendor

LEAVES = [*PluginError.__subclasses__(), *KeystoreError.__subclasses__()]


def test_there_is_one_class_for_each_code() -> None:
    assert sorted(leaf.code for leaf in LEAVES) == sorted(ErrorCode)
    assert all(error_class(leaf.code) is leaf for leaf in LEAVES)
    for leaf in LEAVES:
        assert leaf.__name__.upper() == leaf.code.replace("_", "")
        assert leaf.__doc__


def test_the_branches_follow_from_who_failed() -> None:
    for leaf in LEAVES:
        assert issubclass(leaf, PluginError) is ERROR_FACTS[leaf.code].from_plugin


def test_the_tree_in_the_docstring_is_that_of_the_classes() -> None:
    drawn, parents = set(), {0: "KmsplugError"}
    for line in (errors.__doc__ or "").split("\n"):
        if found := re.match(r"     ([| ]*)\+- (\w+)", line):
            level = 1 + len(found[1]) // 4
            parents[level] = found[2]
            drawn.add((parents[level - 1], found[2]))
    real = {(a.__name__, b.__name__) for leaf in LEAVES for b, a in pairwise(leaf.__mro__[:3])}

    assert drawn == real


def test_every_error_says_what_its_code_says() -> None:
    for leaf in LEAVES:
        error = leaf("message")
        fact = ERROR_FACTS[leaf.code]
        assert (error.retry, str(error), error.details) == (fact.retry, "message", {})
        assert (error.outcome is Outcome.UNKNOWN) is fact.may_have_acted


def full() -> KmsplugError:
    """Return an error with everything that one can have."""
    return PluginCrashed(
        "the driver process ended",
        hint="look at its log",
        vendor=Vendor(service="kms", code="E1", http_status=500, request_id="r"),
        attempts=(Attempt(ErrorCode.PLUGIN_CRASHED, 0.5, 0.25),),
        diagnosis=Diagnosis(("/bin/driver", "-x"), "/bin/driver: -rwx root", "SIGSEGV", ("line",)),
        plugin="main",
        retry_after_ms=5,
        key_id=None,
    )


def test_an_error_is_a_json_document() -> None:
    document = json.loads(json.dumps(full().to_dict()))

    assert document == {
        "code": "PLUGIN_CRASHED",
        "message": "the driver process ended",
        "retry": "reconnect",
        "outcome": "unknown",
        "plugin": "main",
        "retry_after_ms": 5,
        "hint": "look at its log",
        "vendor": {"service": "kms", "code": "E1", "http_status": 500, "request_id": "r", "withheld": False},
        "attempts": [{"code": "PLUGIN_CRASHED", "elapsed_s": 0.5, "slept_s": 0.25}],
        "diagnosis": {
            "command": ["/bin/driver", "-x"],
            "executable": "/bin/driver: -rwx root",
            "exit": "SIGSEGV",
            "stderr": ["line"],
        },
    }


def test_what_is_not_known_is_not_in_the_document() -> None:
    assert KeyNotFound("no such key").to_dict() == {
        "code": "KEY_NOT_FOUND", "message": "no such key", "retry": "never", "outcome": "not_applied"
    }  # fmt: skip


def test_a_higher_layer_adds_and_never_replaces() -> None:
    error = Timeout("late", plugin="first")
    error.add(plugin="second", operation="key.get", key_id=None)

    assert error.details == {"plugin": "first", "operation": "key.get"}


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])  # noqa: S301
def test_an_error_can_cross_to_another_process(clone: "object") -> None:
    assert callable(clone)
    found = clone(full())

    assert type(found) is PluginCrashed
    assert found.to_dict() == full().to_dict()


def test_a_code_that_only_a_newer_driver_knows_is_unclassified_and_kept() -> None:
    error = from_wire("x", ErrorData(code="NEW\x1b"), may_have_acted=True)

    assert type(error) is Unclassified
    assert error.details == {"driver_code": "NEW\\u{1b}"}
    assert error.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(("said", "changes", "outcome"), [
    (None, True, Outcome.UNKNOWN), (None, False, Outcome.NOT_APPLIED),
    (Outcome.APPLIED, True, Outcome.APPLIED), (Outcome.NOT_APPLIED, True, Outcome.NOT_APPLIED),
])  # fmt: skip
def test_what_a_driver_knows_of_the_effect_counts(
    said: Outcome | None, *, changes: bool, outcome: Outcome
) -> None:
    data = ErrorData(code="PROVIDER_INTERNAL", outcome=said)

    assert from_wire("x", data, may_have_acted=changes).outcome is outcome


def test_the_root_cause_survives() -> None:
    vendor = Vendor(
        service="kms", code="ThrottlingException", message="slow\x1b", request_id="r-1", http_status=400
    )
    data = ErrorData(code="RATE_LIMIT_EXCEEDED", vendor=vendor, retry_after_ms=250, hint="wait", path="a.b",
                     correlation_id="c-1")  # fmt: skip
    error = from_wire("throttled", data, may_have_acted=False)

    assert error.vendor is not None
    assert (error.vendor.code, error.vendor.request_id, error.vendor.http_status) == (
        "ThrottlingException", "r-1", 400,
    )  # fmt: skip
    assert error.vendor.message == "slow\\u{1b}"
    assert error.hint == "driver says: wait"
    assert error.details == {"retry_after_ms": 250, "path": "a.b", "correlation_id": "c-1"}
