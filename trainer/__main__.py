"""The trainer's recipe, read aloud: load, split, fit, calibrate, seal, verify.

odradek-trainer fit DATA... --out MODEL.onnx
odradek-trainer evaluate MODEL.onnx LABELLED [--json]
odradek-trainer report MODEL.onnx [--labelled LABELLED] [--out report.html]
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from schemas.contract import (
    Contract,
    Feature,
    GoldenBatch,
    MissingPolicy,
    ModelRefused,
    UnseenPolicy,
)
from schemas.datafiles import FileOptions, RowStore, Table
from schemas.errors import SettingsError, UserError, run_program
from schemas.groups import GroupCodes
from trainer import data
from trainer.calibrate import CalibrationPlan
from trainer.checkpoint import Checkpoint, Stopped
from trainer.columns import Columns, known_texts
from trainer.commands import EvaluateCommand, FitCommand, ReportCommand
from trainer.evaluate import evaluate, read_labelled
from trainer.export import export
from trainer.flags import parse
from trainer.groups import GroupPlace, calibrated, format_version, planned
from trainer.model import fit_model
from trainer.narrate import (
    say_how_groups_calibrate,
    say_how_well,
    say_what_was_made,
    say_what_was_read,
)
from trainer.progress import Reading, say
from trainer.provenance import creation_time, training_record, weights_are_of
from trainer.reference import drift_reference
from trainer.report import check_page_writable, write_report
from trainer.report_page.labelled import score_labelled
from trainer.runtime import SealedModel, open_sealed, open_session, run, score_rows
from trainer.seal import check_writable, golden_rows, seal, staged
from trainer.trim import trimmed
from trainer.verify import VERIFIED_ROWS, score_tolerance, verify

# As run_program's for a bug, which this is; but here a traceback would say less than the refusal.
EXIT_OURS = 1

_COMMANDS: dict[str, type[FitCommand | EvaluateCommand | ReportCommand]] = {
    "fit": FitCommand,
    "evaluate": EvaluateCommand,
    "report": ReportCommand,
}


def cli() -> int:
    """Run the program on the process's own arguments and return its exit code."""
    # As Ctrl-C does, so that a draft of the sealed file is not left behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    return main(sys.argv[1:])


def main(argv: Sequence[str]) -> int:
    """Run the program on these arguments and return its exit code."""
    return run_program(lambda: _run(argv))


def _run(argv: Sequence[str]) -> int:
    about = "Fit detectors to normal events and seal them into one ONNX file."
    command = parse("odradek-trainer", about, _COMMANDS, argv)
    if isinstance(command, FitCommand):
        try:
            return fit_and_seal(command, creation_time(datetime.now(UTC)))
        except ModelRefused as error:
            return _refused_our_own(error, command)
        except Stopped as stopped:
            say(f"stopped; {command.checkpoint} keeps the place: the same command goes on there")
            return stopped.exit_code
    if isinstance(command, ReportCommand):
        return report_on_sealed(command)
    return evaluate_sealed(command)


def fit_and_seal(command: FitCommand, created: datetime) -> int:
    """Train on normal events, write the sealed model and say what it is worth."""
    _check_places(command)
    table, policies, quality = _load(command)
    say_what_was_read(table, quality)
    features = _features(table, policies, command.training.unseen)
    labelled = _read_labelled(command, features)
    place = _group_place(command, table)
    plan, codes = planned(table, place, command.target_flag_rate, extrapolate=command.extrapolate)
    say_how_groups_calibrate(plan, place)
    parts = _split(command, table, plan, codes)

    settings = command.training
    made_of = weights_are_of(settings, table, parts, policies)
    checkpoint = Checkpoint(command.checkpoint, made_of, command.checkpoint_s)
    with checkpoint.heeding_signals():
        parts = trimmed(table, parts, policies, settings, checkpoint)
        model = fit_model(table, parts, policies, settings, checkpoint)

    graph = export(model.scorer, len(table.names))
    session = open_session(graph.SerializeToString())
    scores = score_rows(session, table.features, parts.calibrate)
    calibration, threshold, groups = calibrated(scores, plan, place, codes, parts.calibrate)
    held_out = table.features[parts.calibrate[:VERIFIED_ROWS]]
    golden = golden_rows(model.transforms)
    contract = Contract(
        format_version=format_version(groups),
        name=command.name or command.out.stem,
        version=command.version or created.strftime("%Y%m%dT%H%M%SZ"),
        created_at=created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        layout=command.options().layout,
        features=features,
        threshold=threshold,
        calibration=calibration,
        groups=groups,
        drift_reference=drift_reference(session, table.features, parts.calibrate),
        score_tolerance=score_tolerance(session, model.scorer, golden, held_out, calibration),
        golden=GoldenBatch.of(golden, run(session, golden).score),
        holds_training_rows=model.stored_rows > 0,
        training=training_record(settings, table, made_of["rows"], quality, parts, plan, model),
    )

    with staged(command.out) as draft:
        draft.write_bytes(seal(graph, contract))
        sealed = verify(draft, model.scorer, held_out)
    checkpoint.remove()

    say_what_was_made(sealed, command.out, command.events_per_second)
    _say_more(command, sealed, labelled, table)
    return 0


def _group_place(command: FitCommand, table: Table) -> GroupPlace | None:
    place = command.group_place
    if place is not None:
        place.check(command.options().layout, table)
    return place


def _split(
    command: FitCommand, table: Table, plan: CalibrationPlan, codes: GroupCodes | None
) -> data.Parts:
    detectors = command.training.chosen_detectors()
    return data.split(
        len(table),
        len(table.names),
        plan,
        command.training.seed,
        stops="autoencoder" in detectors or [*detectors] == ["denoiser"],
        combines=len(detectors) > 1,
        groups=codes,
        columns=Columns(known_texts(table)).width,
    )


def evaluate_sealed(command: EvaluateCommand) -> int:
    """Evaluate a sealed model on labelled events and print the figures."""
    model = _open(command.model, "Nothing was evaluated")
    options = command.options(model.contract)
    table = read_labelled(command.labelled, model.contract.features, options)
    result = evaluate(model, table, command.at_tpr)
    print(json.dumps(asdict(result)) if command.as_json else result.text())  # noqa: T201
    return 0


def report_on_sealed(command: ReportCommand) -> int:
    """Write the page about a sealed model."""
    check_page_writable(command.out, "--out")
    model = _open(command.model, "Nothing was written")
    table = None
    if command.labelled is not None:
        options = command.options(model.contract)
        table = read_labelled(command.labelled, model.contract.features, options)
    _write_page(command.out, model, command.labelled, table, written_by="report")
    return 0


def _open(path: Path, outcome: str) -> SealedModel:
    try:
        return open_sealed(path)
    except ModelRefused as error:
        raise UserError(f"{path} was refused: {error}. {outcome}") from None


def _write_page(
    out: Path,
    model: SealedModel,
    source: Path | None,
    labelled: Table | None,
    trained_on: Table | None = None,
    *,
    written_by: str,
) -> None:
    """Write the page about a model; `source` is the file that holds the labelled events."""
    scored = None
    if labelled is not None and source is not None:
        seen = None
        if trained_on is not None:
            seen = data.rows_in_common(trained_on.features, labelled.features)
        scored = score_labelled(model, labelled, source.name, seen)
    write_report(out, model, scored, written_by)
    say(f"{out}: a page about model {model.contract.name} {model.contract.version}")


def _load(command: FitCommand) -> tuple[Table, tuple[MissingPolicy, ...], data.Quality]:
    settings = command.training
    store = RowStore(scratch=command.scratch, told=Reading().told)
    return data.load(command.data, command.options(), settings.missing, settings.unseen, store)


def _check_places(command: FitCommand) -> None:
    """Check, before an hour of training, that all that it makes will have a place."""
    check_writable(command.out)
    if command.scratch is not None and not command.scratch.is_dir():
        raise SettingsError(f"--scratch {command.scratch}: wanted a folder that is there")
    if command.report is not None:
        check_page_writable(command.report, "--report")


def _say_more(
    command: FitCommand, model: SealedModel, labelled: Table | None, trained_on: Table
) -> None:
    """Say how well the model does, and write the page about it, where these were asked for."""
    if labelled is not None:
        say_how_well(model, labelled, trained_on)
    if command.report is not None:
        seen = (command.labelled, labelled, trained_on)
        _write_page(command.report, model, *seen, written_by="fit --report")


def _refused_our_own(error: ModelRefused, command: FitCommand) -> int:
    """Say that verification refused what we made: our fault, and a person may find a way round."""
    say(
        f"error: the model that was made does not keep its contract: {error}. Nothing was written "
        f"to {command.out}. Your data is not at fault, odradek is; please report it. A way round "
        "may be another --set seed=N, or to leave out (--drop-column) what other columns repeat"
    )
    return EXIT_OURS


def _features(
    table: Table, policies: Sequence[MissingPolicy], unseen: Mapping[str, UnseenPolicy]
) -> tuple[Feature, ...]:
    unseen = data.unseen_policies(table, unseen)
    return tuple(
        Feature(
            name=name,
            path=path,
            kind="category" if name in table.categories else "number",
            missing=policy,
            categories=table.categories.get(name, ()),
            unseen=unseen.get(name, "other"),
        )
        for name, path, policy in zip(table.names, table.paths, policies, strict=True)
    )


def _read_labelled(command: FitCommand, features: Sequence[Feature]) -> Table | None:
    """Read the labelled events before the training: a mistake in them is found out early."""
    if command.labelled is None:
        return None
    options = FileOptions(
        array=command.labelled_array,
        label_column=command.label_column,
        group=command.group_column(strict=False),
        layout=command.options().layout,
    )
    return read_labelled(command.labelled, features, options)


if __name__ == "__main__":
    raise SystemExit(cli())
