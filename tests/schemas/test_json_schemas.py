"""The stored JSON Schemas are the types', and records fit them.

`fits` reads the part of JSON Schema that ours use; an unknown keyword fails the test, so that
nothing is passed over. The package jsonschema would be a dependency for one test.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from schemas.event import Event
from schemas.json_schemas import RECORDS, schema_text, stored_path
from schemas.score import TopFeature, encode_score
from tests.schemas.golden_records import (
    AGAIN,
    ANOMALOUS,
    LETTER,
    NORMAL,
    OF_A_GROUP,
    POOLED,
    UNSCORABLE,
)

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
IGNORED = {"$schema", "$defs", "title", "description", "default", "$ref"}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if not fits(value, root["$defs"][name], root):
            return False
    for keyword, wanted in schema.items():
        match keyword:
            case "type":
                types = [wanted] if isinstance(wanted, str) else wanted
                is_bool = isinstance(value, bool)
                ok = any(
                    isinstance(value, TYPES[kind]) and is_bool == (kind == "boolean")
                    for kind in types
                )
            case "enum":
                ok = value in wanted
            case "anyOf":
                ok = any(fits(value, option, root) for option in wanted)
            case "required":
                ok = not isinstance(value, dict) or value.keys() >= set(wanted)
            case "properties":
                ok = not isinstance(value, dict) or all(
                    fits(value[key], below, root) for key, below in wanted.items() if key in value
                )
            case "items":
                ok = not isinstance(value, list) or all(fits(v, wanted, root) for v in value)
            case "additionalProperties":
                ok = not isinstance(value, dict) or all(
                    fits(v, wanted, root) for v in value.values()
                )
            case _ if keyword in IGNORED:
                ok = True
            case _:
                raise AssertionError(f"the check does not know the keyword {keyword!r}")
        if not ok:
            return False
    return True


def is_valid(name: str, value: Any) -> bool:
    schema = json.loads(stored_path(name).read_text())
    return fits(value, schema, schema)


@pytest.mark.parametrize("name", RECORDS)
def test_the_stored_schema_is_the_types(name):
    """If this fails: `python -m schemas`, and the record's version if a reader could notice."""
    assert stored_path(name).read_text() == schema_text(name)


@pytest.mark.parametrize("name", RECORDS)
def test_a_schema_names_its_version(name):
    assert f"version {RECORDS[name][1]}" in json.loads(schema_text(name))["title"]


# An unseen category, where the model expects none of those that it knows.
CATEGORY = msgspec.structs.replace(
    ANOMALOUS, top_features=[TopFeature("protocol", "gre", None, 1.0)]
)


@pytest.mark.parametrize(
    "score",
    [NORMAL, ANOMALOUS, UNSCORABLE, CATEGORY, OF_A_GROUP, POOLED],
    ids=["normal", "anomalous", "unscorable", "a category", "of a group", "pooled"],
)
def test_score_records_fit_their_schema(score):
    record = json.loads(encode_score(score))
    assert is_valid("score", record)
    assert not is_valid("score", {**record, "verdict": "fine"})
    assert not is_valid("score", {**record, "score": "high"})
    del record["source"]
    assert not is_valid("score", record)


@pytest.mark.parametrize(
    "letter", [LETTER, LETTER.as_stub(b"x"), AGAIN], ids=["whole", "stub", "again"]
)
def test_dead_letters_fit_their_schema(letter):
    record = json.loads(msgspec.json.encode(letter))
    assert is_valid("dead_letter", record)
    assert not is_valid("dead_letter", {**record, "reason": "because"})


@pytest.mark.parametrize(
    "event",
    [
        Event(features=[1.0, None]),
        Event(features={"a": 1.0, "b": None}, event_id=7, timestamp=1.5),
        Event(features=[], event_id="e", timestamp=1),
        Event(features={"protocol": "tcp", "port": 80}),
        Event(features=["tcp", None, 1.5]),
    ],
)
def test_events_fit_their_schema(event):
    record = json.loads(msgspec.json.encode(event))
    assert is_valid("event", record)
    assert not is_valid("event", {**record, "features": 3})
    assert not is_valid("event", {**record, "event_id": True})


def test_the_reasons_in_the_schema_are_the_closed_list():
    schema = json.loads(stored_path("dead_letter").read_text())
    reasons = schema["$defs"]["Reason"]["enum"]
    kinds = json.loads(schema_text("dead_letter"))["$defs"]["Reason"]["enum"]
    assert reasons == kinds
    assert len(reasons) >= 15
