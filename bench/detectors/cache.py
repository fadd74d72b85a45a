"""Outcomes that a run before has found, so that a rerun costs nothing: one JSON file each.

A file is named by what it is of, and by a digest over everything that has a say in it: the rows
themselves, the seed (of a detector that has one), the detector, its flags and its version; and,
where time was measured, the processor.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from bench.contenders.environments import FOLDER
from bench.detectors.measure import Detector
from bench.detectors.trials import Outcome, Trial

OUTCOMES = FOLDER / "quality"


def key(detector: Detector, trial: Trial, digest: str, processor: str | None) -> str:
    """Return the name of the outcome's file; `digest` is the trial's. `processor`: if timed."""
    said = (
        digest,
        trial.seed if detector.random else None,
        (detector.name, detector.flags, detector.texts, detector.version),
        processor,
    )
    told = hashlib.sha256(repr(said).encode()).hexdigest()[:16]
    parts = (trial.protocol, trial.of, str(trial.split), str(trial.seed), detector.name)
    return re.sub(r"[^\w.-]+", "_", "-".join(parts)) + f"-{told}"


def find(name: str, folder: Path = OUTCOMES) -> Outcome | None:
    """Return the outcome of this name, if it is there and can be read."""
    try:
        return msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=Outcome)
    except (OSError, msgspec.DecodeError):
        return None


def keep(name: str, outcome: Outcome, folder: Path = OUTCOMES) -> None:
    """Write an outcome, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{name}.draft"
    draft.write_bytes(msgspec.json.encode(outcome))
    draft.replace(folder / f"{name}.json")
