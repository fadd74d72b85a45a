"""One suite for source and sink on the memory log and on Apache Kafka.

The memory log is trusted in the simulation because Kafka passes the same tests.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from schemas.dead_letter import STUB_BYTES, DeadLetter, Reason
from schemas.score import Score, decode_score
from tests.broker.rigs import KafkaRig, Rig, read_turns, unique
from tests.builders import Recipe, a_model, an_event
from tests.components import within
from tests.memory_log import Stored
from worker.delivery import Sink
from worker.model import Model
from worker.results import to_results
from worker.service import Source
from worker.turn import Outputs, Records, Turn


@pytest.fixture(scope="module")
def model() -> Model:
    return a_model()


@pytest.fixture(scope="module")
def wide_model() -> Model:
    return a_model(Recipe(features=60))


def outputs_of(model: Model, records: Records, top_features_max: int = 3) -> Outputs:
    batch = model.decoder.decode(records)
    return to_results(records, batch, model.score(batch.features), model, top_features_max)


def some(values, *, keys=None, headers=None) -> Records:
    n = len(values)
    return Records(
        "events",
        [0] * n,
        [*range(n)],
        [5000] * n,
        keys or [None] * n,
        values,
        headers or [None] * n,
    )


def settled(sink: Sink) -> bool:
    return within(lambda: sink.settle(0.1))


def nothing(_: float) -> None:
    """Settle nothing: no turn is in flight."""


def offsets_of(turns: list[Turn]) -> list[tuple[int, int]]:
    return [
        place
        for turn in turns
        for place in zip(turn.records.partitions, turn.records.offsets, strict=True)
    ]


class TestSource:
    def test_what_was_produced_is_read_once_and_in_order(self, rig: Rig):
        topic = rig.topic(3)
        for number in range(60):
            rig.produce(topic, b"%d" % number, partition=number % 3)
        source = rig.source(topic, unique("group"), batch_max=7)
        source.start(nothing)
        turns = read_turns(source, 60)
        assert max(len(turn.records) for turn in turns) <= 7
        for partition in range(3):
            values = [
                value
                for turn in turns
                for p, value in zip(turn.records.partitions, turn.records.values, strict=True)
                if p == partition
            ]
            assert values == [b"%d" % number for number in range(partition, 60, 3)]
        assert source.read(0.1) is None
        source.close(5.0)

    def test_a_record_arrives_whole(self, rig: Rig):
        topic = rig.topic()
        headers = [("trace", b"\x00\xff"), ("trace", b"again"), ("none", None)]
        rig.produce(topic, b"\xff{", key=b"k", headers=headers, timestamp_ms=1234)
        rig.produce(topic, None, key=b"k")
        source = rig.source(topic, unique("group"))
        source.start(nothing)
        turns = read_turns(source, 2)
        source.close(5.0)
        values = [value for turn in turns for value in turn.records.values]
        assert values == [b"\xff{", None]
        first = turns[0].records
        assert (first.topic, first.keys[0], first.timestamps_ms[0]) == (topic, b"k", 1234)
        assert first.headers[0] == headers
        assert not turns[-1].records.headers[-1]

    def test_a_turn_knows_where_its_partitions_stand_after_it(self, rig: Rig):
        topic = rig.topic(2)
        for number in range(6):
            rig.produce(topic, b"x", partition=number % 2)
        source = rig.source(topic, unique("group"))
        source.start(nothing)
        turns = read_turns(source, 6)
        source.close(5.0)
        for turn in turns:
            ends = dict(zip(turn.records.partitions, turn.records.offsets, strict=True))
            assert turn.offsets == {p: offset + 1 for p, offset in ends.items()}
            assert turn.assignments.keys() == turn.offsets.keys()

    def test_a_committed_turn_is_not_read_again_and_the_rest_is(self, rig: Rig):
        topic, group = rig.topic(), unique("group")
        for number in range(10):
            rig.produce(topic, b"%d" % number)
        first = rig.source(topic, group, batch_max=4)
        first.start(nothing)
        turns = read_turns(first, 10)
        first.commit(turns[0])
        first.close(5.0)  # As one that ends on an error does: the other turns are not committed.
        done = len(turns[0].records)
        assert rig.committed(topic, group) == {0: done}
        second = rig.source(topic, group)
        second.start(nothing)
        again = read_turns(second, 10 - done)
        second.close(5.0)
        assert offsets_of(again) == [(0, offset) for offset in range(done, 10)]

    def test_nothing_is_committed_by_reading_and_leaving(self, rig: Rig):
        topic, group = rig.topic(), unique("group")
        rig.produce(topic, b"x")
        source = rig.source(topic, group)
        source.start(nothing)
        read_turns(source, 1)
        source.close(5.0)
        assert not rig.committed(topic, group)

    def test_gaps_in_the_offsets_are_not_loss(self, rig: Rig):
        topic, group = rig.topic(), unique("group")
        rig.produce(topic, b"before")
        rig.skip_offsets(topic)
        rig.produce(topic, b"after")
        source = rig.source(topic, group)
        source.start(nothing)
        turns = read_turns(source, 2)
        source.commit(turns[-1])
        source.close(5.0)
        assert [value for turn in turns for value in turn.records.values] == [b"before", b"after"]
        assert offsets_of(turns)[-1][1] > 1
        assert rig.committed(topic, group) == {0: offsets_of(turns)[-1][1] + 1}

    def test_keeping_alive_returns_nothing_and_loses_nothing(self, rig: Rig):
        topic = rig.topic()
        for number in range(20):
            rig.produce(topic, b"%d" % number)
        source = rig.source(topic, unique("group"), batch_max=3)
        source.start(nothing)
        turns = read_turns(source, 3)
        for _ in range(20):
            source.keep_alive(0)
        read = sum(len(turn.records) for turn in turns)
        turns += read_turns(source, 20 - read)
        source.close(5.0)
        assert offsets_of(turns) == [(0, offset) for offset in range(20)]

    def test_revoking_settles_and_commits_the_turn_in_flight_first(self, rig: Rig):
        topic, group = rig.topic(4), unique("group")
        for number in range(40):
            rig.produce(topic, b"%d" % number, partition=number % 4)
        first, second = rig.source(topic, group), rig.source(topic, group)
        in_flight: list[Turn] = []
        limits: list[float] = []

        def settle(limit_s: float) -> None:
            limits.append(limit_s)
            for turn in in_flight:
                first.commit(turn)

        first.start(settle)
        in_flight += read_turns(first, 40)
        second.start(nothing)
        moved, read = hand_over(first, second, in_flight)
        assert limits[0] > 0
        # All that the second was given had been committed: it has nothing to read again.
        assert not read
        assert second.read(0.5) is None
        assert rig.committed(topic, group).items() >= dict.fromkeys(moved, 10).items()
        first.close(5.0)
        second.close(5.0)

    def test_a_turn_that_was_not_settled_does_not_commit_what_has_moved(self, rig: Rig):
        topic, group = rig.topic(4), unique("group")
        for number in range(40):
            rig.produce(topic, b"%d" % number, partition=number % 4)
        first, second = rig.source(topic, group), rig.source(topic, group)
        first.start(nothing)
        turns = read_turns(first, 40)
        assert all(first.still_owned(turn) is turn for turn in turns)
        second.start(nothing)
        moved, read = hand_over(first, second, turns)

        def second_reads() -> bool:  # Then the rebalance has ended, and a commit is accepted.
            assert first.read(0) is None
            if (turn := second.read(0.1)) is not None:
                read.append(turn)
            return bool(read)

        assert within(second_reads)
        for turn in turns:
            kept = first.still_owned(turn)
            assert not moved & {*kept.records.partitions, *kept.offsets, *kept.assignments}
            assert set(turn.records.partitions) - moved == set(kept.records.partitions)
            first.commit(turn)
        first.close(5.0)
        assert rig.committed(topic, group) == dict.fromkeys(set(range(4)) - moved, 10)
        wanted = {(p, offset) for p in moved for offset in range(10)}

        def has_all() -> bool:
            if (turn := second.read(0.1)) is not None:
                read.append(turn)
            return wanted <= set(offsets_of(read))

        assert within(has_all)
        second.close(5.0)

    def test_leaving_in_the_middle_of_a_rebalance_is_quick(self, rig: Rig):
        """The assignment that waits to be heard must not be asked about by one who leaves."""
        topic, group = rig.topic(4), unique("group")
        for number in range(4):
            rig.produce(topic, b"x", partition=number)
        first, second = rig.source(topic, group), rig.source(topic, group)
        first.start(nothing)
        turns = read_turns(first, 4)
        second.start(nothing)

        def has_given_up() -> bool:
            assert first.read(0.05) is None
            return any(first.still_owned(turn) is not turn for turn in turns)

        assert within(has_given_up)
        for _ in range(10):
            first.read(0.05)
        started = time.monotonic()
        second.close(5.0)
        assert time.monotonic() - started < 5
        first.close(5.0)


def hand_over(first: Source, second: Source, turns: list[Turn]) -> tuple[set[int], list[Turn]]:
    """Let both poll until half of the partitions has moved: which, and what the second read."""
    read: list[Turn] = []

    def moved() -> set[int]:
        return {
            partition
            for turn in turns
            for partition in turn.assignments.keys() - first.still_owned(turn).assignments.keys()
        }

    def half_moved() -> bool:
        assert first.read(0) is None
        if (turn := second.read(0.05)) is not None:
            read.append(turn)
        return len(moved()) == 2

    assert within(half_moved)
    return moved(), read


class TestSink:
    def test_outputs_arrive_with_their_keys_and_in_order(self, rig: Rig, model: Model):
        scores, letters = rig.topic(), rig.topic()
        sink = rig.sink(scores, letters)
        values = [an_event(place, 0, 0, event_id=f"e{place}") for place in range(50)]
        sink.write(outputs_of(model, some(values, keys=[b"k%d" % place for place in range(50)])))
        assert settled(sink)
        stored = rig.read_all(scores, 50)
        sink.close()
        assert [decode_score(record.value).event_id for record in stored] == [
            f"e{place}" for place in range(50)
        ]
        assert [record.key for record in stored] == [b"k%d" % place for place in range(50)]
        assert [decode_score(record.value).source.offset for record in stored] == [*range(50)]

    def test_equal_keys_stay_in_one_partition_and_in_order(self, rig: Rig, model: Model):
        scores, letters = rig.topic(4), rig.topic()
        sink = rig.sink(scores, letters)
        keys = [b"a", b"b", b"c", b"d", b"e"] * 8
        for turn in range(3):
            values = [an_event(1, 0, 0, event_id=f"{turn}-{place}") for place in range(40)]
            sink.write(outputs_of(model, some(values, keys=keys)))
            assert settled(sink)
        stored = rig.read_all(scores, 120)
        sink.close()
        for key in set(keys):
            mine = [record for record in stored if record.key == key]
            assert len({record.partition for record in mine}) == 1
            assert [decode_score(record.value).event_id for record in mine] == [
                f"{turn}-{place}" for turn in range(3) for place in range(40) if keys[place] == key
            ]

    def test_headers_of_the_event_are_passed_on(self, rig: Rig, model: Model):
        scores, letters = rig.topic(), rig.topic()
        sink = rig.sink(scores, letters)
        headers = [[("traceparent", b"00-ab"), ("empty", None)], None]
        sink.write(outputs_of(model, some([an_event(1, 2, 3)] * 2, headers=headers)))
        assert settled(sink)
        first, second = rig.read_all(scores, 2)
        sink.close()
        assert first.headers == headers[0]
        assert not second.headers

    def test_a_dead_letter_is_the_record_with_its_reason(self, rig: Rig, model: Model):
        scores, letters = rig.topic(), rig.topic()
        sink = rig.sink(scores, letters)
        headers = [[("trace", b"t")], None]
        records = some([b"\xffrubbish", None], keys=[b"k", b"l"], headers=headers)
        sink.write(outputs_of(model, records))
        assert settled(sink)
        rubbish, tombstone = rig.read_all(letters, 2)
        sink.close()
        assert (rubbish.value, rubbish.key) == (b"\xffrubbish", b"k")
        assert (tombstone.value, tombstone.key) == (None, b"l")
        assert rubbish.headers[0] == ("trace", b"t")
        letter = DeadLetter.from_headers(rubbish.headers)
        assert (letter.reason, letter.source_offset) == (Reason.NOT_UTF8, 0)
        assert letter.model_digest == model.digest
        assert DeadLetter.from_headers(tombstone.headers).reason == Reason.TOMBSTONE

    def test_an_empty_turn_writes_nothing(self, rig: Rig, model: Model):
        scores, letters = rig.topic(), rig.topic()
        sink = rig.sink(scores, letters)
        sink.write(outputs_of(model, some([])))
        assert settled(sink)
        sink.close()
        assert not rig.read_all(scores, 0)

    def test_a_score_too_large_for_its_topic_is_written_in_its_smaller_form(
        self, rig: Rig, wide_model: Model
    ):
        scores, letters = rig.topic(bytes_max=1500), rig.topic()
        sink = rig.sink(scores, letters)
        quiet, loud = (
            an_event(*[0.01] * 60, event_id="quiet"),
            an_event(*[50] * 60, event_id="loud"),
        )
        headers = [None, [("trace", b"t" * 100)], None]
        records = some([quiet, loud, quiet], keys=[b"k"] * 3, headers=headers)
        sink.write(outputs_of(wide_model, records, top_features_max=60))
        assert settled(sink)
        stored = rig.read_all(scores, 3)
        sink.close()
        by_offset = {score.source.offset: score for score in map(_score, stored)}
        assert [by_offset[place].truncated for place in range(3)] == [False, True, False]
        assert by_offset[1].verdict == "anomalous"
        assert by_offset[1].score == 2500.0
        assert not by_offset[1].top_features
        cut = next(record for record in stored if _score(record).truncated)
        assert not cut.headers
        assert cut.key == b"k"

    def test_a_dead_letter_too_large_for_its_topic_becomes_a_stub(self, rig: Rig, model: Model):
        scores, letters = rig.topic(), rig.topic(bytes_max=100_000)
        sink = rig.sink(scores, letters)
        large = b"x" * 200_000
        records = some([large, b"small"], headers=[[("trace", b"t")], None])
        sink.write(outputs_of(model, records))
        assert settled(sink)
        stored = rig.read_all(letters, 2)
        sink.close()
        by_offset = {DeadLetter.from_headers(r.headers).source_offset: r for r in stored}
        assert by_offset[1].value == b"small"  # Refused in one batch with the large one.
        stub = DeadLetter.from_headers(by_offset[0].headers)
        assert by_offset[0].value == large[:STUB_BYTES]
        assert stub == DeadLetter.from_headers(
            outputs_of(model, records).dead_letters.headers[0]
        ).as_stub(large)
        assert "trace" not in dict(by_offset[0].headers)

    @pytest.mark.parametrize(
        "what", ["a large key", "rubbish with a large key", "a tombstone with large headers"]
    )
    def test_a_record_whose_smaller_form_is_too_large_still_has_an_output(
        self, rig: Rig, model: Model, what: str
    ):
        """A key or headers can fill a topic's limit alone; no record may end the worker."""
        scores, letters = rig.topic(bytes_max=10_000), rig.topic(bytes_max=10_000)
        sink = rig.sink(scores, letters)
        large = b"x" * 20_000
        records = {
            "a large key": some([an_event(1, 2, 3)], keys=[large]),
            "rubbish with a large key": some([b"rubbish"], keys=[large]),
            "a tombstone with large headers": some([None], headers=[[("h", large)]]),
        }[what]
        sink.write(outputs_of(model, records))
        assert settled(sink)
        topic = scores if what == "a large key" else letters
        (stored,) = rig.read_all(topic, 1)
        sink.close()
        assert stored.key is None
        if topic == scores:
            assert _score(stored).truncated
            assert _score(stored).source.offset == 0
        else:
            letter = DeadLetter.from_headers(stored.headers)
            assert letter.original_bytes == len(records.values[0] or b"")
            assert "h" not in dict(stored.headers)

    def test_the_neighbours_of_an_output_too_large_keep_their_headers(
        self, rig: Rig, wide_model: Model
    ):
        """A broker refuses whole batches: the others of the batch are written again as they are."""
        scores, letters = rig.topic(bytes_max=1500), rig.topic()
        sink = rig.sink(scores, letters)
        events = [an_event(*[0.01] * 60), an_event(*[50] * 60), an_event(*[0.01] * 60)]
        headers = [[("trace", b"%d" % place)] for place in range(3)]
        sink.write(outputs_of(wide_model, some(events, headers=headers), top_features_max=60))
        assert settled(sink)
        stored = {_score(record).source.offset: record for record in rig.read_all(scores, 3)}
        sink.close()
        assert stored[0].headers == headers[0]
        assert not stored[1].headers
        assert stored[2].headers == headers[2]

    def test_an_output_too_large_even_so_is_kept_and_nothing_is_acknowledged(
        self, rig: Rig, model: Model
    ):
        scores, letters = rig.topic(bytes_max=100), rig.topic()
        sink = rig.sink(scores, letters)
        sink.write(outputs_of(model, some([an_event(1, 2, 3)])))
        assert not any(sink.settle(0.1) for _ in range(10))
        sink.close()


def _score(record: Stored) -> Score:
    return decode_score(record.value)


@pytest.mark.parametrize("headers", [None, [("trace", b"t")]], ids=["batch", "one by one"])
def test_an_output_beyond_the_clients_own_limit_is_made_smaller_too(kafka, wide_model, headers):
    """The client refuses it at once, in a mark or an exception, and no delivery report comes."""
    with ExitStack() as stack:
        rig = KafkaRig(kafka, stack)
        scores, letters = rig.topic(), rig.topic()
        sink = rig.sink(scores, letters, **{"message.max.bytes": 1500})
        events = [an_event(*[0.01] * 60), an_event(*[50] * 60)]
        sink.write(outputs_of(wide_model, some(events, headers=[headers, headers]), 60))
        assert settled(sink)
        stored = {
            _score(record).source.offset: _score(record) for record in rig.read_all(scores, 2)
        }
        assert [stored[place].truncated for place in (0, 1)] == [False, True]


def test_a_full_queue_is_waited_for(kafka, model):
    """Neither road loses a record when the client's queue is far smaller than the turn."""
    with ExitStack() as stack:
        rig = KafkaRig(kafka, stack)
        scores, letters = rig.topic(), rig.topic()
        limits = {"queue.buffering.max.messages": 10, "batch.num.messages": 10}
        sink = rig.sink(scores, letters, **limits)
        values = [an_event(place, 0, 0, event_id=f"{place}") for place in range(100)]
        sink.write(outputs_of(model, some([*values, *[b"rubbish"] * 100])))
        assert settled(sink)
        stored = rig.read_all(scores, 100)
        assert [_score(record).event_id for record in stored] == [f"{p}" for p in range(100)]
        assert len(rig.read_all(letters, 100)) == 100
