"""Where scores lie: their distribution, and how many events reach each score.

Scores are never negative and span powers of ten, so their axis is logarithmic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.calibration import Calibration, Tail
from trainer.metrics import Scores
from trainer.report_page.drawing import (
    ANOMALY,
    FRESH,
    INK,
    NORMAL,
    PERCENT,
    Spec,
    coloured,
    dashed,
    draw,
    layer,
    log_axis,
    shares,
)
from trainer.report_page.parts import Listing, Plot, percent, written

_FRESH = "labelled normal events"
_BINS = 60
# Above the highest bar there is room for the threshold's name.
_HEADROOM = 1.15
_POINTS_MAX = 200
# Scores this far below the median are one as normal as the other, and share the first bin.
_FLOOR_OF_MEDIAN = 1e-3
_TAIL_CAPTION = " The fine line is the fitted tail: beyond the events, an extrapolation."
_DOTTED = {"type": "rule", "color": INK, "strokeDash": [2, 3]}
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0)


class Series(NamedTuple):
    """Scores of one kind of event, ascending [n], and how many events each stands for [n]."""

    name: str
    colour: str
    scores: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]

    @property
    def events(self) -> int:
        return int(self.counts.sum())

    def at_least(self) -> npt.NDArray[np.float64]:
        """Return the share of events at or above each score, [n]."""
        reached: npt.NDArray[np.float64] = self.counts[::-1].cumsum()[::-1] / self.counts.sum()
        return reached

    def quantile(self, share: float) -> float:
        """Return the lowest score below or at which lies at least this share of the events."""
        reached = self.counts.cumsum() / self.counts.sum()
        return float(self.scores[min(int(np.searchsorted(reached, share)), len(reached) - 1)])


def calibration_series(calibration: Calibration) -> Series:
    scores = calibration.scores.astype(np.float64)
    counts = calibration.counts
    each = np.ones(len(scores)) if counts is None else np.frombuffer(counts, "<u4")
    return Series("calibration events", NORMAL, scores, each.astype(np.int64))


def normal_series(scores: Scores) -> Series:
    return _series(_FRESH, FRESH, scores)


def anomaly_series(scores: Scores) -> Series:
    return _series("labelled anomalies", ANOMALY, scores)


def distribution(kinds: Sequence[Series], threshold: float) -> Plot:
    """Plot the share of events in each range of scores."""
    low, high = _range(kinds, threshold)
    edges = np.geomspace(low, high, _BINS + 1)
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        place = np.searchsorted(edges, kind.scores, side="right").clip(1, _BINS) - 1
        heights = np.bincount(place, kind.counts, _BINS) / kind.events
        rows += [
            {"series": kind.name, "score": float(edge), "share": float(share)}
            for edge, share in zip(edges, np.append(heights, heights[-1]), strict=True)
        ]
    highest = max(row["share"] for row in rows)
    mark = {"type": "area", "interpolate": "step-after", "fillOpacity": 0.3, "line": True}
    svg = draw(
        [
            layer(
                rows,
                mark,
                x=log_axis("score", "score", low, high),
                y=shares("share", "share of events", scale={"domain": [0, _HEADROOM * highest]}),
                color=_legend(kinds),
            ),
            *_threshold_rule(threshold, low, high),
        ]
    )
    columns = ("at most this score", *(f"{kind.name} ({kind.events:,})" for kind in kinds))
    numbers = [(percent(share), *(kind.quantile(share) for kind in kinds)) for share in _QUANTILES]
    median = ", ".join(f"{kind.name} {written(kind.quantile(0.5))}" for kind in kinds)
    return Plot(
        "How scores are distributed",
        f"Histogram of scores on a logarithmic axis; medians: {median}; threshold {threshold:.4g}.",
        svg,
        f"Share of events in each of {_BINS} equal steps of the score's logarithm; events below "
        "the axis are in the first step. What lies right of the dashed line is flagged.",
        Listing.of("Quantiles of the score", columns, numbers),
    )


def exceedance(kinds: Sequence[Series], threshold: float, rate: float, tail: Tail | None) -> Plot:
    """Plot the share of events that score at least as high, both axes logarithmic."""
    low, high = _range(kinds, threshold)
    # Below the smallest share of any kind, and of the target.
    floor = 0.5 * min(rate, *(1 / kind.events for kind in kinds))
    rows = [
        {"series": kind.name, "score": float(kind.scores[place]), "share": float(reached[place])}
        for kind in kinds
        for reached in [kind.at_least()]
        for place in _thinned(len(reached))
    ]
    x = log_axis("score", "score", low, high)
    # Above 100 % there is room for the threshold's name, and nothing else.
    y = log_axis("share", "share at or above the score", floor, 3, PERCENT)
    y["axis"]["values"] = [tick for tick in y["axis"]["values"] if tick <= 1]
    svg = draw(
        [
            layer(
                rows,
                {"type": "line", "interpolate": "step-before", "strokeWidth": 2},
                x=x,
                y=y,
                color=_legend(kinds),
                strokeDash=dashed([kind.name for kind in kinds], _FRESH),
            ),
            *([_tail_line(tail, floor, x, y)] if tail else []),
            layer([{"share": rate}], _DOTTED, y=y),
            *_threshold_rule(threshold, low, high),
        ]
    )
    columns = ("score", *(kind.name for kind in kinds))
    levels = [kinds[0].quantile(1 - share) for share in (0.5, 0.1, 0.01, 0.001)]
    numbers = [
        (level, *(percent(float(kind.counts[kind.scores >= level].sum() / kind.events))
                  for kind in kinds))
        for level in (*levels, threshold, 10 * threshold)
    ]  # fmt: skip
    return Plot(
        "How many events reach a score",
        f"Share of events at or above each score, both axes logarithmic; the threshold "
        f"{threshold:.4g} meets the target flag rate {percent(rate)}.",
        svg,
        "To ask for another flag rate, find it on the left axis: the calibration events' line "
        "gives its threshold, the other lines what it would have done. The dotted line is the "
        "target flag rate, the dashed one the threshold." + (_TAIL_CAPTION if tail else ""),
        Listing.of("Share of events at or above a score", columns, numbers),
    )


def _tail_line(tail: Tail, floor: float, x: Spec, y: Spec) -> Spec:
    """Return the line of the p-values that the tail gives, down to the plot's floor."""
    rows = [
        {"score": score, "share": p_value}
        for score, p_value in zip(*(column.tolist() for column in tail.steps), strict=True)
        if p_value > floor
    ]
    mark = {"type": "line", "interpolate": "step-after", "color": INK, "strokeWidth": 1}
    return layer(rows[:: max(1, len(rows) // _POINTS_MAX)], mark, x=x, y=y)


def _series(name: str, colour: str, scores: Scores) -> Series:
    return Series(name, colour, np.sort(scores.astype(np.float64)), np.ones(len(scores), np.int64))


def _range(kinds: Sequence[Series], threshold: float) -> tuple[float, float]:
    """Return where the axis of scores begins and ends; both positive, and apart."""
    positive = [kind.scores[kind.scores > 0] for kind in kinds]
    smallest = min((float(scores[0]) for scores in positive if len(scores)), default=0.1)
    low = max(smallest, _FLOOR_OF_MEDIAN * kinds[0].quantile(0.5))
    high = max(threshold, *(float(kind.scores[-1]) for kind in kinds))
    return (low, high) if high > 1.001 * low else (low / 2, 2 * low)


def _thinned(points: int) -> list[int]:
    """Return places that show the whole and, finer and finer, the top."""
    from_top = np.geomspace(1, points, min(points, _POINTS_MAX)).round().astype(int)
    return sorted({0, *(points - from_top)})


def _legend(kinds: Sequence[Series]) -> Spec:
    return coloured([kind.name for kind in kinds], [kind.colour for kind in kinds])


def _threshold_rule(threshold: float, low: float, high: float) -> list[Spec]:
    """Return the dashed line at the threshold, and its name beside it."""
    right = np.log(threshold / low) > 0.7 * np.log(high / low) if threshold > low else False
    label = {
        "type": "text",
        "text": f"threshold {threshold:.4g}",
        "align": "right" if right else "left",
        "dx": -6 if right else 6,
        "y": 10,
        "color": INK,
        "fontSize": 12,
    }
    x = log_axis("score", "score", low, high)
    rule = {"type": "rule", "color": INK, "strokeDash": [6, 4], "strokeWidth": 1.5}
    return [layer([{"score": threshold}], mark, x=x) for mark in (rule, label)]
