"""The trainer's recipe, read aloud: load, split, fit, calibrate, seal, verify.

odradek-trainer fit DATA... --out MODEL.onnx
odradek-trainer evaluate MODEL.onnx LABELLED [--json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from schemas.contract import Contract, Feature, GoldenBatch, MissingPolicy, ModelRefused
from schemas.datafiles import FileOptions, Table
from schemas.errors import UserError, run_program
from trainer import data
from trainer.calibrate import calibrate, plan_calibration
from trainer.evaluate import evaluate, read_labelled
from trainer.export import export
from trainer.flags import parse
from trainer.model import fit_model
from trainer.narrate import say_how_well, say_what_was_made, say_what_was_read
from trainer.progress import say
from trainer.provenance import creation_time, training_record
from trainer.runtime import open_sealed, open_session, run
from trainer.seal import check_writable, golden_rows, seal, staged
from trainer.settings import EvaluateCommand, FitCommand
from trainer.verify import score_tolerance, verify

# As run_program's for a bug, which this is; but here a traceback would say less than the refusal.
EXIT_OURS = 1

_COMMANDS: dict[str, type[FitCommand | EvaluateCommand]] = {
    "fit": FitCommand,
    "evaluate": EvaluateCommand,
}


def cli() -> int:
    """Run the program on the process's own arguments and return its exit code."""
    return main(sys.argv[1:])


def main(argv: Sequence[str]) -> int:
    """Run the program on these arguments and return its exit code."""
    return run_program(lambda: _run(argv))


def _run(argv: Sequence[str]) -> int:
    about = "Fit an autoencoder to normal events and seal it into one ONNX file."
    command: FitCommand | EvaluateCommand = parse("odradek-trainer", about, _COMMANDS, argv)
    if isinstance(command, FitCommand):
        try:
            return fit_and_seal(command, creation_time(datetime.now(UTC)))
        except ModelRefused as error:
            return _refused_our_own(error, command)
    return evaluate_sealed(command)


def fit_and_seal(command: FitCommand, created: datetime) -> int:
    """Train on normal events, write the sealed model and say what it is worth."""
    check_writable(command.out)
    table, policies, quality = data.load(command.data, command.options(), command.training.missing)
    say_what_was_read(table, quality)
    features = _features(table, policies)
    labelled = _read_labelled(command, features)
    plan = plan_calibration(len(table), command.target_flag_rate)
    parts = data.split(len(table), len(features), plan, command.training.seed)

    model = fit_model(table, parts, policies, command.training)

    graph = export(model.scorer, len(table.names))
    session = open_session(graph.SerializeToString())
    held_out = table.features[parts.calibrate]
    calibration, threshold = calibrate(run(session, held_out).score, plan)
    golden = golden_rows(model.transforms)
    contract = Contract(
        name=command.name or command.out.stem,
        version=command.version or created.strftime("%Y%m%dT%H%M%SZ"),
        created_at=created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        layout=command.options().layout,
        features=features,
        threshold=threshold,
        calibration=calibration,
        score_tolerance=score_tolerance(session, model.scorer, golden, held_out, calibration),
        golden=GoldenBatch.of(golden, run(session, golden).score),
        holds_training_rows=False,
        training=training_record(command.training, table, quality, parts, plan, model),
    )

    with staged(command.out) as draft:
        draft.write_bytes(seal(graph, contract))
        sealed = verify(draft, model.scorer, held_out)

    say_what_was_made(sealed, command.out)
    if labelled is not None:
        say_how_well(sealed, labelled, table)
    return 0


def evaluate_sealed(command: EvaluateCommand) -> int:
    """Evaluate a sealed model on labelled events and print the figures."""
    try:
        model = open_sealed(command.model)
    except ModelRefused as error:
        raise UserError(f"{command.model} was refused: {error}. Nothing was evaluated") from None
    options = command.options(model.contract.layout)
    table = read_labelled(command.labelled, model.contract.features, options)
    result = evaluate(model, table, command.at_tpr)
    print(json.dumps(asdict(result)) if command.as_json else result.text())  # noqa: T201
    return 0


def _refused_our_own(error: ModelRefused, command: FitCommand) -> int:
    """Say that verification refused what we made: our fault, and a person may find a way round."""
    say(
        f"error: the model that was made does not keep its contract: {error}. Nothing was written "
        f"to {command.out}. Your data is not at fault, odradek is; please report it. A way round "
        "may be another --set seed=N, or to leave out (--drop-column) what other columns repeat"
    )
    return EXIT_OURS


def _features(table: Table, policies: Sequence[MissingPolicy]) -> tuple[Feature, ...]:
    return tuple(
        Feature(name=name, path=path, missing=policy)
        for name, path, policy in zip(table.names, table.paths, policies, strict=True)
    )


def _read_labelled(command: FitCommand, features: Sequence[Feature]) -> Table | None:
    """Read the labelled events before the training: a mistake in them is found out early."""
    if command.labelled is None:
        return None
    options = FileOptions(
        array=command.labelled_array,
        label_column=command.label_column,
        layout=command.options().layout,
    )
    return read_labelled(command.labelled, features, options)


if __name__ == "__main__":
    raise SystemExit(cli())
