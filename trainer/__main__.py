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
from pathlib import Path

from schemas.contract import (
    Contract,
    Feature,
    GoldenBatch,
    MissingPolicy,
    ModelRefused,
)
from schemas.datafiles import FileOptions, Table
from schemas.errors import UserError, run_program
from trainer import data
from trainer.calibrate import calibrate, false_alarms, plan_calibration
from trainer.evaluate import evaluate, read_labelled
from trainer.export import export
from trainer.flags import parse
from trainer.model import fit_model
from trainer.progress import say
from trainer.provenance import creation_time, training_record
from trainer.runtime import SealedModel, open_sealed, open_session, run
from trainer.seal import check_writable, golden_rows, seal, staged
from trainer.settings import EvaluateCommand, FitCommand
from trainer.verify import score_tolerance, verify

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
        return fit_and_seal(command, creation_time(datetime.now(UTC)))
    return evaluate_sealed(command)


def fit_and_seal(command: FitCommand, created: datetime) -> int:
    """Train on normal events, write the sealed model and say what it is worth."""
    check_writable(command.out)
    table, policies, quality = data.load(command.data, command.options(), command.training.missing)
    _say_what_was_read(table, quality)
    features = _features(table, policies)
    labelled = _read_labelled(command, features)
    plan = plan_calibration(len(table), command.target_flag_rate)
    parts = data.split(len(table), plan, command.training.seed)

    model = fit_model(table, parts, policies, command.training)

    graph = export(model.scorer, len(table.names))
    session = open_session(graph.SerializeToString())
    held_out = table.features[parts.calibrate]
    calibration, threshold = calibrate(run(session, held_out).score, plan)
    golden = golden_rows(held_out)
    contract = Contract(
        name=command.name or command.out.stem,
        version=command.version or created.strftime("%Y%m%dT%H%M%SZ"),
        created_at=created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        layout=command.options().layout,
        features=features,
        threshold=threshold,
        calibration=calibration,
        score_tolerance=score_tolerance(session, model.scorer, held_out, calibration),
        golden=GoldenBatch.of(golden, run(session, golden).score),
        holds_training_rows=False,
        training=training_record(command.training, table, quality, parts, plan, model),
    )

    with staged(command.out) as draft:
        draft.write_bytes(seal(graph, contract))
        sealed = verify(draft, model.scorer, held_out)

    _say_what_was_made(sealed, command.out)
    if labelled is not None:
        _say_how_well(sealed, labelled, table)
    return 0


def evaluate_sealed(command: EvaluateCommand) -> int:
    """Evaluate a sealed model on labelled events and print the figures."""
    try:
        model = open_sealed(command.model)
    except ModelRefused as error:
        raise UserError(f"{command.model} was refused: {error}. Nothing was evaluated") from None
    options = FileOptions(
        array=command.array, label_column=command.label_column, layout=model.contract.layout
    )
    table = read_labelled(command.labelled, model.contract.features, options)
    result = evaluate(model, table, command.at_tpr)
    print(json.dumps(asdict(result)) if command.as_json else result.text())  # noqa: T201
    return 0


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


def _say_what_was_read(table: Table, quality: data.Quality) -> None:
    say(
        f"{quality.rows_used:,} normal events of {len(table.names):,} features; left out: "
        f"{quality.anomalies_left_out:,} labelled anomalies, {quality.unscorable_left_out:,} "
        f"events with too much missing; {quality.missing_values:,} values are missing"
    )
    if len(table.names) == 1:
        say(
            "warning: an autoencoder of a single feature gives back whatever it sees; only values "
            "far outside the training data will be flagged. Bring features that depend on it"
        )
    for name in data.suspicious_columns(table.names):
        say(
            f"warning: the column {name!r} is used as a feature. If it marks anomalies, name it "
            f"with --label-column {name}; if it is neither, leave it out with --drop-column {name}"
        )


def _say_what_was_made(model: SealedModel, out: Path) -> None:
    contract = model.contract
    rate = contract.threshold.target_flag_rate
    for note in contract.training["notes"]:
        say(f"warning: {note}")
    parts = ", ".join(f"{name} {rows:,}" for name, rows in contract.training["rows"].items())
    print(  # noqa: T201  # The summary is the program's result.
        f"{out}: model {contract.name} {contract.version}, digest {model.digest[:12]}, "
        f"{model.file_bytes:,} bytes\n"
        f"  rows: {parts}; best epoch {contract.training['curves']['best_epoch']}\n"
        f"  threshold {contract.threshold.value:.6g} for a target flag rate of {rate:g}:\n"
        f"  {false_alarms(contract.calibration, rate)}"
    )


def _say_how_well(model: SealedModel, labelled: Table, training: Table) -> None:
    print(evaluate(model, labelled, at_tpr=0.3).text())  # noqa: T201
    seen = data.rows_in_common(training.features, labelled.features)
    if seen:
        say(
            f"warning: {seen:,} of the {len(labelled):,} labelled rows were also trained or "
            "calibrated on; the figures flatter the model"
        )


if __name__ == "__main__":
    raise SystemExit(cli())
