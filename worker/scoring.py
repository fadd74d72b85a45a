"""The ordinary work of a turn: decode, score, judge; each stage timed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from worker.declared_turns import Stage
from worker.decode import InputFormat
from worker.model import Model
from worker.results import to_results
from worker.service import Process
from worker.turn import Outputs, Records


class Stages(Protocol):
    """What times the stages of a turn: `worker.metrics.Metrics`."""

    def stage(self, stage: Stage) -> AbstractContextManager[None]:
        """Return what times a stage, in a `with`."""


def scoring(stages: Stages, top_features_max: int, unmarked: InputFormat = "json") -> Process:
    """Return what makes one output of every record: a score record or a dead letter.

    `unmarked` is the format of records without a header `content-type`.
    """

    def process(records: Records, model: Model) -> Outputs:
        with stages.stage(Stage.DECODE):
            batch = model.decoder.decode(records, unmarked)
        with stages.stage(Stage.SCORE):
            scored = model.score(batch.features)
        with stages.stage(Stage.ENCODE):
            return to_results(records, batch, scored, model, top_features_max)

    return process
