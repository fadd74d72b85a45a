"""Two workers in one group: each has half of the partitions, and does half of an even load."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from bench.counted import outcomes
from demo.books import Books
from demo.worker_process import WorkerProcess
from tests.builders import an_event
from tests.components import within
from tests.end_to_end.stream import WAIT_S, Stream

PARTITIONS = 4
EVENTS = 4000
PROTOCOLS = {"classic": {}, "consumer": {"KAFKA_CONSUMER_GROUP_PROTOCOL": "consumer"}}


@pytest.fixture
def four(kafka) -> Stream:
    """Fresh topics of an even number of partitions."""
    run = uuid4().hex[:8]
    names = (f"events-{run}", f"scores-{run}", f"dead-letters-{run}")
    kafka.create_topics(dict.fromkeys(names, PARTITIONS))
    return Stream(kafka.bootstrap_servers, *names)


def send_evenly(stream: Stream) -> set[tuple[int, int]]:
    """Send to each partition as many as to every other; return where the broker put them."""
    positions: set[tuple[int, int]] = set()
    producer = Producer({"bootstrap.servers": stream.servers, "linger.ms": 5, "log_level": 2})
    for number in range(EVENTS):
        producer.produce(
            stream.input,
            an_event(0.1, 0.2, 0.3),
            partition=number % PARTITIONS,
            on_delivery=lambda _, m: positions.add((m.partition(), m.offset())),
        )
    assert producer.flush(WAIT_S) == 0
    assert len(positions) == EVENTS
    return positions


def partitions_of(worker: WorkerProcess) -> set[int]:
    """The partitions that a worker has said last that it has."""
    said = re.findall(r"having \[([\d, ]*)\]", worker.log.read_text())
    return set(map(int, filter(None, said[-1].split(", ")))) if said else set()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_two_workers_have_half_of_the_partitions_each_and_do_half_of_an_even_load(
    four: Stream, model: Path, tmp_path: Path, protocol: str
):
    workers = [four.worker(model, tmp_path, **PROTOCOLS[protocol]) for _ in range(2)]

    def are_shared_out() -> bool:
        first, second = map(partitions_of, workers)
        return len(first) == len(second) == PARTITIONS / 2 and not first & second

    def done() -> list[int]:
        return [sum(outcomes(worker.http_port).values()) for worker in workers]

    with ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.kill)
            worker.start()
        for worker in workers:
            worker.wait_until_ready()
        assert within(are_shared_out), [worker.log.read_text() for worker in workers]
        sent = send_evenly(four)
        four.read(books := Books(), lambda books: not sent - books.verdicts.keys())
        assert books.verdicts.keys() == sent
        assert books.repeats == 0
        # A score names the partition of its event; nothing has moved since the load began.
        assert are_shared_out()
        scored = [
            sum(partition in partitions_of(worker) for partition, _ in books.verdicts)
            for worker in workers
        ]
        assert scored == [EVENTS / 2, EVENTS / 2]
        assert within(lambda: sum(done()) == EVENTS)
        assert done() == scored
        assert [worker.stop() for worker in workers] == [0, 0]
