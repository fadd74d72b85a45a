"""What the trainer says to the person who runs it: what it read, and what it made of it."""

from __future__ import annotations

from pathlib import Path

from schemas.datafiles import Table
from trainer.calibrate import false_alarms
from trainer.data import Quality, rows_in_common, suspicious_columns
from trainer.evaluate import evaluate
from trainer.progress import say
from trainer.runtime import SealedModel
from trainer.transforms import constant_columns

# In the order in which they are used; the file's record is sorted by name.
_PARTS = ("fit", "stop", "combine", "calibrate")
_NAMES_SHOWN = 8


def say_what_was_read(table: Table, quality: Quality) -> None:
    """Say what was read and left out, and warn of what is unlikely to be meant."""
    say(
        f"{quality.rows_used:,} normal events of {len(table.names):,} features; left out: "
        f"{quality.anomalies_left_out:,} labelled anomalies, {quality.unscorable_left_out:,} "
        "events that the missing-value policy refuses or that hold nothing but constants; "
        f"{quality.missing_values:,} values are missing"
    )
    if len(table.names) == 1:
        say(
            "warning: an autoencoder of a single feature gives back whatever it sees; only values "
            "far outside the training data will be flagged. Bring features that depend on it"
        )
    for name in suspicious_columns(table.names):
        say(
            f"warning: the column {name!r} is used as a feature. If it marks anomalies, name it "
            f"with --label-column {name}; if it is neither, leave it out with --drop-column {name}"
        )
    if table.ignored:
        say(
            f"warning: {', '.join(table.ignored[:_NAMES_SHOWN])} among the features never holds a "
            "number, and is ignored; if it should be a feature, write it as a number"
        )
    for name in table.collapsed:
        say(
            f"warning: the column {name!r} holds integers that a 32-bit float cannot tell apart. "
            "If they count from an origin (a time, an id), use differences or leave it out with "
            f"--drop-column {name}"
        )
    constants = [
        name
        for name, constant in zip(table.names, constant_columns(table.features), strict=True)
        if constant
    ]
    if constants:
        more = f" and {len(constants) - _NAMES_SHOWN:,} more" * (len(constants) > _NAMES_SHOWN)
        say(
            f"{len(constants):,} column(s) never vary: {', '.join(constants[:_NAMES_SHOWN])}"
            f"{more}; an event in which one does is anomalous by that alone"
        )


def say_what_was_made(model: SealedModel, out: Path) -> None:
    """Print the summary, which is the program's result, after its warnings."""
    contract, training = model.contract, model.contract.training
    rate, tolerance = contract.threshold.target_flag_rate, contract.score_tolerance
    for note in training["notes"]:
        say(f"warning: {note}")
    rows = training["rows"]
    parts = ", ".join(f"{part} {rows[part]:,}" for part in _PARTS if rows[part])
    print(  # noqa: T201
        f"{out}: model {contract.name} {contract.version}, digest {model.digest[:12]}, "
        f"{model.file_bytes:,} bytes\n"
        f"  rows: {parts}; best epoch {training['curves']['best_epoch']}\n"
        f"  scores hold on other machines to {tolerance.relative:g} relative "
        f"(below a score of {tolerance.scale:.3g}: of that)\n"
        f"  threshold {contract.threshold.value:.6g} for a target flag rate of {rate:g}:\n"
        f"  {false_alarms(contract.calibration, rate)}"
    )


def say_how_well(model: SealedModel, labelled: Table, training: Table) -> None:
    """Print the figures on labelled events, and warn if the model knows some of them."""
    print(evaluate(model, labelled, at_tpr=0.3).text())  # noqa: T201
    seen = rows_in_common(training.features, labelled.features)
    if seen:
        say(
            f"warning: {seen:,} of the {len(labelled):,} labelled rows were also trained or "
            "calibrated on; the figures flatter the model"
        )
