"""What partitions hold: which answers are asked for again, and which end the asking."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from worker.ranges import Ranges
from worker.starts import Range


class Admin:
    """Answers for each partition with an offset or an error, the same for each question."""

    def __init__(self, answers: dict[int, int | KafkaError]) -> None:
        self._answers = answers

    def list_offsets(self, specs: dict[Any, Any], **_: object) -> dict[Any, Future[Any]]:
        return {place: self._told(self._answers[place.partition]) for place in specs}

    def _told(self, answer: int | KafkaError) -> Future[Any]:
        told: Future[Any] = Future()
        if isinstance(answer, int):
            told.set_result(SimpleNamespace(offset=answer))
        else:
            told.set_exception(KafkaException(answer))
        return told


def ranges(answers: dict[int, int | KafkaError]) -> Ranges:
    return Ranges(Admin(answers), "events", list(answers), None)  # type: ignore[arg-type]  # A stand-in.


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.UNKNOWN_LEADER_EPOCH,  # A topic that was just made again answers so.
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError._TIMED_OUT,
    ],
)
def test_what_passes_is_asked_again_and_keeps_nobody_waiting(code):
    asked = ranges({0: 7, 1: KafkaError(code)})
    assert asked.are_told()
    assert asked.held("id") == {0: Range(7, 7, "id", None)}


def test_what_does_not_pass_is_raised():
    with pytest.raises(KafkaException, match="authorization failed"):
        ranges({0: KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)}).held("id")
