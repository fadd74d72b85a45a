"""Each turn as a trace: a span for the turn, in it one for each of its stages.

Nothing of it exists unless ODRADEK_TRACING is on: it stands between the worker and its source, its
delivery and its stages (`Tracing.around`), which know nothing of it. While a turn is
under way only times are noted. Its spans are made when it is settled, and sent by a thread of the
SDK's own (`worker.span_export`).

Names and attributes follow OpenTelemetry's semantic conventions for messaging, version 1.44; what
they have no name for begins with `odradek.`. See docs/tracing.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns, time_ns
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from worker.declared_turns import Stage
from worker.model import Model
from worker.scoring import Stages
from worker.service import Delivery, Settled, Source
from worker.span_links import links_of
from worker.turn import Outputs, Records, Turn

Attributes = dict[str, str | int]


class Places(NamedTuple):
    """What a worker's spans say of where it reads and writes."""

    input_topic: str
    output_topic: str
    dead_letter_topic: str
    group: str
    client_id: str


class _Took(NamedTuple):
    """A stage of a turn, in ns of the performance counter."""

    stage: Stage
    began: int
    ended: int


class _Wrote(NamedTuple):
    """How many records a turn's outputs are, by topic and by what became of its events."""

    scores: int
    dead_letters: int
    outcomes: Mapping[str, int]


@dataclass
class _Traced:
    """What is noted of a turn on its way."""

    turn: Turn
    model: Model
    stages: list[_Took]
    wrote: _Wrote | None = None
    settling_since: int | None = None


class Tracing:
    """The traces of one worker's turns.

    `model` returns the model of the turn in hand. `links_max` bounds the links of a turn. `close`
    waits a bounded time for what is not sent yet.
    """

    def __init__(
        self,
        tracer: Tracer,
        places: Places,
        model: Callable[[], Model],
        links_max: int,
        close: Callable[[], None],
    ) -> None:
        self._tracer = tracer
        self._places = places
        self._model = model
        self._links_max = links_max
        self._close = close
        self._consumer: Attributes = {
            "messaging.consumer.group.name": places.group,
            "messaging.client.id": places.client_id,
        }
        self._in_hand: _Traced | None = None  # Read, and not written yet.
        self._written: _Traced | None = None

    def around(
        self, source: Source, delivery: Delivery, stages: Stages
    ) -> tuple[Source, Delivery, Stages]:
        """Return the parts of a worker, each as it was, with what they do noted."""
        traced = _TracedSource(source, self), _TracedDelivery(delivery, self)
        return *traced, _TracedStages(stages, self)

    def close(self) -> None:
        """Let go of the turns under way, and send what is not sent yet."""
        self._drop_in_hand()
        if self._written is not None:
            self._record(self._written, "not_settled")
            self._written = None
        self._close()

    def began(self, turn: Turn, at: int) -> None:
        """A turn was read. The one before it was written by now, or never will be."""
        self._drop_in_hand()
        self._in_hand = _Traced(turn, self._model(), [_Took(Stage.READ, at, perf_counter_ns())])

    def took(self, stage: Stage, began: int) -> None:
        """The turn in hand is through a stage."""
        if self._in_hand is not None:
            self._in_hand.stages.append(_Took(stage, began, perf_counter_ns()))

    def wrote(self, outputs: Outputs, began: int) -> None:
        """The turn in hand is written."""
        self.took(Stage.WRITE, began)
        self._written, self._in_hand = self._in_hand, None
        if self._written is not None:
            self._written.wrote = _Wrote(
                len(outputs.scores), len(outputs.dead_letters), outputs.tally.outcomes
            )

    def settled(self, turn: Turn, outcome: Settled, began: int) -> None:
        """Something is known, or still not, of the turn that was written."""
        if (traced := self._written) is None:
            return
        since = traced.settling_since = traced.settling_since or began
        if outcome is Settled.WAITING:
            return
        self._written = None
        traced.turn = turn  # What is left of it: partitions may have gone since it was read.
        traced.stages.append(_Took(Stage.SETTLE, since, perf_counter_ns()))
        self._record(traced, None if outcome is Settled.DONE else "undone")

    def _drop_in_hand(self) -> None:
        if self._in_hand is not None:
            self._record(self._in_hand, "not_written")
            self._in_hand = None

    def _record(self, traced: _Traced, failure: str | None) -> None:
        """Make a turn's spans. One that its sampler does not want costs no more than that."""
        epoch = time_ns() - perf_counter_ns()
        topic = self._places.input_topic
        span = self._tracer.start_span(
            f"process {topic}",
            Context(),  # Each turn is a trace of its own: its events may come from thousands.
            SpanKind.CONSUMER,
            self._turn_attributes(traced),
            start_time=epoch + traced.stages[0].began,
        )
        if span.is_recording():
            self._link(span, traced.turn.records)
            inside = set_span_in_context(span, Context())
            for took in traced.stages:
                self._record_stage(inside, traced, took, epoch)
            if failure is not None:
                span.set_attribute("error.type", failure)
                span.set_status(Status(StatusCode.ERROR))
        span.end(epoch + traced.stages[-1].ended)

    def _link(self, span: Span, records: Records) -> None:
        found = links_of(records, self._links_max)
        for context, attributes in found.links:
            span.add_link(context, attributes)
        span.set_attributes(
            {
                "odradek.links.left_out": found.left_out,
                "odradek.links.unsampled": found.unsampled,
                "odradek.links.malformed": found.malformed,
            }
        )

    def _turn_attributes(self, traced: _Traced) -> Attributes:
        topic, records = self._places.input_topic, len(traced.turn.records)
        attributes = _operation("process", "process", topic, records) | self._consumer
        attributes["odradek.turn.released"] = str(traced.turn.released)
        model = traced.model.reference
        attributes["odradek.model.name"] = model.name
        attributes["odradek.model.version"] = model.version
        attributes["odradek.model.digest"] = model.digest
        if traced.wrote is not None:
            for outcome, of_it in traced.wrote.outcomes.items():
                attributes[f"odradek.records.{outcome}"] = of_it
        return attributes

    def _record_stage(self, inside: Context, traced: _Traced, took: _Took, epoch: int) -> None:
        stage, topic = took.stage, self._places.input_topic
        attributes: Attributes = {"odradek.stage": str(stage)}
        name, kind = str(stage), SpanKind.INTERNAL
        match stage:
            case Stage.READ | Stage.SETTLE:
                operation = ("poll", "receive") if stage is Stage.READ else ("commit", "settle")
                name, kind = f"{operation[0]} {topic}", SpanKind.CLIENT
                attributes |= _operation(*operation, topic, len(traced.turn.records))
                attributes |= self._consumer
            case Stage.WRITE if traced.wrote is not None:
                scores, letters, _ = traced.wrote
                places = self._places
                to = places.dead_letter_topic if letters else places.output_topic
                # The conventions want a destination where it is that of all records.
                of_all = None if scores and letters else to
                name, kind = f"send {of_all}" if of_all else "send", SpanKind.CLIENT
                attributes |= _operation("send", "send", of_all, scores + letters)
        began, ended = epoch + took.began, epoch + took.ended
        self._tracer.start_span(name, inside, kind, attributes, start_time=began).end(ended)


def _operation(name: str, kind: str, topic: str | None, records: int) -> Attributes:
    """Return what the conventions want of an operation on a batch."""
    attributes: Attributes = {
        "messaging.system": "kafka",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.batch.message_count": records,
    }
    if topic is not None:
        attributes["messaging.destination.name"] = topic
    return attributes


class _TracedSource:
    """`worker.service.Source`: all is as it was, and reads are noted."""

    def __init__(self, source: Source, tracing: Tracing) -> None:
        self._source = source
        self._tracing = tracing
        self.start = source.start
        self.keep_alive = source.keep_alive
        self.still_owned = source.still_owned
        self.rewind = source.rewind
        self.close = source.close

    def read(self, wait_s: float) -> Turn | None:
        began = perf_counter_ns()
        turn = self._source.read(wait_s)
        if turn is not None:
            self._tracing.began(turn, began)
        return turn


class _TracedDelivery:
    """`worker.service.Delivery`: all is as it was, and writes and settlements are noted."""

    def __init__(self, delivery: Delivery, tracing: Tracing) -> None:
        self._delivery = delivery
        self._tracing = tracing
        self.idle = delivery.idle
        self.close = delivery.close

    def write(self, outputs: Outputs) -> None:
        began = perf_counter_ns()
        self._delivery.write(outputs)
        self._tracing.wrote(outputs, began)

    def settle(self, turn: Turn, wait_s: float) -> Settled:
        began = perf_counter_ns()
        outcome = self._delivery.settle(turn, wait_s)
        self._tracing.settled(turn, outcome, began)
        return outcome


class _TracedStages:
    """`worker.scoring.Stages`: all is as it was, and times are noted."""

    def __init__(self, stages: Stages, tracing: Tracing) -> None:
        self._stages = stages
        self._tracing = tracing

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        began = perf_counter_ns()
        with self._stages.stage(stage):
            yield
        self._tracing.took(stage, began)
