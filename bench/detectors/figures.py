"""What outcomes are worth: areas, rates, and their mean and spread over seeds.

Ties count one half in an area, as everywhere (`trainer.metrics`). A share is 0 to 1 here; the
tables multiply.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import isinf
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from bench.detectors.trials import Outcome
from trainer import metrics
from trainer.bands import Band, binomial_interval

AT_TPR = 0.3


class Mean(NamedTuple):
    """A mean, and the standard deviation over `of` values; None of a single one."""

    mean: float
    deviation: float | None
    of: int

    @classmethod
    def over(cls, values: Sequence[float]) -> Mean:
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))

    def text(self, form: str = ".2f") -> str:
        spread = "" if self.deviation is None else f" ±{self.deviation:{form}}"
        return f"{self.mean:{form}}{spread}"


class Rejection(NamedTuple):
    """How many background events a signal's threshold lets through, of all that were tested."""

    false_alarms: float
    background: int
    one_over_fpr: Band  # Low and high of the interval; high is infinite at no false alarm.

    def text(self) -> str:
        middle = self.background / self.false_alarms if self.false_alarms else float("inf")
        return f"{middle:,.0f} [{self.one_over_fpr.low:,.0f}, {self.one_over_fpr.high:,.0f}]"

    def figures(self) -> dict[str, float | None]:
        """Return it for programs; None is infinite, which JSON has no number for."""
        low, high = self.one_over_fpr
        return {
            "false_alarms": self.false_alarms,
            "background": self.background,
            "one_over_fpr_low": low,
            "one_over_fpr_high": None if isinf(high) else high,
        }


# The area of each set, one for each seed.
Areas = Mapping[str, Sequence[float]]


def auc(outcome: Outcome, kind: int = 1) -> float:
    """Return the area under the ROC curve of one kind of anomaly against the normal rows."""
    return metrics.roc_auc(outcome.scores_of(0), outcome.scores_of(kind))


def average_precision(outcome: Outcome) -> float:
    """Return the average precision by row."""
    return metrics.average_precision(outcome.scores_of(0), outcome.scores_of(1))


def flag_rate(outcome: Outcome) -> float | None:
    """Return the share of the normal test rows above the sealed threshold, if there is one."""
    if outcome.threshold is None:
        return None
    return metrics.share_above(outcome.scores_of(0), outcome.threshold)


def areas(outcomes: Iterable[Outcome]) -> dict[str, dict[str, list[float]]]:
    """Return the areas in percent by detector and set, in the order of the seeds."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for outcome in sorted(outcomes, key=lambda one: one.seed):
        found[outcome.detector][outcome.of].append(100 * auc(outcome))
    return {detector: dict(of) for detector, of in found.items()}


def over_sets(of: Areas) -> Mean:
    """Return the mean over sets, and its deviation over seeds where each set has as many."""
    counts = {len(values) for values in of.values()}
    if len(counts) == 1:
        return Mean.over([fmean(at_one_seed) for at_one_seed in zip(*of.values(), strict=True)])
    return Mean(fmean(fmean(values) for values in of.values()), None, max(counts))


def margin(of: Areas, floors: Sequence[Areas]) -> tuple[float, str] | None:
    """Return by how much the worst set lies above (or below, negative) the higher of the floors."""
    margins = [
        (fmean(values) - max(fmean(floor[name]) for floor in floors), name)
        for name, values in of.items()
        if floors and all(name in floor for floor in floors)
    ]
    return min(margins) if margins else None


def rejection(outcomes: Sequence[Outcome], kind: int) -> Rejection:
    """Return how well the background is rejected where `AT_TPR` of a signal is kept.

    The outcomes are the folds of one or more seeds. In each fold the threshold is the score that
    this share of the signal reaches, and the fold's background above it is counted; the counts
    add up over the folds, in which every background event is tested once, and are averaged over
    the seeds, which test the same events again. The interval is Clopper's and Pearson's of 95 %
    on that count (rounded) of all background events. It takes the thresholds for given: that
    the signal's events are a sample too is not in it.
    """
    count, background = 0.0, 0
    for outcome in outcomes:
        normal = outcome.scores_of(0)
        share = metrics.false_alarms_at(normal, outcome.scores_of(kind), AT_TPR)
        count += share * len(normal)
        background += len(normal)
    seeds = len({outcome.seed for outcome in outcomes})
    count, background = count / seeds, round(background / seeds)
    fpr = binomial_interval(round(count), background)
    high = 1 / fpr.low if fpr.low else float("inf")
    return Rejection(count, background, Band(1 / fpr.high, high))


def by_detector(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Return the outcomes of each detector, in the order in which they first appear."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.detector, []).append(outcome)
    return found


def figures(outcome: Outcome) -> dict[str, object]:
    """Return all that is told of one outcome, for programs."""
    return {
        "protocol": outcome.protocol,
        "set": outcome.of,
        "split": outcome.split,
        "seed": outcome.seed,
        "detector": outcome.detector,
        "version": outcome.version,
        "dirt_percent": outcome.dirt_percent,
        "train_rows": outcome.train_rows,
        "features": outcome.features,
        "normal_tested": len(outcome.scores_of(0)),
        "unscored": outcome.unscored,
        "auc": {name: auc(outcome, kind) for kind, name in enumerate(outcome.anomalies, start=1)},
        "average_precision": average_precision(outcome),
        "threshold": outcome.threshold,
        "target_flag_rate": outcome.target_flag_rate,
        "flag_rate": flag_rate(outcome),
        "calibration_events": None
        if outcome.calibration is None
        else len(np.frombuffer(outcome.calibration, "<f8")),
        "fit_cpu_s": outcome.fit_cpu_s,
        "us_per_event": outcome.us_per_event,
    }
