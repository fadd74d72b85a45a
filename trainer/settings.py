"""What a person can choose: the two commands with their flags, and the training settings.

Every default carries its reason in its description, which is also the help. The training
settings are those that `--set name=value` takes; they are written into the sealed file, so that
a file says how it was made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from schemas.contract import MissingPolicy
from schemas.datafiles.table import FileOptions
from schemas.event import EventLayout, TimestampKind
from trainer.autoencoder import Activation, Normalisation
from trainer.flags import Flag
from trainer.transforms import Choice

Schedule = Literal["constant", "step", "cosine", "plateau"]
Width = Annotated[int, Field(ge=1, le=65_536)]
EVERY = "*"


def _split_numbers(text: object) -> object:
    return [part for part in text.split(",") if part] if isinstance(text, str) else text


def _read_choices(text: object) -> object:
    """Read `choice` for every feature, or `name:choice,name:choice`."""
    if not isinstance(text, str):
        return text
    pairs = [part.rpartition(":") for part in text.split(",")]
    return {name or EVERY: choice for name, _, choice in pairs}


def _read_pairs(items: object) -> object:
    """Read `name=value` pairs."""
    if not isinstance(items, list):
        return items
    bare = [item for item in items if "=" not in item]
    if bare:
        raise ValueError(f"wanted name=value, got {', '.join(map(repr, bare))}")
    pairs = [item.split("=", 1) for item in items]
    names = [name for name, _ in pairs]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(f"{', '.join(twice)}: set more than once; wanted each name once")
    return dict(pairs)


def _split_path(text: object) -> object:
    return tuple(text.split(".")) if isinstance(text, str) and text else () if text == "" else text


EventPath = Annotated[tuple[str, ...], BeforeValidator(_split_path)]


class TrainingSettings(BaseModel):
    """How the network is built and trained; each can be set by `--set name=value`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int = Field(0, ge=0, lt=2**63, description="same seed, rows and versions: same bytes")
    threads: int = Field(
        1, ge=1, le=256, description="one: another number gives other weights, hence other bytes"
    )
    hidden: Annotated[tuple[Width, ...], BeforeValidator(_split_numbers)] = Field(
        (128, 64), description="encoder widths: wider and deeper gained nothing on collision events"
    )
    bottleneck: int | None = Field(None, ge=1, le=65_536, description="unset: a quarter of d")
    activation: Activation = Field("leaky_relu", description="no unit can die")
    normalisation: Normalisation = Field("none", description="inputs are standardised already")
    dropout: float = Field(0.0, ge=0, lt=1, description="early stopping suffices")
    epochs: int = Field(
        40, ge=1, le=1_000_000, description="half a minute for 26,150 events of 57 numbers"
    )
    steps_min: int = Field(
        2_500, ge=0, description="small data gets more epochs, up to this many steps in all"
    )
    batch_size: int = Field(128, ge=2, description="as the recipes that the figures compare with")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Adam's own default")
    schedule: Schedule = Field("cosine", description="ends at rest, whatever the epochs")
    patience: int = Field(10, ge=1, description="epochs without a better one before it stops")
    clip: float = Field(
        10.0, gt=0, le=1000, description="farthest that the network sees, in standard deviations"
    )
    transforms: Annotated[dict[str, Choice], BeforeValidator(_read_choices)] = Field(
        {EVERY: "auto"}, description="auto, standardise or asinh; or name:asinh,name:standardise"
    )
    missing: Annotated[dict[str, MissingPolicy], BeforeValidator(_read_choices)] = Field(
        {EVERY: "mask"}, description="mask or refuse; or name:refuse,name:mask"
    )


class FitCommand(BaseModel):
    """Train on normal events and seal the model into one file."""

    model_config = ConfigDict(frozen=True)

    data: Annotated[list[Path], Flag(positional=True, repeated=True)] = Field(
        min_length=1, description="files of normal events: CSV, Parquet, NPZ, JSON lines"
    )
    out: Path = Field(description="the sealed model to write; its name ends in .onnx")
    target_flag_rate: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of normal events that may be flagged; unset: 0.001, or the smallest of "
        "0.002 to 0.05 that the data supports",
    )
    labelled: Path | None = Field(None, description="labelled events to evaluate the model on")
    labelled_array: str = Field("X", description="the events' array in an NPZ file of --labelled")
    name: str | None = Field(None, min_length=1, description="model name; unset: the stem of --out")
    version: str | None = Field(None, min_length=1, description="unset: the time of creation, UTC")
    array: str = Field("X", description="the events' array in an NPZ file")
    label_column: str | None = Field(
        None, description="marks anomalies, which are left out of training; NPZ: array y"
    )
    id_column: str | None = Field(None, description="identifies the event; no feature")
    timestamp_column: str | None = Field(None, description="the event's time; no feature")
    drop_column: Annotated[tuple[str, ...], Flag(repeated=True, metavar="COLUMN")] = Field(
        (), description="leave a column out; may be repeated"
    )
    features_path: EventPath = Field(
        ("features",), description="where a JSON event holds its features, dotted; '' is the top"
    )
    event_id_path: EventPath = Field(("event_id",), description="where it holds its id")
    timestamp_path: EventPath = Field(("timestamp",), description="where it holds its time")
    timestamp_kind: TimestampKind = Field("ms", description="ms, s or rfc3339")
    training: Annotated[
        TrainingSettings, BeforeValidator(_read_pairs), Flag(repeated=True, metavar="NAME=VALUE")
    ] = Field(
        TrainingSettings.model_validate({}),
        alias="set",
        description="a training setting, listed below; may be repeated",
    )

    def options(self) -> FileOptions:
        """Return how the data files are to be read."""
        return FileOptions(
            array=self.array,
            label_column=self.label_column,
            # The label may be in the file of --labelled alone; training data is normal anyway.
            label_optional=self.labelled is not None,
            id_column=self.id_column,
            timestamp_column=self.timestamp_column,
            drop_columns=self.drop_column,
            layout=EventLayout(
                event_id=self.event_id_path,
                timestamp=self.timestamp_path,
                timestamp_kind=self.timestamp_kind,
                features=self.features_path,
            ),
        )


class EvaluateCommand(BaseModel):
    """Score labelled events with a sealed model and say how well it tells them apart."""

    model_config = ConfigDict(frozen=True)

    model: Annotated[Path, Flag(positional=True)] = Field(description="the sealed model")
    labelled: Annotated[Path, Flag(positional=True)] = Field(description="file of labelled events")
    as_json: bool = Field(False, alias="json", description="print one JSON object")
    at_tpr: float = Field(
        0.3, gt=0, le=1, description="the detected share at which false alarms are given too"
    )
    array: str = Field("X", description="the events' array in an NPZ file")
    label_column: str | None = Field(None, description="what marks anomalies; NPZ: array y")
    id_column: str | None = Field(None, description="identifies the event; no feature")
    timestamp_column: str | None = Field(None, description="the event's time; no feature")
    drop_column: Annotated[tuple[str, ...], Flag(repeated=True, metavar="COLUMN")] = Field(
        (), description="leave a column out; may be repeated"
    )

    def options(self, layout: EventLayout) -> FileOptions:
        """Return how the file is to be read, for a model of this layout."""
        return FileOptions(
            array=self.array,
            label_column=self.label_column,
            id_column=self.id_column,
            timestamp_column=self.timestamp_column,
            drop_columns=self.drop_column,
            layout=layout,
        )
