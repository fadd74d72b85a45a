"""Writes outputs to Kafka at least once, and knows when the broker has them.

`delivery.report.only.error` keeps the client from calling Python for every record that went
well: an empty queue with no failure reported means that all are acknowledged.

A record that is refused for its size is tried again alone, since a broker refuses whole batches,
and then in smaller forms (`worker.outputs`). One that is refused for anything else, or in its
smallest form, holds the worker: it is kept, tried again every few seconds, and nothing after it is
committed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import Producer

from worker.hold import Hold, Holds
from worker.kafka_client import BrokerWatch, Properties, make_client
from worker.metrics import Metrics
from worker.outputs import (
    TOO_LARGE,
    Form,
    OnRefused,
    Output,
    Refused,
    Shrink,
    hand_over,
    hand_over_one,
    shrink_dead_letter,
    shrink_score,
)
from worker.service import SLICE_S
from worker.statistics import read_statistics
from worker.turn import Outputs

log = logging.getLogger(__name__)

RETRY_S = 2.0  # How often a refused output is tried again.


class Topics(NamedTuple):
    """The two topics that a worker writes to, and how an output of the first is made smaller.

    One that may not be made smaller holds the worker where it is too large.
    """

    output: str
    dead_letter: str
    shrink_output: Shrink | None = shrink_score

    def shrink(self) -> Mapping[str, Shrink]:
        """Return how the outputs of each are made smaller, where they may be."""
        shrink = {self.output: self.shrink_output, self.dead_letter: shrink_dead_letter}
        return {topic: smaller for topic, smaller in shrink.items() if smaller is not None}


class _Again(NamedTuple):
    """A refused output: in which form it was, and whether it was in a batch of its own."""

    refused: Refused
    form: Form
    alone: bool


def refusal_text(refused: Refused) -> str:
    """Return what to tell the person on call."""
    return (
        f"an output to topic {refused.output.topic} is refused: {refused.error.str()}. Nothing "
        f"more is written or committed until it is taken; it is tried again every {RETRY_S:g} s. "
        "Check that the topic exists, that this user may write to it, its max.message.bytes, and "
        "the broker's disk"
    )


class KafkaSink:
    """The output topic and the dead-letter topic, through one idempotent producer."""

    def __init__(
        self,
        properties: Properties,
        topics: Topics,
        watch: BrokerWatch,
        metrics: Metrics,
        holds: Holds,
    ) -> None:
        self._topics = topics
        self._shrink = topics.shrink()
        self._watch = watch
        self._metrics = metrics
        self._holds = holds
        self._properties: Properties = {**properties, "error_cb": watch.on_error}
        statistics = {"stats_cb": self._on_statistics}
        self._producer = make_client(Producer, {**self._properties, **statistics})
        self._alone: Producer | None = None
        self._refused: list[_Again] = []
        self._held_back: list[_Again] = []  # Refused for what no other form can mend.
        self._retry_at = 0.0

    def write(self, outputs: Outputs) -> None:
        on_refused = self._on_refused(Form.WHOLE, alone=False)
        hand_over(self._producer, self._topics.output, outputs.scores, on_refused)
        hand_over(self._producer, self._topics.dead_letter, outputs.dead_letters, on_refused)

    def settle(self, wait_s: float) -> bool:
        if self._held_back:
            if time.monotonic() < self._retry_at:
                self._producer.poll(wait_s)
                return False
            held_back, self._held_back = self._held_back, []
            for again in held_back:
                self._write(again.refused.output, again.form, alone=again.alone)
        unacknowledged = self._producer.flush(wait_s)
        if self._alone is not None:
            unacknowledged += self._alone.flush(wait_s)
        self._watch.raise_if_refused()
        refused, self._refused = self._refused, []
        for again in refused:
            self._try_again(again)
        if unacknowledged or refused:
            return False
        self._holds.end(Hold.OUTPUT, "the outputs are taken again.")
        return True

    def close(self) -> None:
        for producer in filter(None, (self._producer, self._alone)):
            producer.purge()
            producer.flush(SLICE_S)

    def _on_refused(self, form: Form, *, alone: bool) -> OnRefused:
        def on_refused(refused: Refused) -> None:
            self._metrics.not_taken(refused.error.name())
            self._refused.append(_Again(refused, form, alone))

        return on_refused

    def _on_statistics(self, text: str) -> None:
        self._metrics.librdkafka.hear("producer", read_statistics(text))

    def _try_again(self, again: _Again) -> None:
        (output, error), form, alone = again
        shrink = self._shrink.get(output.topic)
        if error.code() == TOO_LARGE and not alone:
            self._write(output, form, alone=True)
        elif error.code() == TOO_LARGE and form is not Form.SMALLEST and shrink is not None:
            form = Form(form + 1)
            if form is Form.SMALLER:
                self._metrics.truncated(1)
                log.warning(
                    "An output is too large for %s; it is written in a smaller form.", output.topic
                )
            self._write(shrink(output, form), form, alone=True)
        else:
            self._holds.begin(Hold.OUTPUT, refusal_text(again.refused))
            self._held_back.append(again)
            self._retry_at = time.monotonic() + RETRY_S

    def _write(self, output: Output, form: Form, *, alone: bool) -> None:
        producer = self._producer
        if alone:
            if self._alone is None:
                own = {"batch.num.messages": 1, "statistics.interval.ms": 0}
                self._alone = make_client(Producer, {**self._properties, **own})
            producer = self._alone
        hand_over_one(producer, output, self._on_refused(form, alone=alone))
