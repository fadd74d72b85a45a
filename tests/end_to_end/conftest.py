"""Fresh topics for every test, on the broker that all tests share."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.end_to_end.stream import PARTITIONS, Stream


@pytest.fixture
def stream(kafka) -> Stream:
    run = uuid4().hex[:8]
    names = (f"events-{run}", f"scores-{run}", f"dead-letters-{run}")
    kafka.create_topics(dict.fromkeys(names, PARTITIONS))
    return Stream(kafka.bootstrap_servers, *names)
