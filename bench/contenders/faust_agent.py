"""A contender: Faust (faust-streaming), an agent that takes events in batches.

`take_events`, since `take` hides the keys. Values stay bytes, since `records` reads them faster
than Faust's own codecs and Records, one message at a time. All sends of a batch are awaited
before the next is taken, and so are acknowledged before its offsets may be committed.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import faust

from bench.contenders.records import (
    BATCH_MAX,
    Scorer,
    batch_wait_s,
    group,
    joined,
    servers,
    topics,
)

INPUT_TOPIC, OUTPUT_TOPIC = topics()

folder = tempfile.TemporaryDirectory()
app = faust.App(
    group(),
    broker=f"kafka://{servers()}",
    datadir=Path(folder.name),
    key_serializer="raw",
    value_serializer="raw",
    topic_disable_leader=True,
    web_enabled=False,
)
events = app.topic(INPUT_TOPIC, key_type=bytes, value_type=bytes)
scores = app.topic(OUTPUT_TOPIC, key_type=bytes, value_type=bytes)
scorer = Scorer(INPUT_TOPIC)


@app.on_partitions_assigned.connect  # type: ignore[untyped-decorator]
async def assigned(*_: Any, **__: Any) -> None:  # noqa: ANN401  # A signal's arguments.
    joined()


@app.agent(events)  # type: ignore[untyped-decorator]
async def score(stream: AsyncIterator[Any]) -> None:
    async for batch in stream.take_events(BATCH_MAX, within=batch_wait_s()):  # type: ignore[attr-defined]
        records = scorer.records(
            (event.value for event in batch),
            ((event.message.partition, event.message.offset) for event in batch),
        )
        sends = [
            await scores.send(key=event.key, value=record)
            for event, record in zip(batch, records, strict=True)
        ]
        await asyncio.gather(*sends)


if __name__ == "__main__":
    app.Worker(loglevel="WARNING").execute_from_commandline()
