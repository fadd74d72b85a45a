"""Scores a file of events by the worker's own path: decode, score, results; no Kafka.

Every event is written as the JSON that the model's contract expects on its topic, and goes
through the same code as there. Its source position is the file's name, partition 0, and its
place in the file; its key, where the model reads groups from keys, is the file's group. Lines of
a JSON file go in as they are, so that a bad one comes out as the dead letter that it would be.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from msgspec import UNSET

from schemas.contract import Contract
from schemas.datafiles import FileOptions, read_table
from schemas.datafiles.groups import GroupColumn
from schemas.dead_letter import DeadLetter
from schemas.errors import DataError
from schemas.groups import group_in
from schemas.write_event import encode_event
from worker.model import Model
from worker.results import to_results
from worker.turn import Records

JSON_LINES = (".jsonl", ".ndjson")
_Event = tuple[bytes | None, bytes]  # A record's key and value.


def score_file(
    path: Path, options: FileOptions, model: Model, batch_max: int, top_features_max: int
) -> Iterator[tuple[list[bytes], list[DeadLetter]]]:
    """Yield, batch by batch, the score records and the dead letters of a file's events.

    Raises:
        DataError: the file cannot be used.
    """
    options = replace(options, group=GroupColumn.of(model.contract.groups))
    events = enumerate(_events(path, options, model.contract))
    while batch := list(itertools.islice(events, batch_max)):
        yield _score(path.name, batch, model, top_features_max)


def _score(
    name: str, events: Sequence[tuple[int, _Event]], model: Model, top_features_max: int
) -> tuple[list[bytes], list[DeadLetter]]:
    n = len(events)
    records = Records(
        topic=name,
        partitions=[0] * n,
        offsets=[place for place, _ in events],
        timestamps_ms=[int(time.time() * 1000)] * n,  # As Kafka stamps a record without a time.
        keys=[key for _, (key, _) in events],
        values=[value for _, (_, value) in events],
        headers=[None] * n,
    )
    batch = model.decoder.decode(records)
    outputs = to_results(records, batch, model.score(batch.features), model, top_features_max)
    letters = [DeadLetter.from_headers(headers) for headers in outputs.dead_letters.headers]
    return [value for value in outputs.scores.values if value is not None], letters


def _events(path: Path, options: FileOptions, contract: Contract) -> Iterator[_Event]:
    """Yield the key and the value of each event's record."""
    keyed = contract.groups is not UNSET and contract.groups.source == "key"
    if path.suffix.lower() in JSON_LINES:
        place = options.group.place if keyed and options.group else None
        try:
            with path.open("rb") as lines:
                for line in lines:
                    if line.strip():
                        yield _key(group_in(line, place) if place else None), line.rstrip(b"\r\n")
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror})") from None
        return
    table = read_table(path, options, contract.features)
    groups = table.groups.as_written() if table.groups else itertools.repeat(None)
    for row, (features, group) in enumerate(zip(table.as_written(), groups, strict=False)):
        placed = None if options.group is None or group is None else (options.group.path, group)
        yield (
            _key(group if keyed else None),
            encode_event(
                contract.layout,
                contract.paths,
                event_id=table.event_ids[row] if table.event_ids else None,
                timestamp_ms=table.timestamps_ms[row] if table.timestamps_ms else None,
                features=features,
                group=None if keyed else placed,
            ),
        )


def _key(group: str | None) -> bytes | None:
    return None if group is None else group.encode()
