"""The commands that need no Kafka: `check` and `score`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET
from msgspec.structs import replace
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict
from pydantic_settings import SettingsError as _FlagError

from schemas.contract import ModelRefused
from schemas.datafiles import FileOptions
from schemas.errors import DataError, SettingsError
from schemas.event import EventLayout, TimestampKind
from schemas.false_alarms import by_group, per_day
from worker.model import Model, ModelOptions, open_model
from worker.score_file import score_file


class _Command(BaseSettings):
    """What both commands take; flags only, no environment."""

    model_config = SettingsConfigDict(
        env_prefix="ODRADEK_OFFLINE_",
        cli_kebab_case=True,
        cli_exit_on_error=False,
        cli_hide_none_type=True,
        protected_namespaces=(),
    )

    model: CliPositionalArg[Path] = Field(description="A file sealed by odradek-trainer.")
    provider: Literal["auto", "cuda", "cpu"] = Field("cpu", description="Where to score.")
    threads: Annotated[int, Field(ge=1)] = Field(1, description="onnxruntime's threads.")


class CheckSettings(_Command):
    """Say whether a model file is fit to serve here: exit 0, or 1 with the reason."""

    model_config = SettingsConfigDict(cli_prog_name="odradek-worker check")

    events_per_second: Annotated[float, Field(gt=0, le=1e12)] | None = Field(
        None, description="How many are to be scored; says the false alarms a day."
    )


class ScoreSettings(_Command):
    """Score a file of events as the worker would: one score record a line on stdout."""

    model_config = SettingsConfigDict(cli_prog_name="odradek-worker score")

    file: CliPositionalArg[Path] = Field(description="CSV, Parquet, NPZ or JSON lines.")
    array: str = Field("X", description="The array of an NPZ file.")
    id_column: str | None = Field(None, description="The column of event ids.")
    timestamp_column: str | None = Field(None, description="The column of event times.")
    timestamp_kind: TimestampKind | None = Field(
        None, description="ms, s or rfc3339; as the model's events have it if not set."
    )
    batch_max: Annotated[int, Field(ge=1)] = Field(4096, description="Events scored at once.")
    top_features: Annotated[int, Field(ge=0)] = Field(
        5, description="How many features a flagged event's record explains."
    )


_T = TypeVar("_T", bound=_Command)


def check(arguments: Sequence[str]) -> int:
    """Say whether a model file is fit to serve."""
    settings = _read(CheckSettings, arguments)
    try:
        model = _open(settings)
    except ModelRefused as refusal:
        sys.stdout.write(f"{settings.model} is refused: {refusal}\n")
        return 1
    contract = model.contract
    rate, calibration = contract.threshold.target_flag_rate, contract.calibration
    pooled = "" if contract.groups is UNSET else "pooled "
    ground = "extrapolated from" if contract.threshold.extrapolates else "from"
    sys.stdout.write(
        f"{settings.model} is fit to serve on {model.provider}: {contract.name} "
        f"{contract.version}, {len(contract.features)} features, {pooled}threshold "
        f"{contract.threshold.value:.6g} for a flag rate of {rate:g} {ground} "
        f"{calibration.n:,} calibration events, digest {model.digest}\n"
    )
    if contract.groups is not UNSET:
        sys.stdout.writelines(
            f"{line}\n" for line in by_group(contract.groups, rate, settings.events_per_second)
        )
    elif settings.events_per_second is not None:
        sys.stdout.write(f"{per_day(calibration, rate, settings.events_per_second)}\n")
    return 0


def score(arguments: Sequence[str]) -> int:
    """Score a file; dead letters go to stderr, so that stdout holds score records alone."""
    settings = _read(ScoreSettings, arguments)
    try:
        model = _open(settings)
    except ModelRefused as refusal:
        raise DataError(f"{settings.model} is refused: {refusal}; nothing is scored") from None
    options = FileOptions(
        array=settings.array,
        id_column=settings.id_column,
        timestamp_column=settings.timestamp_column,
        layout=_layout_of_file(settings, model.contract.layout),
    )
    rejected = 0
    for records, letters in score_file(
        settings.file, options, model, settings.batch_max, settings.top_features
    ):
        sys.stdout.buffer.writelines(record + b"\n" for record in records)
        sys.stdout.buffer.flush()
        rejected += len(letters)
        for letter in letters:
            sys.stderr.write(f"dead letter: {msgspec.json.encode(letter).decode()}\n")
    if rejected:
        sys.stderr.write(f"{rejected:,} events could not be scored; their reasons stand above\n")
    return 0


def _layout_of_file(settings: ScoreSettings, layout: EventLayout) -> EventLayout:
    """Return how a table's times are read; how its events are written stays the contract's."""
    return replace(layout, timestamp_kind=settings.timestamp_kind or layout.timestamp_kind)


def _open(settings: _Command) -> Model:
    try:
        sealed = settings.model.read_bytes()
    except OSError as error:
        raise ModelRefused(f"it cannot be read ({error.strerror})") from None
    return open_model(sealed, ModelOptions(settings.provider, settings.threads, batch_max=64))


def _read(kind: type[_T], arguments: Sequence[str]) -> _T:
    try:
        return kind(_cli_parse_args=list(arguments))  # type: ignore[call-arg]  # pydantic-settings'.
    except ValidationError as error:
        told = "; ".join(f"{part['loc'][0]}: {part['msg']}" for part in error.errors())
        raise SettingsError(f"{told}; see --help") from None
    except _FlagError as error:
        raise SettingsError(f"{error}; see --help") from None
