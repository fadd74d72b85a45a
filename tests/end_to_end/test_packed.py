"""Packed events beside JSON in one topic, through a real worker."""

from __future__ import annotations

import math
from pathlib import Path

from confluent_kafka import Producer

from demo.books import Books
from schemas.packed_event import CONTENT_TYPE_HEADER, EVENT_ID_HEADER, PACKED, encode_packed
from schemas.score import Score
from tests.builders import a_sealed_model, an_event
from tests.end_to_end.stream import WAIT_S, Stream, running

MARKED = (CONTENT_TYPE_HEADER, PACKED)


def test_packed_and_json_events_of_the_same_values_score_the_same(stream: Stream, tmp_path: Path):
    model = tmp_path / "model.onnx"
    model.write_bytes(a_sealed_model())
    producer = Producer({"bootstrap.servers": stream.servers})
    producer.produce(stream.input, an_event(1, 2, None, event_id="json"))
    packed = encode_packed([1, 2, math.nan])
    producer.produce(stream.input, packed, key="by-key", headers=[MARKED])
    named = [MARKED, (EVENT_ID_HEADER, b"by-header"), ("traceparent", b"00-1-2-01")]
    producer.produce(stream.input, packed, key="other", headers=named)
    producer.produce(stream.input, packed[:-1], key="short", headers=[MARKED])
    producer.produce(stream.input, packed, key="unmarked")
    assert producer.flush(WAIT_S) == 0
    scores: dict[str, float | None] = {}

    class Kept(Books):
        def score(self, score: Score, now_ms: float) -> None:
            scores[score.event_id] = score.score
            super().score(score, now_ms)

    books = Kept()
    with running(stream.worker(model, tmp_path)) as worker:
        stream.read(books, lambda books: len(books.verdicts) == 5)
        assert worker.stop() == 0
    assert scores.keys() == {"json", "by-key", "by-header"}
    assert len(set(scores.values())) == 1
    assert books.dead_letters["wrong_count"] == 1
    assert books.dead_letters.total() == 2
