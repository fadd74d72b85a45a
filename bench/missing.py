"""How well a model detects when values are missing.

    python -m bench.missing [--data FOLDER] [--sets a,b] [--percents 10,30] [--preset NAME]...
                            [--set NAME=VALUE]... [--seeds 0,1,2] [--train-rows-max N]
                            [--json FILE]

FOLDER (default: ODRADEK_DATA) is one of `bench.quality`'s; of it the labelled tables, shuffled and
halved, and the collision events, the first fold (`bench.detectors.splits`). In the test rows each
value goes missing by itself with the chance of the percentage, whatever it is, and normal rows and
anomalies alike. A model is fitted by `odradek-trainer fit` to complete rows, and one to rows that
miss as much; PyOD's detectors take no missing values, so none is beside it.

Printed is the area under the ROC curve in percent, the mean over seeds (and over the signals of
the collision events), and in brackets how much of the area on complete rows that is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np

from bench.detectors import ours, sets, splits
from bench.detectors.options import check_folder, numbers, parser_of, words
from bench.detectors.trials import DetectorFailed, Rows, Scores, Trial
from bench.report import machine, say, write_json
from trainer.metrics import roc_auc
from trainer.presets import PRESETS

RESULTS = Path(__file__).parent / "results" / "missing.json"
# Small ones of several kinds, and the collision events.
SETS = ("cardio", "pendigits", "thyroid", sets.LHC57)
TRAIN_ROWS_MAX = 10_000


@dataclass(frozen=True)
class Area:
    """The area under the ROC curve, 0 to 1, and how much was missing in training and test."""

    preset: str
    of: str
    seed: int
    train_percent: float
    test_percent: float
    auc: float
    unscored: int


def with_holes(rows: Rows, percent: float, draws: np.random.Generator) -> Rows:
    """Return the rows [n, d] with each value missing by the chance of `percent`."""
    holes = draws.random(rows.shape) < percent / 100
    punched: Rows = np.where(holes, np.nan, rows)
    return punched


def areas(
    trial: Trial, preset: str, percents: Sequence[float], settings: Sequence[str] = ()
) -> Iterator[Area]:
    """Fit on complete rows and on such with holes, and yield the area on each kind of test rows.

    Raises:
        DetectorFailed: the trainer refused; with its words.
    """
    draws = np.random.default_rng(trial.seed)
    punched = {0.0: trial.test, **{one: with_holes(trial.test, one, draws) for one in percents}}
    flags = ("--preset", preset, *(part for one in settings for part in ("--set", one)))
    for trained in punched:
        train = with_holes(trial.train, trained, draws)
        # Once fitted, a model scores all that it is to be measured on.
        tested = list(punched) if trained == 0 else [trained]
        test = np.concatenate([punched[percent] for percent in tested])
        one = replace(trial, train=train, test=test, kinds=np.tile(trial.kinds, len(tested)))
        scores = ours.fit_and_score(one, flags, texts=False, timed=False).scores
        for percent, part in zip(tested, np.split(scores, len(tested)), strict=True):
            auc, unscored = _auc(part, trial), int((~np.isfinite(part)).sum())
            yield Area(preset, trial.of, trial.seed, trained, percent, auc, unscored)


def table(found: Sequence[Area], percents: Sequence[float]) -> str:
    """Return the areas for people: a row for a preset and how much is missing, a column a set."""
    names = list(dict.fromkeys(area.of for area in found))
    lines = [f"{'':34}" + "".join(f"{name[:14]:>16}" for name in [*names, "mean"])]
    for preset in dict.fromkeys(area.preset for area in found):
        complete = [_mean(found, preset, name, 0, 0) for name in names]
        lines.append(_row(f"{preset}, nothing missing", complete, complete))
        for percent in percents:
            for trained, also in ((0.0, ""), (percent, ", and in training")):
                here = [_mean(found, preset, name, trained, percent) for name in names]
                lines.append(_row(f"  {percent:g} %{also}", here, complete))
    unscored = sum(area.unscored for area in found)
    if unscored:
        lines.append(f"{unscored:,} rows had too little left for a score: they count nowhere.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write JSON; return the exit code."""
    options = _options(arguments)
    found: list[Area] = []
    for trial in _trials(options):
        for preset in options.preset:
            try:
                for area in areas(trial, preset, options.percents, options.set):
                    found.append(area)
                    say(
                        f"{area.preset} {area.of} seed {area.seed}, missing in training "
                        f"{area.train_percent:g} %, in the test {area.test_percent:g} %: "
                        f"{100 * area.auc:.2f}"
                    )
            except DetectorFailed as error:
                say(f"{preset} FAILED on {trial.name}: {error}")
                return 1
    print(table(found, options.percents))
    write_json(options.json, {"machine": machine(), "areas": [asdict(area) for area in found]})
    return 0


def _trials(options: argparse.Namespace) -> Iterator[Trial]:
    files = sets.tabular_files(options.data)
    for name in options.sets:
        for seed in options.seeds:
            if name == sets.LHC57:
                trial = splits.folded(*sets.read_lhc57(options.data), fold=0, seed=seed)
            else:
                held = sets.read_tabular(name, files[name])
                trial = splits.halves(held, "shuffled", seed, 0)
            limit = options.train_rows_max or len(trial.train)
            yield replace(trial, train=trial.train[:limit])  # Their order is random already.


def _auc(scores: Scores, trial: Trial) -> float:
    """Return the mean area over the kinds of anomalies, of the rows that have a score."""
    scored = np.isfinite(scores)
    normal = scores[scored & (trial.kinds == 0)]
    kinds = range(1, len(trial.anomalies) + 1)
    return fmean(roc_auc(normal, scores[scored & (trial.kinds == kind)]) for kind in kinds)


def _mean(found: Sequence[Area], preset: str, of: str, trained: float, tested: float) -> float:
    wanted = (preset, of, trained, tested)
    return fmean(
        area.auc
        for area in found
        if (area.preset, area.of, area.train_percent, area.test_percent) == wanted
    )


def _row(title: str, here: Sequence[float], complete: Sequence[float]) -> str:
    pairs = [*zip(here, complete, strict=True), (fmean(here), fmean(complete))]
    cells = [f"{100 * auc:.1f} ({100 * auc / whole:.1f} %)" for auc, whole in pairs]
    return f"{title:34}" + "".join(f"{cell:>16}" for cell in cells)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    add = partial(parser.add_argument, metavar="")
    add("--sets", type=words, default=list(SETS), help=f"default {','.join(SETS)}")
    add("--percents", type=_percents, default=[10.0, 30.0], help="of values missing: 10,30")
    add("--preset", action="append", choices=[*PRESETS], help="may be repeated: default, dense")
    add("--set", action="append", default=[], help="passed to the trainer")
    add("--seeds", type=numbers, default=[0, 1, 2], help="default 0,1,2")
    add("--train-rows-max", type=int, default=TRAIN_ROWS_MAX, help="default 10,000; 0: no limit")
    add("--json", type=Path, default=RESULTS, help="where to write the results")
    options = parser.parse_args(arguments)
    check_folder(parser, options)
    known = {*sets.tabular_files(options.data)}
    known |= {sets.LHC57} if (options.data / "lhc57.npz").is_file() else set()
    if absent := [name for name in options.sets if name not in known]:
        parser.error(f"not in {options.data}: {', '.join(absent)}; there are {sorted(known)}")
    options.preset = options.preset or ["default", "dense"]
    return options


def _percents(text: str) -> list[float]:
    percents = sorted({*map(float, words(text))})
    if not percents or not all(0 < percent < 100 for percent in percents):
        raise argparse.ArgumentTypeError(f"{text}; wanted percentages above 0 and below 100")
    return percents


if __name__ == "__main__":
    sys.exit(main())
