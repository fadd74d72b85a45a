"""The figures as tables for people: a row is a detector, ours first, then the best first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TypeVar

from bench.detectors.figures import (
    AT_TPR,
    Areas,
    Mean,
    areas,
    auc,
    average_precision,
    by_detector,
    flag_rate,
    margin,
    over_sets,
    rejection,
)
from bench.detectors.measure import NORM
from bench.detectors.published import Column, chosen
from bench.detectors.trials import Outcome, Protocol

T = TypeVar("T")

TITLES: dict[Protocol, str] = {
    "dte": "DTE split: first half of the normals in file order against the rest",
    "shuffled": "Shuffled: as the DTE split, the normals shuffled by the seed first",
    "dean": "DEAN split: as it came with the sets, unscaled",
    "nsl-kdd": "NSL-KDD: normal connections of one half against the other half",
}
_SETS_A_BLOCK = 9
_NAME, _MEAN, _CELL = 22, 13, 13


def area_table(
    protocol: Protocol, outcomes: Sequence[Outcome], ours: Sequence[str], columns: list[Column]
) -> list[str]:
    """Return areas in percent: mean over sets (deviation over seeds), worst margin, each set."""
    found = areas(outcomes)
    names = list(dict.fromkeys(outcome.of for outcome in outcomes))
    whole = {detector: len(of) == len(names) for detector, of in found.items()}
    order = _ordered(found, ours, lambda of: over_sets(of).mean)
    lines = [
        "",
        f"{TITLES[protocol]}. AUROC in percent, ± the deviation over seeds.",
        "margin: the worst set against the higher of norm of x and KNN.",
    ]
    published = chosen(columns, names)
    for start in range(0, len(names), _SETS_A_BLOCK):
        block = names[start : start + _SETS_A_BLOCK]
        head = f"{'mean':>{_MEAN}}{'margin':>8} {'':12}" if start == 0 else ""
        lines.append(f"{'':{_NAME}}{head}" + "".join(f"{name[:11]:>{_CELL}}" for name in block))
        for detector in order:
            of = found[detector]
            total = _total(of, _floors(found)) if whole[detector] else f"{'not all':>{_MEAN}}"
            first = f"{total:{_MEAN + 21}}" if start == 0 else ""
            lines.append(f"{detector:{_NAME}}{first}" + "".join(_cell(of, name) for name in block))
        lines += [_published(column, names, block, first=start == 0) for column in published]
    if published:
        lines.append(
            "(published) are others' figures: the best by their mean over these very sets, and "
            "what can be checked."
        )
    return lines


def lhc57_table(outcomes: Sequence[Outcome], ours: Sequence[str]) -> list[str]:
    """Return each signal's area and rejection."""
    found = by_detector(outcomes)
    signals = outcomes[0].anomalies
    lines = [
        "",
        (
            "lhc57: five folds, every background event tested once. AUC: mean over folds, ± the "
            "deviation over seeds."
        ),
        (
            f"1/FPR at TPR {AT_TPR:g}: false alarms added up over the folds, averaged over seeds; "
            "[95 % interval of Clopper and Pearson on their number, thresholds given]."
        ),
        f"{'':{_NAME}}" + "".join(f"{name:>16}{'1/FPR':>22}" for name in signals),
    ]
    kinds = range(1, len(signals) + 1)
    for detector in _ordered(found, ours, lambda of: fmean(auc(one) for one in of)):
        cells = []
        for kind in kinds:
            seeds = sorted({one.seed for one in found[detector]})
            by_seed = [
                fmean(auc(one, kind) for one in found[detector] if one.seed == seed)
                for seed in seeds
            ]
            area, rejected = Mean.over(by_seed), rejection(found[detector], kind)
            cells.append(f"{area.text('.4f'):>16}{rejected.text():>22}")
        lines.append(f"{detector:{_NAME}}" + "".join(cells))
    return lines


def streams_table(outcomes: Sequence[Outcome], ours: Sequence[str]) -> list[str]:
    """Return area, average precision and flag rate of each stream, by point."""
    found = by_detector(outcomes)
    names = list(dict.fromkeys(outcome.of for outcome in outcomes))
    lines = [
        "",
        (
            "Server metrics, by point, in percent: AUROC | average precision | normal test rows "
            "flagged of those targeted."
        ),
        f"{'':{_NAME}}" + "".join(f"{name:>40}" for name in names),
    ]
    for detector in _ordered(found, ours, lambda of: fmean(auc(one) for one in of)):
        cells = [_stream_cell([one for one in found[detector] if one.of == name]) for name in names]
        lines.append(f"{detector:{_NAME}}" + "".join(f"{cell:>40}" for cell in cells))
    return lines


def cost_table(outcomes: Sequence[Outcome]) -> list[str]:
    """Return what scoring an event costs, the cheapest first."""
    timed = [one for one in outcomes if one.us_per_event is not None]
    lines = [
        "",
        (
            f"Cost of scoring {timed[0].of}, CPU us an event in batches of 1,024, and of fitting "
            f"{timed[0].train_rows:,} rows of {timed[0].features}, CPU s."
        ),
    ]
    for one in sorted(timed, key=lambda one: one.us_per_event or 0):
        lines.append(f"{one.detector:{_NAME}}{one.us_per_event:>10.2f}{one.fit_cpu_s:>10.1f}")
    return lines


def _stream_cell(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "-"
    area = Mean.over([100 * auc(one) for one in outcomes])
    precision = Mean.over([100 * average_precision(one) for one in outcomes])
    rates = [rate for one in outcomes if (rate := flag_rate(one)) is not None]
    cell = f"{area.text()} | {precision.text()}"
    if rates:
        cell += f" | {100 * fmean(rates):.2f} of {100 * (outcomes[0].target_flag_rate or 0):g}"
    return cell


def _floors(found: dict[str, dict[str, list[float]]]) -> list[Areas]:
    return [found[name] for name in (NORM, "KNN") if name in found]


def _total(of: Areas, floors: Sequence[Areas]) -> str:
    worst = margin(of, floors)
    against = "" if worst is None else f"{worst[0]:>+8.1f} {worst[1][:12]}"
    return f"{over_sets(of).text():>{_MEAN}}{against}"


def _cell(of: Areas, name: str) -> str:
    return f"{Mean.over(of[name]).text() if name in of else '-':>{_CELL}}"


def _published(column: Column, names: list[str], block: list[str], *, first: bool) -> str:
    mean = fmean(column.areas[name.lower()] for name in names)
    head = f"{mean:>{_MEAN}.2f}{'':21}" if first else ""
    cells = "".join(f"{column.areas[name.lower()]:>{_CELL}.2f}" for name in block)
    return f"{f'{column.name} (published)'[:_NAME]:{_NAME}}{head}{cells}"


def _ordered(found: dict[str, T], ours: Sequence[str], worth: Callable[[T], float]) -> list[str]:
    """Return ours as they were asked for, then the others by what they are worth."""
    others = [name for name in found if name not in ours]
    return [name for name in ours if name in found] + sorted(
        others, key=lambda name: -worth(found[name])
    )
