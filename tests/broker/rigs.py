"""Two brokers to run one suite on: the memory log and Apache Kafka."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Protocol
from uuid import uuid4

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.dead_letter import Headers
from tests.components import WAIT_S, within
from tests.memory_clients import MemorySink, MemorySource
from tests.memory_log import MemoryLog, Stored
from worker.delivery import CommittingSource, Sink
from worker.health import Health
from worker.hold import Holds
from worker.kafka_client import BrokerWatch
from worker.kafka_properties import exactly_once, kafka_properties
from worker.metrics import Metrics
from worker.positions import Positions
from worker.service import Source
from worker.sink import KafkaSink, Topics
from worker.size_limits import Ask
from worker.source import KafkaSource
from worker.starts import StartRules
from worker.topics import make_admin, topic_limits
from worker.transactions import TransactionalSink
from worker.turn import Turn, TurnLimits


class Rig(Protocol):
    """A broker, and the worker's source and sink on it. Names are unique to a test."""

    def topic(self, partitions: int = 1, bytes_max: int | None = None) -> str: ...
    def produce(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int = 0,
        timestamp_ms: int = 1000,
    ) -> None: ...
    def skip_offsets(self, topic: str) -> None: ...
    def read_all(self, topic: str, count: int) -> list[Stored]: ...
    def committed(self, topic: str, group: str) -> Mapping[int, int]:
        """How far a group has come, by partition; a start alone is not shown."""

    def source(self, topic: str, group: str, batch_max: int = 100) -> CommittingSource: ...
    def sink(self, scores: str, dead_letters: str) -> Sink: ...


def unique(what: str) -> str:
    return f"{what}-{uuid4().hex[:10]}"


def read_turns(source: Source, records: int, wait_s: float = WAIT_S) -> list[Turn]:
    """Read until so many records are there, or time is over."""
    turns: list[Turn] = []

    def enough() -> bool:
        if (turn := source.read(0.1)) is not None:
            turns.append(turn)
        return sum(len(turn.records) for turn in turns) >= records

    assert within(enough, wait_s), f"{turns} within {wait_s} s; wanted {records} records"
    return turns


class MemoryRig:
    def __init__(self) -> None:
        self._log = MemoryLog()
        self._gaps: dict[str, int] = {}

    def topic(self, partitions: int = 1, bytes_max: int | None = None) -> str:
        name = unique("topic")
        self._log.create_topic(name, partitions, *([bytes_max] if bytes_max else []))
        return name

    def produce(self, topic, value, *, key=None, headers=None, partition=0, timestamp_ms=1000):
        self._log.append(
            topic,
            value,
            key=key,
            headers=headers,
            partition=partition,
            timestamp_ms=timestamp_ms,
            gap=self._gaps.pop(topic, 0),
        )

    def skip_offsets(self, topic: str) -> None:
        self._gaps[topic] = 1

    def read_all(self, topic: str, count: int) -> list[Stored]:
        records = self._log.topics[topic].records()
        assert len(records) == count
        return records

    def committed(self, topic: str, group: str) -> Mapping[int, int]:
        return self._log.group(group, topic).committed

    def source(self, topic: str, group: str, batch_max: int = 100) -> CommittingSource:
        return MemorySource(self._log, topic, group, batch_max)

    def sink(self, scores: str, dead_letters: str) -> Sink:
        return MemorySink(self._log, scores, dead_letters)


class KafkaRig:
    def __init__(self, kafka, stack: ExitStack, **variables: str) -> None:
        self._kafka = kafka
        self._stack = stack
        self._servers = {"bootstrap.servers": kafka.bootstrap_servers}
        self._producer = Producer({**self._servers, "linger.ms": 0})
        self._properties, problems = kafka_properties(
            {
                "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
                # A missing topic is told after 30 s else.
                "KAFKA_TOPIC_METADATA_PROPAGATION_MAX_MS": "1000",
                **variables,
            }
        )
        assert not problems
        self.health = Health(60.0, last_beat=0.0)
        self.metrics = Metrics()
        self._watch = BrokerWatch(self.health)
        self.holds = Holds(self.health, self.metrics)
        self._make_admin = partial(make_admin, self._properties.consumer, self._watch)

    def topic(self, partitions: int = 1, bytes_max: int | None = None) -> str:
        name = unique("topic")
        self.create(name, partitions, bytes_max)
        return name

    def create(self, name: str, partitions: int = 1, bytes_max: int | None = None) -> None:
        config = {"retention.ms": "-1"}  # The records here are of 1970.
        if bytes_max:
            config["max.message.bytes"] = str(bytes_max)
        self._kafka.create_topics({name: partitions}, config)

    def produce(self, topic, value, *, key=None, headers=None, partition=0, timestamp_ms=1000):
        refusals = []
        self._producer.produce(
            topic,
            value,
            key,
            partition,
            headers=headers,
            timestamp=timestamp_ms,
            on_delivery=lambda error, _: error and refusals.append(error),
        )
        assert self._producer.flush(WAIT_S) == 0
        assert not refusals

    def skip_offsets(self, topic: str) -> None:
        """The end of a transaction takes an offset that no record has."""
        producer = Producer({**self._servers, "transactional.id": unique("test")})
        producer.init_transactions(WAIT_S)
        producer.begin_transaction()
        producer.produce(topic, b"aborted", partition=0)
        producer.flush(WAIT_S)
        producer.abort_transaction(WAIT_S)

    def read_all(self, topic: str, count: int) -> list[Stored]:
        consumer = Consumer(
            {**self._servers, "group.id": unique("reader"), "auto.offset.reset": "earliest"}
        )
        partitions = consumer.list_topics(topic, timeout=WAIT_S).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        messages = []

        def there() -> bool:
            messages.extend(m for m in consumer.consume(1000, 0.1) if m.error() is None)
            return len(messages) >= count

        assert within(there), f"{len(messages)} records of {topic}; wanted {count}"
        assert not consumer.consume(1, 0.3)
        consumer.close()
        return sorted(
            (
                Stored(m.partition(), m.offset(), m.value(), m.key(), m.headers(), m.timestamp()[1])
                for m in messages
            ),
            key=lambda stored: (stored.partition, stored.offset),
        )

    def committed(self, topic: str, group: str) -> Mapping[int, int]:
        admin = AdminClient(self._servers)
        asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        places = asked[group].result(WAIT_S).topic_partitions
        return {p.partition: p.offset for p in places if p.topic == topic and p.offset > 0}

    def commit(self, topic: str, group: str, offset: int, note: str = "") -> None:
        consumer = Consumer({**self._servers, "group.id": group})
        consumer.commit(offsets=[TopicPartition(topic, 0, offset, note)], asynchronous=False)
        consumer.close()

    def source(
        self,
        topic: str,
        group: str,
        batch_max: int = 100,
        rules: StartRules | None = None,
        *,
        batch_wait_s: float = 0.0,
        in_transactions: bool = False,
        **properties: object,
    ) -> CommittingSource:
        rules = rules or StartRules()
        source = KafkaSource(
            {**self._properties.consumer, "group.id": group, **properties},
            topic,
            TurnLimits(batch_max, batch_wait_s),
            Positions(self._make_admin, topic, group, rules),
            self._watch,
            self.metrics,
            self.holds,
            lambda: None,
            jump_gaps=rules.on_gap == "jump",
            in_transactions=in_transactions,
        )
        self._stack.callback(source.close, 5.0)  # Closing twice does no harm.
        return source

    def sink(self, scores: str, dead_letters: str, **properties: object) -> Sink:
        producer = {**self._properties.producer, **properties}
        topics = Topics(scores, dead_letters)
        sink = KafkaSink(producer, topics, self._watch, self.metrics, self.holds)
        self._stack.callback(sink.close)
        return sink

    def transactions(
        self,
        scores: str,
        dead_letters: str,
        new_id: Callable[[], str] = lambda: unique("transactions"),
        ask_limits: Ask | None = None,
        **properties: object,
    ) -> TransactionalSink:
        kafka, problems = exactly_once(self._properties)
        assert not problems
        sink = TransactionalSink(
            {**kafka.producer, **properties},
            Topics(scores, dead_letters),
            ask_limits or (lambda: topic_limits(self._make_admin(), (scores, dead_letters))),
            new_id,
            self._watch,
            self.metrics,
            self.holds,
            WAIT_S,
        )
        self._stack.callback(sink.close)
        return sink
