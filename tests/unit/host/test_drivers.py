"""Which driver a name means."""

from importlib.metadata import distribution
from pathlib import Path

import pytest
from kmsplug_host._launch import BUNDLED, DRIVER_GROUP, available_drivers


def test_the_drivers_of_this_library_are_its_entry_points() -> None:
    points = distribution("kmsplug").entry_points.select(group=DRIVER_GROUP)

    assert {point.name: point.value for point in points} == BUNDLED


def test_an_installed_package_adds_drivers_and_takes_the_place_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "other-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        f"[{DRIVER_GROUP}]\nother = other:Driver\nlocal = other:Thief\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert available_drivers() == {**BUNDLED, "other": "other:Driver"}
