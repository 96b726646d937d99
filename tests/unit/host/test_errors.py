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
    error_class,
)
from kmsplug_protocol import ERROR_FACTS, ErrorCode, Outcome, Vendor

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
        "vendor": {"service": "kms", "code": "E1", "http_status": 500, "request_id": "r"},
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


def test_what_is_behind_an_error_is_told_the_nearest_first() -> None:
    root, middle, top = OSError("secret text"), KeyNotFound("no such key", key_id="k"), Timeout("late")
    middle.__cause__, top.__cause__ = root, middle

    assert top.to_dict()["causes"] == [
        {
            "code": "KEY_NOT_FOUND",
            "message": "no such key",
            "retry": "never",
            "outcome": "not_applied",
            "key_id": "k",
        },
        {"type": "OSError"},
    ]


def test_the_causes_that_a_driver_names_come_first() -> None:
    error = Timeout("late", causes=("botocore.exceptions.ReadTimeoutError", "builtins.TimeoutError"))

    assert error.to_dict()["causes"] == [
        {"type": "botocore.exceptions.ReadTimeoutError"},
        {"type": "builtins.TimeoutError"},
    ]


def test_causes_in_a_circle_are_told_once() -> None:
    one, other = Timeout("one"), Timeout("other")
    one.__cause__, other.__cause__ = other, one

    assert [cause["message"] for cause in one.to_dict()["causes"]] == ["other"]
