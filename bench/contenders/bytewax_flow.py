"""A contender: Bytewax, a dataflow on the batches that its Kafka source reads.

Its documentation has `flat_map_batch` for work that is cheaper on many items at once. Batches
are what `KafkaSource` has polled, at most `batch_size`; the sink flushes after each. Recovery is
on, as its documentation asks for in production: places are kept in SQLite, never in Kafka.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from bench.contenders.records import BATCH_MAX, Scorer, joined, servers, topics

EPOCH = timedelta(seconds=1)


def flow() -> Dataflow:
    input_topic, output_topic = topics()
    scorer = Scorer(input_topic)

    def score(batch: list[KafkaSourceMessage]) -> Iterator[KafkaSinkMessage]:
        values = scorer.records(
            (message.value for message in batch),
            ((message.partition, message.offset) for message in batch),
        )
        for message, value in zip(batch, values, strict=True):
            yield KafkaSinkMessage(message.key, value)

    dataflow = Dataflow("bench")
    brokers = [servers()]
    events = kop.input(
        "events", dataflow, brokers=brokers, topics=[input_topic], batch_size=BATCH_MAX
    )
    scores = op.flat_map_batch("score", events.oks, score)
    kop.output("scores", scores, brokers=brokers, topic=output_topic)
    return dataflow


def main() -> None:
    dataflow = flow()
    joined()  # There is no group to join.
    with tempfile.TemporaryDirectory() as folder:
        init_db_dir(Path(folder), 1)
        cli_main(dataflow, epoch_interval=EPOCH, recovery_config=RecoveryConfig(folder))


if __name__ == "__main__":
    main()
