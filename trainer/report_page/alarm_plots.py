"""How well alarms tell, and whether their rate is what was promised: on labelled events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.calibration import Calibration
from trainer.bands import flag_count_band
from trainer.metrics import Scores, Shares, roc_curve
from trainer.report_page.drawing import (
    ANOMALY,
    BAND,
    FAINT,
    FRESH,
    INK,
    PERCENT,
    axis,
    draw,
    layer,
    log_axis,
    shares,
)
from trainer.report_page.labelled import Labelled
from trainer.report_page.parts import Listing, Plot, percent, written

CONFIDENCE = 0.99
_POINTS_MAX = 150
_RATES = 25
_RATE_MAX = 0.5
_BINS = 20
_LINE = {"type": "line", "strokeWidth": 2}
_DASHED = {"type": "line", "color": FAINT, "strokeDash": [4, 4]}
_RULE = {"type": "rule", "color": INK, "strokeDash": [6, 4]}
_SHADE = {"type": "area", "color": BAND}
_SHADE_BAR = {"type": "rect", "color": BAND}
_BAR = {"type": "rect", "color": FRESH}


def roc(labelled: Labelled) -> Plot:
    """Plot the anomalies found against the normal events flagged, on a logarithmic axis."""
    normal, anomalous = labelled.normal, labelled.anomalous
    fpr, tpr = roc_curve(normal, anomalous)
    floor = 0.5 / len(normal)
    x = log_axis("fpr", "normal events flagged (false positive rate)", floor, 1, PERCENT)
    y = shares("tpr", "anomalies found (true positive rate)", scale={"domain": [0, 1]})
    shown = _corners(fpr)
    curve = [{"fpr": float(fpr[place]), "tpr": float(tpr[place])} for place in shown]
    chance = [{"fpr": float(a), "tpr": float(a)} for a in np.geomspace(floor, 1, 60)]
    at = labelled.evaluation
    text = f"the model's threshold: {percent(at.tpr)} found, {percent(at.fpr)} flagged"
    point = {"fpr": max(at.fpr, floor), "tpr": at.tpr}
    dot = {"type": "point", "filled": True, "size": 110, "color": INK, "opacity": 1}
    svg = draw(
        [
            layer(chance, _DASHED, x=x, y=y),
            layer(curve, {**_LINE, "color": ANOMALY}, x=x, y=y),
            layer([point], dot, x=x, y=y),
        ],
        above=f"● {text}",
    )
    return Plot(
        "Anomalies found against false alarms",
        f"ROC curve with a logarithmic axis of false positives; area {at.auc:.4f}; {text}.",
        svg,
        f"Each point of the line is a threshold; the dot is the model's own. A share of false "
        f"alarms below one in {len(normal):,} cannot be told and lies on the left edge. The dashed "
        "line is chance.",
        Listing.of(
            "What other thresholds would have done",
            ("normal events flagged", "that many of them", "anomalies found"),
            [_found_at(normal, anomalous, rate) for rate in _rates_of(len(normal))],
        ),
    )


class ObservedRate(NamedTuple):
    """What a target flag rate came to on labelled normal events, and what chance explains."""

    rate: float
    observed: float
    flagged: int
    low: float
    high: float

    @property
    def explained(self) -> bool:
        return self.low <= self.observed <= self.high


def flag_rates(
    calibration: Calibration, normal: Scores, rates: Sequence[float]
) -> list[ObservedRate]:
    """Return what each of these target rates, which the calibration supports, came to."""
    m = len(normal)
    p_values = np.sort(calibration.p_values(normal))
    found = []
    for rate in rates:
        k = calibration.flagged_max(rate)
        band = flag_count_band(k, calibration.n, m, confidence=CONFIDENCE)
        flagged = int(np.searchsorted(p_values, rate, side="right"))
        found.append(ObservedRate(rate, flagged / m, flagged, band.low / m, band.high / m))
    return found


def calibration_plot(calibration: Calibration, normal: Scores, target: float) -> Plot:
    """Plot the flag rate that labelled normal events have against the one that was asked for."""
    n, m, lowest = calibration.n, len(normal), calibration.smallest_rate
    wanted = np.append(np.geomspace(lowest, max(_RATE_MAX, lowest), _RATES), target)
    rates = np.unique(wanted[wanted >= lowest]).tolist()
    found = flag_rates(calibration, normal, rates)
    bottom = min(lowest, 0.5 / m)
    x = log_axis("rate", "target flag rate", lowest, max(rates[-1], 2 * lowest), PERCENT)
    y = log_axis("observed", "observed flag rate", bottom, 1, PERCENT)
    ends = [{"rate": rate, "observed": rate} for rate in (rates[0], rates[-1])]
    rows = [point._asdict() for point in found]
    svg = draw(
        [
            layer(rows, _SHADE, x=x, y={**y, "field": "low"}, y2={"field": "high"}),
            layer(ends, _DASHED, x=x, y=y),
            layer(rows, {**_LINE, "color": FRESH, "point": {"color": FRESH, "size": 40}}, x=x, y=y),
            *([layer([{"rate": target}], _RULE, x=x)] if target >= lowest else []),
        ]
    )
    outside = sum(not point.explained for point in found)
    return Plot(
        "Flag rate: promised and observed",
        f"Observed against target flag rate of {m:,} labelled normal events, both logarithmic; "
        f"{outside} of {len(found)} points lie outside the 99% band.",
        svg,
        f"Dots are what was observed; a promise kept to the letter would lie on the dashed "
        f"diagonal. The shade holds what chance explains, 99% at each rate: both the {n:,} "
        f"calibration events and the {m:,} labelled normal ones are samples. Where none is "
        "flagged, the dot lies on the lower edge. The dashed upright line is the model's target, "
        "if it is a rate that calibration events bear out.",
        Listing.of(
            "Flag rates",
            ("target", "observed", "flagged", "99% band"),
            [
                (percent(point.rate), percent(point.observed), point.flagged, _band(point, percent))
                for point in found
            ],
        ),
    )


class PValueBin(NamedTuple):
    """The events whose p-value is above `start` and at most `end`; 1 is as many as expected."""

    start: float
    end: float
    events: int
    relative: float
    low: float
    high: float


def p_value_bins(calibration: Calibration, normal: Scores) -> list[PValueBin]:
    """Count p-values in ranges that hold equally many of the possible ones, nearly.

    p-values are whole multiples of 1 / (n + 1): with few calibration events there are few.
    """
    n, m = calibration.n, len(normal)
    # A tail that extrapolates gives p-values below the lowest rank.
    ranks = np.rint(calibration.p_values(normal) * (n + 1)).astype(int).clip(1)
    edges = np.unique(np.linspace(0, n + 1, _BINS + 1).round().astype(int))
    counts = np.histogram(ranks, edges + 0.5)[0].tolist()
    bins = []
    for start, end, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts, strict=True):
        expected = m * (end - start) / (n + 1)
        # By exchangeability a range of j ranks holds as many as a threshold that flags j.
        band = flag_count_band(min(end - start, n), n, m, confidence=CONFIDENCE)
        low, high = band.low / expected, band.high / expected
        place = start / (n + 1), end / (n + 1)
        bins.append(PValueBin(*place, count, count / expected, low, high))
    return bins


def p_value_plot(calibration: Calibration, normal: Scores) -> Plot:
    """Plot how the p-values of labelled normal events are spread; 1 is even."""
    bins = p_value_bins(calibration, normal)
    rows = [{**one._asdict(), "zero": 0} for one in bins]
    x = axis("start", "p-value", scale={"domain": [0, 1]}, axis={"tickCount": 6})
    top = 1.05 * max(max(one.relative, one.high) for one in bins)
    y = axis(
        "relative",
        "events, relative to an even spread",
        axis={"tickCount": 5},
        scale={"domain": [0, top], "nice": False},
    )
    x2, bar = {"field": "end"}, {**_BAR, "fillOpacity": 0.45, "stroke": FRESH}
    svg = draw(
        [
            layer(rows, _SHADE_BAR, x=x, x2=x2, y={**y, "field": "low"}, y2={"field": "high"}),
            layer(rows, bar, x=x, x2=x2, y=y, y2={"field": "zero"}),
            layer([{"relative": 1}], _RULE, y=y),
        ]
    )
    relative = [one.relative for one in bins]
    return Plot(
        "p-values of labelled normal events",
        f"Histogram of the p-values of {len(normal):,} labelled normal events in {len(bins)} "
        f"ranges, relative to an even spread: {min(relative):.2f} to {max(relative):.2f}.",
        svg,
        "The p-values of normal events like those of the calibration are spread evenly: all bars "
        "near 1. The shade holds what chance explains, 99% for each bar. Bars that rise to the "
        "left mean that these events are stranger than those; to the right, that they are tamer.",
        Listing.of(
            "p-values",
            ("p-value", "events", "relative", "99% band"),
            [
                (f"{one.start:.3g} to {one.end:.3g}", one.events, one.relative, _band(one, written))
                for one in bins
            ],
        ),
    )


def _band(point: ObservedRate | PValueBin, form: Callable[[float], str]) -> str:
    return f"{form(point.low)} to {form(point.high)}"


def _corners(fpr: Shares) -> npt.NDArray[np.int64]:
    """Return the places of the curve to draw: where it rises, its foot and its top alone.

    The places lie closer together the fewer false alarms there are, as on the axis.
    """
    feet = np.flatnonzero(np.diff(fpr, prepend=-1) > 0)
    tops = np.append(feet[1:] - 1, len(fpr) - 1)
    wanted = np.geomspace(1, len(feet), min(len(feet), _POINTS_MAX)).round().astype(int) - 1
    return np.unique(np.concatenate([feet[wanted], tops[wanted]]))


def _rates_of(normal_events: int) -> list[float]:
    """Return the false positive rates that this many events can tell: 10 % down to one event."""
    rates = [0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 1e-4, 1e-5]
    return [rate for rate in rates if rate * normal_events >= 1]


def _found_at(normal: Scores, anomalous: Scores, rate: float) -> tuple[str, int, str]:
    """Return what the threshold that flags at most this share of normal events would find."""
    flagged = int(rate * len(normal) + 1e-9)
    threshold = np.sort(normal)[::-1][flagged]
    above = int((normal > threshold).sum())
    return f"at most {percent(rate)}", above, percent(float((anomalous > threshold).mean()))
