"""The arena: a real broker, topics, a group of workers under load, and the books on all of it.

What faults do to it is in `faults`; this module starts it, watches it, and closes the books.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from demo.worker_process import WorkerFailed
from tests.builders import a_sealed_model
from tests.faults.clerk import Clerk, ends_of, read_back
from tests.faults.entries import Balance, Blow
from tests.faults.group import Group
from tests.faults.ledger import Ledger
from tests.faults.load import Sender
from tests.faults.terms import Terms

OUTPUT_BYTES_MAX = 20_000
STEADY_AGE_S = 0.5  # The flow is steady while no event is older than this without an output.
LOOK_S = 0.02
COMMITTED_TIMEOUT_S = 3.0


class Kafka(Protocol):
    """What the arena needs of a broker, one or several."""

    @property
    def bootstrap_servers(self) -> str: ...

    def create_topics(
        self, partitions: Mapping[str, int], config: Mapping[str, str] | None = None
    ) -> None: ...


class Arena:
    """Everything of one run. Use `an_arena`."""

    def __init__(
        self, stack: ExitStack, kafka: Kafka, terms: Terms, folder: Path, more: Mapping[str, str]
    ) -> None:
        self.kafka = kafka
        self.terms = terms
        self.folder = folder
        run = uuid4().hex[:6]
        self.topics = (f"events-{run}", f"scores-{run}", f"dead-letters-{run}")
        self.partitions = terms.partitions
        self.servers = kafka.bootstrap_servers
        self._make_topics()
        model = folder / "model.onnx"
        model.write_bytes(a_sealed_model())
        self.sender = Sender(self.servers, self.topics[0], terms.rate, terms.seed)
        ledger = Ledger(exactly_once=terms.exactly_once)
        self.clerk = Clerk(self.servers, self.topics[1:], self.sender, ledger)
        self._asker = self._an_asker()
        stack.callback(self._asker.close)
        self.group = Group(
            terms.workers,
            {
                "KAFKA_BOOTSTRAP_SERVERS": self.servers,
                **terms.settings(),
                "ODRADEK_MODEL": str(model),
                "ODRADEK_INPUT_TOPIC": self.topics[0],
                "ODRADEK_OUTPUT_TOPIC": self.topics[1],
                "ODRADEK_DEAD_LETTER_TOPIC": self.topics[2],
                **more,
            },
            folder,
            static_ids=terms.static_ids,
        )
        stack.callback(self.group.kill_all)

    def start(self) -> None:
        """Start the load, and return when the flow is steady."""
        self.group.wait_until_ready()
        self.clerk.start()
        self.sender.start()
        self.recovery_s(time.monotonic(), limit_s=60)

    def is_steady(self, since: float) -> bool:
        with self.clerk.books() as ledger:
            return ledger.is_steady(since, time.monotonic(), range(self.partitions), STEADY_AGE_S)

    def recovery_s(self, since: float, limit_s: float) -> float:
        """Wait for steady flow; return how long after `since` that was.

        Raises:
            TimeoutError: it did not come within the limit.
        """
        deadline = time.monotonic() + limit_s
        while not self.is_steady(since):
            if time.monotonic() > deadline:
                with self.clerk.books() as ledger:
                    waiting = ledger.waiting
                raise TimeoutError(f"no steady flow within {limit_s:g} s; {waiting} wait")
            time.sleep(LOOK_S)
        return time.monotonic() - since

    def committed(self, timeout_s: float = COMMITTED_TIMEOUT_S) -> dict[int, int]:
        """The group's committed offsets, by partition that has one.

        Raises:
            KafkaException: no broker told in time.
        """
        places = [TopicPartition(self.topics[0], p) for p in range(self.partitions)]
        told = self._asker.committed(places, timeout=timeout_s)
        return {place.partition: place.offset for place in told if place.offset >= 0}

    def admin(self) -> AdminClient:
        """A fresh client: one whose coordinator went away may wait for it for ever."""
        return AdminClient({"bootstrap.servers": self.servers, "log_level": 2})

    def alter(self, topics: tuple[str, ...], settings: Mapping[str, str]) -> None:
        """Change settings of topics.

        Raises:
            KafkaException: the broker does not do it.
        """
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in settings.items()
        ]
        wanted = [
            ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
            for topic in topics
        ]
        admin = self.admin()  # Held until it has answered: a client that goes takes that with it.
        for done in admin.incremental_alter_configs(wanted).values():
            done.result(15)

    def dealt(self, blow: Blow) -> None:
        """Enter a fault that was dealt and is over."""
        with self.clerk.books() as ledger:
            ledger.blows.append(blow)
            ledger.enter_committed(blow.committed)

    def close_the_books(self, limit_s: float = 90.0) -> Balance:
        """Stop the load, let the workers finish, stop them in order, and balance."""
        self.sender.stop()
        misses: list[str] = []
        deadline = time.monotonic() + limit_s
        while self._unfinished():
            if time.monotonic() > deadline:
                misses.append(f"not everything was answered and committed within {limit_s:g} s")
                break
            time.sleep(0.1)
        try:  # A signal while Python still starts would end it without a word.
            self.group.wait_until_ready()
        except WorkerFailed as failed:
            misses.append(str(failed).splitlines()[0])
        for stop in self.group.stop_all():
            if stop.code != 0 or stop.seconds > self.terms.stop_timeout_s:
                misses.append(f"a worker's last stop: exit {stop.code} in {stop.seconds:.1f} s")
        incarnation = self.sender.incarnation
        truth = dict(read_back(self.servers, self.topics[0]))
        self.clerk.stop()
        with self.clerk.books() as ledger:
            for number, position in truth.items():
                ledger.enter_sent(
                    number, position._replace(incarnation=incarnation), time.monotonic()
                )
            misses += _against(truth, ledger, incarnation)
            balance = ledger.balance(self.committed(15), ends_of(self.servers, self.topics[0]))
        return balance.with_misses(misses)

    def _unfinished(self) -> bool:
        with self.clerk.books() as ledger:
            if ledger.waiting:
                return True
        try:
            return self.committed() != {
                p: end for p, end in ends_of(self.servers, self.topics[0]).items() if end
            }
        except KafkaException:
            return True

    def _make_topics(self) -> None:
        events, scores, dead_letters = self.topics
        self.kafka.create_topics({events: self.partitions})
        limit = {"max.message.bytes": str(OUTPUT_BYTES_MAX)}
        self.kafka.create_topics({scores: self.partitions, dead_letters: 2}, limit)

    def _an_asker(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": f"odradek-{self.topics[0]}",
                # What an open transaction will commit is not waited for: a dead worker left it.
                "isolation.level": "read_uncommitted",
                "reconnect.backoff.max.ms": 250,
                "log_level": 2,
            }
        )


def _against(truth: Mapping[int, object], ledger: Ledger, incarnation: int) -> list[str]:
    """The topic itself against the reports of the sender: an acknowledged event is there."""
    gone = [
        number
        for number, place in ledger.sent.items()
        if place.incarnation == incarnation and number not in truth and number not in ledger.deleted
    ]
    return [f"{len(gone)} acknowledged events are not in the input topic"] if gone else []


@contextmanager
def an_arena(
    kafka: Kafka, terms: Terms, folder: Path, more: Mapping[str, str] | None = None
) -> Iterator[Arena]:
    """Workers under steady load on this broker; nothing of it is left afterwards."""
    with ExitStack() as stack:
        yield Arena(stack, kafka, terms, folder, more or {})
