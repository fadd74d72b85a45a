"""When a transactional client is of no use any more, and what takes its place."""

from __future__ import annotations

import itertools

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import OutsideError
from worker import transactional_client as module
from worker.health import Health
from worker.kafka_client import BrokerWatch
from worker.transactional_client import FORGETFUL, HANGS, TransactionalClient

NO_BROKER = '{"brokers": {":0/internal": {"source": "internal", "state": "INIT"}}}'
A_BROKER = '{"brokers": {"b:9092/1": {"source": "learned", "state": "DOWN"}}}'
FENCED = KafkaError(KafkaError._FENCED, "fenced", fatal=True)
LOADING = KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, "loading", retriable=True)


class Producer:
    """Grants its id after so many asks, and hands statistics on when polled."""

    def __init__(
        self, properties: dict, asks: int, statistics: list[str], waits=lambda _: None
    ) -> None:
        self._waits = waits
        self.id = properties["transactional.id"]
        self._on_statistics = properties["stats_cb"]
        self._asks = asks
        self._statistics = statistics

    def init_transactions(self, wait_s: float) -> None:
        self._asks -= 1
        self._waits(wait_s)
        if self._asks >= 0:
            raise KafkaException(LOADING)

    def poll(self, _: float) -> None:
        while self._statistics:
            self._on_statistics(self._statistics.pop(0))


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def a_client(monkeypatch, *, asks=0, statistics=None, names=None, waits=lambda _: None):
    names = names or map("id-{}".format, itertools.count(1))
    monkeypatch.setattr(
        module,
        "make_client",
        lambda _, properties: Producer(properties, asks, statistics or [], waits),
    )
    watch = BrokerWatch(Health(60.0, last_beat=0.0))
    return TransactionalClient(
        {"transaction.timeout.ms": 10_000}, lambda: next(names), watch, 30.0, lambda: True
    )


def test_one_that_gets_its_id_late_is_of_use(monkeypatch, clock):
    def wait(wait_s: float) -> None:
        clock[0] += wait_s

    client = a_client(monkeypatch, asks=20, waits=wait)  # 20 s, and 10 s is a transaction's.
    assert client.connected
    assert client.broken is None
    assert client.producer.id == "id-1"


def test_one_that_forgets_its_brokers_while_it_waits_for_its_id_is_replaced(monkeypatch):
    client = a_client(monkeypatch, asks=2, statistics=[A_BROKER, NO_BROKER])
    assert client.connected
    assert client.broken is None
    assert client.producer.id == "id-2"


def test_one_that_waits_in_vain_for_as_long_as_a_transaction_hangs(monkeypatch, clock):
    client = a_client(monkeypatch)
    assert client.may_wait()
    clock[0] += 9.9
    assert client.may_wait()
    client.got_on()
    clock[0] += 9.9
    assert client.may_wait()
    clock[0] += 10.1
    assert not client.may_wait()
    assert client.broken is HANGS


def test_one_that_never_gets_its_id_is_replaced_in_the_end(monkeypatch, clock):
    client = a_client(monkeypatch)
    client.breaks(FORGETFUL)
    client.begin_anew()
    client.producer._asks = 1000
    for _ in range(301):
        assert client.producer.id == "id-2"
        client.connect(0.1)
        clock[0] += 0.1
    assert client.producer.id == "id-3"


def test_an_outage_does_not_count_as_hanging(monkeypatch, clock):
    client = a_client(monkeypatch)
    client._watch.on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    for _ in range(10):
        clock[0] += 60
        assert client.may_wait()


@pytest.mark.parametrize("first", [HANGS, FORGETFUL])
def test_that_it_was_fenced_is_never_forgotten(monkeypatch, first):
    client = a_client(monkeypatch, names=itertools.repeat("static"))
    client.breaks(first)
    client.breaks(FENCED)
    client.breaks(first)
    with pytest.raises(OutsideError, match="another worker took over transactional id static"):
        client.begin_anew()


def test_what_broke_it_first_stands(monkeypatch):
    client = a_client(monkeypatch)
    client.breaks(HANGS)
    client.breaks(KafkaError(KafkaError._STATE, "no state for this", fatal=True))
    assert client.broken is HANGS
    client.begin_anew()
    assert client.broken is None
    assert client.producer.id == "id-2"
