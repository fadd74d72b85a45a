"""Input that was lost before it was read: told, counted, and never skipped in silence."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from schemas.errors import OutsideError
from tests.broker.rigs import KafkaRig, read_turns, unique
from tests.components import within
from worker.starts import StartRules

JUMP = StartRules(on_gap="jump")


@pytest.fixture
def rig(kafka):
    with ExitStack() as stack:
        yield KafkaRig(kafka, stack)


@pytest.fixture
def admin(kafka) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.bootstrap_servers})


def fill(rig: KafkaRig, topic: str, records: int, first: int = 0) -> None:
    for number in range(first, first + records):
        rig.produce(topic, b"%d" % number)


def delete_before(admin: AdminClient, topic: str, offset: int) -> None:
    for deleted in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
        deleted.result(15)


def make_again(admin: AdminClient, rig: KafkaRig, topic: str) -> None:
    for deleted in admin.delete_topics([topic]).values():
        deleted.result(15)
    assert within(lambda: topic not in admin.list_topics(timeout=5).topics)
    rig.create(topic)


def values(turns) -> list[bytes]:
    return [value for turn in turns for value in turn.records.values]


def note_of(source, turn) -> str:
    """What commits of this turn carry now."""
    return source.transaction_offsets(turn).places[0].metadata


def started(rig: KafkaRig, topic: str, group: str, rules: StartRules):
    source = rig.source(topic, group, rules=rules)
    source.start(lambda _: None)
    return source


def lost(rig: KafkaRig) -> tuple[float, float]:
    sample = rig.metrics.registry.get_sample_value
    return sample("odradek_gaps_total"), sample("odradek_lost_records_total")


class TestAtTheStart:
    def test_a_commit_beyond_the_end_stops(self, rig: KafkaRig):
        topic, group = rig.topic(), unique("group")
        fill(rig, topic, 1)
        rig.commit(topic, group, 1000)
        source = started(rig, topic, group, StartRules())
        with pytest.raises(OutsideError, match="had reached 1000, and the partition holds 0 to 1"):
            within(lambda: source.read(0.1))

    def test_a_commit_beyond_the_end_is_jumped_to_the_first_record(self, rig: KafkaRig):
        topic, group = rig.topic(), unique("group")
        fill(rig, topic, 3)
        rig.commit(topic, group, 1000)
        source = started(rig, topic, group, JUMP)
        assert values(read_turns(source, 3)) == [b"0", b"1", b"2"]
        assert lost(rig) == (1, 997)

    def test_a_commit_that_retention_has_passed_stops(self, rig: KafkaRig, admin):
        topic, group = rig.topic(), unique("group")
        fill(rig, topic, 10)
        rig.commit(topic, group, 2)
        delete_before(admin, topic, 5)
        source = started(rig, topic, group, StartRules())
        with pytest.raises(OutsideError, match="retention or a deletion was faster"):
            within(lambda: source.read(0.1))

    def test_a_commit_that_retention_has_passed_is_jumped(self, rig: KafkaRig, admin):
        topic, group = rig.topic(), unique("group")
        fill(rig, topic, 10)
        rig.commit(topic, group, 2)
        delete_before(admin, topic, 5)
        source = started(rig, topic, group, JUMP)
        assert values(read_turns(source, 5)) == [b"5", b"6", b"7", b"8", b"9"]
        assert lost(rig) == (1, 3)
        # Once is enough: the jump is committed.
        source.close(5.0)
        assert rig.committed(topic, group) == {0: 5}

    def test_a_topic_made_again_that_has_outgrown_the_commit_is_seen(self, rig: KafkaRig, admin):
        """Offsets alone cannot tell: the commit's note names the topic that it was about."""
        topic, group = rig.topic(), unique("group")
        fill(rig, topic, 3)
        first = started(rig, topic, group, JUMP)
        (turn,) = read_turns(first, 3)
        first.commit(turn)
        note = note_of(first, turn)
        first.close(5.0)
        make_again(admin, rig, topic)
        fill(rig, topic, 8, first=100)
        rig.commit(topic, group, 3, note)  # Kafka may forget a group's offsets with the topic.
        second = started(rig, topic, group, JUMP)
        assert values(read_turns(second, 8))[0] == b"100"
        assert lost(rig)[0] == 1


class TestInMidRun:
    def test_retention_that_overtakes_the_reader_is_jumped_and_counted(self, rig: KafkaRig, admin):
        topic, group = rig.topic(), unique("group")
        fill(rig, topic, 4)
        source = started(rig, topic, group, JUMP)
        (turn,) = read_turns(source, 4)
        source.keep_alive(0.5)  # Paused: what comes now is not read ahead.
        fill(rig, topic, 6, first=4)
        delete_before(admin, topic, 7)
        source.commit(turn)  # Read before the gap: still ours.
        assert values(read_turns(source, 3)) == [b"7", b"8", b"9"]
        assert lost(rig) == (1, 3)
        source.close(5.0)

    def test_retention_that_overtakes_the_reader_stops_it(self, rig: KafkaRig, admin):
        topic, group = rig.topic(), unique("group")
        fill(rig, topic, 4)
        source = started(rig, topic, group, StartRules())
        read_turns(source, 4)
        source.keep_alive(0.5)
        fill(rig, topic, 6, first=4)
        delete_before(admin, topic, 7)
        with pytest.raises(OutsideError, match="had reached 4, and the partition holds 7 to 10"):
            within(lambda: source.read(0.1))

    def test_a_topic_made_again_is_read_from_its_beginning(self, rig: KafkaRig, admin):
        topic, group = rig.topic(), unique("group")
        fill(rig, topic, 4)
        source = started(rig, topic, group, JUMP)
        (turn,) = read_turns(source, 4)
        source.commit(turn)
        make_again(admin, rig, topic)
        fill(rig, topic, 9, first=100)
        seen: list[bytes] = []

        def all_are_read() -> bool:
            if (turn := source.read(0.1)) is not None:
                seen.extend(turn.records.values)
            return set(seen) == {b"%d" % number for number in range(100, 109)}

        assert within(all_are_read), seen
        assert lost(rig)[0] == 1
        source.close(5.0)

    def test_a_topic_made_again_that_is_shorter_is_not_taken_for_the_old_one(
        self, rig: KafkaRig, admin
    ):
        """Read under the old one's id, it would be read once more when that is found out."""
        topic, group = rig.topic(), unique("group")
        fill(rig, topic, 4)
        source = started(rig, topic, group, JUMP)
        (turn,) = read_turns(source, 4)
        source.commit(turn)
        note = note_of(source, turn)
        make_again(admin, rig, topic)
        fill(rig, topic, 2, first=100)
        turns = read_turns(source, 2)
        assert values(turns) == [b"100", b"101"]
        assert note_of(source, turns[0]) != note
        source.close(5.0)


class TestDeliberateStarts:
    def test_latest_is_for_a_group_without_commits_and_for_later_partitions_it_is_earliest(
        self, rig: KafkaRig, admin, kafka
    ):
        topic, group = rig.topic(), unique("group")
        fill(rig, topic, 3)
        source = started(rig, topic, group, StartRules("latest"))
        assert within(lambda: source.read(0.1) is None and rig.committed(topic, group) == {0: 3})
        fill(rig, topic, 1, first=3)
        (turn,) = read_turns(source, 1)
        assert values([turn]) == [b"3"]
        source.commit(turn)
        source.close(5.0)
        for grown in admin.create_partitions([NewPartitions(topic, 2)]).values():
            grown.result(15)
        assert within(
            lambda: len(admin.list_topics(topic, timeout=5).topics[topic].partitions) == 2
        )
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        producer.produce(topic, b"new", partition=1)
        assert producer.flush(15) == 0
        second = started(rig, topic, group, StartRules("latest"))
        assert b"new" in values(read_turns(second, 1))
        second.close(5.0)

    def test_an_offset_is_heeded_once(self, rig: KafkaRig):
        topic, group = rig.topic(), unique("group")
        fill(rig, topic, 5)
        rig.commit(topic, group, 5)
        rules = StartRules(from_offsets={None: 2})
        first = started(rig, topic, group, rules)
        (turn,) = read_turns(first, 3)
        assert values([turn]) == [b"2", b"3", b"4"]
        first.commit(turn)
        first.close(5.0)
        second = started(rig, topic, group, rules)
        fill(rig, topic, 1, first=5)
        assert values(read_turns(second, 1)) == [b"5"]
        second.close(5.0)

    def test_a_time_is_heeded(self, rig: KafkaRig):
        topic, group = rig.topic(), unique("group")
        for number in range(5):
            rig.produce(topic, b"%d" % number, timestamp_ms=1000 * (number + 1))
        source = started(rig, topic, group, StartRules(from_time_ms=3500))
        assert values(read_turns(source, 2)) == [b"3", b"4"]
        source.close(5.0)

    def test_an_offset_that_is_not_there_is_refused(self, rig: KafkaRig):
        topic = rig.topic()
        source = started(rig, topic, unique("group"), StartRules(from_offsets={0: 7}))
        with pytest.raises(OutsideError, match="wants offset 7 of partition 0, which holds 0 to 0"):
            within(lambda: source.read(0.1))


@pytest.mark.parametrize("in_transactions", [True, False])
def test_all_partitions_of_a_new_group_begin_together(rig: KafkaRig, in_transactions, caplog):
    """In transactions their starts are committed first: all at once, not one after another."""
    caplog.set_level("INFO")
    topic = rig.topic(partitions=20)
    for partition in range(20):
        rig.produce(topic, b"x", partition=partition)
    source = rig.source(topic, unique("group"), in_transactions=in_transactions)
    source.start(lambda _: None)
    read_turns(source, 20)
    beginnings = [m for m in caplog.messages if m.startswith("Beginning: ")]
    assert len(beginnings) <= 3, beginnings
