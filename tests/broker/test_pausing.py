"""Partitions that move while the source only keeps alive, which pauses them."""

from __future__ import annotations

from tests.broker.rigs import Rig, read_turns, unique
from tests.components import within


def test_a_partition_that_went_while_we_kept_alive_is_read_when_it_comes_back(rig: Rig):
    """librdkafka remembers a pause across assignments; this one starved a partition for ever."""
    topic, group = rig.topic(4), unique("group")
    for partition in range(4):
        rig.produce(topic, b"before", partition=partition)
    first, second = rig.source(topic, group), rig.source(topic, group)
    first.start(lambda _: None)
    read_turns(first, 4)
    second.start(lambda _: None)
    moved: set[int] = set()

    def half_moved() -> bool:
        first.keep_alive(0)
        if (turn := second.read(0.05)) is not None:
            moved.update(turn.records.partitions)
        return len(moved) == 2

    assert within(half_moved)
    second.close(5.0)
    for partition in range(4):
        rig.produce(topic, b"after", partition=partition)
    seen: set[int] = set()

    def all_are_read() -> bool:
        if (turn := first.read(0.1)) is not None:
            records = zip(turn.records.partitions, turn.records.values, strict=True)
            seen.update(partition for partition, value in records if value == b"after")
        return seen == {0, 1, 2, 3}

    assert within(all_are_read), f"only partitions {seen} are read again"
    first.close(5.0)
