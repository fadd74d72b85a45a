"""What several folders of tests share: one real Kafka for the session."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import settings

from demo.broker import Broker
from tests.components import or_skip
from tests.end_to_end.stream import PARTITIONS, Stream

# The machines of CI are shared: how long one example takes says nothing of ours.
settings.register_profile("odradek", deadline=None, print_blob=True)
settings.load_profile("odradek")


class GivenKafka(NamedTuple):
    """The broker that KAFKA_BOOTSTRAP_SERVERS names, used as the embedded one is."""

    bootstrap_servers: str

    def create_topics(
        self, partitions: Mapping[str, int], config: Mapping[str, str] | None = None
    ) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        topics = [NewTopic(name, n, config=dict(config or {})) for name, n in partitions.items()]
        for created in admin.create_topics(topics).values():
            created.result(15)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker | GivenKafka]:
    """A real Kafka. Without one: a skip with the reason on a laptop, a failure where CI is set."""
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield GivenKafka(given)
        return
    with or_skip(Broker) as broker:
        yield broker


@pytest.fixture
def stream(kafka) -> Stream:
    """Fresh topics for a worker."""
    run = uuid4().hex[:8]
    names = (f"events-{run}", f"scores-{run}", f"dead-letters-{run}")
    kafka.create_topics(dict.fromkeys(names, PARTITIONS))
    return Stream(kafka.bootstrap_servers, *names)


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without settings of the worker's; the test adds its own."""
    for name in list(os.environ):
        if name.startswith(("ODRADEK_", "KAFKA_")):
            monkeypatch.delenv(name)
    return monkeypatch
