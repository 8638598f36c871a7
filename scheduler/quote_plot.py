"""The cost-deadline curve as an SVG picture: clean lines, readable on light and on dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from jobs.quotes import Quote, QuotedWay
from jobs.spec import NANOS_PER_USD

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 50, 56
_US_PER_HOUR = 3_600_000_000
_STEPS = (1, 2, 2.5, 5, 10)
_STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #334155 }
.title { font-weight: 600 }
.axis { stroke: #64748b; stroke-width: 1 }
.grid { stroke: #94a3b8; stroke-width: 0.5; stroke-opacity: 0.4 }
.p50 { stroke: #0f766e; stroke-width: 2.5; fill: none } .dot { fill: #0f766e }
.p95 { stroke: #b45309; stroke-width: 1.5; stroke-dasharray: 6 4; fill: none }
.mine { stroke: #64748b; stroke-dasharray: 2 3 }
@media (prefers-color-scheme: dark) {
text { fill: #cbd5e1 }
.p50 { stroke: #5eead4 } .dot { fill: #5eead4 } .p95 { stroke: #fbbf24 }
}
</style>"""


class _Scale:
    """From hours and dollars to places in the picture."""

    def __init__(self, hours: Sequence[float], dollars: Sequence[float]) -> None:
        self.hours, self.dollars = _ticks(max(hours)), _ticks(max(dollars))

    def x(self, hours: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * hours / self.hours[-1]

    def y(self, dollars: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * dollars / self.dollars[-1]


def svg(quote: Quote) -> str:
    """Draw cost (P50 and P95) against the deadline, hours from now.

    Raises:
        ValueError: the quote has no curve.
    """
    points = [way for way in quote.curve if way.deadline_us is not None and _costs(way)]
    if not points:
        msg = "the quote has no curve: give a work estimate"
        raise ValueError(msg)
    hours = [_hours(way) for way in points]
    scale = _Scale(hours, [cost for way in points for cost in _costs(way)])
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<title>Cost of {escape(quote.name)} by deadline</title>",
            _STYLE,
            *_axes(quote, scale),
            *_curve(points, scale),
            "</svg>",
            "",
        )
    )


def _axes(quote: Quote, scale: _Scale) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    yield f'<text class="title" x="{LEFT}" y="20">Cost of {escape(quote.name)} by deadline</text>'
    yield f'<text x="{LEFT}" y="38">P50 solid, P95 dashed; dotted: the deadline asked for</text>'
    for tick in scale.dollars:
        y = scale.y(tick)
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">${tick:g}</text>'
    for tick in scale.hours:
        x = scale.x(tick)
        yield f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{tick:g}</text>'
    yield f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>'
    yield f'<line class="axis" x1="{LEFT}" y1="{TOP}" x2="{LEFT}" y2="{bottom}"/>'
    at = f'x="{(LEFT + right) / 2}" y="{HEIGHT - 12}"'
    yield f'<text {at} text-anchor="middle">deadline, hours from now</text>'


def _curve(points: Sequence[QuotedWay], scale: _Scale) -> Iterator[str]:
    for name, rank in (("p95", 1), ("p50", 0)):
        places = [(scale.x(_hours(way)), scale.y(_costs(way)[rank])) for way in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        yield f'<polyline class="{name}" points="{line}"/>'
        if name == "p50":
            yield from (f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
    for way in points:
        if way.name == "yours":
            x, bottom = scale.x(_hours(way)), HEIGHT - BOTTOM
            yield f'<line class="mine" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}"/>'


def _costs(way: QuotedWay) -> tuple[float, ...]:
    """Give P50 and P95 in dollars, nothing where P50 is not known."""
    p50, p95 = way.quoted.cost_p50_usd_nanos, way.quoted.cost_p95_usd_nanos
    if p50 is None:
        return ()
    return p50 / NANOS_PER_USD, (p50 if p95 is None else p95) / NANOS_PER_USD


def _hours(way: QuotedWay) -> float:
    return ((way.deadline_us or 0) - way.quoted.at_us) / _US_PER_HOUR


def _ticks(most: float) -> list[float]:
    """Give round numbers from zero to just above the most, about five of them."""
    rough = max(most, 1e-6) / 5
    power = 1.0
    while power > rough:
        power /= 10
    while power * 10 <= rough:
        power *= 10
    step = next(power * part for part in _STEPS if power * part >= rough)
    count = int(most / step) + 1
    return [step * tick for tick in range(count + 1)]
