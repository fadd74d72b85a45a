"""Writes outputs to Kafka and knows when the broker has them.

`delivery.report.only.error` keeps the client from calling Python for every record that went
well: an empty queue with no failure reported means that all are acknowledged.

A record that is refused for its size is tried again alone, since a broker refuses whole batches;
then in a smaller form (no top features and no headers passed on, or a stub); then in the smallest
(without its key; a stub without value); then it is a failure. Everything else that is refused is
a failure at once, and nothing after it is committed.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, NamedTuple, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.dead_letter import STUB_BYTES, DeadLetter, Headers
from schemas.score import truncate_score
from worker.kafka_client import BrokerWatch, KafkaRecord, Properties, make_client
from worker.metrics import Metrics
from worker.service import SLICE_S, DeliveryFailed
from worker.turn import Outgoing, Outputs

log = logging.getLogger(__name__)

_TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE
_QUEUE_FULL = KafkaError._QUEUE_FULL
_IN_A_BATCH, _ALONE, _SMALLER, _SMALLEST = 1, 2, 3, 4  # The attempts, in their order.


class _Refused(NamedTuple):
    """An output that was not taken, and at which attempt."""

    attempt: int
    error: KafkaError
    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers


class KafkaSink:
    """The output topic and the dead-letter topic, through one idempotent producer."""

    def __init__(
        self,
        properties: Properties,
        output_topic: str,
        dead_letter_topic: str,
        watch: BrokerWatch,
        metrics: Metrics,
    ) -> None:
        self._output_topic = output_topic
        self._dead_letter_topic = dead_letter_topic
        self._watch = watch
        self._metrics = metrics
        self._properties: Properties = {**properties, "error_cb": watch.on_error}
        self._producer = make_client(Producer, self._properties)
        self._alone: Producer | None = None
        self._refused: list[_Refused] = []

    def write(self, outputs: Outputs) -> None:
        self._write(self._output_topic, outputs.scores)
        self._write(self._dead_letter_topic, outputs.dead_letters)

    def settle(self, wait_s: float) -> bool:
        unacknowledged = self._producer.flush(wait_s)
        if self._alone is not None:
            unacknowledged += self._alone.flush(wait_s)
        self._watch.raise_if_refused()
        if self._refused:
            refused, self._refused = self._refused, []
            for output in refused:
                self._try_again(output)
            return False
        return unacknowledged == 0

    def close(self) -> None:
        for producer in filter(None, (self._producer, self._alone)):
            producer.purge()
            producer.flush(SLICE_S)

    def _write(self, topic: str, outgoing: Outgoing) -> None:
        if outgoing.headers:
            # produce_batch drops headers without a word.
            columns = zip(outgoing.values, outgoing.keys, outgoing.headers, strict=True)
            for value, key, headers in columns:
                self._produce(self._producer, topic, value, key, headers, _IN_A_BATCH)
            return
        failed = partial(self._on_failure, _IN_A_BATCH, [])
        messages: list[dict[str, Any]] = [
            {"value": value, "key": key}
            for value, key in zip(outgoing.values, outgoing.keys, strict=True)
        ]
        while messages:
            self._producer.produce_batch(topic, messages, on_delivery=failed)
            # Nothing is raised: the messages that were not taken are marked.
            marked = [(message.pop("_error", None), message) for message in messages]
            messages = [m for error, m in marked if error and error.code() == _QUEUE_FULL]
            self._refused += [
                _Refused(_IN_A_BATCH, error, topic, m["value"], m["key"], [])
                for error, m in marked
                if error and error.code() != _QUEUE_FULL
            ]
            if messages:
                self._producer.poll(SLICE_S)

    def _produce(
        self,
        producer: Producer,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        attempt: int,
    ) -> None:
        # A delivery report does not bring the headers back, and another attempt needs them.
        failed = partial(self._on_failure, attempt, headers)
        while True:
            try:
                producer.produce(topic, value, key, headers=[*headers], on_delivery=failed)
                return
            except BufferError:
                producer.poll(SLICE_S)
            except KafkaException as refusal:  # Beyond the client's own limit, for one.
                error = refusal.args[0]
                self._refused.append(_Refused(attempt, error, topic, value, key, headers))
                return

    def _on_failure(
        self, attempt: int, headers: Headers, error: KafkaError | None, message: Message
    ) -> None:
        if error is not None:
            record = cast("KafkaRecord", message)
            self._refused.append(
                _Refused(attempt, error, record.topic(), record.value(), record.key(), headers)
            )

    def _try_again(self, output: _Refused) -> None:
        attempt, error, topic, value, key, headers = output
        if error.code() != _TOO_LARGE or attempt == _SMALLEST:
            raise DeliveryFailed(
                f"an output to {topic} was refused for good: {error.str()}. Stopping; its turn is "
                "not committed and will be read again. Check that the topic exists, that this user "
                "may write to it, and its max.message.bytes"
            )
        if attempt == _ALONE:
            self._metrics.truncated(1)
            log.warning("An output is too large for %s; it is written in a smaller form.", topic)
            value, headers = self._smaller(topic, value or b"", headers)
        elif attempt == _SMALLER:
            key = None
            value = value if topic == self._output_topic else b""
        if self._alone is None:
            self._alone = make_client(Producer, {**self._properties, "batch.num.messages": 1})
        self._produce(self._alone, topic, value, key, headers, attempt + 1)

    def _smaller(self, topic: str, value: bytes, headers: Headers) -> tuple[bytes, Headers]:
        """Return the smaller form of an output: its value and its headers."""
        if topic == self._output_topic:
            return truncate_score(value), []
        letter = DeadLetter.from_headers(headers).as_stub(value)
        return value[:STUB_BYTES], letter.to_headers()
