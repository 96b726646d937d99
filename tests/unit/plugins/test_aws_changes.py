"""What became of a rotate is told from tags and materials: for certain, or not at all."""

import time

import pytest
from kmsplug_plugins.aws_kms import _changes
from kmsplug_plugins.aws_kms._changes import outcome_of_rotate, outlived, rotation
from kmsplug_protocol import Outcome

MATERIALS = ["m1", "m2", "m3"]


def _tags(*found: _changes.Rotation) -> dict[str, str]:
    return {one.tag: one.value for one in found}


@pytest.mark.parametrize(
    ("tags", "materials", "outcome"),
    [
        ({}, MATERIALS, Outcome.UNKNOWN),
        (_tags(rotation("mine", "m1", "m2")), MATERIALS, Outcome.APPLIED),
        (_tags(rotation("mine", "m1", "m2")), [], Outcome.APPLIED),
        (_tags(rotation("mine", "m2")), MATERIALS, Outcome.APPLIED),
        (_tags(rotation("mine", "m3")), MATERIALS, Outcome.UNKNOWN),
        (_tags(rotation("mine", "gone")), MATERIALS, Outcome.UNKNOWN),
        (_tags(rotation("mine", "m1"), rotation("other", "m1", "m2")), MATERIALS, Outcome.UNKNOWN),
        (_tags(rotation("mine", "m1"), rotation("other", "m2", "m3")), MATERIALS, Outcome.APPLIED),
        (_tags(rotation("other", "m1", "m2")), MATERIALS, Outcome.UNKNOWN),
    ],
    ids=[
        "never began",
        "ended",
        "ended, materials not seen",
        "began, and there is newer material",
        "began, and nothing newer",
        "began from material that is not there",
        "another one began from the same",
        "another one began later",
        "another one's",
    ],
)
def test_a_rotate(tags: dict[str, str], materials: list[str], outcome: Outcome) -> None:
    assert outcome_of_rotate("mine", tags, materials) is outcome


def test_foreign_tags_are_passed_over() -> None:
    tags = {"kmsplug:rotate:x": "nonsense", "kmsplug:rotate:y": "a/b/c", "colour": "1/2/3"}

    assert [*_changes.rotations(tags)] == []


def test_a_change_of_any_name_fits_into_a_tag() -> None:
    for name in ("", "x" * 10_000, "\ud800", "\u4f60 /=+"):
        tag = rotation(name, "m" * 64, "n" * 64)
        assert len(tag.tag) <= 128
        assert len(tag.value) <= 256
        assert tag.tag.isascii()


def test_old_notes_are_given_up_and_those_of_a_day_never(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    tags: dict[str, str] = {}
    for number in range(20):
        monkeypatch.setattr(time, "time", lambda number=number: now - number * 2 * 3600)
        tags |= _tags(rotation(f"change {number}", "m1"))
    monkeypatch.undo()

    given_up = outlived(tags)

    kept = {tag for tag in tags if tag not in given_up}
    assert kept == {rotation(f"change {number}", "m1").tag for number in range(12)}
