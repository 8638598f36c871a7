"""The pictures of benchmarks: both files, the same each time, labels that can be read."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.plots import apart, cost_curves

SERIES = {
    "lowtide": [(52, 104.0), (60, 82.0), (70, 68.0)],
    "SkyNomad": [(70, 69.0), (52, 110.0), (60, 85.0)],
    "bound": [(52, 93.0), (60, 78.0), (70, 65.0)],
}


def draw(folder: Path) -> tuple[Path, Path]:
    """Three curves in a folder."""
    return cost_curves(
        folder / "curves.png",
        title="One job",
        x_label="deadline, hours",
        y_label="cost, $",
        series=SERIES,
    )


def test_a_picture_names_its_curves_and_axes(tmp_path: Path) -> None:
    """The SVG holds every name as text, and the PNG is one."""
    png, svg = draw(tmp_path)
    text = svg.read_text(encoding="utf-8")
    assert all(f">{name}</text>" in text for name in (*SERIES, "deadline, hours", "cost, $"))
    assert png.read_bytes().startswith(b"\x89PNG")


def test_the_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    """A picture under version control changes only with its figures."""
    (tmp_path / "again").mkdir()
    first, again = draw(tmp_path), draw(tmp_path / "again")
    assert [one.read_bytes() for one in first] == [one.read_bytes() for one in again]


@given(st.lists(st.floats(min_value=0, max_value=1), max_size=9).map(sorted))
def test_labels_keep_their_order_and_their_distance(heights: list[float]) -> None:
    """No two names overlap, and one that has room stays where its curve ends."""
    moved = apart(heights, gap=0.05)
    steps = [after - before for before, after in pairwise(moved)]
    assert all(step >= 0.05 - 1e-9 for step in steps)
    assert sum(moved) == pytest.approx(sum(heights))


def test_a_label_with_room_stays() -> None:
    """Only neighbours move."""
    assert apart([0.1, 0.5, 0.52], gap=0.1) == pytest.approx([0.1, 0.46, 0.56])
