"""The commands of the trainer with their flags, which are also its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from schemas.datafiles.table import FileOptions
from schemas.event import EventLayout, TimestampKind
from trainer.flags import Flag
from trainer.presets import Preset
from trainer.settings import TrainingSettings
from trainer.shape import EventShape


def _read_pairs(items: list[str]) -> dict[str, str]:
    """Read `name=value` pairs."""
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


class FitCommand(BaseModel):
    """Train on normal events and seal the model into one file."""

    model_config = ConfigDict(frozen=True)

    data: Annotated[list[Path], Flag(positional=True, repeated=True)] = Field(
        min_length=1, description="files of normal events: CSV, Parquet, NPZ, JSON lines"
    )
    out: Path = Field(description="the sealed model to write; its name ends in .onnx")
    target_flag_rate: float | None = Field(
        None,
        ge=1e-12,
        lt=1,
        description="share of normal events that may be flagged; unset: 0.001, or the smallest of "
        "0.002 to 0.05 that the data supports",
    )
    extrapolate: bool = Field(
        False,
        description="allow a rate that no calibration event bears out, by a tail that is fitted to "
        "the highest scores; refused where none fits",
    )
    events_per_second: float | None = Field(
        None, gt=0, le=1e12, description="how many are to be scored; says the false alarms a day"
    )
    labelled: Path | None = Field(None, description="labelled events to evaluate the model on")
    labelled_array: str = Field("X", description="the events' array in an NPZ file of --labelled")
    report: Path | None = Field(None, description="also write a page about the model, HTML")
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
    category_column: Annotated[tuple[str, ...], Flag(repeated=True, metavar="COLUMN")] = Field(
        (),
        description="a feature that is a text from a list, such as a country; said and not "
        "guessed, because a misspelt number would make one too; may be repeated",
    )
    features_path: EventPath = Field(
        ("features",), description="where a JSON event holds its features, dotted; '' is the top"
    )
    event_id_path: EventPath = Field(("event_id",), description="where it holds its id")
    timestamp_path: EventPath = Field(("timestamp",), description="where it holds its time")
    timestamp_kind: TimestampKind = Field("ms", description="ms, s or rfc3339")
    preset: Preset | None = Field(
        None, description="settings to start from; short for --set preset="
    )
    event_shape: EventShape | None = Field(
        None,
        description="19x3: 19 objects of 3 values; 1x28x28: an image; short for --set event_shape=",
    )
    training: Annotated[TrainingSettings, Flag(repeated=True, metavar="NAME=VALUE")] = Field(
        [],
        validate_default=True,
        alias="set",
        description="a training setting, listed below; may be repeated",
    )

    @field_validator("training", mode="before")
    @classmethod
    def _join_flags(cls, items: object, info: ValidationInfo) -> object:
        """Read `--set`, and the flags that are short for one of its settings."""
        if not isinstance(items, list):
            return items
        pairs: dict[str, object] = {**_read_pairs(items)}
        for name in ("preset", "event_shape"):
            value = info.data.get(name)  # Not there if it was wrong, which is said already.
            if value is not None and name in pairs:
                raise ValueError(f"{name}: also given by its own flag; wanted one of them")
            pairs |= {} if value is None else {name: value}
        return pairs

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
            category_columns=self.category_column,
            layout=EventLayout(
                event_id=self.event_id_path,
                timestamp=self.timestamp_path,
                timestamp_kind=self.timestamp_kind,
                features=self.features_path,
            ),
        )


class _LabelledFile(BaseModel):
    """How a file of labelled events is to be read, for the commands that take one."""

    model_config = ConfigDict(frozen=True)

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


class EvaluateCommand(_LabelledFile):
    """Score labelled events with a sealed model and say how well it tells them apart."""

    model: Annotated[Path, Flag(positional=True)] = Field(description="the sealed model")
    labelled: Annotated[Path, Flag(positional=True)] = Field(description="file of labelled events")
    as_json: bool = Field(False, alias="json", description="print one JSON object")
    at_tpr: float = Field(
        0.3, gt=0, le=1, description="the detected share at which false alarms are given too"
    )


class ReportCommand(_LabelledFile):
    """Write one HTML page about a sealed model, with plots, to send to a colleague."""

    model: Annotated[Path, Flag(positional=True)] = Field(description="the sealed model")
    labelled: Path | None = Field(
        None, description="labelled events: without them half of the plots cannot be drawn"
    )
    out: Path = Field(Path("report.html"), description="the page to write")
