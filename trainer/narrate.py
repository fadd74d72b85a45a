"""What the trainer says to the person who runs it: what it read, and what it made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET

from schemas.calibration import Calibration
from schemas.contract import Contract, Threshold
from schemas.datafiles import Table
from schemas.false_alarms import by_group, describe_tail, per_day, per_million
from trainer.calibrate import CalibrationPlan, events_needed
from trainer.data import Quality, rows_in_common, suspicious_columns
from trainer.evaluate import evaluate
from trainer.groups import GroupPlace
from trainer.progress import say
from trainer.runtime import SealedModel
from trainer.transforms import constant_columns

# In the order in which they are used; the file's record is sorted by name.
_PARTS = ("fit", "stop", "combine", "calibrate")
_NAMES_SHOWN = 8
# Ties that take less than a tenth from the flag rate are lost in its spread.
_TIED_BELOW_PERCENT = 90


def say_what_was_read(table: Table, quality: Quality) -> None:
    """Say what was read and left out, and warn of what is unlikely to be meant."""
    say(
        f"{quality.rows_used:,} normal events of {len(table.names):,} feature"
        f"{'s' * (len(table.names) != 1)}; left out: "
        f"{quality.anomalies_left_out:,} labelled anomalies, {quality.unscorable_left_out:,} "
        "events that the missing-value policy refuses or that hold nothing but constants; "
        f"{quality.missing_values:,} values are missing"
    )
    if len(table.names) == 1:
        say(
            "warning: of a single feature only values that are rare in themselves will be flagged. "
            "Bring features that depend on it"
        )
    _say_what_repeats(quality)
    for name in suspicious_columns(table.names):
        say(
            f"warning: the column {name!r} is used as a feature. If it marks anomalies, name it "
            f"with --label-column {name}; if it is neither, leave it out with --drop-column {name}"
        )
    if table.ignored:
        say(
            f"warning: {', '.join(table.ignored[:_NAMES_SHOWN])} among the features never holds a "
            "number, and is ignored; if it should be a feature, write it as a number (a sequence "
            "as one for each place, as many in every event), or name it with --category-column "
            f"{table.ignored[0]} if it is a category"
        )
    for name, rows in quality.categories.items():
        say(
            f"the category {name!r} has {len(rows.known):,} known texts; {rows.rare_texts:,} rarer "
            f"ones, in {rows.rare_rows:,} rows, count as unseen"
        )
    for name in table.collapsed:
        say(
            f"warning: the column {name!r} holds integers that a 32-bit float cannot tell apart. "
            "If they count from an origin (a time, an id), use differences or leave it out with "
            f"--drop-column {name}"
        )
    _say_what_never_varies(table)


def _say_what_repeats(quality: Quality) -> None:
    repeated, used = quality.repeated_rows, quality.rows_used
    if 2 * repeated > used:
        say(
            f"warning: {repeated:,} of the {used:,} events repeat another, value for value. They "
            "count as often as they come and their scores are tied; leave the repeats out if they "
            "mean nothing"
        )


def _say_what_never_varies(table: Table) -> None:
    constants = [
        name
        for name, constant in zip(table.names, constant_columns(table.features), strict=True)
        if constant
    ]
    if constants:
        more = f" and {len(constants) - _NAMES_SHOWN:,} more" * (len(constants) > _NAMES_SHOWN)
        say(
            f"{len(constants):,} column(s) never vary: {', '.join(constants[:_NAMES_SHOWN])}"
            f"{more}; an event in which one does scores high where a network is among the detectors"
        )


def say_how_groups_calibrate(plan: CalibrationPlan, place: GroupPlace | None) -> None:
    """Say which groups have a threshold of their own, and what the others share."""
    groups = plan.groups
    if groups is None or place is None:
        return
    own, rows, events = len(groups.texts), groups.rows, groups.events
    enough = events[-1] >= events_needed(plan.target_flag_rate)
    ground = (
        f"of which {events[-1]:,} calibrate it"
        if enough
        else "too few to calibrate it: it is of all groups' calibration rows, which promises "
        "nothing of theirs"
    )
    say(
        f"{own:,} group(s) of {place.name!r} have a threshold of their own for a flag rate of "
        f"{plan.target_flag_rate:g}: {sum(rows[:-1]):,} rows, of which {sum(events[:-1]):,} "
        f"calibrate. {groups.shared:,} smaller group(s), and events that name none, share the "
        f"pooled one: {rows[-1]:,} rows, {ground}"
    )
    if place.source != "feature":
        say(f"{place.name!r} is no feature; --category-column {place.name} would make it one, too")


def say_what_was_made(
    model: SealedModel, out: Path, events_per_second: float | None = None
) -> None:
    """Print the summary, which is the program's result, after its warnings."""
    contract, training = model.contract, model.contract.training
    rate, tolerance = contract.threshold.target_flag_rate, contract.score_tolerance
    for note in training["notes"]:
        say(f"warning: {note}")
    if told := tied(contract.calibration, contract.threshold):
        say(f"warning: {told}")
    alarms = [f"  {line}\n" for line in _alarms(contract, events_per_second)]
    pooled = "" if contract.groups is UNSET else "pooled "
    rows = training["rows"]
    parts = ", ".join(f"{part} {rows[part]:,}" for part in _PARTS if rows[part])
    print(  # noqa: T201
        f"{out}: model {contract.name} {contract.version}, digest {model.digest[:12]}, "
        f"{model.file_bytes:,} bytes\n"
        f"  rows: {parts}{_best_epoch(training)}\n"
        f"{_made_of(training)}"
        f"  scores hold on other machines to {tolerance.relative:g} relative "
        f"(below a score of {tolerance.scale:.3g}: of that)\n"
        f"  {pooled}threshold {contract.threshold.value:.6g} for a target flag rate of {rate:g}:\n"
        + "".join(alarms),
        end="",
    )


def _alarms(contract: Contract, events_per_second: float | None) -> Iterator[str]:
    """Yield what the threshold means in false alarms, and on what ground."""
    calibration, rate = contract.calibration, contract.threshold.target_flag_rate
    if contract.groups is not UNSET:
        yield from by_group(contract.groups, rate, events_per_second)
        return
    yield per_million(calibration, rate)
    if events_per_second is not None:
        yield per_day(calibration, rate, events_per_second)
    if calibration.tail is not UNSET:
        yield describe_tail(calibration.tail)


def _best_epoch(training: Mapping[str, Any]) -> str:
    """Return when an autoencoder was best; the other detectors have no such epoch."""
    curves = training["curves_by_detector"].get("autoencoder")
    return f"; best epoch {curves['best_epoch']}" if curves else ""


def _made_of(training: Mapping[str, Any]) -> str:
    """Return the lines on a model's detectors, and on the rows that it holds."""
    several = ", ".join(
        name if weight == 1 else f"{name} (weight {weight:g})"
        for name, weight in training["detectors"].items()
    )
    held = training["stored_rows"]
    inside = f"  holds {held:,} rows of the training data; --set stored_rows=0 forbids it\n"
    sampled = training.get("sampled_rows")
    part = f"  transforms and views are fitted to {sampled:,} of the fit rows\n" if sampled else ""
    return f"  detectors: {several}\n{part}{inside if held else ''}"


def tied(calibration: Calibration, threshold: Threshold) -> str | None:
    """Return what to know of calibration events that score exactly the threshold, if they matter.

    An event is flagged above the threshold, so that all of them are normal: p-values stay true, and
    fewer events are flagged than could be.
    """
    if threshold.rule != "conformal":
        return None
    at_least = float(calibration.p_values(np.array([threshold.value]))[0])
    beyond = calibration.p_value_above(threshold.value)
    most = calibration.flagged_max(threshold.target_flag_rate)
    left, events = (round(p * (calibration.n + 1)) for p in (beyond, at_least - beyond))
    if most == 1 and events > 1:  # The threshold is the highest score, however many have it.
        return (
            f"{events:,} of {calibration.n:,} calibration events share the highest score, the "
            f"threshold, and are not flagged: fewer normal events than "
            f"{threshold.target_flag_rate:.2%} will be, perhaps none. Rows that repeat each other "
            "do that; leave out the repeats if they mean nothing"
        )
    if 100 * left >= _TIED_BELOW_PERCENT * most:  # In whole numbers: no rounding decides.
        return None
    return (
        f"{events:,} of {calibration.n:,} calibration events have one and the same score, the "
        f"threshold's, and are not flagged: about {beyond:.2%} of normal events will be, instead "
        f"of {threshold.target_flag_rate:.2%}. Rows that repeat each other do that; leave out the "
        "repeats if they mean nothing, or ask for another --target-flag-rate"
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
