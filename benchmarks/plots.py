"""Pictures of what benchmarks measured: cost against deadline, a curve for each policy.

A curve has a colour of the palette of Okabe and Ito (told apart by colour-blind readers too), a
marker and dashes of its own, and its name stands at its right end; there is no legend to go back
to. Our own policies look the same in every picture, and the bound is a black dashed line without
markers. The same figures give the same files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

Points = Sequence[tuple[float, float]]

BOUND = "bound"
"""A series of this name is drawn as the line that no policy can go below."""
_POLICIES = ("lowtide", "greedy", "uniform-progress", "on-demand", "spot-now", "lowest-window")
_MOST_TICKS = 12
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (10, 3)))
_LABEL_GAP = 0.052  # of the height of the axes: the least distance of two labels
_FORMATS = ("png", "svg")
_STYLE: Any = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 11,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "lowtide",
    "text.parse_math": False,  # a dollar is a dollar
}


def cost_curves(
    path: Path | str,
    *,
    title: str,
    x_label: str,
    y_label: str,
    series: Mapping[str, Points],
    y_from_zero: bool = False,
) -> tuple[Path, Path]:
    """Draw curves to ``path`` as PNG and as SVG; give both files.

    Args:
        path: where to; its suffix is replaced.
        title: one line, what is compared on what.
        x_label: with its unit, such as "deadline, hours after submission".
        y_label: with its unit, such as "mean cost, $ per job".
        series: points (x, y) by name; ``BOUND`` is set apart.
        y_from_zero: begin the y axis at zero, so that heights can be compared.

    Raises:
        ModuleNotFoundError: matplotlib is missing; ``lowtide[plots]`` brings it.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    assert any(series.values()), f"nothing to draw: {title}"
    files = tuple(Path(path).with_suffix(f".{form}") for form in _FORMATS)
    with rc_context(_STYLE):
        figure = Figure(figsize=(8, 4.8), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, series, y_from_zero=y_from_zero)
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        for file in files:
            dated = {"Date": None} if file.suffix == ".svg" else {"Software": None}
            figure.savefig(file, metadata=dated)
    return files[0], files[1]


def _draw(axes: Any, series: Mapping[str, Points], *, y_from_zero: bool) -> None:  # noqa: ANN401
    looks = _looks(series)
    ends: list[tuple[float, float, str, str]] = []  # y, x, name, colour
    for name, points in series.items():
        listed, look = sorted(points), looks[name]
        if listed:
            axes.plot(*zip(*listed, strict=True), **look)
            ends.append((listed[-1][1], listed[-1][0], name, str(look["color"])))
    ticks = sorted({x for points in series.values() for x, _ in points})
    if len(ticks) <= _MOST_TICKS:
        axes.set_xticks(ticks)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    if y_from_zero:
        axes.set_ylim(bottom=0)
    _label(axes, sorted(ends))


_BOUND_LOOK: dict[str, Any] = {"color": "black", "linestyle": (0, (4, 2)), "linewidth": 1.6}


def _looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Give each curve its look: the bound, our policies, then the others in their order."""
    given = [name for name in names if name != BOUND]
    others = [name for name in given if name not in _POLICIES]
    places = {name: _POLICIES.index(name) for name in given if name in _POLICIES}
    free = (place for place in count() if place not in places.values())
    places |= dict(zip(others, free, strict=False))
    return {BOUND: _BOUND_LOOK, **{name: _look(place) for name, place in places.items()}}


def _look(place: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[place % len(_COLOURS)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "linestyle": _DASHES[place % len(_DASHES)],
        "linewidth": 2,
        "markersize": 6,
    }


def _label(axes: Any, ends: Sequence[tuple[float, float, str, str]]) -> None:  # noqa: ANN401
    """Write each name right of its curve's end, moved apart where two would meet."""
    bottom, top = axes.get_ylim()
    heights = [(y - bottom) / (top - bottom) for y, *_ in ends]
    for height, (y, x, name, colour) in zip(apart(heights, gap=_LABEL_GAP), ends, strict=True):
        axes.annotate(
            name,
            xy=(x, y),
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6},
        )


def apart(heights: Sequence[float], *, gap: float) -> list[float]:
    """Move rising heights apart by at least ``gap``, none by more than that takes.

    Neighbours that are too near form a block around the mean of where they want to be; blocks
    that meet become one.
    """
    blocks: list[tuple[float, int]] = []  # middle, members
    for height in heights:
        blocks.append((height, 1))
        while len(blocks) > 1 and _touch(blocks[-2], blocks[-1], gap=gap):
            (low, few), (high, more) = blocks[-2:]
            blocks[-2:] = [((low * few + high * more) / (few + more), few + more)]
    return [
        middle + gap * (index - (members - 1) / 2)
        for middle, members in blocks
        for index in range(members)
    ]


def _touch(lower: tuple[float, int], upper: tuple[float, int], *, gap: float) -> bool:
    return upper[0] - lower[0] < gap * (lower[1] + upper[1]) / 2
