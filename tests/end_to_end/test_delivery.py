"""Nothing is lost when workers stop, die or are joined, and when the broker dies."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.books import Books
from demo.broker import Broker
from demo.events import Planned
from demo.player import Player
from tests.builders import an_event
from tests.end_to_end.stream import PARTITIONS, Stream, ends, running, wait_for_log

EVENTS = 20_000


@pytest.fixture(params=["at-least-once", "exactly-once"])
def delivery(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings of both promises; a dead worker's transaction is ended soon."""
    return {
        "ODRADEK_DELIVERY": request.param,
        "KAFKA_PRODUCER_TRANSACTION_TIMEOUT_MS": "3000",
    }


def events(n: int = EVENTS) -> list[bytes | None]:
    rng = random.Random(7)
    values: list[bytes | None] = [
        an_event(*(rng.gauss(0, 1) for _ in range(3)), event_id=f"e{number}") for number in range(n)
    ]
    values[:: n // 20] = [b"rubbish"] * len(values[:: n // 20])
    return values


def all_of(positions: set[tuple[int, int]]) -> Callable[[Books], bool]:
    return lambda books: not positions - books.verdicts.keys()


def test_every_record_has_exactly_one_output(
    stream: Stream, model: Path, tmp_path: Path, delivery: dict[str, str]
):
    sent = stream.send(events())
    books = Books()
    with running(stream.worker(model, tmp_path, **delivery)) as worker:
        stream.read(books, all_of(sent))
        assert worker.stop() == 0
    assert books.verdicts.keys() == sent
    assert books.repeats == 0
    assert books.dead_letters == {"not_json": 20}
    assert stream.committed() == ends(sent)


def test_sigterm_in_mid_stream_ends_in_order_and_loses_nothing(
    stream: Stream, model: Path, tmp_path: Path, delivery: dict[str, str]
):
    sent = stream.send(events())
    books = Books()
    # Small turns, so that the signal comes in the middle of the stream.
    with running(stream.worker(model, tmp_path, ODRADEK_BATCH_MAX="50", **delivery)) as worker:
        stream.wait_for(200)
        assert worker.stop() == 0
    books = Books()
    stream.read(books, lambda books: len(books.verdicts) >= 200)
    done = set(books.verdicts)
    assert done < sent, "all was done before the signal: the test proved nothing"
    # What is committed is what was answered, no more and no less: a clean stop repeats nothing.
    assert stream.committed() == ends(done)
    with running(stream.worker(model, tmp_path, **delivery)) as worker:
        stream.read(books := Books(), all_of(sent))
        assert worker.stop() == 0
    assert books.verdicts.keys() == sent
    assert books.repeats == 0


def test_kill_9_in_mid_stream_loses_nothing(
    stream: Stream, model: Path, tmp_path: Path, delivery: dict[str, str]
):
    sent = stream.send(events())
    with running(stream.worker(model, tmp_path, ODRADEK_BATCH_MAX="50", **delivery)) as worker:
        stream.wait_for(200)
        worker.kill()
    committed = stream.committed()
    stream.read(books := Books(), lambda books: len(books.verdicts) >= 200)
    done = set(books.verdicts)
    assert done < sent, "all was done before the kill: the test proved nothing"
    # Nothing is committed that was not answered.
    owed = {(p, o) for p, end in committed.items() for o in range(end)}
    assert owed <= done
    with running(stream.worker(model, tmp_path, **delivery)) as worker:
        stream.read(books := Books(), all_of(sent))
        assert worker.stop() == 0
    assert books.verdicts.keys() == sent
    # Only the turns in hand can repeat: what was answered and not committed. In transactions
    # nothing is answered that is not committed.
    assert books.repeats == len(done - owed)
    assert stream.committed() == ends(sent)
    assert books.repeats == 0 or delivery["ODRADEK_DELIVERY"] == "at-least-once"


def test_workers_that_join_and_leave_under_load_lose_nothing(
    stream: Stream, model: Path, tmp_path: Path, delivery: dict[str, str]
):
    sent = stream.send(events())
    with running(stream.worker(model, tmp_path, ODRADEK_BATCH_MAX="50", **delivery)) as first:
        stream.wait_for(200)
        with running(stream.worker(model, tmp_path, ODRADEK_BATCH_MAX="50", **delivery)) as second:
            stream.wait_for(2000)
            assert first.stop() == 0
            stream.read(books := Books(), all_of(sent))
            assert second.stop() == 0
    assert books.verdicts.keys() == sent
    assert books.repeats == 0, "an orderly hand-over repeats nothing"
    assert stream.committed() == ends(sent)


def test_a_stop_in_the_middle_of_a_rebalance_repeats_nothing(
    stream: Stream, model: Path, tmp_path: Path
):
    """Commits made while a rebalance is under way fail; they are asked for again in time.

    A rebalance takes seconds here (a heartbeat each way), and what the first commits meanwhile
    waits behind it, then fails for its old generation.
    """
    planned = [Planned("e", str(number), [0.1, 0.2, 0.3]) for number in range(20_000)]
    player = Player(stream.servers, stream.input, planned, rate=2500)
    with running(stream.worker(model, tmp_path, ODRADEK_BATCH_MAX="50")) as first:
        player.start()
        stream.wait_for(500)
        second = stream.worker(model, tmp_path, ODRADEK_BATCH_MAX="50")
        second.start()
        try:
            second.wait_until_ready()
            mark = player.played + 2500
            while player.played < mark:  # A second: in the middle of the rebalance.
                time.sleep(0.01)
            assert first.stop() == 0
            player.join()
            stream.read(books := Books(), lambda books: len(books.verdicts) >= len(planned))
            assert second.stop() == 0
        finally:
            second.kill()
    assert books.verdicts.keys() == player.sent.keys()
    assert books.repeats == 0


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in mid-stream"])
def test_a_stop_while_the_broker_is_away_ends_in_time_and_says_so(
    model: Path, tmp_path: Path, busy: bool
):
    with Broker() as broker:
        broker.create_topics({"in": PARTITIONS, "out": PARTITIONS, "bad": 1})
        stream = Stream(broker.bootstrap_servers, "in", "out", "bad")
        sent = stream.send(events(2000))
        settings = {
            "ODRADEK_BATCH_MAX": "5" if busy else "4096",
            "ODRADEK_STOP_TIMEOUT_S": "3",
        }
        with running(stream.worker(model, tmp_path, **settings)) as worker:
            stream.read(Books(), all_of(sent) if not busy else lambda b: len(b.verdicts) > 20)
            broker.kill()
            if not busy:
                wait_for_log(worker, "No broker answers")
            started = time.monotonic()
            code = worker.stop()
            assert time.monotonic() - started < 20
        log = worker.log.read_text()
    if busy:
        # A turn was in hand, or had just been settled: both are orderly, neither loses anything.
        assert code in (0, 3), log
        assert (code == 3) == ("did not acknowledge the last turn" in log), log
    else:
        assert code == 0, log


def test_a_signal_before_the_first_turn_ends_the_worker_at_once(model: Path, tmp_path: Path):
    nowhere = Stream("127.0.0.1:1", "in", "out", "bad")
    worker = nowhere.worker(model, tmp_path)
    worker.start()
    wait_for_log(worker, "Waiting for a broker")
    assert worker.stop() == 0
    assert "before the first turn" in worker.log.read_text()


def test_a_broker_that_dies_and_comes_back_is_waited_for(model: Path, tmp_path: Path):
    with Broker() as broker:
        broker.create_topics({"in": PARTITIONS, "out": PARTITIONS, "bad": 1})
        stream = Stream(broker.bootstrap_servers, "in", "out", "bad")
        sent = stream.send(events())
        settings = {"ODRADEK_BATCH_MAX": "20", "KAFKA_CONSUMER_SESSION_TIMEOUT_MS": "30000"}
        with running(stream.worker(model, tmp_path, **settings)) as worker:
            stream.wait_for(100)
            broker.kill()
            broker.restart()
            stream.read(books := Books(), all_of(sent))
            assert worker.stop() == 0
        assert books.verdicts.keys() == sent
        assert stream.committed() == ends(sent)
