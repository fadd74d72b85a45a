"""What both sinks do with an output: hand it to librdkafka, and make it smaller if it must be.

An output that is refused for its size is tried in a smaller form (no top features, or a stub; of
the headers passed on only a short trace context), then in the smallest (without that and its key;
a stub without value).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.dead_letter import STUB_BYTES, DeadLetter, Headers
from schemas.score import truncate_score
from worker.kafka_records import KafkaRecord
from worker.service import SLICE_S
from worker.trace_context import short_trace_headers
from worker.turn import Outgoing

TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE
_QUEUE_FULL = KafkaError._QUEUE_FULL


class Form(IntEnum):
    """How much of an output is left, in the order in which they are tried."""

    WHOLE = 1
    SMALLER = 2
    SMALLEST = 3


class Output(NamedTuple):
    """One record for an output topic."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers

    def bytes(self) -> int:
        """Return about how much of a topic's limit it takes: its own bytes, without framing."""
        own = len(self.value or b"") + len(self.key or b"")
        return own + sum(len(name.encode()) + len(value or b"") for name, value in self.headers)


class Refused(NamedTuple):
    """An output that was not taken, and why."""

    output: Output
    error: KafkaError


class Shrink(Protocol):
    """How outputs of a topic are made smaller."""

    def __call__(self, output: Output, form: Form) -> Output:
        """Return the output in this form, made of the one before it."""


def shrink_score(output: Output, form: Form) -> Output:
    """A score record: without what it explains and passes on; then without key and trace."""
    if form is Form.SMALLER:
        value = truncate_score(output.value or b"")
        return output._replace(value=value, headers=short_trace_headers(output.headers))
    return output._replace(key=None, headers=[])


def shrink_dead_letter(output: Output, form: Form) -> Output:
    """A dead letter: a stub; then a stub without value, key and trace."""
    if form is Form.SMALLER:
        value = output.value or b""
        letter = DeadLetter.from_headers(output.headers).as_stub(value)
        headers = short_trace_headers(output.headers) + letter.to_headers()
        return output._replace(value=value[:STUB_BYTES], headers=headers)
    headers = DeadLetter.from_headers(output.headers).to_headers()
    return output._replace(value=b"", key=None, headers=headers)


OnRefused = Callable[[Refused], None]


def hand_over(producer: Producer, topic: str, outgoing: Outgoing, on_refused: OnRefused) -> None:
    """Hand over records without waiting for acknowledgements; only refusals are told."""
    if outgoing.headers:
        # One by one: `produce_batch` drops headers without a word.
        for output in outputs_of(topic, outgoing):
            hand_over_one(producer, output, on_refused)
        return

    def reported(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            record = cast("KafkaRecord", message)
            on_refused(Refused(Output(topic, record.value(), record.key(), []), error))

    messages: list[dict[str, Any]] = [
        {"value": value, "key": key}
        for value, key in zip(outgoing.values, outgoing.keys, strict=True)
    ]
    while messages:
        if producer.produce_batch(topic, messages, on_delivery=reported) == len(messages):
            return
        # Nothing is raised: the messages that were not taken are marked.
        marked = [(message.pop("_error", None), message) for message in messages]
        messages = [m for error, m in marked if error and error.code() == _QUEUE_FULL]
        for error, m in marked:
            if error and error.code() != _QUEUE_FULL:
                on_refused(Refused(Output(topic, m["value"], m["key"], []), error))
        if messages:
            producer.poll(SLICE_S)


def outputs_of(topic: str, outgoing: Outgoing) -> Iterator[Output]:
    """Return the records one by one."""
    headers: list[Headers] = outgoing.headers or [[]] * len(outgoing)
    for record in zip(outgoing.values, outgoing.keys, headers, strict=True):
        yield Output(topic, *record)


def hand_over_one(producer: Producer, output: Output, on_refused: OnRefused) -> None:
    """As `hand_over`, for one record; waits where the client's queue is full."""
    topic, value, key, headers = output
    report = partial(_report, on_refused, output)
    while True:
        try:
            producer.produce(topic, value, key, headers=[*headers], on_delivery=report)
            return
        except BufferError:
            producer.poll(SLICE_S)
        except KafkaException as refusal:  # Beyond the client's own limit, for one.
            on_refused(Refused(output, refusal.args[0]))
            return


def _report(on_refused: OnRefused, output: Output, error: KafkaError | None, _: Message) -> None:
    """Tell of a refused record. Its delivery report does not bring its headers back; we do."""
    if error is not None:
        on_refused(Refused(output, error))
