"""`odradek-worker redrive` on a real Kafka: what was dead is scored, once, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from demo.books import Books
from demo.broker import Broker
from schemas.dead_letter import DeadLetter, Headers, Reason
from schemas.score import Score, decode_score
from tests.builders import Recipe, a_sealed_model, an_event
from tests.components import within
from tests.end_to_end.stream import PARTITIONS, WAIT_S, Stream, running
from tests.schemas.golden_records import LETTER

RUBBISH = b"rubbish"
BOTH = pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])


class Kept(NamedTuple):
    """A record as a read_committed reader sees it."""

    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def letter(self) -> DeadLetter:
        return DeadLetter.from_headers(self.headers)


class Redrive:
    """The redrive of a stream, in a process of its own."""

    def __init__(self, stream: Stream, folder: Path) -> None:
        self.stream = stream
        self.log = folder / "redrive.log"
        self.model = folder / "redrive.onnx"
        self.model.write_bytes(a_sealed_model())

    def start(self, *flags: str, **settings: str) -> subprocess.Popen[str]:
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("ODRADEK", "KAFKA"))
        }
        environment |= {
            "KAFKA_BOOTSTRAP_SERVERS": self.stream.servers,
            "KAFKA_CONSUMER_SESSION_TIMEOUT_MS": "6000",
            "ODRADEK_INPUT_TOPIC": self.stream.input,
            "ODRADEK_OUTPUT_TOPIC": self.stream.output,
            "ODRADEK_DEAD_LETTER_TOPIC": self.stream.dead_letter,
            "ODRADEK_HTTP_HOST": "127.0.0.1",
            **({} if "--to-input" in flags else {"ODRADEK_MODEL": str(self.model)}),
            **settings,
        }
        with self.log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "worker", "redrive", *flags],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @contextmanager
    def running(self, *flags: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
        process = self.start(*flags, **settings)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def __call__(self, *flags: str, code: int = 0, **settings: str) -> str:
        """Run it to its end; return what it printed."""
        with self.running(*flags, **settings) as process:
            told, _ = process.communicate(timeout=WAIT_S)
        assert process.returncode == code, self.log.read_text()
        return told

    def scores(self) -> list[Score]:
        return [decode_score(kept.value or b"") for kept in read_all(self.stream, "output")]

    def letters(self) -> list[Kept]:
        return read_all(self.stream, "dead_letter")

    def wait_for_scores(self, count: int) -> None:
        """Return as soon as there are so many scores: it is in mid-stream then."""

        consumer = consumer_of(self.stream, self.stream.output)
        deadline = time.monotonic() + WAIT_S
        seen = 0
        while seen < count:
            assert time.monotonic() < deadline, f"{seen} scores in {WAIT_S} s"
            seen += sum(m.error() is None for m in consumer.consume(1000, 0.01))
        consumer.close()


@pytest.fixture
def redrive(stream: Stream, tmp_path: Path) -> Redrive:
    return Redrive(stream, tmp_path)


def consumer_of(stream: Stream, topic: str) -> Consumer:
    """A reader of a whole topic, from its start."""
    consumer = Consumer(
        {
            "bootstrap.servers": stream.servers,
            "group.id": "unused",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 20,
            "log_level": 2,
        }
    )
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    return consumer


def read_all(stream: Stream, kind: str) -> list[Kept]:
    """Everything in a topic of the stream, to its end."""
    topic = getattr(stream, kind)
    consumer = consumer_of(stream, topic)
    kept: list[Kept] = []
    open_ends = set(range(PARTITIONS))
    deadline = time.monotonic() + WAIT_S
    while open_ends:
        assert time.monotonic() < deadline, f"{topic} has no end"
        for message in consumer.consume(1000, 0.1):
            error = message.error()
            if error is None:
                kept.append(Kept(message.key(), message.value(), message.headers() or []))
            elif error.code() == KafkaError._PARTITION_EOF:
                open_ends.discard(message.partition())
    consumer.close()
    return kept


def a_letter(stream: Stream, offset: int, **changes: object) -> DeadLetter:
    fields = {name: getattr(LETTER, name) for name in LETTER.__struct_fields__}
    place = {"source_topic": stream.input, "source_partition": 7, "source_offset": offset}
    return DeadLetter(**{**fields, **place, **changes})


def put_letters(
    stream: Stream,
    values: Sequence[bytes | None],
    *,
    transactional: bool = False,
    first: int = 0,
    more: Headers | None = None,
    **changes: object,
) -> None:
    """Write dead letters of these values, from source partition 7, as a worker would."""
    if transactional:
        a_transaction(stream, values, first, more, **changes).commit_transaction(WAIT_S)
        return
    producer = Producer({"bootstrap.servers": stream.servers, "log_level": 2})
    produce(producer, stream, values, first, more, **changes)


def a_transaction(
    stream: Stream,
    values: Sequence[bytes | None],
    first: int = 0,
    more: Headers | None = None,
    **changes: object,
) -> Producer:
    """Dead letters in a transaction that is still open."""
    producer = Producer(
        {
            "bootstrap.servers": stream.servers,
            "log_level": 2,
            "transactional.id": uuid4().hex,
            "transaction.timeout.ms": 600_000,
        }
    )
    producer.init_transactions(WAIT_S)
    producer.begin_transaction()
    produce(producer, stream, values, first, more, **changes)
    return producer


def produce(
    producer: Producer,
    stream: Stream,
    values: Sequence[bytes | None],
    first: int,
    more: Headers | None,
    **changes: object,
) -> None:
    for offset, value in enumerate(values, first):
        headers = [*(more or []), *a_letter(stream, offset, **changes).to_headers()]
        producer.produce(stream.dead_letter, value, key=str(offset), headers=headers)
        producer.poll(0)
    assert producer.flush(WAIT_S) == 0


def events(n: int) -> list[bytes | None]:
    return [an_event(0.1, 0.2, 0.3, event_id=f"e{number}") for number in range(n)]


def sources(scores: list[Score]) -> list[tuple[str, int, int]]:
    return sorted((s.source.topic, s.source.partition, s.source.offset) for s in scores)


def offsets(scores: list[Score]) -> list[int]:
    return sorted(score.source.offset for score in scores)


@BOTH
def test_what_a_worker_could_not_score_is_scored_by_a_model_that_can(
    redrive: Redrive, stream: Stream, tmp_path: Path, delivery: str
):
    wide = tmp_path / "wide.onnx"
    wide.write_bytes(a_sealed_model(Recipe(features=4)))
    # Without an id or a time of their own, they have those of their records.
    sent = stream.send([an_event(1, 2, 3, event_id=None, timestamp=None), *events(30), RUBBISH])
    settings = {"ODRADEK_BREAKER": "off", "ODRADEK_DELIVERY": delivery}
    with running(stream.worker(wide, tmp_path, **settings)) as worker:
        stream.read(books := Books(), lambda books: len(books.verdicts) == len(sent))
        assert worker.stop() == 0
    assert books.dead_letters == {"wrong_count": 31, "not_json": 1}
    told = redrive("--delivery", delivery)
    scores = redrive.scores()
    assert sources(scores) == sorted((stream.input, p, o) for p, o in offsets_of_events(redrive))
    assert len(scores) == 31
    nameless = next(score for score in scores if score.event_id.startswith(stream.input))
    place = nameless.source
    assert nameless.event_id == f"{stream.input}-{place.partition}-{place.offset}"
    written = next(kept.letter for kept in redrive.letters() if is_from(kept, place))
    assert nameless.timestamp == written.source_timestamp
    assert "32 letters read" in told
    assert "31 scored: 30 normal, 1 anomalous, 0 unscorable" in told
    assert "1 failed again" in told
    assert [kept.letter.attempts for kept in redrive.letters() if kept.value == RUBBISH] == [1, 2]
    assert redrive("--delivery", delivery, "--reason", "wrong_count").startswith("33 letters")


def offsets_of_events(redrive: Redrive) -> set[tuple[int, int]]:
    return {
        (kept.letter.source_partition, kept.letter.source_offset)
        for kept in redrive.letters()
        if kept.value != RUBBISH
    }


def is_from(kept: Kept, place) -> bool:
    letter = kept.letter
    return (letter.source_partition, letter.source_offset) == (place.partition, place.offset)


@BOTH
def test_a_second_redrive_does_nothing(redrive: Redrive, stream: Stream, delivery: str):
    put_letters(stream, events(50), transactional=delivery == "exactly-once")
    assert "50 scored" in redrive("--delivery", delivery)
    assert offsets(redrive.scores()) == [*range(50)]
    told = redrive("--delivery", delivery)
    assert told.startswith("0 letters read")
    assert "the end is reached" in told
    assert len(redrive.scores()) == 50


def test_an_empty_topic_ends_it(redrive: Redrive):
    assert redrive().startswith("0 letters read")


def test_letters_of_an_open_transaction_are_left_and_aborted_ones_do_not_keep_it(
    redrive: Redrive, stream: Stream
):
    """The ends of partitions are not where the last record lies."""
    put_letters(stream, events(10), transactional=True)
    aborted = a_transaction(stream, events(50), first=100)
    aborted.abort_transaction(WAIT_S)
    still_open = a_transaction(stream, events(5), first=200)
    assert "10 scored" in redrive()
    assert offsets(redrive.scores()) == [*range(10)]
    assert redrive().startswith("0 letters read")
    still_open.commit_transaction(WAIT_S)
    assert "5 scored" in redrive()
    assert offsets(redrive.scores()) == [*range(10), *range(200, 205)]


@BOTH
def test_what_fails_again_goes_back_with_its_count_and_does_not_loop(
    redrive: Redrive, stream: Stream, delivery: str
):
    own: Headers = [("trace", b"1")]
    put_letters(stream, [RUBBISH] * 20, more=own)
    for attempts in (2, 3):
        told = redrive("--delivery", delivery)
        assert "20 letters read" in told
        assert "20 failed again" in told
        letters = redrive.letters()
        assert Counter(kept.letter.attempts for kept in letters)[attempts] == 20
        assert len(letters) == 20 * attempts
    newest = [kept for kept in letters if kept.letter.attempts == 3]
    assert sorted(int(kept.key or b"") for kept in newest) == [*range(20)]
    assert all(kept.headers[0] == own[0] and kept.value == RUBBISH for kept in newest)
    assert {kept.letter.source_partition for kept in newest} == {7}
    assert redrive.scores() == []


def test_letters_are_chosen_by_reason_and_the_others_are_left_to_later(
    redrive: Redrive, stream: Stream
):
    put_letters(stream, events(10), reason=Reason.NOT_JSON)
    put_letters(stream, events(5), reason=Reason.TEXT, first=100)
    told = redrive("--reason", "not_json")
    assert "10 scored" in told
    assert "5 left: of another reason" in told
    assert offsets(redrive.scores()) == [*range(10)]
    assert "5 scored" in redrive("--reason", "boolean,text")
    assert offsets(redrive.scores()) == [*range(10), *range(100, 105)]


def test_what_is_no_record_of_ours_is_named_and_left(redrive: Redrive, stream: Stream):
    put_letters(stream, events(3))
    put_letters(stream, [b"x"], first=40, original_bytes=10**7, original_sha256="ab" * 32)
    put_letters(stream, [b"y"], first=41, original_bytes=10**7, original_sha256="ab" * 32)
    put_letters(stream, events(2), first=50, source_topic="another")
    producer = Producer({"bootstrap.servers": stream.servers, "log_level": 2})
    producer.produce(stream.dead_letter, b"of somebody else", headers=[("odradek.reason", b"\xff")])
    producer.produce(stream.dead_letter, None)
    producer.flush(WAIT_S)
    told = redrive()
    assert "9 letters read" in told
    assert "3 scored" in told
    assert f"2 left: of another input topic than {stream.input}" in told
    assert "2 left: no dead letters of ours" in told
    assert "2 left: stubs" in told
    assert f"stubs: {stream.input} partition 7 offset 40, 41\n" in told
    assert len(redrive.letters()) == 9


@BOTH
def test_kill_9_in_the_middle_loses_nothing(redrive: Redrive, stream: Stream, delivery: str):
    put_letters(stream, [*events(4000), *[RUBBISH] * 200], transactional=True)
    with redrive.running("--batch-max", "20", "--delivery", delivery) as killed:
        redrive.wait_for_scores(500)
        killed.send_signal(signal.SIGKILL)
        killed.wait(WAIT_S)
    assert len(set(offsets(redrive.scores()))) < 4000, "it was done before the kill"
    assert "the end is reached" in redrive("--delivery", delivery)

    # Until the transaction that the dead one left open has timed out, readers stand at it.
    def again() -> set[int]:
        return {k.letter.source_offset for k in redrive.letters() if k.letter.attempts == 2}

    assert within(lambda: set(offsets(redrive.scores())) == set(range(4000)))
    assert within(lambda: again() == set(range(4000, 4200)))
    if delivery == "exactly-once":
        assert len(redrive.scores()) == 4000


def test_sigterm_in_the_middle_ends_in_order_and_is_resumed_without_a_repeat(
    redrive: Redrive, stream: Stream
):
    put_letters(stream, events(4000))
    with redrive.running("--batch-max", "20") as stopped:
        redrive.wait_for_scores(500)
        stopped.send_signal(signal.SIGTERM)
        told, _ = stopped.communicate(timeout=WAIT_S)
    assert stopped.returncode == 0
    assert "stopped before the end; the same command goes on" in told
    done = len(redrive.scores())
    assert done < 4000, "it was done before the signal"
    assert told.startswith(f"{done:,} letters read")
    assert f"{4000 - done:,} scored" in redrive()
    assert offsets(redrive.scores()) == [*range(4000)]


def test_a_broker_that_dies_and_comes_back_is_waited_for(tmp_path: Path):
    with Broker() as broker:
        broker.create_topics(dict.fromkeys(("in", "out", "bad"), PARTITIONS))
        redrive = Redrive(Stream(broker.bootstrap_servers, "in", "out", "bad"), tmp_path)
        put_letters(redrive.stream, events(4000))
        with redrive.running("--batch-max", "20") as process:
            redrive.wait_for_scores(500)
            broker.kill()
            broker.restart()
            told, _ = process.communicate(timeout=2 * WAIT_S)
        assert process.returncode == 0, redrive.log.read_text()
        assert "the end is reached" in told
        assert set(offsets(redrive.scores())) == set(range(4000))


@BOTH
def test_more_redrives_than_partitions_share_the_work_and_all_end(
    redrive: Redrive, stream: Stream, delivery: str
):
    put_letters(stream, [*events(6000), *[RUBBISH] * 50])
    flags = ("--batch-max", "20", "--delivery", delivery)
    processes = [redrive.start(*flags) for _ in range(PARTITIONS + 1)]
    try:
        told = [process.communicate(timeout=2 * WAIT_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes)
    assert all("the end is reached" in text for text in told), told
    assert offsets(redrive.scores()) == [*range(6000)], "an orderly hand-over repeats nothing"


@BOTH
def test_records_are_sent_to_the_input_again_and_fail_there_with_their_count(
    redrive: Redrive, stream: Stream, tmp_path: Path, delivery: str
):
    put_letters(stream, [RUBBISH, None, *events(3)], attempts=4, more=[("trace", b"1")])
    told = redrive("--to-input", "--delivery", delivery)
    assert f"5 sent to {stream.input} again" in told
    records = read_all(stream, "input")
    assert Counter(kept.value for kept in records) == Counter([RUBBISH, None, *events(3)])
    assert sorted(int(kept.key or b"") for kept in records) == [*range(5)]
    assert all(k.headers == [("trace", b"1"), ("odradek.attempts", b"4")] for k in records)
    with running(stream.worker(redrive.model, tmp_path, ODRADEK_BREAKER="off")) as worker:
        stream.read(Books(), lambda books: len(books.verdicts) >= 5 + 5)
        assert worker.stop() == 0
    again = [kept for kept in redrive.letters() if kept.letter.attempts == 5]
    assert {kept.value for kept in again} == {RUBBISH, None}
    assert all(kept.letter.source_partition < PARTITIONS for kept in again)
    scored = read_all(stream, "output")
    assert len(scored) == 3
    assert all(kept.headers == [("trace", b"1")] for kept in scored)


@BOTH
def test_a_record_that_the_input_no_longer_takes_is_held_whole(
    redrive: Redrive, stream: Stream, kafka, delivery: str
):
    narrow = f"narrow-{uuid4().hex[:8]}"
    kafka.create_topics({narrow: 1}, {"max.message.bytes": "2000"})
    put_letters(stream, [b"x" * 5000], source_topic=narrow)
    settings = {"ODRADEK_INPUT_TOPIC": narrow, "ODRADEK_STOP_TIMEOUT_S": "2"}
    with redrive.running("--to-input", "--delivery", delivery, **settings) as held:
        deadline = time.monotonic() + WAIT_S
        while "Holding: an output to topic" not in redrive.log.read_text():
            assert time.monotonic() < deadline, redrive.log.read_text()
            time.sleep(0.05)
        held.send_signal(signal.SIGTERM)
        told, _ = held.communicate(timeout=WAIT_S)
    # A transaction that is aborted for now leaves nothing to settle; else that is said.
    assert held.returncode == (0 if delivery == "exactly-once" else 3)
    assert told.startswith("0 letters read")
    assert "smaller form" not in redrive.log.read_text()


def test_what_a_redrive_needs_is_said_before_it_starts(redrive: Redrive):
    redrive("--reason", "not_jason", code=2)
    assert "'not_jason' is no reason; did you mean 'not_json'?" in redrive.log.read_text()
    redrive(code=2, ODRADEK_MODEL="")
    assert "ODRADEK_MODEL (--model) is not set; only --to-input needs none" in (
        redrive.log.read_text()
    )
    redrive(code=3, ODRADEK_DEAD_LETTER_TOPIC="nowhere")
    assert "has no topic 'nowhere'" in redrive.log.read_text()
