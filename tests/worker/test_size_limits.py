"""What topics take, within transactions: told by the broker, or shown by its refusals."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import pytest
from confluent_kafka import KafkaError

from worker.outputs import TOO_LARGE, Form, Output, Refused
from worker.size_limits import BATCH_BYTES, SizeLimits
from worker.turn import Outgoing

SIZES = {Form.SMALLER: 40, Form.SMALLEST: 10}


def shrink(output: Output, form: Form) -> Output:
    return output._replace(value=b"x" * SIZES[form], headers=[])


class Topic:
    """A topic that takes so much in a batch of one; what is more it refuses when flushed."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.sizes: list[int] = []
        self._waiting: list[tuple[Output, Callable]] = []

    def produce(self, topic, value, key, *, headers, on_delivery) -> None:
        self._waiting.append((Output(topic, value, key, headers), on_delivery))

    def produce_batch(self, topic, messages, *, on_delivery) -> None:
        for each in messages:
            self._waiting.append((Output(topic, each["value"], each["key"], []), on_delivery))

    def flush(self, _: float = 0.0) -> int:
        waiting, self._waiting = self._waiting, []
        for output, on_delivery in waiting:
            if output.bytes() + BATCH_BYTES > self.takes:
                on_delivery(KafkaError(TOO_LARGE), Mock(value=lambda o=output: o.value, key=str))
            else:
                self.sizes.append(len(output.value or b""))
        return 0


def tries(limits: SizeLimits, topic: Topic, *sizes: int, most: int = 10) -> list[bool]:
    """Write a turn until the topic takes it, or no other try may fare better."""
    outcomes: list[bool] = []
    while len(outcomes) < most:
        refused: list[Refused] = []
        topic.sizes = []
        limits.begin()
        values = [b"v" * size for size in sizes]
        limits.hand_over(topic, "scores", Outgoing(values, [None] * len(sizes)), refused.append)
        topic.flush()
        if not refused:
            limits.turn_is_done()
            return outcomes
        outcomes.append(limits.note(refused))
        if not outcomes[-1]:
            return outcomes
    pytest.fail(f"no end of tries: {outcomes}")


def limits_that(ask: Callable[[], dict[str, int]]) -> SizeLimits:
    return SizeLimits({"scores": shrink}, Mock(), ask)


def test_by_a_limit_that_is_told_nothing_is_refused():
    topic = Topic(200)
    assert tries(limits_that(lambda: {"scores": 200}), topic, 50, 300, 60) == []
    assert topic.sizes == [50, 40, 60]


def test_a_limit_that_was_lowered_costs_one_try():
    topic, told = Topic(200), {"scores": 1000}
    limits = limits_that(lambda: dict(told))
    told["scores"] = 200
    assert tries(limits, topic, 50, 300) == [True]
    assert topic.sizes == [50, 40]


def test_what_fits_in_no_form_is_given_up_and_is_whole_again_when_the_limit_is_back():
    topic, told = Topic(100), {"scores": 100}
    limits = limits_that(lambda: dict(told))
    assert tries(limits, topic, 50) == [True, False]
    topic.takes = told["scores"] = 1000
    assert tries(limits, topic, 50) == []
    assert topic.sizes == [50]


def test_where_no_limit_is_told_refusals_show_it_once():
    topic, limits = Topic(200), limits_that(dict)
    assert tries(limits, topic, 150) == [True]
    assert topic.sizes == [40]
    assert tries(limits, topic, 170, 50) == []
    assert topic.sizes == [40, 50]


def test_a_limit_that_is_told_and_not_kept_is_learnt_from_refusals():
    topic, limits = Topic(150), limits_that(lambda: {"scores": 1000})
    assert tries(limits, topic, 100) == [True, True]
    assert topic.sizes == [40]
    assert tries(limits, topic, 120, 30) == []
    assert topic.sizes == [40, 30]
