"""The commands of the trainer with their flags, which are also its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from schemas.contract import Contract
from schemas.datafiles.groups import GroupColumn
from schemas.datafiles.table import FileOptions
from schemas.errors import SettingsError
from schemas.event import EventLayout, TimestampKind
from trainer.flags import Flag
from trainer.groups import GroupPlace
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


CHECKPOINT_SUFFIX = ".checkpoint"
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
    scratch: Path | None = Field(
        None,
        description="folder for rows that memory should not hold, beyond 256 MiB of them; unset: "
        "the system's for such files (TMPDIR)",
    )
    checkpoint_s: float = Field(
        30.0,
        ge=0,
        description="seconds between the saves to MODEL.onnx.checkpoint, from which the same "
        "command goes on after a kill",
    )
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
    group_by: str | None = Field(
        None,
        min_length=1,
        description="calibrate by group: a column, or in JSON events a dotted place, of texts or "
        "integers, which is then no feature; or one of --category-column",
    )
    group_path: EventPath | None = Field(
        None, description="where a JSON event holds its group, dotted; unset: at --group-by"
    )
    group_from: Literal["event", "key"] = Field(
        "event", description="key: on the topic, the record's key is the group"
    )
    features_path: EventPath = Field(
        ("features",), description="where a JSON event holds its features, dotted; '' is the top"
    )
    event_id_path: EventPath = Field(("event_id",), description="where it holds its id")
    timestamp_path: EventPath = Field(("timestamp",), description="where it holds its time")
    timestamp_kind: TimestampKind = Field("ms", description="ms, s or rfc3339")
    preset: Preset | None = Field(
        None,
        description="settings to start from: default, best, dense or seed; short for --set preset=",
    )
    event_shape: EventShape | None = Field(
        None,
        description="of a family that reads one. 19x3: 19 objects of 3 values; 1x28x28: an image; "
        "short for --set event_shape=",
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

    @property
    def checkpoint(self) -> Path:
        """The file beside `out` from which an interrupted training goes on."""
        return self.out.with_name(self.out.name + CHECKPOINT_SUFFIX)

    @property
    def group_place(self) -> GroupPlace | None:
        """What the groups are called, and where a record says its own; None if there are none.

        Raises:
            SettingsError: the flags that say so contradict each other.
        """
        name, elsewhere = self.group_by, self.group_path or self.group_from == "key"
        if name is None:
            if elsewhere:
                raise SettingsError("--group-path and --group-from go with --group-by")
            return None
        roles = (self.label_column, self.id_column, self.timestamp_column, *self.drop_column)
        if name in roles:
            raise SettingsError(
                f"--group-by {name}: the column is named as something else as well; wanted one "
                "of them. A group is no feature, unless --category-column names it too"
            )
        if name in self.category_column:
            if elsewhere:
                raise SettingsError(
                    f"--group-by {name} is a feature, and read from there; --group-path and "
                    "--group-from do not apply"
                )
            return GroupPlace(name, "feature")
        if self.group_from == "key":
            if self.group_path:
                raise SettingsError("--group-path does not go with --group-from key")
            return GroupPlace(name, "key")
        return GroupPlace(name, "event", self.group_path or tuple(name.split(".")))

    def group_column(self, *, strict: bool) -> GroupColumn | None:
        """Return where a file has the groups; None: nowhere, or among the features."""
        place = self.group_place
        if place is None or place.source == "feature":
            return None
        return GroupColumn(place.name, place.path, strict)

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
            group=self.group_column(strict=True),
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

    def options(self, contract: Contract) -> FileOptions:
        """Return how the file is to be read, for a model of this contract."""
        return FileOptions(
            array=self.array,
            label_column=self.label_column,
            id_column=self.id_column,
            timestamp_column=self.timestamp_column,
            drop_columns=self.drop_column,
            group=GroupColumn.of(contract.groups),
            layout=contract.layout,
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
