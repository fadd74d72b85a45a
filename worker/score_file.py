"""Scores a file of events by the worker's own path: decode, score, results; no Kafka.

Every event is written as the JSON that the model's contract expects on its topic, and goes
through the same code as there. Its source position is the file's name, partition 0, and its
place in the file. Lines of a JSON file go in as they are, so that a bad one comes out as the
dead letter that it would be.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from schemas.contract import Contract
from schemas.datafiles import FileOptions, read_table
from schemas.dead_letter import DeadLetter
from schemas.errors import DataError
from schemas.write_event import encode_event
from worker.model import Model
from worker.results import to_results
from worker.turn import Records

JSON_LINES = (".jsonl", ".ndjson")


def score_file(
    path: Path, options: FileOptions, model: Model, batch_max: int, top_features_max: int
) -> Iterator[tuple[list[bytes], list[DeadLetter]]]:
    """Yield, batch by batch, the score records and the dead letters of a file's events.

    Raises:
        DataError: the file cannot be used.
    """
    events = enumerate(_events(path, options, model.contract))
    while batch := list(itertools.islice(events, batch_max)):
        yield _score(path.name, batch, model, top_features_max)


def _score(
    name: str, events: Sequence[tuple[int, bytes]], model: Model, top_features_max: int
) -> tuple[list[bytes], list[DeadLetter]]:
    n = len(events)
    records = Records(
        topic=name,
        partitions=[0] * n,
        offsets=[place for place, _ in events],
        timestamps_ms=[int(time.time() * 1000)] * n,  # As Kafka stamps a record without a time.
        keys=[None] * n,
        values=[value for _, value in events],
        headers=[None] * n,
    )
    batch = model.decoder.decode(records)
    outputs = to_results(records, batch, model.score(batch.features), model, top_features_max)
    letters = [DeadLetter.from_headers(headers) for headers in outputs.dead_letters.headers]
    return [value for value in outputs.scores.values if value is not None], letters


def _events(path: Path, options: FileOptions, contract: Contract) -> Iterator[bytes]:
    if path.suffix.lower() in JSON_LINES:
        try:
            with path.open("rb") as lines:
                yield from (line.rstrip(b"\r\n") for line in lines if line.strip())
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror})") from None
        return
    table = read_table(path, options, contract.features)
    for row, features in enumerate(table.as_written()):
        yield encode_event(
            contract.layout,
            contract.paths,
            event_id=table.event_ids[row] if table.event_ids else None,
            timestamp_ms=table.timestamps_ms[row] if table.timestamps_ms else None,
            features=features,
        )
