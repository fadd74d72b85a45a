"""What became of the threshold's promise, and what dirt costs, as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from bench.detectors import flag_rates
from bench.detectors.dirt import real_percent
from bench.detectors.figures import Mean, areas, by_detector, flag_rate, over_sets
from bench.detectors.flag_rates import CONFIDENCE, DRAWS, RATES, Kept, Uniform
from bench.detectors.trials import Outcome

_NAME = 22


def flag_table(shuffled: Sequence[Outcome], drifting: Sequence[Outcome]) -> list[str]:
    """Return the flag rates of fresh normal events by preset, set, seed and target.

    `shuffled` are outcomes on shuffled rows, `drifting` those of the file-order split.
    """
    lines = [
        "",
        "Flag rates of fresh normal events on shuffled rows: n calibrated, m were fresh.",
        f"band: {CONFIDENCE:.0%} of honest counts (beta-binomial, Bonferroni over a rate's lines).",
        f"redrawn: mean rate over {DRAWS} draws of the calibration rows, by the target.",
        "reach: k / (n + 1) by the target, which is what redrawn should be without ties.",
        "drift: the rate on the file-order split, by the target.",
    ]
    for preset, outcomes in by_detector(shuffled).items():
        in_order = [one for one in drifting if one.detector == preset]
        for rate in RATES:
            lines += _of_rate(preset, rate, flag_rates.kept(outcomes, rate), in_order)
        lines += _uniform_lines(preset, flag_rates.uniform(outcomes))
    return lines


def dirt_table(outcomes: Sequence[Outcome], ours: Sequence[str]) -> list[str]:
    """Return areas and flag rates by the share of dirt, means over sets."""
    percents = sorted({one.dirt_percent or 0.0 for one in outcomes})
    head = "".join(f"{f'{percent:g} %':>16}" for percent in percents)
    lines = [
        "",
        f"Dirt ({outcomes[0].protocol}): anomalies in training, by the number of normal rows. Mean",
        "AUROC in percent on test rows that are the same for every share, and what is lost.",
        f"{'':{_NAME}}{head}",
    ]
    found = by_detector(outcomes)
    for detector, of in found.items():
        means = [_mean_area(of, percent) for percent in percents]
        cells = (f"{mean:.2f} ({means[0] - mean:+.2f})" for mean in means)
        lines.append(f"{detector:{_NAME}}" + "".join(f"{cell:>16}" for cell in cells))
    lines.append("Normal test rows flagged, by the target (1 is as promised):")
    for detector in (name for name in ours if name in found):
        cells = (f"{_mean_ratio(found[detector], percent):.2f}" for percent in percents)
        lines.append(f"{detector:{_NAME}}" + "".join(f"{cell:>16}" for cell in cells))
    return [*lines, _real_line(outcomes, percents[-1])]


def _of_rate(
    preset: str, rate: float, kept: Sequence[Kept], drifting: Sequence[Outcome]
) -> list[str]:
    if not kept:
        return [f"{preset}, target {rate:.1%}: no set has enough calibration events."]
    drift = {
        (one.of, one.seed): one.flagged / one.fresh / rate
        for one in flag_rates.kept(drifting, rate)
    }
    lines = [
        f"{preset}, target {rate:.1%}",
        (
            f"{'':{_NAME}}{'seed':>5}{'n':>8}{'m':>8}{'flagged':>9}{'expected':>10}{'band':>14}"
            f"{'':>10}{'redrawn':>9}{'reach':>7}{'drift':>8}"
        ),
    ]
    for one in kept:
        moved = drift.get((one.of, one.seed))
        lines.append(
            f"{one.of:{_NAME}}{one.seed:>5}{one.calibration_events:>8,}{one.fresh:>8,}"
            f"{one.flagged:>9,}{one.reachable * one.fresh:>10.1f}"
            f"{f'{one.band.low:,.0f} to {one.band.high:,.0f}':>14}"
            f"{'' if one.inside else 'OUTSIDE':>10}{one.redrawn / rate:>9.3f}"
            f"{one.reachable / rate:>7.3f}{'-' if moved is None else f'{moved:.2f}':>8}"
        )
    inside = sum(one.inside for one in kept)
    flagged, fresh = sum(one.flagged for one in kept), sum(one.fresh for one in kept)
    lines.append(
        f"  {inside} of {len(kept)} inside the band; {flagged / fresh / rate:.3f} of the target "
        f"flagged in all; redrawn {fmean(one.redrawn for one in kept) / rate:.3f} of the target "
        f"(reach {fmean(one.reachable for one in kept) / rate:.3f})"
    )
    return lines


def _uniform_lines(preset: str, found: Sequence[Uniform]) -> list[str]:
    worst = min(found, key=lambda one: one.chance)
    told = f"{worst.of}, split {worst.split}, seed {worst.seed}, {worst.distance:.3f}"
    all_at_once = min(1.0, worst.chance * len(found))
    return [
        f"{preset}, are p-values of fresh normals uniform? (Kolmogorov-Smirnov of two samples)",
        f"  largest distance {max(one.distance for one in found):.3f}; least likely: {told},",
        f"  its chance {worst.chance:.3f}, as one of {len(found)} {all_at_once:.3f}",
    ]


def _at(outcomes: Sequence[Outcome], percent: float) -> list[Outcome]:
    return [one for one in outcomes if one.dirt_percent == percent]


def _mean_area(outcomes: Sequence[Outcome], percent: float) -> float:
    at = _at(outcomes, percent)
    return over_sets(areas(at)[at[0].detector]).mean if at else float("nan")


def _mean_ratio(outcomes: Sequence[Outcome], percent: float) -> float:
    ratios = [
        rate / one.target_flag_rate
        for one in _at(outcomes, percent)
        if (rate := flag_rate(one)) is not None and one.target_flag_rate
    ]
    return Mean.over(ratios).mean if ratios else float("nan")


def _real_line(outcomes: Sequence[Outcome], percent: float) -> str:
    """Say what share each set really got of the largest that was asked for."""
    rows = {(one.of, one.dirt_percent): one.train_rows for one in outcomes}
    least = min(one.dirt_percent or 0.0 for one in outcomes)
    real = {
        of: real_percent(rows[of, percent], rows[of, least])
        for of in dict.fromkeys(one.of for one in outcomes)
        if (of, percent) in rows and (of, least) in rows
    }
    told = ", ".join(f"{of} {share:.1f}" for of, share in real.items())
    return f"At {percent:g} % asked the sets got (half of their anomalies at most): {told}"
