"""How a model was made, for the sealed file: enough to make it again, nothing of the machine."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from schemas.datafiles import Table
from schemas.errors import SettingsError
from trainer.calibrate import DEFAULT_FLAG_RATES, CalibrationPlan
from trainer.data import Parts, Quality, rows_digest
from trainer.fit import Curves
from trainer.model import FittedModel
from trainer.settings import TrainingSettings

_PACKAGES = ("odradek", "torch", "onnx", "onnxscript", "numpy")
# Two builds of one program under two names.
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


def creation_time(now: datetime) -> datetime:
    """Return `now`, or the time of SOURCE_DATE_EPOCH, which makes a build repeatable.

    Raises:
        SettingsError: SOURCE_DATE_EPOCH is no number of seconds.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return now
    try:
        return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError):
        raise SettingsError(
            f"SOURCE_DATE_EPOCH is {epoch!r}; wanted seconds since 1970, as an integer"
        ) from None


def training_record(
    settings: TrainingSettings,
    table: Table,
    quality: Quality,
    parts: Parts,
    plan: CalibrationPlan,
    model: FittedModel,
) -> dict[str, Any]:
    """Return what `Contract.training` holds."""
    return {
        "settings": settings.model_dump(mode="json") | {"detectors": settings.chosen_detectors()},
        "seed": settings.seed,
        "versions": {name: _version(name) for name in _PACKAGES}
        | {"onnxruntime": next(filter(None, map(_version, _RUNTIMES)), None)},
        "rows_sha256": rows_digest(table),
        "rows": {name: len(rows) for name, rows in asdict(parts).items()},
        "data_quality": asdict(quality),
        "transforms": {
            name: asdict(fitted) for name, fitted in zip(table.names, model.transforms, strict=True)
        },
        # Those of the first network are what a reader of one pair of curves shows.
        "curves": asdict(next(iter(model.curves.values()), Curves((), (), 0))),
        "curves_by_detector": {name: asdict(curves) for name, curves in model.curves.items()},
        "detectors": settings.chosen_detectors(),
        "stored_rows": model.stored_rows,
        "notes": notes(plan),
    }


def notes(plan: CalibrationPlan) -> list[str]:
    """Return what a person should know of how the model was made."""
    if plan.requested is not None or plan.target_flag_rate == DEFAULT_FLAG_RATES[0]:
        return []
    note = (
        f"no flag rate was asked for, and the data cannot support "
        f"{DEFAULT_FLAG_RATES[0]:g}; the smallest supported "
        f"one, {plan.target_flag_rate:g}, was taken"
    )
    return [note]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
