"""One detector on one trial, in whichever process this runs: from rows to an outcome."""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bench.detectors import ours
from bench.detectors.peers import Peers
from bench.detectors.trials import DetectorFailed, Failure, Outcome, Trial

NORM = "norm of x"
_REASON_CHARS_MAX = 400  # Some libraries append whole manuals.


@dataclass(frozen=True)
class Detector:
    """What fits and scores. `flags` are the trainer's; `python` is that of PyOD's environment.

    `random` says that its seed changes its scores, so that several seeds tell more than one.
    `texts` says that it takes categories as texts, where a trial has some.
    """

    name: str
    maker: Literal["ours", "pyod", "floor"]
    version: str
    random: bool
    flags: tuple[str, ...] = ()
    texts: bool = False
    python: Path | None = None


_peers: Peers | None = None


def measure(detector: Detector, trial: Trial, timed: bool) -> Outcome | Failure:
    """Fit and score; what a detector dies of is its failure, and not the end of all others'."""
    try:
        return _measured(detector, trial, timed)
    except Exception as error:  # noqa: BLE001  # See above.
        told = str(error)
        if not isinstance(error, DetectorFailed):
            told = f"{type(error).__name__}: {error}"
        shortened = " ".join(told.split())[:_REASON_CHARS_MAX]
        return Failure(detector.name, f"{trial.name}, seed {trial.seed}", shortened)


def _measured(detector: Detector, trial: Trial, timed: bool) -> Outcome:
    calibration, threshold, target, cost, fit_cpu_s = None, None, None, None, 0.0
    match detector.maker:
        case "ours":
            fitted = ours.fit_and_score(trial, detector.flags, texts=detector.texts, timed=timed)
            scores, calibration = fitted.scores, fitted.calibration
            threshold, target = fitted.threshold, fitted.target_flag_rate
            cost, fit_cpu_s = fitted.us_per_event, fitted.fit_cpu_s
        case "pyod":
            scores, fit_cpu_s, cost = _running(detector).score(detector.name, trial, timed=timed)
        case "floor":
            _, test = trial.standardised()
            scores = np.square(test).sum(axis=1)
    if len(scores) != len(trial.kinds) or not np.isfinite(scores).any():
        raise DetectorFailed(f"{np.isfinite(scores).sum()} of {len(trial.kinds)} rows are scored")
    return Outcome(
        protocol=trial.protocol,
        of=trial.of,
        split=trial.split,
        seed=trial.seed,
        detector=detector.name,
        version=detector.version,
        train_rows=len(trial.train),
        features=trial.train.shape[1],
        anomalies=trial.anomalies,
        dirt_percent=trial.dirt_percent,
        fit_cpu_s=fit_cpu_s,
        kinds=trial.kinds.tobytes(),
        scores=scores.astype("<f8").tobytes(),
        calibration=None if calibration is None else calibration.astype("<f8").tobytes(),
        threshold=threshold,
        target_flag_rate=target,
        us_per_event=cost,
    )


def _running(detector: Detector) -> Peers:
    """Return this process's PyOD, started if there is none or the last one ended."""
    global _peers  # One for each process, which ends with it.
    if _peers is None or _peers.ended:
        assert detector.python is not None
        _peers = Peers(detector.python)
        atexit.register(_peers.close)
    return _peers
