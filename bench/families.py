"""What the network families are worth and cost: AUC, parameters and CPU time, a row for each.

    python -m bench.families DATA                 every family on every data set, some minutes
    python -m bench.families DATA --steps 5000    trained longer
    python -m bench.families DATA --models KEPT   keep the models there; those there are not fitted

DATA is a folder with `lhc57.npz` (collision events, 19 objects of 3 values) and
`tabular/28_pendigits.npz` (handwriting, 8 points of 2 coordinates); one that is absent is left
out, and said. Every family is fitted with its defaults by the trainer's own program, for the same
number of steps on each set, and sees normal events alone; labels only tell what the AUC was. The
normal events are shuffled; four fifths of lhc57's train and half of pendigits's, the rest test.

The cost is onnxruntime's on one thread for batches of 1,024 events of the data set, in CPU time
of that thread: the families are timed by turns, and the median of the batches counts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from bench.report import machine, say, write_json
from schemas.calibration import Floats
from trainer.__main__ import main as trainer
from trainer.metrics import false_alarms_at, roc_auc
from trainer.network import build
from trainer.runtime import BATCH_ROWS, SealedModel, open_sealed, run
from trainer.settings import TrainingSettings

RESULTS = Path(__file__).parent / "results" / "families.json"
STEPS = 1_500
SEED = 0
TURNS = 31
TRUE_POSITIVE_RATE = 0.3
FAMILIES = ("dense", "conv", "lstm", "gru")


@dataclass(frozen=True)
class DataSet:
    """Events [n, d] of a shape: normal ones to train and to test on, and anomalies by kind."""

    name: str
    shape: str
    train: Floats
    test: Floats
    anomalies: Mapping[str, Floats]


@dataclass(frozen=True)
class Worth:
    """A family on a data set. `background_rejection` is 1 / FPR at the rate above, by kind."""

    data: str
    family: str
    auc: dict[str, float]
    background_rejection: dict[str, float]
    parameters: int
    us_per_event: float


def read(folder: Path) -> list[DataSet]:
    """Return the data sets that are there."""
    found = []
    for path, reader in (
        (folder / "lhc57.npz", _lhc57),
        (folder / "tabular" / "28_pendigits.npz", _pendigits),
    ):
        if path.exists():
            found.append(reader(path))
        else:
            say(f"{path} is absent, and left out")
    return found


def fit(data: DataSet, family: str, steps: int, out: Path) -> None:
    """Fit the family with its defaults and seal it at `out`.

    Raises:
        SystemExit: the trainer refused; it has said why.
    """
    flags = ["--set", f"family={family}", "--set", "epochs=1", "--set", f"steps_min={steps}"]
    flags += ["--event-shape", data.shape] if family != "dense" else []
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        events = Path(folder) / "normal.npz"
        np.savez(events, X=data.train)
        code = trainer(["fit", str(events), "--out", str(out), *flags])
    if code:
        raise SystemExit(code)


def worth(data: DataSet, family: str, model: SealedModel, us_per_event: float) -> Worth:
    """Return what a fitted family is worth on the events that were kept from it."""
    normal = run(model.session, data.test).score
    scores = {kind: run(model.session, rows).score for kind, rows in data.anomalies.items()}
    settings = TrainingSettings.model_validate(model.contract.training["settings"])
    network = build(settings, data.train.shape[1])
    return Worth(
        data=data.name,
        family=family,
        auc={kind: roc_auc(normal, found) for kind, found in scores.items()},
        background_rejection={
            kind: 1 / max(false_alarms_at(normal, found, TRUE_POSITIVE_RATE), 1 / len(normal))
            for kind, found in scores.items()
        },
        parameters=sum(part.numel() for part in network.parameters()),
        us_per_event=us_per_event,
    )


def costs(models: Mapping[str, SealedModel], data: DataSet) -> dict[str, float]:
    """Return the CPU microseconds per event of each model, all timed by turns."""
    rows = np.resize(data.test, (BATCH_ROWS, data.test.shape[1]))
    taken_ns: dict[str, list[int]] = {family: [] for family in models}
    for _ in range(TURNS):
        for family, model in models.items():
            began_ns = time.thread_time_ns()
            run(model.session, rows)
            taken_ns[family].append(time.thread_time_ns() - began_ns)
    return {family: median(taken) / BATCH_ROWS / 1000 for family, taken in taken_ns.items()}


def table(found: Sequence[Worth]) -> str:
    """Return the results for people: a row for each family, grouped by data set."""
    lines = []
    for data in dict.fromkeys(one.data for one in found):
        ours = [one for one in found if one.data == data]
        kinds = "".join(f"{f'AUC {kind}':>14}" for kind in ours[0].auc)
        lines += ["", f"{data:14}{kinds}{'parameters':>12}{'us/event':>10}"]
        for one in ours:
            aucs = "".join(f"{auc:>14.4f}" for auc in one.auc.values())
            lines.append(f"  {one.family:12}{aucs}{one.parameters:>12,}{one.us_per_event:>10.2f}")
    return "\n".join(lines)


def _lhc57(path: Path) -> DataSet:
    held = np.load(path, allow_pickle=False)
    events = {name: _flat(held[name]) for name in ("background", "a4l", "lq", "h0tt")}
    train, test = _split(events.pop("background"), 0.8)
    return DataSet("lhc57", "19x3", train, test, events)


def _pendigits(path: Path) -> DataSet:
    held = np.load(path, allow_pickle=False)
    rows, labels = _flat(held["X"]), held["y"]
    train, test = _split(rows[labels == 0], 0.5)
    return DataSet("pendigits", "8x2", train, test, {"anomalies": rows[labels == 1]})


def _flat(events: Floats) -> Floats:
    return events.reshape(len(events), -1).astype(np.float32)


def _split(normal: Floats, share: float) -> tuple[Floats, Floats]:
    shuffled = np.random.default_rng(SEED).permutation(normal)
    end = round(share * len(shuffled))
    return shuffled[:end], shuffled[end:]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.families", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("data", type=Path, help="the folder of the data sets")
    parser.add_argument("--steps", type=int, default=STEPS, help="of training, for each")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--models", type=Path, help="a folder to keep the models in")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write the results")
    chosen = parser.parse_args(arguments)
    found: list[Worth] = []
    with tempfile.TemporaryDirectory() as passing:
        folder = chosen.models or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        for data in read(chosen.data):
            models = {}
            for family in chosen.families:
                out = folder / f"{data.name}-{family}-{chosen.steps}.onnx"
                if not out.exists():
                    say(f"{data.name}, {family}")
                    fit(data, family, chosen.steps, out)
                models[family] = open_sealed(out)
            cost = costs(models, data)
            found += [worth(data, family, model, cost[family]) for family, model in models.items()]
    print(table(found))
    write_json(
        chosen.json,
        {"machine": machine(), "steps": chosen.steps, "found": [asdict(one) for one in found]},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
