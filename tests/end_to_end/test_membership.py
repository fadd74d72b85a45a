"""Workers that join, leave, die, freeze and are added under load: the group's two protocols."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from demo.books import Books
from demo.broker import Broker
from demo.events import Planned
from demo.player import Player
from demo.worker_process import WorkerProcess
from tests.builders import an_event
from tests.end_to_end.stream import PARTITIONS, WAIT_S, Stream, ask, ends, running, wait_for_log

# With the newer protocol the broker sets the session, 45 s unless told otherwise. It also looks
# only every 10 s for transactions that have outlasted their time-out.
SESSION_S = 2.0
QUICK = {
    "group.consumer.session.timeout.ms": int(SESSION_S * 1000),
    "group.consumer.min.session.timeout.ms": 1000,
    "group.consumer.heartbeat.interval.ms": 300,
    "group.consumer.min.heartbeat.interval.ms": 100,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
}
PROTOCOLS = {
    "classic": {
        "KAFKA_CONSUMER_SESSION_TIMEOUT_MS": f"{SESSION_S * 1000:.0f}",
        "KAFKA_CONSUMER_HEARTBEAT_INTERVAL_MS": "300",
    },
    "consumer": {"KAFKA_CONSUMER_GROUP_PROTOCOL": "consumer"},
}
DELIVERIES = {
    "at-least-once": {"ODRADEK_DELIVERY": "at-least-once"},
    "exactly-once": {
        "ODRADEK_DELIVERY": "exactly-once",
        "KAFKA_PRODUCER_TRANSACTION_TIMEOUT_MS": "3000",
    },
}
BATCH_MAX = 100
RATE = 300.0


@pytest.fixture(scope="module")
def quick_kafka() -> Iterator[Broker]:
    with Broker(properties=QUICK) as broker:
        yield broker


@pytest.fixture
def quick(quick_kafka: Broker) -> Stream:
    """Fresh topics on a broker that is quick to give up on members and transactions."""
    return a_stream(quick_kafka)


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> dict[str, str]:
    return PROTOCOLS[request.param]


@pytest.fixture(params=DELIVERIES)
def delivery(request: pytest.FixtureRequest) -> dict[str, str]:
    return DELIVERIES[request.param]


def a_stream(broker: Broker) -> Stream:
    run = uuid4().hex[:8]
    names = (f"events-{run}", f"scores-{run}", f"dead-letters-{run}")
    broker.create_topics(dict.fromkeys(names, PARTITIONS))
    return Stream(broker.bootstrap_servers, *names)


class Load:
    """Events that keep coming until the block ends; then `sent` is all of them."""

    def __init__(self, stream: Stream) -> None:
        planned = (Planned("e", str(number), [0.1, 0.2, 0.3]) for number in range(10**9))
        self._player = Player(stream.servers, stream.input, planned, RATE)
        self._stream = stream

    @property
    def sent(self) -> set[tuple[int, int]]:
        """What the broker has acknowledged so far."""
        return set(self._player.sent.copy())

    def flows(self) -> Books:
        """Wait until what has been sent so far has come out; return the books of it."""
        sent = self.sent
        books = Books()
        self._stream.read(books, lambda books: not sent - books.verdicts.keys(), linger_s=0)
        return books

    def end(self) -> None:
        self._player.stop()
        self._player.join()
        assert self._player.failed is None

    @classmethod
    @contextmanager
    def on(cls, stream: Stream) -> Iterator[Load]:
        load = cls(stream)
        load._player.start()
        try:
            yield load
        finally:
            load._player.stop()
            load._player.join()


def books_of(stream: Stream, sent: set[tuple[int, int]]) -> Books:
    """All outputs, once there is one for all that was sent, and none of anything else."""
    stream.read(books := Books(), lambda books: not sent - books.verdicts.keys())
    assert books.verdicts.keys() == sent
    return books


@contextmanager
def all_running(*workers: WorkerProcess) -> Iterator[None]:
    """Start workers side by side, wait until all are ready, and leave no process behind."""
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.wait_until_ready()
        yield
    finally:
        for worker in workers:
            worker.kill()


def start_until_it_stays(worker: WorkerProcess) -> None:
    """Start it again and again, as an orchestrator would, until it has partitions."""
    deadline = time.monotonic() + WAIT_S
    while "Beginning: " not in (worker.log.read_text() if worker.starts else ""):
        assert time.monotonic() < deadline, worker.log.read_text()
        if not worker.running:
            assert worker.starts == 0 or worker.wait() == 3
            worker.start()
        time.sleep(0.05)


def repeats_max(delivery: dict[str, str]) -> int:
    """Of a worker that died or froze: the turn in flight, and those whose commits were on their
    way. Nobody waits for these: a second of the load covers what a busy machine leaves undone."""
    return 0 if delivery["ODRADEK_DELIVERY"] == "exactly-once" else int(RATE)


def lines_since(worker: WorkerProcess, place: int) -> str:
    return worker.log.read_text()[place:]


@contextmanager
def stopped(worker: WorkerProcess) -> Iterator[None]:
    """A process that does nothing for a while, without knowing."""
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker.pid, signal.SIGCONT)


def size(worker: WorkerProcess) -> int:
    return len(worker.log.read_text())


def commits_stay_or_rise(stream: Stream, before: dict[int, int], seconds: float) -> dict[int, int]:
    """Watch the group's commits for a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        now = stream.committed()
        assert all(now.get(p, 0) >= offset for p, offset in before.items()), (before, now)
        before = now
        time.sleep(0.05)
    return before


def test_with_the_newer_protocol_workers_come_and_go_and_die_and_nothing_is_lost(
    quick: Stream, model: Path, tmp_path: Path, delivery: dict[str, str]
):
    settings = {
        "ODRADEK_BATCH_MAX": str(BATCH_MAX),
        "ODRADEK_STUCK_AFTER_S": "15",  # Rebalances do not make a worker unhealthy.
        **PROTOCOLS["consumer"],
        **delivery,
    }
    first, second, third = (quick.worker(model, tmp_path, **settings) for _ in range(3))
    with Load.on(quick) as load, all_running(first):
        load.flows()
        with all_running(second):
            wait_for_log(second, "Beginning: ")
            load.flows()
            assert first.stop() == 0
            with all_running(third):
                wait_for_log(third, "Beginning: ")
                assert load.flows().repeats == 0, "an orderly hand-over repeats nothing"
                for worker in (second, third):
                    assert ask(worker, "/healthz")[0] == 200
                second.kill()
                wait_for_log(third, "having [0, 1, 2]")
                load.flows()
                load.end()
                books = books_of(quick, load.sent)
                assert third.stop() == 0
    assert books.repeats <= repeats_max(delivery)
    assert quick.committed() == ends(load.sent)


def test_with_the_newer_protocol_a_worker_to_spare_is_ready(
    quick: Stream, model: Path, tmp_path: Path
):
    """Four workers on three partitions: one of them has nothing to do, and that is in order."""
    workers = [
        quick.worker(model, tmp_path, **PROTOCOLS["consumer"]) for _ in range(PARTITIONS + 1)
    ]
    with all_running(*workers):
        for worker in workers:
            assert ask(worker, "/readyz") == (200, "ok\n")
        assert [worker.stop() for worker in workers] == [0] * len(workers)


def test_a_static_member_that_stops_keeps_its_place_and_disturbs_nobody(
    stream: Stream, model: Path, tmp_path: Path, protocol: dict[str, str]
):
    def a_member(name: str) -> WorkerProcess:
        settings = {"KAFKA_CONSUMER_GROUP_INSTANCE_ID": name, **protocol}
        if "KAFKA_CONSUMER_SESSION_TIMEOUT_MS" in settings:
            settings["KAFKA_CONSUMER_SESSION_TIMEOUT_MS"] = "20000"  # For a restart under load.
        return stream.worker(model, tmp_path, **settings)

    stays, stops = a_member("a"), a_member("b")
    with Load.on(stream) as load, all_running(stays, stops):
        wait_for_log(stops, "Beginning: ")
        wait_for_log(stays, "Beginning: ")
        load.flows()
        place = size(stays)
        assert stops.stop() == 0
        log = stops.log.read_text()
        assert "Static member b keeps partitions [" in log
        assert ("for 20 s;" in log) or ("the session timeout that the broker sets" in log)
        with running(a_member("b")) as back:
            wait_for_log(back, "Beginning: ")
            load.flows()
            load.end()
            books = books_of(stream, load.sent)
            assert "ssigned" not in lines_since(stays, place)
            assert "evoked" not in lines_since(stays, place)
            assert back.stop() == stays.stop() == 0
    assert books.repeats == 0
    assert stream.committed() == ends(load.sent)


def test_a_static_member_that_dies_resumes_at_once_under_its_id(
    stream: Stream, model: Path, tmp_path: Path, delivery: dict[str, str]
):
    """Neither the session nor the transaction that it left open is waited for."""
    settings = {
        "ODRADEK_BATCH_MAX": str(BATCH_MAX),
        **delivery,
        "KAFKA_CONSUMER_GROUP_INSTANCE_ID": "a",
        "KAFKA_CONSUMER_SESSION_TIMEOUT_MS": "45000",
        "KAFKA_PRODUCER_TRANSACTION_TIMEOUT_MS": "60000",
    }
    with Load.on(stream) as load:
        with running(stream.worker(model, tmp_path, **settings)) as first:
            load.flows()
            first.kill()
        started = time.monotonic()
        with running(stream.worker(model, tmp_path, **settings)) as second:
            wait_for_log(second, "(committed)")  # An open transaction would hold these back.
            resumed_s = time.monotonic() - started
            load.flows()
            load.end()
            books = books_of(stream, load.sent)
            assert second.stop() == 0
    assert resumed_s < 20, second.log.read_text()
    assert books.repeats <= repeats_max(delivery)
    assert stream.committed() == ends(load.sent)


def test_with_the_newer_protocol_a_dead_members_static_id_is_refused_with_the_reason(
    stream: Stream, model: Path, tmp_path: Path
):
    """The broker keeps its place until its session has expired, and the client gives up."""
    settings = {**PROTOCOLS["consumer"], "KAFKA_CONSUMER_GROUP_INSTANCE_ID": "a"}
    with running(stream.worker(model, tmp_path, **settings)) as first:
        first.kill()
    early = stream.worker(model, tmp_path, **settings)
    early.start()
    assert early.wait() == 3
    assert "its place is kept until its session has expired" in early.log.read_text()


def test_with_the_newer_protocol_a_static_id_is_free_again_once_its_session_has_expired(
    quick: Stream, model: Path, tmp_path: Path
):
    settings = {**PROTOCOLS["consumer"], "KAFKA_CONSUMER_GROUP_INSTANCE_ID": "a"}
    with Load.on(quick) as load:
        with running(quick.worker(model, tmp_path, **settings)) as first:
            load.flows()
            first.kill()
        second = quick.worker(model, tmp_path, **settings)
        try:
            start_until_it_stays(second)
            load.flows()
            load.end()
            books_of(quick, load.sent)
            assert second.stop() == 0
        finally:
            second.kill()
    assert quick.committed() == ends(load.sent)


@pytest.mark.parametrize(
    ("protocol", "delivery"),
    [
        ("classic", "at-least-once"),
        ("classic", "exactly-once"),
        ("consumer", "at-least-once"),
        ("consumer", "exactly-once"),
    ],
)
def test_of_two_workers_with_one_static_id_one_ends_and_says_why(
    quick: Stream, model: Path, tmp_path: Path, protocol: str, delivery: str
):
    """The classic protocol gives the place to the newcomer, the newer one leaves it."""
    settings = {
        **PROTOCOLS[protocol],
        **DELIVERIES[delivery],
        "KAFKA_CONSUMER_GROUP_INSTANCE_ID": "twice",
    }
    first, second = (quick.worker(model, tmp_path, **settings) for _ in range(2))
    sent = quick.send([an_event(0.1, 0.2, 0.3)] * 500)
    try:
        first.start()
        books_of(quick, sent)
        second.start()
        wait_for_log(second, "metrics on port")
        started = time.monotonic()
        loser, winner = (first, second) if protocol == "classic" else (second, first)
        if loser is first:  # It has something to commit when it loses its place.
            sent |= quick.send([an_event(0.1, 0.2, 0.3)] * 500)
        assert loser.wait() == 3
        ended_s = time.monotonic() - started
        sent |= quick.send([an_event(0.1, 0.2, 0.3)] * 500)
        assert "Each worker needs a group.instance.id of its own" in loser.log.read_text()
        books = books_of(quick, sent)
        assert winner.stop() == 0, winner.log.read_text()
    finally:
        first.kill()
        second.kill()
    assert books.repeats == 0 or delivery == "at-least-once"
    assert quick.committed() == ends(sent)
    assert ended_s < 15, loser.log.read_text()


@pytest.mark.parametrize(
    ("protocol", "delivery"),
    [
        ("classic", "at-least-once"),
        ("classic", "exactly-once"),
        ("consumer", "exactly-once"),
    ],
)
def test_a_worker_that_froze_drops_what_it_lost_says_so_and_rejoins(
    quick: Stream, model: Path, tmp_path: Path, protocol: str, delivery: str
):
    """Frozen past its session it is expelled, and others have its partitions when it wakes."""
    settings = {
        "ODRADEK_BATCH_MAX": str(BATCH_MAX),
        **PROTOCOLS[protocol],
        **DELIVERIES[delivery],
    }
    frozen, other = (quick.worker(model, tmp_path, **settings) for _ in range(2))
    with Load.on(quick) as load, all_running(frozen, other):
        wait_for_log(frozen, "Beginning: ")
        wait_for_log(other, "Beginning: ")
        load.flows()
        place, place_of_other = size(frozen), size(other)
        with stopped(frozen):
            wait_for_log(other, "having [0, 1, 2]", since=place_of_other)
            load.flows()  # The other has gone on beyond what the frozen one had in hand.
            before = quick.committed()
        commits_stay_or_rise(quick, before, 1.5)
        wait_for_log(frozen, "Lost partitions", since=place)
        wait_for_log(frozen, "Beginning: ", since=place)
        assert ask(frozen, "/healthz")[0] == 200
        load.flows()
        load.end()
        books = books_of(quick, load.sent)
        assert [frozen.stop(), other.stop()] == [0, 0]
    assert books.repeats <= repeats_max(DELIVERIES[delivery])
    assert quick.committed() == ends(load.sent)


@pytest.fixture(scope="module")
def old_kafka() -> Iterator[Broker]:
    """A broker without the newer protocol, on which a first member waits to be joined for long."""
    properties = {
        "group.coordinator.rebalance.protocols": "classic",
        "group.initial.rebalance.delay.ms": 120_000,
    }
    with Broker(properties=properties) as broker:
        yield broker


def test_a_broker_without_the_newer_protocol_is_a_clear_stop(
    old_kafka: Broker, model: Path, tmp_path: Path
):
    worker = a_stream(old_kafka).worker(model, tmp_path, **PROTOCOLS["consumer"])
    started = time.monotonic()
    worker.start()
    assert worker.wait() == 3
    assert time.monotonic() - started < 25
    log = worker.log.read_text()
    assert "this broker does not offer KAFKA_CONSUMER_GROUP_PROTOCOL=consumer" in log
    assert "Traceback" not in log


def test_a_worker_that_stays_out_of_its_group_fails_its_liveness(
    old_kafka: Broker, model: Path, tmp_path: Path
):
    """So that it is restarted. A client was once seen that never joined again."""
    stream = a_stream(old_kafka)
    worker = stream.worker(model, tmp_path, ODRADEK_STUCK_AFTER_S="3")
    worker.start()
    try:
        wait_for_log(worker, "metrics on port")
        deadline = time.monotonic() + WAIT_S
        while (
            "it has been out of its consumer group for" not in (said := ask(worker, "/healthz"))[1]
        ):
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        assert said[0] == 503
        assert worker.stop() == 0
    finally:
        worker.kill()
