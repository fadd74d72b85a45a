"""Nothing is lost when workers stop, die or are joined, and when the broker dies."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.books import Books
from demo.broker import Broker
from tests.builders import a_sealed_model, an_event
from tests.end_to_end.stream import PARTITIONS, Stream, ends, running

EVENTS = 20_000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(a_sealed_model())
    return path


def events(n: int = EVENTS) -> list[bytes | None]:
    rng = random.Random(7)
    values: list[bytes | None] = [
        an_event(*(rng.gauss(0, 1) for _ in range(3)), event_id=f"e{number}") for number in range(n)
    ]
    values[:: n // 20] = [b"rubbish"] * len(values[:: n // 20])
    return values


def all_of(positions: set[tuple[int, int]]) -> Callable[[Books], bool]:
    return lambda books: not positions - books.verdicts.keys()


def test_every_record_has_exactly_one_output(stream: Stream, model: Path, tmp_path: Path):
    sent = stream.send(events())
    books = Books()
    with running(stream.worker(model, tmp_path)) as worker:
        stream.read(books, all_of(sent))
        assert worker.stop() == 0
    assert books.verdicts.keys() == sent
    assert books.repeats == 0
    assert books.dead_letters == {"not_json": 20}
    assert stream.committed() == ends(sent)


def test_sigterm_in_mid_stream_ends_in_order_and_loses_nothing(
    stream: Stream, model: Path, tmp_path: Path
):
    sent = stream.send(events())
    books = Books()
    # Small turns, so that the signal comes in the middle of the stream.
    with running(stream.worker(model, tmp_path, ODRADEK_BATCH_MAX="50")) as worker:
        stream.wait_for(200)
        assert worker.stop() == 0
    books = Books()
    stream.read(books, lambda books: len(books.verdicts) > 200)
    done = set(books.verdicts)
    assert done < sent, "all was done before the signal: the test proved nothing"
    # What is committed is what was answered, no more and no less: a clean stop repeats nothing.
    assert stream.committed() == ends(done)
    with running(stream.worker(model, tmp_path)) as worker:
        stream.read(books := Books(), all_of(sent))
        assert worker.stop() == 0
    assert books.verdicts.keys() == sent
    assert books.repeats == 0


def test_kill_9_in_mid_stream_loses_nothing(stream: Stream, model: Path, tmp_path: Path):
    sent = stream.send(events())
    with running(stream.worker(model, tmp_path, ODRADEK_BATCH_MAX="50")) as worker:
        stream.wait_for(200)
        worker.kill()
    committed = stream.committed()
    stream.read(books := Books(), lambda books: len(books.verdicts) > 200)
    done = set(books.verdicts)
    assert done < sent, "all was done before the kill: the test proved nothing"
    # Nothing is committed that was not answered.
    owed = {(p, o) for p, end in committed.items() for o in range(end)}
    assert owed <= done
    with running(stream.worker(model, tmp_path)) as worker:
        stream.read(books := Books(), all_of(sent))
        assert worker.stop() == 0
    assert books.verdicts.keys() == sent
    # Only the turns in hand can repeat: what was answered and not committed.
    assert books.repeats == len(done - owed)
    assert stream.committed() == ends(sent)


def test_workers_that_join_and_leave_under_load_lose_nothing(
    stream: Stream, model: Path, tmp_path: Path
):
    sent = stream.send(events())
    with running(stream.worker(model, tmp_path, ODRADEK_BATCH_MAX="50")) as first:
        stream.wait_for(200)
        with running(stream.worker(model, tmp_path, ODRADEK_BATCH_MAX="50")) as second:
            stream.wait_for(2000)
            assert first.stop() == 0
            stream.read(books := Books(), all_of(sent))
            assert second.stop() == 0
    assert books.verdicts.keys() == sent
    assert books.repeats == 0, "an orderly hand-over repeats nothing"
    assert stream.committed() == ends(sent)


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
