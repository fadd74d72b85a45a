"""The demonstration's Kafka: the embedded one, or the one that KAFKA_BOOTSTRAP_SERVERS names."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple
from uuid import uuid4

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from demo.broker import Broker
from demo.player import QUIET

PARTITIONS = 4
ADMIN_TIMEOUT_S = 10.0


class Topics(NamedTuple):
    """The topics of one run, named anew each time so that runs do not mix."""

    input: str
    output: str
    dead_letter: str


class Kafka:
    """Starts at once, in the background; ends with `stack`."""

    def __init__(self, stack: ExitStack) -> None:
        """Start the embedded broker, or look whether the given one answers.

        Raises:
            KafkaException: it does not.
        """
        self._stack = stack
        self._given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        self._broker = Broker()
        if self._given:
            # Found out now, not after the training.
            AdminClient({"bootstrap.servers": self._given, "log_level": QUIET}).list_topics(
                timeout=ADMIN_TIMEOUT_S
            )
        else:
            stack.callback(self._broker.close)
            # Leaving the stack waits for the start to end, then closes the broker.
            executor = stack.enter_context(ThreadPoolExecutor(1, "broker"))
            self._started = executor.submit(self._broker.start)

    def ready(self) -> tuple[str, Topics]:
        """Wait for the broker, make the topics, and return its address and their names.

        Raises:
            BrokerUnavailable: the embedded broker cannot be had.
            KafkaException: the broker does not make the topics.
        """
        run = uuid4().hex[:6]
        topics = Topics(f"events-{run}", f"scores-{run}", f"dead-letters-{run}")
        if self._given:
            self._make(self._given, topics)
            return self._given, topics
        self._started.result()
        self._broker.create_topics(dict.fromkeys(topics, PARTITIONS))
        return self._broker.bootstrap_servers, topics

    def _make(self, servers: str, topics: Topics) -> None:
        admin = AdminClient({"bootstrap.servers": servers, "log_level": QUIET})
        made = admin.create_topics([NewTopic(topic, PARTITIONS) for topic in topics])
        for future in made.values():
            future.result(ADMIN_TIMEOUT_S)
        self._stack.callback(lambda: admin.delete_topics([*topics]))
