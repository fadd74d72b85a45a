"""The ordinary work of a turn: decode, score, judge; each stage timed."""

from __future__ import annotations

from worker.decode import InputFormat
from worker.metrics import Metrics, Stage
from worker.model import Model
from worker.results import to_results
from worker.service import Process
from worker.turn import Outputs, Records


def scoring(metrics: Metrics, top_features_max: int, unmarked: InputFormat = "json") -> Process:
    """Return what makes one output of every record: a score record or a dead letter.

    `unmarked` is the format of records without a header `content-type`.
    """

    def process(records: Records, model: Model) -> Outputs:
        with metrics.stage(Stage.DECODE):
            batch = model.decoder.decode(records, unmarked)
        with metrics.stage(Stage.SCORE):
            scored = model.score(batch.features)
        with metrics.stage(Stage.ENCODE):
            return to_results(records, batch, scored, model, top_features_max)

    return process
