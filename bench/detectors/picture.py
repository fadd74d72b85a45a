"""Quality against cost as one SVG picture, written by hand: a point is a detector.

Cost is on a logarithmic scale, for it spans four powers of ten; up and left is better. What has
quality and no cost, as a published figure, is a line across.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from bench.plot import FAINT, OURS, STYLE

WIDTH, HEIGHT = 900, 560
LEFT, RIGHT, TOP, BOTTOM = 76, 40, 92, 72
PEER, GRID = "#7d8894", "#e6eaee"
LABEL = "Quality against cost of each detector"
_LETTER, _LINE = 7.3, 15.0  # How wide a letter and how high a line is at most, in pixels.
_TICKS_MAX = 7


class Point(NamedTuple):
    name: str
    us_per_event: float
    auroc_percent: float
    ours: bool


class Box(NamedTuple):
    """A rectangle that is taken: its left, top, right and bottom edge."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


class _Axes(NamedTuple):
    """From costs and areas to pixels."""

    cost_low: float
    cost_high: float
    area_low: float
    area_high: float

    def x(self, cost: float) -> float:
        share = math.log(cost / self.cost_low) / math.log(self.cost_high / self.cost_low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, area: float) -> float:
        share = (area - self.area_low) / (self.area_high - self.area_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def picture(points: Sequence[Point], lines: Mapping[str, float], about: str) -> str:
    """Return the picture of at least one point; `lines` are areas in percent by name."""
    axes = _axes(points, lines)
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{LABEL}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#fff"/>',
        _text(24, 36, "Quality against cost", "h"),
        _text(24, 58, about, "s"),
        *_grid(axes),
        *_points(axes, points, lines),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _axes(points: Sequence[Point], lines: Mapping[str, float]) -> _Axes:
    """Return axes that end at round figures."""
    costs = [point.us_per_event for point in points]
    areas = [*(point.auroc_percent for point in points), *lines.values()]
    low, high = math.floor(min(areas) - 0.5), math.ceil(max(areas) + 0.5)
    return _Axes(
        10.0 ** math.floor(math.log10(min(costs) * 0.9)),
        10.0 ** math.ceil(math.log10(max(costs) * 1.1)),
        low,
        high,
    )


def _grid(axes: _Axes) -> Iterator[str]:
    bottom = HEIGHT - BOTTOM
    cost = axes.cost_low
    while cost <= axes.cost_high * 1.001:
        label = f"{cost:g} µs" if cost < 1000 else f"{cost / 1000:g} ms"
        yield _line(axes.x(cost), TOP, axes.x(cost), bottom, GRID)
        yield _text(axes.x(cost), bottom + 22, label, "s m")
        cost *= 10
    step = max(1, math.ceil((axes.area_high - axes.area_low) / _TICKS_MAX))
    for area in range(int(axes.area_low), int(axes.area_high) + 1, step):
        yield _line(LEFT, axes.y(area), WIDTH - RIGHT, axes.y(area), GRID)
        yield _text(LEFT - 10, axes.y(area) + 4, str(area), "s r")
    yield _text(LEFT, TOP - 14, "mean AUROC, %", "s m")
    yield _text(
        (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 22, "CPU time of scoring one event, log scale", "s m"
    )


def _points(axes: _Axes, points: Sequence[Point], lines: Mapping[str, float]) -> Iterator[str]:
    """Draw lines, then points, then labels where nothing stands yet."""
    taken = [
        Box(x - 6, y - 6, x + 6, y + 6)
        for x, y in ((axes.x(point.us_per_event), axes.y(point.auroc_percent)) for point in points)
    ]
    for name, area in lines.items():
        y = axes.y(area)
        yield _line(LEFT, y, WIDTH - RIGHT, y, FAINT, dashes="5 5")
        width = len(name) * _LETTER
        # At the right end, above the line if that is free, else below it.
        places = [
            Box(WIDTH - RIGHT - width, top, WIDTH - RIGHT, top + _LINE) for top in (y - 19, y + 4)
        ]
        place = _free(places, taken)
        taken.append(place)
        yield _text(place.right, place.bottom - 3, name, "s r")
    # Only now: the lines' own labels stand closer to them than others should.
    taken += [Box(LEFT, y - 2, WIDTH, y + 2) for y in map(axes.y, lines.values())]
    for point in sorted(points, key=lambda point: (not point.ours, -point.auroc_percent)):
        x, y = axes.x(point.us_per_event), axes.y(point.auroc_percent)
        colour = OURS if point.ours else PEER
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="{colour}"/>'
        place = _free(_around(x, y, len(point.name) * _LETTER), taken)
        taken.append(place)
        yield _text(place.left, place.bottom - 3, point.name, "o" if point.ours else "")


def _around(x: float, y: float, width: float) -> list[Box]:
    """Return where the label of a point may stand, the best place first."""
    corners = [
        (x + 10, y - _LINE / 2),
        (x - 10 - width, y - _LINE / 2),
        (x - width / 2, y - 8 - _LINE),
        (x - width / 2, y + 8),
        *((x + 10, y + shift) for shift in (5, -20, 20, -35)),
        *((x - 10 - width, y + shift) for shift in (5, -20, 20, -35)),
    ]
    boxes = [Box(left, top, left + width, top + _LINE) for left, top in corners]
    return [box for box in boxes if box.left > LEFT and box.right < WIDTH - 4] or boxes[:1]


def _free(places: Sequence[Box], taken: Sequence[Box]) -> Box:
    """Return the first place that meets nothing, else the first."""
    return next(
        (place for place in places if not any(place.meets(other) for other in taken)), places[0]
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="1"{dashed}/>'
    )
