"""The house style of plots: Vega-Lite in, one SVG out that follows the page's colours.

Colours are the page's CSS variables, which Vega passes through to the SVG's attributes as they
are, so that one picture serves light, dark and print. Why Vega-Lite through vl-convert: axes,
scales and labels are a library's business; it draws without a browser or a network and adds
84 MB to an installation whose torch has gigabytes. matplotlib is as large, writes its own colours
into every path and builds a cache of fonts at the first start of a container.

The size is fixed whatever the data; who calls bounds the number of marks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import vl_convert

WIDTH, HEIGHT = 760, 300
NORMAL, ANOMALY, FRESH = "var(--normal)", "var(--anomaly)", "var(--fresh)"
INK, FAINT, GRID, BAND = "var(--ink)", "var(--faint)", "var(--grid)", "var(--band)"

PERCENT = ".3~p"

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, object]]

_STYLE: Spec = {
    # The page says in words what a plot shows; labels on every mark would only be noise.
    "aria": False,
    "font": "Helvetica, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domainColor": FAINT,
        "gridColor": GRID,
        "labelColor": INK,
        "labelFontSize": 12,
        "labelLimit": 220,
        "tickColor": FAINT,
        "titleColor": INK,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    },
    "legend": {
        "labelColor": INK,
        "labelFontSize": 12,
        "labelLimit": 260,
        # The reader's font may be wider than the one that is measured here.
        "columnPadding": 36,
        "orient": "top",
        "title": None,
    },
    "title": {
        "anchor": "start",
        "color": INK,
        "fontSize": 12,
        "fontWeight": "normal",
        "frame": "group",
        "offset": 10,
    },
}
_TICKS_MAX = 8


def draw(layers: Sequence[Spec], height: int = HEIGHT, above: str | None = None) -> str:
    """Return the SVG of these layers on one pair of axes; `above` is a line of text over them."""
    spec: Spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": WIDTH,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "background": None,
        "config": _STYLE,
        "layer": list(layers),
    }
    if above is not None:
        spec["title"] = above
    return vl_convert.vegalite_to_svg(spec, vl_version="6.4")


def layer(rows: Rows, mark: Spec, **encoding: Spec) -> Spec:
    """Return a layer that draws `mark` for `rows`."""
    return {"data": {"values": list(rows)}, "mark": mark, "encoding": encoding}


def axis(field: str, title: str, **more: object) -> Spec:
    """Return a numeric axis; `more` goes to the encoding."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def shares(field: str, title: str, **more: object) -> Spec:
    """Return an axis of shares, written in percent; series are not put on top of each other."""
    return axis(field, title, axis={"format": PERCENT, "tickCount": 5}, stack=None, **more)


def log_axis(field: str, title: str, low: float, high: float, form: str = "~g") -> Spec:
    """Return a logarithmic axis from `low` to `high`, both positive."""
    return axis(
        field,
        title,
        scale={"type": "log", "domain": [low, high], "nice": False, "clamp": True},
        axis={"values": log_ticks(low, high), "format": form},
    )


def coloured(names: Sequence[str], colours: Sequence[str]) -> Spec:
    """Return the encoding that gives each series its colour, and the legend."""
    return {
        "field": "series",
        "type": "nominal",
        "scale": {"domain": list(names), "range": list(colours)},
    }


def dashed(names: Sequence[str], odd: str) -> Spec:
    """Return the encoding that dashes the line of one series: colour alone is not for everyone."""
    return {
        "field": "series",
        "type": "nominal",
        "scale": {
            "domain": list(names),
            "range": [[5, 3] if name == odd else [1, 0] for name in names],
        },
    }


def log_ticks(low: float, high: float) -> list[float]:
    """Return where to mark a logarithmic axis between two positive numbers.

    At powers of ten, of many at every second, third, ...; where they are few at 1-2-5; where even
    these are, at the ends.
    """
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / _TICKS_MAX))
    powers = [float(f"1e{power}") for power in range(first, last + 1, step)]
    if len(powers) > 2:
        return powers
    ticks = [float(f"{m}e{power}") for power in range(first - 1, last + 1) for m in (1, 2, 5)]
    within = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    return within if len(within) > 1 else [low, high]
