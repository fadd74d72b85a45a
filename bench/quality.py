"""How well the trainer's presets detect, beside PyOD's detectors and published figures.

    python -m bench.quality [--data FOLDER] [--protocols a,b] [--sets a,b] [--seeds 0,1,2]
                            [--preset NAME]... [--detector NAME=FLAGS]...
                            [--set NAME=VALUE]... [--one-hot]
                            [--pyod fast|all|none|a,b] [--train-rows-max N]
                            [--contaminate 0,1,2,5,10] [--calibration] [--jobs N] [--fresh]
                            [--cache FOLDER] [--quick] [--json FILE] [--plot FILE]

FOLDER (default: ODRADEK_DATA) is any folder with labelled tables, `*.npz` with X and y, in
FOLDER/tabular or in itself; `bench.detectors.sets` says what else may be there, and
`bench.detectors.splits` what each protocol does with it. What is not there is left out, and said.
Every detector is given the same rows. Ours gets them as they are, and does all else itself: it is
fitted by `odradek-trainer fit`, and the sealed file scores. PyOD's (by its own defaults, in an
environment of its own, made at the first use) and the floor, the squared norm, get rows that are
standardised by the training rows, save on the DEAN split, whose published figures are of raw ones.
Categories (NSL-KDD's) are texts for our trainer, which takes them so, and columns of 0 and 1 for
all others; with `--one-hot` for ours, too.

How choices are made. Nothing in here is chosen by a test's labels: a detector is one fixed recipe
for all sets, thresholds come from training rows, and no seed is left out. But who chose the
trainer's defaults had seen the sets that are marked as visible, labels included, so on those its
figures flatter it; PyOD's were chosen by its makers. Only other sets tell what neither has seen.

`--contaminate` adds trials with anomalies among the training rows (`bench.detectors.dirt`), on
the DTE and shuffled splits that are asked for. `--calibration` adds what became of the threshold's
promise (`bench.detectors.flag_rates`), from the shuffled splits and lhc57's folds: it fits nothing.
The cost of scoring (`bench.detectors.cost`) is measured last, with nothing else running: give
the machine to it.

Outcomes are kept (`--cache`, default .cache/bench/quality) by the rows, the detector and its
version, so that a rerun is cheap; ours are of another version whenever a source of the trainer
changes. The CPU seconds of each fit are printed; the first in a process has some five of warming
up in it. On a busy machine the default took 5 to 15 of them for a set, PyOD's fast ones together
under 10 (its slow ones, DIF and LUNAR, take minutes): for a preset, nine sets with three seeds on
both splits are 54 fits, some ten minutes of a core. lhc57 is 15 fits of twice the rows. `--jobs`
runs so many detectors at a time. Start it in the background (nohup).
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from bench.contenders.environments import EnvironmentUnavailable
from bench.detectors import cache, environment, ours, peers, sets, splits
from bench.detectors.cost import TRAIN_ROWS, cost_task
from bench.detectors.dirt import dirty_tasks
from bench.detectors.findings import plot_of, results, tables
from bench.detectors.measure import NORM, Detector
from bench.detectors.options import check_folder, numbers, parser_of, words
from bench.detectors.runner import Found, Runner
from bench.detectors.trials import Protocol, Task
from bench.report import machine, say, write_json

RESULTS = Path(__file__).parent / "results"
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
SEEDS = (0, 1, 2)
TRAIN_ROWS_MAX = 10_000
# The published figures of smaller sets are of rows drawn again and again until there were so many.
ROWS_MIN = 1_000
_PLACES = frozenset({"data", "cache", "json", "plot"})  # This machine's, and nobody else's concern.
QUICK_ROWS, QUICK_SETS, QUICK_FLAGS = 1_000, 2, ("--set", "epochs=1", "--set", "steps_min=1")


@dataclass(frozen=True)
class Plan:
    """What to measure: trials by what they are for, and who takes part."""

    clean: Sequence[Task]
    dirty: Sequence[Task]
    cost: Sequence[Task]
    detectors: Sequence[Detector]
    ours: Sequence[str]
    notes: Sequence[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write JSON and plot; return the exit code."""
    options = _options(arguments)
    try:
        plan = _plan(options)
    except EnvironmentUnavailable as error:
        say(f"{error}. `--pyod none` does without it")
        return 3
    for note in plan.notes:
        say(note)
    began, found = time.monotonic(), measured(plan, options)
    if ours.sources_version() != plan.detectors[0].version:
        say("warning: the trainer's sources changed while this ran; figures may be of either.")
    seen = {task.of for task in (*plan.clean, *plan.dirty)}
    print(tables(found, plan.ours, plan.notes, seen, options.data, options.calibration))
    out: Path = options.json or RESULTS / (
        "quality-quick.json" if options.quick else "quality.json"
    )
    told = results(found, options.data, seen, options.calibration)
    asked = {name: value for name, value in vars(options).items() if name not in _PLACES}
    write_json(out, {"machine": machine(), "asked": asked, **told})
    drawn = plot_of(found, plan.ours, options.data)
    if drawn is not None:
        (options.plot or out.with_suffix(".svg")).write_text(drawn)
    say(f"{out} is written; all took {time.monotonic() - began:,.0f} s.")
    names = {failure.detector for failure in found.failures}
    return int(bool(names & set(plan.ours)) or not found.outcomes)


def measured(plan: Plan, options: argparse.Namespace) -> Found:
    """Run every trial of the plan, the timed ones last and alone."""
    found = Found()
    if options.jobs:  # For the processes to come; this one's libraries have started already.
        os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    plain = Runner(plan.detectors, options.jobs, say, options.cache, afresh=options.fresh)
    for title, tasks in (("Trials", plan.clean), ("Dirty trials", plan.dirty)):
        if tasks:
            say(f"{title}: {len(tasks)}, each for {len(plan.detectors)} detectors.")
            plain.run(tasks, found)
    if plan.cost:
        say("Cost of scoring, with nothing else of this program running.")
        timed = replace(plain, jobs=min(options.jobs, 1), processor=str(machine()["processor"]))
        timed.run(plan.cost, found)
    return found


def _plan(options: argparse.Namespace) -> Plan:
    folder, seeds, rows_max = options.data, options.seeds, options.train_rows_max
    asked, notes = options.protocols, []
    tabular, small = _tabular(folder, options.sets)
    if small:
        notes.append(
            f"Left out, having fewer than {ROWS_MIN:,} rows (--sets takes them all the same): "
            f"{', '.join(small)}."
        )
    few = QUICK_SETS if options.quick else None
    tabular = dict(list(tabular.items())[:few])
    clean: dict[Protocol, list[Task]] = {
        "dte": splits.tabular_tasks(tabular, "dte", seeds, rows_max),
        "shuffled": splits.tabular_tasks(tabular, "shuffled", seeds, rows_max),
        "dean": splits.split_tasks(
            _named(sets.dean_files(folder), options.sets, few), "dean", seeds, rows_max
        ),
        "streams": splits.split_tasks(
            _named(sets.stream_files(folder), options.sets, few), "streams", seeds, 0
        ),
        "lhc57": [],
        "nsl-kdd": [],
    }
    if (folder / "lhc57.npz").is_file():
        clean["lhc57"] = splits.lhc57_tasks(folder, seeds, rows_max if options.quick else None)
    if sets.nsl_kdd_file(folder).is_file():
        clean["nsl-kdd"] = splits.nsl_kdd_tasks(folder, seeds, rows_max if options.quick else 0)
    absent = [protocol for protocol, tasks in clean.items() if protocol in asked and not tasks]
    if absent:
        notes.append(f"Nothing in the folder for {', '.join(absent)}: left out.")
    dirty = [
        task
        for protocol in ("dte", "shuffled")
        if protocol in asked and options.contaminate
        for task in dirty_tasks(tabular, protocol, seeds, rows_max, options.contaminate)
    ]
    limit = f"{rows_max:,} rows train at most" if rows_max else "all rows train"
    notes.append(f"{limit} on dte, shuffled and dean; all of them elsewhere.")
    return Plan(
        clean=[task for protocol in asked for task in clean.get(protocol, [])],
        dirty=dirty,
        cost=[cost_task(folder, QUICK_ROWS if options.quick else TRAIN_ROWS)]
        if "cost" in asked
        else [],
        detectors=_detectors(options),
        ours=list(options.detector),
        notes=notes,
    )


def _tabular(folder: Path, wanted: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Return the labelled tables to take, and the names of those that are too small."""
    files = _named(sets.tabular_files(folder), wanted)
    small = [] if wanted else [name for name in files if sets.rows_in(files[name]) < ROWS_MIN]
    return {name: path for name, path in files.items() if name not in small}, small


def _named(
    files: dict[str, Path], wanted: Sequence[str], few: int | None = None
) -> dict[str, Path]:
    chosen = {name: path for name, path in files.items() if not wanted or name in wanted}
    return dict(list(chosen.items())[:few])


def _detectors(options: argparse.Namespace) -> list[Detector]:
    version = ours.sources_version()
    flags = [part for setting in options.set for part in ("--set", setting)]
    flags += QUICK_FLAGS if options.quick else ()
    detectors = [
        Detector(
            name,
            "ours",
            version,
            random=True,
            texts=not options.one_hot,
            flags=(*own, *flags),
        )
        for name, own in options.detector.items()
    ]
    if options.pyod:
        python, pins = environment.interpreter(say), " ".join(environment.PINS)
        detectors += [
            Detector(name, "pyod", pins, random=name not in peers.SEEDLESS, python=python)
            for name in options.pyod
        ]
    return [*detectors, Detector(NORM, "floor", "1", random=False)]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    add = partial(parser.add_argument, metavar="")
    switch = partial(parser.add_argument, action="store_true")
    add("--protocols", type=words, default=list(PROTOCOLS), help=f"of {', '.join(PROTOCOLS)}")
    add("--sets", type=words, default=[], help="tables and streams to take; default all")
    add("--seeds", type=numbers, default=None, help="default 0,1,2")
    add("--preset", action="append", help="a preset of the trainer; default default")
    add(
        "--detector",
        type=_named_flags,
        action="append",
        default=[],
        help="NAME=FLAGS of the trainer",
    )
    add("--set", action="append", default=[], help="a setting, passed to the trainer")
    switch("--one-hot", help="give the trainer, too, categories as columns of 0 and 1")
    add(
        "--pyod",
        type=_peers,
        default=None,
        help=f"fast (the default), all, none, or of {', '.join(peers.NAMES)}",
    )
    add("--train-rows-max", type=int, default=None, help=f"default {TRAIN_ROWS_MAX:,}; 0: no limit")
    add("--contaminate", type=_shares, default=[], help="percent of anomalies in training")
    switch("--calibration", help="tell flag rates against their targets")
    add("--jobs", type=int, default=1, help="detectors at a time, default 1; 0: in this process")
    switch("--fresh", help="measure what is known already, too")
    add("--cache", type=Path, default=cache.OUTCOMES, help="where outcomes are kept")
    switch("--quick", help="a self-check of a minute or two; its figures mean nothing")
    add("--json", type=Path, help="where to write the results; default in bench/results")
    add("--plot", type=Path, help="where to draw quality against cost; default beside the JSON")
    options = parser.parse_args(arguments)
    check_folder(parser, options)
    if unknown := set(options.protocols) - set(PROTOCOLS):
        parser.error(f"unknown protocols {sorted(unknown)}; wanted some of {PROTOCOLS}")
    if any(setting.startswith("seed=") for setting in options.set):
        parser.error("--set seed=... is what --seeds is for")
    presets = options.preset or ([] if options.detector else ["default"])
    options.detector = {name: _preset_flags(name) for name in presets} | dict(options.detector)
    options.seeds = options.seeds or (SEEDS[:1] if options.quick else SEEDS)
    if options.pyod is None:
        options.pyod = ["KNN"] if options.quick else _peers("fast")
    if options.train_rows_max is None:
        options.train_rows_max = QUICK_ROWS if options.quick else TRAIN_ROWS_MAX
    return options


def _preset_flags(name: str) -> tuple[str, ...]:
    return () if name == "default" else ("--preset", name)


def _named_flags(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, flags = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text}; wanted a name, =, and flags of the trainer")
    return name, tuple(shlex.split(flags))


def _shares(text: str) -> list[float]:
    shares = sorted({0.0, *map(float, words(text))})  # What is lost is lost against none.
    if not all(0 <= share < 100 for share in shares):
        raise argparse.ArgumentTypeError(f"{text}; wanted percentages from 0 to below 100")
    return shares


def _peers(text: str) -> list[str]:
    if text in {"fast", "all", "none"}:
        return [n for n in peers.NAMES if text == "all" or (text == "fast" and n not in peers.SLOW)]
    names = words(text)
    if unknown := set(names) - set(peers.NAMES):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))}; wanted fast, all, none, or some of {peers.NAMES}"
        )
    return names


if __name__ == "__main__":
    sys.exit(main())
