"""Draws what every panel shows of a real worker: `python -m tests.deploy.picture`, two minutes.

There is no Grafana in this. Each panel's queries are asked of a real Prometheus that has scraped a
real worker on a real Kafka, through a little story, and their answers drawn: to see whether each
picture is worth having, and for docs/dashboards.md.
"""

from __future__ import annotations

import argparse
import math
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from demo.broker import Broker
from deploy.grafana.boards import BOARDS
from deploy.grafana.panels import NEUTRAL, Board, Panel, Query
from tests.deploy import feed
from tests.deploy.live import Watched
from tests.deploy.monitoring import Prometheus, monitoring

JOB, RATE_INTERVAL, STEP_S = "story", "6s", 2.0
COLUMN, ROW, NUMBER_ROW, GAP, COLUMNS = 240, 150, 76, 10, 4
OF_GRAFANA = {"blue": "#1f5fbf", "green": "#2e8b57", "orange": "#c46a00", "red": "#c62828"}
COLOURS = ["#1f5fbf", "#d1495b", "#2e8b57", "#b8860b", "#6a4c93", "#008b8b", "#8b4513", "#708090"]
STYLE = (
    "text{font-family:system-ui,Helvetica,Arial,sans-serif;font-size:9px;fill:#6b7682}"
    ".t{font-size:11px;font-weight:600;fill:#1d2733}.n{font-size:24px}"
    "rect.p{fill:#fff;stroke:#d9dee4}polyline{fill:none;stroke-width:1.4}"
)
Series = tuple[str, list[tuple[float, float]]]  # A legend, and times and values.


def tell(watched: Watched) -> None:
    """The story: normal, a fifth rubbish, one feature shifted, killed and started, normal."""
    for make, seconds in (
        (feed.normal, 25.0),
        (feed.dirty, 12.0),
        (feed.shifted, 25.0),
        (feed.normal, 8.0),
    ):
        watched.feed.make = make
        time.sleep(seconds)
    watched.worker.kill()
    time.sleep(5.0)
    watched.worker.start()
    watched.worker.wait_until_ready()
    time.sleep(20.0)


def main() -> None:
    """Tell the story, and write a picture of each dashboard."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    folder = parser.parse_args().out
    with tempfile.TemporaryDirectory() as name, Broker() as broker:
        watched = Watched(JOB, broker, Path(name), 250.0, ODRADEK_BATCH_MAX="8")
        targets, parameters = {JOB: watched.worker.http_port}, {JOB: watched.parameters}
        try:
            with monitoring(Path(name), targets, parameters) as (prometheus, _):
                began = time.time()
                watched.start()
                tell(watched)
                for board in BOARDS:
                    drawn = draw(board, lambda panel: ask(prometheus, panel, began))
                    (folder / f"{board.uid}.svg").write_text(drawn)
        finally:
            watched.stop()


def ask(prometheus: Prometheus, panel: Panel, began: float) -> list[Series]:
    """Return the series of all queries of a panel, those without a number left out."""
    now = time.time()
    since = now if panel.kind == "bars" else began  # Bars are of now.
    found = []
    for query in panel.queries:
        asked = query.expression.replace("$job", JOB).replace("$__rate_interval", RATE_INTERVAL)
        for each in prometheus.query_range(asked, since, now, STEP_S):
            points = [(float(at), float(value)) for at, value in each["values"]]
            points = [(at - began, value) for at, value in points if math.isfinite(value)]
            if points:
                found.append((legend(query, panel, each["metric"]), points))
    return found


def legend(query: Query, panel: Panel, labels: dict[str, Any]) -> str:
    text = query.legend or panel.title
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", "worker" if name == "instance" else value)
    return re.sub(r"{{\w+}}", "", text).strip()  # Labels that this series has not.


def colour(panel: Panel, value: float) -> str:
    """Return the colour that a value has by its panel's limit."""
    if panel.limit is None:
        return OF_GRAFANA[NEUTRAL]
    return OF_GRAFANA[panel.limit.above if value >= panel.limit.at else panel.limit.below]


def draw(board: Board, data: Callable[[Panel], list[Series]]) -> str:
    """Return the SVG of a dashboard."""
    numbers = [panel for panel in board.panels if panel.kind == "number"]
    others = [panel for panel in board.panels if panel.kind != "number"]
    parts, y = [], GAP
    for panels, height, columns in ((numbers, NUMBER_ROW, 6), (others, ROW, COLUMNS)):
        width = (COLUMNS * COLUMN + (COLUMNS - 1) * GAP - (columns - 1) * GAP) / columns
        for place, panel in enumerate(panels):
            x = GAP + place % columns * (width + GAP)
            top = y + place // columns * (height + GAP)
            parts += _panel(panel, data(panel), x, top, width, height)
        y += -(-len(panels) // columns) * (height + GAP)
    width_all = COLUMNS * (COLUMN + GAP) + GAP
    head = f'viewBox="0 0 {width_all} {y}" width="{width_all}" height="{y}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {head} role="img" '
        f'aria-label="{escape(board.title)}"><style>{STYLE}</style>'
        f'<rect width="{width_all}" height="{y}" fill="#f4f6f8"/>' + "\n".join(parts) + "</svg>\n"
    )


def _panel(
    panel: Panel, series: list[Series], x: float, y: float, width: float, height: float
) -> list[str]:
    frame = f'<rect class="p" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}"/>'
    title = f'<text class="t" x="{x + 8:.0f}" y="{y + 16:.0f}">{escape(panel.title)}</text>'
    if panel.kind == "number":
        last = series[-1][1][-1][1] if series else math.nan
        place = f'x="{x + 8:.0f}" y="{y + 52:.0f}" style="fill:{colour(panel, last)}"'
        return [frame, title, f'<text class="n" {place}>{shown(last, panel.unit)}</text>']
    if panel.kind == "timeline":
        return [frame, title, *_timeline(panel, series, x, y, width)]
    if panel.kind == "bars":
        return [frame, title, *_bars(panel, series, x, y, width)]
    return [frame, title, *_lines(panel, series, x, y, width, height)]


def _bars(panel: Panel, series: list[Series], x: float, y: float, width: float) -> list[str]:
    lasts = [(name, points[-1][1]) for name, points in series][:8]
    most = max([value for _, value in lasts], default=0.0) or 1.0
    parts = []
    for row, (name, value) in enumerate(sorted(lasts, key=lambda each: -each[1])):
        top, length = y + 28 + row * 15, value / most * (width - 180)
        parts.append(
            f'<rect x="{x + 130:.0f}" y="{top:.0f}" width="{length:.0f}" height="10" '
            f'fill="{colour(panel, value)}"/>'
            f'<text x="{x + 8:.0f}" y="{top + 9:.0f}">{escape(name[:30])}</text>'
            f'<text x="{x + 134 + length:.0f}" y="{top + 9:.0f}">'
            f"{shown(value, panel.unit)}</text>"
        )
    return parts


def _timeline(panel: Panel, series: list[Series], x: float, y: float, width: float) -> list[str]:
    end = max((at for _, points in series for at, _ in points), default=0.0) + STEP_S
    parts = []
    for row, (name, points) in enumerate(series[:10]):
        top, left, scale = y + 27 + row * 12, x + 130, (width - 138) / end
        parts.append(f'<text x="{x + 8:.0f}" y="{top + 8:.0f}">{escape(name[:30])}</text>')
        stays: list[tuple[str, float, float]] = []  # A colour, from when, until when.
        for at, value in points:
            of = colour(panel, value)
            if stays and stays[-1][0] == of and at <= stays[-1][2] + STEP_S / 2:
                stays[-1] = of, stays[-1][1], at + STEP_S
            else:
                stays.append((of, at, at + STEP_S))
        parts += [
            f'<rect x="{left + since * scale:.1f}" y="{top:.0f}" '
            f'width="{(until - since) * scale:.1f}" height="9" fill="{of}"/>'
            for of, since, until in stays
        ]
    return parts


def _lines(
    panel: Panel, series: list[Series], x: float, y: float, width: float, height: float
) -> list[str]:
    if not series:
        return [f'<text x="{x + 8:.0f}" y="{y + 60:.0f}">no data</text>']
    end = max(at for _, points in series for at, _ in points)
    most = max(value for _, points in series for _, value in points) or 1.0
    left, top, wide, high = x + 34, y + 24, width - 42, height - 52
    parts = [
        f'<text x="{x + 4:.0f}" y="{top + 6:.0f}">{shown(most, panel.unit)}</text>',
        f'<text x="{x + 4:.0f}" y="{top + high:.0f}">0</text>',
    ]
    for number, (_, points) in enumerate(series):
        path = " ".join(
            f"{left + at / end * wide:.0f},{top + high - max(value, 0) / most * high:.1f}"
            for at, value in points
        )
        parts.append(f'<polyline stroke="{COLOURS[number % 8]}" points="{path}"/>')
    return [*parts, *_legend([name for name, _ in series], x, y + height - 16, width)]


def _legend(names: Sequence[str], x: float, y: float, width: float) -> list[str]:
    parts, at, room = [], x + 8.0, x + width - 8
    for number, name in enumerate(names):
        if at + len(name) * 4.6 > room:
            if y > 0 and number and at > x + 8:
                y, at = y + 10, x + 8.0
            if number > 7:
                break
        colour = COLOURS[number % 8]
        parts.append(f'<text x="{at:.0f}" y="{y:.0f}" style="fill:{colour}">{escape(name)}</text>')
        at += len(name) * 4.6 + 8
    return parts


def shown(value: float, unit: str) -> str:
    """Return a number as a person reads it."""
    if not math.isfinite(value):
        return "no data"
    if unit == "percentunit":
        return f"{value:.3g}" if value > 10 else f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
