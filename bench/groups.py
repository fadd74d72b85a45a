"""Does every group keep the promised flag rate: with one threshold for all, and with one for each?

    python -m bench.groups [--data FOLDER] [--by service] [--rate 0.01] [--preset NAME]
                           [--set NAME=VALUE]... [--seeds 0,1,2]

FOLDER (default: ODRADEK_DATA) is one of `bench.quality`'s; of it the network connections, NSL-KDD,
whose services do not look alike. Rows are shuffled by the seed and halved; the normal ones of the
first half train, those of the second are fresh. The same rows are fitted twice by `odradek-trainer
fit`: as they are, and with `--group-by`. Printed are, of each group that has a threshold of its
own, the fresh events and the share of them that is flagged, mean over seeds, and in how many
seeds that is within what chance explains at 99 %, for all groups of a seed at once.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.detectors import sets
from bench.detectors.options import numbers, parser_of
from schemas.datafiles import FileOptions, read_table, recoded
from schemas.datafiles.groups import NO_GROUP
from trainer.__main__ import main as trainer
from trainer.bands import flag_count_band
from trainer.group_rates import CONFIDENCE, flags
from trainer.groups import GroupPlace, codes_of, rows_by_group
from trainer.presets import PRESETS
from trainer.runtime import SealedModel, open_sealed, run

Cells = npt.NDArray[np.str_]


class Kept(NamedTuple):
    """What became of a group's rate: fresh events, those flagged; whether chance explains it."""

    fresh: int
    flagged: int
    inside: bool


def judged(model: SealedModel, fresh: Path, by: str) -> dict[str, Kept]:
    """Return what became of the rate in each group of fresh normal events, by the group's text."""
    contract = model.contract
    known = {f.name: f.categories for f in contract.features if f.kind == "category"}
    table = read_table(fresh, FileOptions(), contract.features)
    groups = rows_by_group(table, GroupPlace(by, "feature"))
    table = recoded(table, known)
    scores = run(model.session, table.features).score
    flagged = flags(contract, scores, codes_of(contract, table))
    own = {m.text: m.calibration for m in contract.groups.members} if contract.groups else {}
    seen = [place for place in np.unique(groups.codes).tolist() if place != NO_GROUP]
    rate = contract.threshold.target_flag_rate
    found = {}
    for place in seen:
        of = groups.codes == place
        calibration = own.get(groups.texts[place], contract.calibration)
        band = flag_count_band(
            calibration.flagged_max(rate),
            calibration.n,
            int(of.sum()),
            confidence=CONFIDENCE,
            tests=len(seen),
        )
        flags_seen = int(flagged[of].sum())
        found[groups.texts[place]] = Kept(int(of.sum()), flags_seen, band.holds(flags_seen))
    return found


def fitted(train: Path, flags: Sequence[str]) -> SealedModel:
    """Fit a model as on a command line."""
    out, said = train.with_suffix(".onnx"), io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = trainer(["fit", str(train), "--out", str(out), *flags])
    if code:
        raise SystemExit(f"the trainer ended with {code}: {said.getvalue().splitlines()[-1]}")
    return open_sealed(out)


def trials(options: argparse.Namespace) -> Iterator[tuple[SealedModel, dict[str, Kept], bool]]:
    """Yield each model with what became of its groups, and whether it was calibrated by them."""
    cells, symbolic, attack = sets.read_nsl_kdd(options.data)
    with (options.data / "streams" / "nsl-kdd-fields.csv").open() as fields:
        names = [row[0] for row in csv.reader(fields)]
    categories = [name for name, is_one in zip(names, symbolic, strict=True) if is_one]
    told_to = ["--preset", options.preset, "--target-flag-rate", str(options.rate)]
    told_to += [word for setting in options.set for word in ("--set", setting)]
    told_to += [word for name in categories for word in ("--category-column", name)]
    for seed in options.seeds:
        order = np.random.default_rng(seed).permutation(len(cells))
        first, second = np.array_split(order, 2)
        with tempfile.TemporaryDirectory() as folder:
            train = _written(Path(folder) / "train.csv", names, cells[first[~attack[first]]])
            fresh = _written(Path(folder) / "fresh.csv", names, cells[second[~attack[second]]])
            seeded = [*told_to, "--set", f"seed={seed}"]
            for by in ([], ["--group-by", options.by]):
                model = fitted(train, [*seeded, *by])
                yield model, judged(model, fresh, options.by), bool(by)


def _written(path: Path, names: Sequence[str], cells: Cells) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *cells.tolist()])
    return path


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    add = partial(parser.add_argument, metavar="")
    add("--by", default="service", help="the feature that names the group: service")
    add("--rate", type=float, default=0.01, help="the target flag rate: 0.01")
    add("--preset", choices=[*PRESETS], default="default", help="the trainer's")
    add("--set", action="append", default=[], help="passed to the trainer")
    add("--seeds", type=numbers, default=[0, 1, 2], help="default 0,1,2")
    options = parser.parse_args(argv)
    if options.data is None or not sets.nsl_kdd_file(options.data).exists():
        parser.error(f"no NSL-KDD in {options.data}; name its folder with --data or ODRADEK_DATA")
    kept: dict[bool, dict[str, list[Kept]]] = {False: defaultdict(list), True: defaultdict(list)}
    own: set[str] = set()
    for model, found, grouped in trials(options):
        own |= set(model.contract.groups.texts) if model.contract.groups else set()
        for text, one in found.items():
            kept[grouped][text].append(one)
    print(f"flag rate {options.rate:.3%}, by {options.by}, {len(options.seeds)} seed(s)")
    print(f"{'group':16}{'fresh':>8}{'one for all':>14}{'inside':>8}{'its own':>12}{'inside':>8}")
    for text in sorted(own, key=lambda text: -sum(one.fresh for one in kept[True][text])):
        print(f"{text:16}{_fresh(kept[True][text]):8,.0f}", end="")
        print("".join(_cells(kept[grouped][text]) for grouped in (False, True)))
    return 0


def _fresh(seen: Sequence[Kept]) -> float:
    return float(np.mean([one.fresh for one in seen]))


def _cells(seen: Sequence[Kept]) -> str:
    rate = sum(one.flagged for one in seen) / sum(one.fresh for one in seen)
    return f"{rate:12.2%}{sum(one.inside for one in seen):5} of {len(seen)}"


if __name__ == "__main__":
    raise SystemExit(main())
