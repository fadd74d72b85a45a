"""Batches are made to fit the topics that they go to."""

from __future__ import annotations

import pytest

from worker.kafka_properties import ClientProperties
from worker.topics import with_batch_bytes


@pytest.mark.parametrize(
    ("limit", "batch_bytes"),
    [(100_000, 90_000), (1_048_588, 943_729), (50_000_000, 1_000_000), (1, 1)],
)
def test_a_batch_stays_below_the_limit_of_the_topics(limit: int, batch_bytes: int):
    kafka = with_batch_bytes(ClientProperties({"a": 1}, {"b": 2}), {"x": limit, "y": limit + 1})
    assert kafka == ClientProperties({"a": 1}, {"b": 2, "batch.size": batch_bytes})


def test_an_unknown_limit_and_a_size_set_by_hand_change_nothing():
    kafka = ClientProperties({}, {"batch.size": "5000"})
    assert with_batch_bytes(kafka, {"x": 1000}) is kafka
    assert with_batch_bytes(ClientProperties({}, {}), {}) == ClientProperties({}, {})
