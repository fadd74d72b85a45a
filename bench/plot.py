"""The results as one SVG picture, written by hand: rates as bars, latencies as lines.

Bars start at zero on a linear scale; latencies span three powers of ten and are on a logarithmic
one. A row is a contender, the fastest first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from bench.contenders.entries import BY_KEY, Entry
from bench.findings import TEXTBOOK, Findings
from bench.latency import Quantiles

WIDTH, ROW, TOP, BOTTOM = 1120, 34, 104, 64
NAME_X, BAR_X, BAR_WIDTH, LATENCY_X, LATENCY_WIDTH = 24, 260, 330, 760, 330
OURS, PEER, CEILING, INK, FAINT = "#1f5fbf", "#9aa5b1", "#d9dee4", "#1d2733", "#6b7682"
STYLE = (
    "text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;"
    f"font-size:13px;fill:{INK}}}"
    f".h{{font-size:17px;font-weight:600}}.s{{font-size:12px;fill:{FAINT}}}"
    ".o{font-weight:600}.r{text-anchor:end}.m{text-anchor:middle}"
)


def plot(found: Findings) -> str:
    """Return the picture of what has been measured; there is at least one run."""
    keys = list(dict.fromkeys(run.contender for run in found.runs))
    keys.sort(key=lambda key: -found.rates(key).median)
    height = TOP + ROW * len(keys) + BOTTOM
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    label = "Events per second and latency of each contender"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="10" fill="#fff"/>',
        *_rates(found, keys),
        *_latencies(found, keys),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _rates(found: Findings, keys: Sequence[str]) -> list[str]:
    scale = BAR_WIDTH / max(found.rates(key).highest for key in keys)
    parts = [
        _text(NAME_X, 38, "Events per second on one core", "h"),
        _text(
            NAME_X,
            60,
            f"median of {found.repeats}, whisker lowest to highest; x the textbook loop",
            "s",
        ),
    ]
    for row, key in enumerate(keys):
        entry, rates, y = BY_KEY[key], found.rates(key), _middle(row)
        ratio = found.by_rate(key, TEXTBOOK)
        note = f"{rates.median / 1000:,.1f} k" + (f" · {ratio.median:.1f} x" if ratio else "")
        end = BAR_X + rates.highest * scale
        parts += [
            _text(NAME_X, y + 4, entry.name, "o" if entry.ours else ""),
            _bar(y, rates.median * scale, _colour(entry)),
            _line(BAR_X + rates.lowest * scale, y, end, y, INK, 1.2),
            *(
                _line(BAR_X + x * scale, y - 4, BAR_X + x * scale, y + 4, INK, 1.2)
                for x in (rates.lowest, rates.highest)
            ),
            _text(end + 10, y + 4, note, "o" if entry.ours else ""),
        ]
    return parts


def _latencies(found: Findings, keys: Sequence[str]) -> list[str]:
    by_key = {key: middle for key in keys if (middle := found.latency(key))}
    if not by_key:
        return []
    values = [value for one in by_key.values() for value in (one.p50, one.p999)]
    low = 10.0 ** math.floor(math.log10(max(min(values), 0.01)))
    high = max(10.0 ** math.ceil(math.log10(max(values))), 10 * low)
    scale = LATENCY_WIDTH / math.log10(high / low)

    def place(milliseconds: float) -> float:
        return LATENCY_X + math.log10(max(milliseconds, low) / low) * scale

    bottom = TOP + ROW * len(keys)
    parts = [
        _text(LATENCY_X, 38, "Latency at 2,000 events per second", "h"),
        _text(LATENCY_X, 60, "from due to read: p50 (dot), p99 (ring), p99.9 (end)", "s"),
    ]
    tick = low
    while tick <= high * 1.001:
        label = f"{tick:g} ms" if tick < 1000 else f"{tick / 1000:g} s"
        parts += [
            _line(place(tick), TOP - 12, place(tick), bottom + 4, "#e6eaee", 1),
            _text(place(tick), bottom + 24, label, "s m"),
        ]
        tick *= 10
    for row, key in enumerate(keys):
        if key in by_key:
            parts += _latency(key, by_key[key], _middle(row), place)
    return parts


def _latency(key: str, found: Quantiles, y: float, place: Callable[[float], float]) -> list[str]:
    colour = _colour(BY_KEY[key])
    colour = PEER if colour == CEILING else colour
    p50, p99, p999 = place(found.p50), place(found.p99), place(found.p999)
    return [
        _line(p50, y, p999, y, colour, 3),
        _line(p999, y - 6, p999, y + 6, colour, 3),
        _circle(p99, y, "#fff", colour),
        _circle(p50, y, colour, colour),
    ]


def _colour(entry: Entry) -> str:
    if not entry.scores:
        return CEILING
    return OURS if entry.ours else PEER


def _middle(row: int) -> float:
    return TOP + ROW * row + ROW / 2


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def _bar(y: float, width: float, colour: str) -> str:
    size = f'x="{BAR_X}" y="{y - 10}" width="{width:.1f}" height="20"'
    return f'<rect {size} rx="3" fill="{colour}"/>'


def _circle(x: float, y: float, inside: str, outside: str) -> str:
    place = f'cx="{x:.1f}" cy="{y}" r="5"'
    return f'<circle {place} fill="{inside}" stroke="{outside}" stroke-width="2.5"/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="{width}" stroke-linecap="round"/>'
    )
