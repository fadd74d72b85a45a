"""How a model was made, for the sealed file: enough to make it again, nothing of the machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from schemas.contract import MissingPolicy
from schemas.datafiles import Table
from schemas.errors import SettingsError
from trainer.calibrate import DEFAULT_FLAG_RATES, CalibrationPlan, GroupPlan
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
    rows_sha256: str,
    quality: Quality,
    parts: Parts,
    plan: CalibrationPlan,
    model: FittedModel,
) -> dict[str, Any]:
    """Return what `Contract.training` holds; `rows_sha256` is the `rows_digest` of the table."""
    return {
        "settings": settings.model_dump(mode="json") | {"detectors": settings.chosen_detectors()},
        "seed": settings.seed,
        "versions": _versions(),
        "rows_sha256": rows_sha256,
        "rows": {name: len(rows) for name, rows in vars(parts).items()},
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
        **_sampled(model, parts),
        **({} if plan.groups is None else {"groups": _groups(plan.groups)}),
    }


def _sampled(model: FittedModel, parts: Parts) -> dict[str, int]:
    """Return how many fit rows transforms and views were fitted to, where it was not all."""
    return {"sampled_rows": model.sampled_rows} if model.sampled_rows < len(parts.fit) else {}


def _groups(plan: GroupPlan) -> dict[str, int]:
    """Return how many groups have a threshold of their own, how many share one, and their rows."""
    return {
        "own": len(plan.texts),
        "own_rows": sum(plan.rows[:-1]),
        "shared": plan.shared,
        "shared_rows": plan.rows[-1],
    }


def weights_are_of(
    settings: TrainingSettings, table: Table, parts: Parts, policies: Sequence[MissingPolicy]
) -> dict[str, str]:
    """Return digests of all that the trained weights depend on, by what they are of."""
    return {
        "rows": rows_digest(table),
        "split": _sha256(b"".join(part.tobytes() for part in vars(parts).values())),
        "settings": _sha256(json.dumps([settings.model_dump(mode="json"), policies]).encode()),
        "versions": _sha256(json.dumps(_versions()).encode()),
    }


def notes(plan: CalibrationPlan) -> list[str]:
    """Return what a person should know of how the model was made."""
    if plan.requested is not None or plan.target_flag_rate == DEFAULT_FLAG_RATES[0]:
        return []
    data = "the data" if plan.groups is None else "the groups of most events"
    note = (
        f"no flag rate was asked for, and {data} cannot support "
        f"{DEFAULT_FLAG_RATES[0]:g}; the smallest supported "
        f"one, {plan.target_flag_rate:g}, was taken"
    )
    return [note]


def _versions() -> dict[str, str | None]:
    runtime = next(filter(None, map(_version, _RUNTIMES)), None)
    return {name: _version(name) for name in _PACKAGES} | {"onnxruntime": runtime}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
