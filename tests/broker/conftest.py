"""The suite of this folder runs on the memory log and on Apache Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.broker.rigs import KafkaRig, MemoryRig, Rig


@pytest.fixture(params=["memory", "kafka"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "memory":
        yield MemoryRig()
        return
    with ExitStack() as stack:
        yield KafkaRig(request.getfixturevalue("kafka"), stack)
