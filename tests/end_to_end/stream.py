"""A stream for the end-to-end tests: topics, a sender, the books, and a worker process."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from confluent_kafka import Consumer, Producer, TopicPartition

from demo.books import Books
from demo.readers import Reader
from demo.worker_process import WorkerProcess

WAIT_S = 60.0
PARTITIONS = 3


class Stream(NamedTuple):
    """Fresh topics on a broker, and how to use them."""

    servers: str
    input: str
    output: str
    dead_letter: str

    def worker(self, model: Path, folder: Path, **settings: str) -> WorkerProcess:
        """A worker of this stream, not started yet; its log is in `folder`."""
        session = {"KAFKA_CONSUMER_SESSION_TIMEOUT_MS": "6000"}
        if settings.get("KAFKA_CONSUMER_GROUP_PROTOCOL") == "consumer":
            session = {}  # The broker sets it there, and the client refuses the property.
        return WorkerProcess(
            {
                "KAFKA_BOOTSTRAP_SERVERS": self.servers,
                **session,
                "ODRADEK_MODEL": str(model),
                "ODRADEK_INPUT_TOPIC": self.input,
                "ODRADEK_OUTPUT_TOPIC": self.output,
                "ODRADEK_DEAD_LETTER_TOPIC": self.dead_letter,
                "ODRADEK_MODEL_CHECK_INTERVAL_S": "0.1",
                "ODRADEK_HTTP_HOST": "127.0.0.1",
                **settings,
            },
            folder / f"worker-{uuid4().hex[:6]}.log",
        )

    def send(self, values: Sequence[bytes | None]) -> set[tuple[int, int]]:
        """Send records and return where the broker put them."""
        positions: set[tuple[int, int]] = set()
        producer = Producer(
            {
                "bootstrap.servers": self.servers,
                "enable.idempotence": True,  # In order, and once, also where a broker is slow.
                "linger.ms": 5,
                "log_level": 2,
            }
        )
        for number, value in enumerate(values):
            producer.produce(
                self.input,
                value,
                key=str(number),
                on_delivery=lambda _, m: positions.add((m.partition(), m.offset())),
            )
            producer.poll(0)
        assert producer.flush(WAIT_S) == 0
        assert len(positions) == len(values)
        return positions

    def wait_for(self, outputs: int) -> None:
        """Return as soon as there are so many outputs: the worker is in mid-stream then."""
        self.read(Books(), lambda books: len(books.verdicts) >= outputs, linger_s=0)

    def read(self, books: Books, until: Callable[[Books], bool], linger_s: float = 0.5) -> None:
        """Enter all outputs from the start into the books, until they are as wanted.

        Then linger for those that may still be under way, such as repeats.
        """
        reader = Reader(self.servers, self.output, self.dead_letter)
        try:
            deadline = time.monotonic() + WAIT_S
            while not until(books):
                assert time.monotonic() < deadline, f"{len(books.verdicts)} outputs in {WAIT_S} s"
                reader.read(books, 0.05)
            while linger_s and reader.read(books, linger_s):
                pass
        finally:
            reader.close()

    def committed(self) -> dict[int, int]:
        """How far the worker's group has come, by partition; a start alone is not shown."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": f"odradek-{self.input}",
                "log_level": 2,
            }
        )
        places = [TopicPartition(self.input, partition) for partition in range(PARTITIONS)]
        committed = consumer.committed(places, timeout=10)
        consumer.close()
        return {place.partition: place.offset for place in committed if place.offset > 0}


@contextmanager
def running(worker: WorkerProcess) -> Iterator[WorkerProcess]:
    """Start a worker, wait until it is ready, and leave no process behind."""
    worker.start()
    try:
        worker.wait_until_ready()
        yield worker
    finally:
        worker.kill()


def ends(positions: set[tuple[int, int]]) -> dict[int, int]:
    """The offset after the last of these positions, by partition."""
    result: dict[int, int] = {}
    for partition, offset in positions:
        result[partition] = max(result.get(partition, 0), offset + 1)
    return result


def ask(worker: WorkerProcess, path: str) -> tuple[int, str]:
    """Return the status and text of a worker's answer."""
    try:
        url = f"http://127.0.0.1:{worker.http_port}{path}"
        with urllib.request.urlopen(url, timeout=5) as said:
            return said.status, said.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def wait_for_log(worker: WorkerProcess, text: str, since: int = 0) -> None:
    """Wait until the worker has logged this, behind so many characters of its log."""
    deadline = time.monotonic() + WAIT_S
    while text not in (logged := worker.log.read_text()[since:]):
        assert time.monotonic() < deadline, f"{text!r} is not in {logged}"
        time.sleep(0.02)
