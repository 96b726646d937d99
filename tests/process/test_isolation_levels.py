"""What a hostile driver reaches at each isolation level; README.md shows the same table."""

from pathlib import Path

from support.isolation import require
from support.siblings import reached_at
from support.tables import published

TABLE = "isolation"


def test_the_readme_tells_what_a_hostile_driver_reaches_at_each_level(tmp_path: Path) -> None:
    for level in ("landlock", "bwrap"):
        require(level)
    measured: dict[str, dict[str, str]] = {}
    for level in ("process", "landlock", "bwrap"):
        for attempt, reached in reached_at(level, tmp_path).items():
            measured.setdefault(attempt, {})[f"`{level}`"] = "**reached**" if reached else "denied"

    shown = published(TABLE, measured)

    assert shown.keys() == measured.keys()
    for attempt, cells in measured.items():
        assert (cells["`landlock`"], cells["`bwrap`"]) == ("denied", "denied"), attempt
        # A stricter kernel (Yama) denies more than the README says, never less.
        assert cells["`process`"] in (shown[attempt]["`process`"], "denied"), attempt
    assert measured["read the master key file of the other driver"]["`process`"] == "**reached**"
