"""JSON Schemas of the three records, generated from their types and stored beside them.

A dead letter's schema describes its `odradek.*` headers, without the prefix; its value, key
and other headers are the original record's. A test fails when a stored schema and its type
part; `python -m schemas` writes them anew. Raise the record's version with any change that a
reader could notice.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from schemas.dead_letter import DEAD_LETTER_VERSION, DeadLetter
from schemas.event import EVENT_VERSION, Event
from schemas.score import SCORE_VERSION, Score

FOLDER = Path(__file__).parent / "json"
RECORDS: dict[str, tuple[type[msgspec.Struct], int]] = {
    "event": (Event, EVENT_VERSION),
    "score": (Score, SCORE_VERSION),
    "dead_letter": (DeadLetter, DEAD_LETTER_VERSION),
}


def schema_text(name: str) -> str:
    """Return the JSON Schema of a record as it is stored."""
    record, version = RECORDS[name]
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Odradek {name.replace('_', ' ')}, version {version}",
        **msgspec.json.schema(record),
    }
    text = msgspec.json.encode(schema, order="deterministic")
    return msgspec.json.format(text, indent=2).decode() + "\n"


def stored_path(name: str) -> Path:
    """Return the file that holds the record's schema."""
    return FOLDER / f"{name}.schema.json"


def write_all() -> None:
    for name in RECORDS:
        stored_path(name).write_text(schema_text(name))
