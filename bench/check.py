"""Did a contender do all of the work, and do it right? And when, by the broker's clock?

Every output record is read back and looked at, none is sampled.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

import msgspec
import numpy as np
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from bench.contender import Contender, ContenderFailed
from bench.load import FIRST_TIMESTAMP_MS, Kind, Load, all_messages, event_id, headers
from bench.model import Answers
from schemas.contract import Contract
from schemas.score import ModelRef, Score, Source, decode_score

SCORE_TOLERANCE = 1e-4
TOP_FEATURES = 5
DRAIN_SLOWEST_PER_S = 500
LOOK_EVERY_S = 0.02
MORE_WAIT_S = 0.3


class Reader:
    """Reads the one partition of any topic; belongs to no group."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._servers = bootstrap_servers
        self._consumer = self._client("bench-check")
        # Its failures are raised; that the broker ends before it does is no news.
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 2})

    def close(self) -> None:
        self._consumer.close()

    def end(self, topic: str) -> int:
        """Return how many records the topic holds, transactions' markers among them."""
        _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)
        return int(high)

    def wait_until_drained(self, contender: Contender, topic: str, count: int) -> None:
        """Wait until the topic holds `count` records."""
        deadline = time.monotonic() + 60 + count / DRAIN_SLOWEST_PER_S
        while (seen := self.end(topic)) < count:
            contender.raise_if_ended()
            if time.monotonic() > deadline:
                raise ContenderFailed(f"{seen:,} of {count:,} outputs are written; giving up")
            time.sleep(LOOK_EVERY_S)

    def wait_until_committed(
        self, contender: Contender, group: str, topic: str, count: int
    ) -> None:
        """Wait until the group has come so far; the end of a topic counts transactions' markers."""
        deadline = time.monotonic() + 60 + count / DRAIN_SLOWEST_PER_S
        member = self._client(group)
        try:
            while True:
                (place,) = member.committed([TopicPartition(topic, 0)], timeout=30)
                if place.offset >= count:
                    return
                contender.raise_if_ended()
                if time.monotonic() > deadline:
                    raise ContenderFailed(f"{place.offset:,} of {count:,} committed; giving up")
                time.sleep(LOOK_EVERY_S)
        finally:
            member.close()

    def committed(self, group: str, topic: str) -> int:
        """Return the group's offset."""
        member = self._client(group)
        try:
            (place,) = member.committed([TopicPartition(topic, 0)], timeout=30)
            return int(place.offset)
        finally:
            member.close()

    def records(self, topic: str, count: int) -> Iterator[Message]:
        """Yield the `count` records of the topic; those that count, if there are transactions.

        Raises:
            ContenderFailed: there are fewer, or more.
        """
        self._consumer.assign([TopicPartition(topic, 0, 0)])
        left = count
        while left:
            messages = self._consumer.consume(min(left, 10_000), 10)
            if not messages or any(message.error() for message in messages):
                raise ContenderFailed(f"{left:,} of {count:,} records of {topic} cannot be read")
            yield from messages
            left -= len(messages)
        if self._consumer.consume(1, MORE_WAIT_S):
            raise ContenderFailed(f"{topic} has more than the {count:,} records that are wanted")
        self._consumer.unassign()

    def delete(self, topic: str) -> None:
        """Have the broker free the topic's disk."""
        self._admin.delete_topics([topic])[topic].result()

    def _client(self, group: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "log_level": 4,  # A topic that we delete is no news.
            }
        )


class Stamps:
    """The broker's append stamps of the outputs, in milliseconds."""

    def __init__(self) -> None:
        self._all: list[int] = []

    def see(self, message: Message) -> None:
        self._all.append(message.timestamp()[1])

    def events_per_s(self) -> float:
        """Return the outputs after the first stamp per second from there to the last stamp.

        A batch has one stamp, so what came with the first one took time that we did not see.
        """
        first, last = min(self._all), max(self._all)
        if first == last:
            raise ContenderFailed("all outputs came within a millisecond: too few to time")
        return sum(stamp > first for stamp in self._all) / (last - first) * 1000


def check_copies(messages: Iterable[Message], load: Load) -> Stamps:
    """Check that every event was written back as it was.

    Raises:
        ContenderFailed: something is missing, double or changed.
    """
    stamps = Stamps()
    sent = _sent(load.kind, len(load))
    for row, message in _by_row(messages, load, stamps):
        if hash(message.value() or b"") != sent[row]:
            raise ContenderFailed(f"event {row} was not written back as it was")
    return stamps


@cache
def _sent(kind: Kind, count: int) -> Sequence[int]:
    """Return a hash of each event's bytes: the bytes of all repeats would be too much to hold."""
    return [hash(message["value"]) for message in all_messages(kind, count)]


def check_outputs(
    messages: Iterable[Message], load: Load, contract: Contract, digest: str, wanted: Answers
) -> Stamps:
    """Check one right score record for every event, by the model of this contract and digest.

    Raises:
        ContenderFailed: something is missing, double or wrong.
    """
    stamps = Stamps()
    reference = contract.reference(digest)
    places = {name: place for place, name in enumerate(contract.feature_names)}
    scores = np.full(len(load), np.nan)
    p_values = np.full(len(load), np.nan)
    for row, message in _by_row(messages, load, stamps):
        record = _read_record(message, row)
        _check_record(record, row, load, contract, reference)
        _check_top_features(record, row, load, places, wanted)
        scores[row], p_values[row] = record.score, record.p_value
    right = wanted.scores
    if not np.allclose(scores, right, rtol=SCORE_TOLERANCE, atol=0):
        worst = int(np.argmax(np.abs(scores - right)))
        raise ContenderFailed(f"event {worst} scores {scores[worst]}, wanted {right[worst]}")
    if not np.array_equal(p_values, contract.calibration.p_values(scores)):
        raise ContenderFailed("a p-value is not that of its score")
    return stamps


def _by_row(
    messages: Iterable[Message], load: Load, stamps: Stamps
) -> Iterator[tuple[int, Message]]:
    """Yield each output with its event's row; every event has one, with its headers."""
    rows_by_key = {event_id(row).encode(): row for row in range(len(load))}
    for message in messages:
        stamps.see(message)
        row = rows_by_key.pop(message.key() or b"", None)
        if row is None:
            raise ContenderFailed(f"the key {message.key()!r} is unknown, or occurs twice")
        if load.kind == "traced" and message.headers() != headers(load.kind, row):
            raise ContenderFailed(f"event {row} lost its headers: {message.headers()}")
        yield row, message
    if rows_by_key:
        raise ContenderFailed(f"{len(rows_by_key):,} events have no output")


def _read_record(message: Message, row: int) -> Score:
    try:
        return decode_score(message.value() or b"")
    except msgspec.DecodeError as error:
        raise ContenderFailed(f"the output of event {row} is no score record: {error}") from None


def _check_record(
    record: Score, row: int, load: Load, contract: Contract, reference: ModelRef
) -> None:
    """Check what must be exact in a record, given its own score."""
    if record.score is None:
        raise ContenderFailed(f"event {row} has no score: {record}")
    anomalous = record.score > contract.threshold.value
    right = (
        record.event_id == event_id(row)
        and record.source == Source(load.topic, 0, row)
        and record.timestamp == FIRST_TIMESTAMP_MS + row
        and record.verdict == ("anomalous" if anomalous else "normal")
        and record.threshold == contract.threshold.value
        and record.model == reference
        and len(record.top_features) == (TOP_FEATURES if anomalous else 0)
    )
    if not right:
        raise ContenderFailed(f"the record of event {row} is wrong: {record}")


def _check_top_features(
    record: Score, row: int, load: Load, places: Mapping[str, int], wanted: Answers
) -> None:
    """Check that they are those with the largest parts, and every figure of each."""
    if not (top := record.top_features):
        return
    at = [places.get(feature.name, -1) for feature in top]
    shares = wanted.contributions[row] / wanted.contributions[row].sum()
    told = np.array([(feature.expected, feature.share) for feature in top], np.float64)
    right = (
        min(at) >= 0
        and len({*at}) == len(at)
        and [feature.value for feature in top] == load.features[row, at].tolist()
        and np.allclose(told[:, 0], wanted.expected[row, at], SCORE_TOLERANCE, SCORE_TOLERANCE)
        and np.allclose(told[:, 1], shares[at], rtol=0, atol=SCORE_TOLERANCE)
        and np.allclose(shares[at], np.sort(shares)[::-1][: len(at)], rtol=0, atol=SCORE_TOLERANCE)
    )
    if not right:
        raise ContenderFailed(f"the top features of event {row} are wrong: {top}")
